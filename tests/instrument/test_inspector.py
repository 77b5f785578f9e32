"""The inspector: what Python checks and answers, and what a reader sees and does in a real browser."""

import base64
import json
import re
from io import BytesIO

import numpy as np
import pytest
import torch
from browser import SECONDS, contrast
from networks import GlobalBranch, PatchNet, TinyUNet, a_trous, convolutional, picture
from torch import nn
from torch.nn import functional as F

import pixelpatch
from pixelpatch import UnknownOperation, patch_proof, receptive_field

for needed in ("anywidget", "matplotlib", "IPython"):
    pytest.importorskip(needed, reason="the widget needs pixelpatch[widget]")
Image = pytest.importorskip("PIL.Image", reason="it comes with matplotlib")
Inspector = pixelpatch.Inspector

CLASSES = ("cytoplasm", "membrane", "mitochondrion")


def image(height=64, width=80):
    noise = picture(height, width)
    return ((noise - noise.min()) / (noise.max() - noise.min())).float()


def dilated():
    """With holes: 9 x 9 pixels of 17 x 17, and a 3 x 3 layer between."""
    layers = nn.Conv2d(1, 4, 3, padding=2, dilation=2), nn.Conv2d(4, 3, 3, padding=6, dilation=6)
    return nn.Sequential(*layers).eval()


class Warped(nn.Module):
    """Turns, or mirrors, the image as a matrix says, and looks at 3 x 3 pixels."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix, self.layer = torch.tensor([matrix]), nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, x):
        grid = F.affine_grid(self.matrix.to(x.device), x.shape, align_corners=False)
        return self.layer(F.grid_sample(x, grid, align_corners=False))


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    patch_net = PatchNet().eval()
    return {
        "U-Net": TinyUNet().eval(),
        "dense": a_trous(patch_net),
        "strided": convolutional(patch_net),
        "global": TinyUNet(deep=GlobalBranch()).eval(),
        "holes": dilated(),
        "warped": Warped([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]),  # by a quarter
    }


@pytest.fixture(scope="module")
def inspector(networks):
    return Inspector(image(), networks, CLASSES)


def ask(inspector, network, row, col, number=1):
    inspector.request = {"number": number, "network": network, "row": row, "col": col}
    return inspector.answer


# --- Python ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [lambda x: x, lambda x: x[0], lambda x: x[0, 0], lambda x: x[0, 0].numpy()])
def test_every_form_of_image(form, networks):
    Inspector(form(image()), {"U-Net": networks["U-Net"]})


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        (
            image().repeat(2, 1, 1, 1),
            ValueError,
            r"shape \(2, 1, 64, 80\), expected \(H, W\), \(C, H, W\) or",
        ),
        (torch.rand(7), ValueError, r"shape \(7,\), expected"),
        (torch.rand(0, 5), ValueError, r"shape \(0, 5\), expected"),
        (torch.rand(64, 80, 3), ValueError, r"shape \(64, 80, 3\), expected \(C, H, W\); .*permute"),
        (np.full((64, 80), 255, np.uint8), ValueError, r"type torch.uint8, expected floats .*255"),
        (image() * 255, ValueError, r"from 0 to 255, expected \[0, 1\]"),
        (image() - 0.5, ValueError, r"from -0.5 to 0.5, expected \[0, 1\]"),
        (image() * float("nan"), ValueError, r"from nan to nan, expected \[0, 1\]"),
        ("image.png", TypeError, "image is a str, expected a numpy array or a torch tensor"),
        (image(50, 50), ValueError, "network 'U-Net' fails on the image"),
        (
            image().repeat(1, 3, 1, 1),
            ValueError,
            r"network 'U-Net' fails on the image, made \(1, 3, 64, 80\)",
        ),
    ],
)
def test_bad_images_are_named(bad, error, says, networks):
    with pytest.raises(error, match=says):
        Inspector(bad, {"U-Net": networks["U-Net"]})


class Median(nn.Module):
    def forward(self, pixels):
        return pixels.sort(dim=-1).values


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        ({}, ValueError, r"networks is \{\}, expected a dict"),
        (nn.Conv2d(1, 3, 3), ValueError, "networks is Conv2d.*, expected a dict"),
        ({"mine": 5}, TypeError, "network 'mine' is a int, expected a torch.nn.Module"),
        ({"mine": PatchNet()}, ValueError, "network 'mine' fails .*: the patches are not 17 x 17"),
        (
            {"mine": nn.Unflatten(1, (1, 1))},
            ValueError,
            r"network 'mine' fails .* shape \(1, 1, 1, 64, 80\), expected",
        ),
    ],
)
def test_bad_networks_are_named(bad, error, says):
    with pytest.raises(error, match=says):
        Inspector(image(), bad)


def test_a_network_that_cannot_be_traced_is_named():
    class Odd(nn.Module):
        def forward(self, pixels):
            return torch.fft.fft2(pixels).real.roll(1, 3) + torch.linalg.inv(pixels @ pixels.mT)

    with pytest.raises((UnknownOperation, ValueError), match="network 'odd'"):
        Inspector(image(64, 64), {"odd": Odd()})


def test_scores_that_are_not_finite_are_named():
    broken = nn.Conv2d(1, 2, 1)
    nn.init.constant_(broken.weight, float("nan"))
    with pytest.raises(ValueError, match="network 'mine' gives scores that are not finite"):
        Inspector(image(), {"mine": broken})


@pytest.mark.parametrize("classes", [("a", "b"), ("a", "b", "c", "d"), "abc"])
def test_class_names_that_do_not_fit_are_named(classes, networks):
    with pytest.raises(ValueError, match=r"classes is .*, expected 3 names, .*'U-Net'"):
        Inspector(image(), {"U-Net": networks["U-Net"]}, classes)


def test_pixels_outside_are_named(inspector):
    with pytest.raises(IndexError, match=r"pixel \(64, 0\) lies outside the output, which is 64 x 80"):
        inspector.figure(64, 0)
    assert "lies outside the output" in ask(inspector, "U-Net", 64, 0)["error"]
    assert "lies outside the output" in ask(inspector, "U-Net", 0, -1, number=2)["error"]


def test_networks_are_not_changed():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5))  # in training mode
    before = {name: value.clone() for name, value in model.state_dict().items()}
    answer = ask(Inspector(image(), {"mine": model}), "mine", 3, 4)
    assert "whole image" in answer["said"] and "layer '1'" in answer["said"]
    assert model.training and all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_click_is_answered_with_the_proof(inspector, networks):
    answer = ask(inspector, "U-Net", 20, 5)
    proof = patch_proof(networks["U-Net"], image(), 20, 5)
    best = int(proof.full_scores.argmax())
    assert answer["number"] == 1 and answer["cut"] == [*proof.cut] and answer["said"].startswith("Proof")
    assert (
        f"the score of {CLASSES[best]} is {proof.full_scores[best]:.2f} from the full image" in answer["said"]
    )
    assert f"{proof.patch_scores[best]:.2f} from the patch alone" in answer["said"]
    heat = np.frombuffer(base64.b64decode(answer["heat"]["rgb"]), np.uint8).reshape(*proof.patch.shape[2:], 3)
    inside = receptive_field(networks["U-Net"], (1, 1, 64, 80)).mask(20, 5)
    top, left, bottom, right = proof.cut
    dark = heat[~inside[top:bottom, left:right]]
    assert len(np.unique(dark, axis=0)) <= 1  # outside the field: nothing
    assert len(np.unique(heat.reshape(-1, 3), axis=0)) > 20


def test_a_patch_as_large_as_the_image_proves_nothing(inspector):
    answer = ask(inspector, "U-Net", 20, 33)
    assert answer["said"].startswith("No proof, as the patch is all of this image: the score of")


def test_a_patch_that_no_cut_keeps_is_no_failure():
    mirror = Warped([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    answer = ask(Inspector(image(), {"mirror": mirror}, CLASSES), "mirror", 19, 13)
    assert answer["said"].startswith("No proof: no part of the image") and "influence" in answer["effective"]


@pytest.mark.parametrize("network", ["dense", "strided", "holes"])
def test_smaller_and_strided_outputs_are_answered(inspector, network):
    answer = ask(inspector, network, 3, 4, number=7)
    assert "error" not in answer and "Proof" in answer["said"]


def test_a_score_that_nothing_moves_is_said():
    dead = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU())
    nn.init.constant_(dead[0].bias, -9)
    assert "No pixel moves this score" in ask(Inspector(image(), {"dead": dead}), "dead", 3, 4)["effective"]


def test_whole_image_networks_say_which_layer(inspector):
    answer = ask(inspector, "global", 3, 4)
    assert "No proof" in answer["said"] and "layer 'deep': average pooling" in answer["said"]
    assert answer["cut"] == [0, 0, 64, 80]


def test_a_picture_and_its_description_come_before_the_widget(inspector, monkeypatch):
    shown = []
    for module in ("drawing", "widget.inspector"):
        monkeypatch.setattr(f"pixelpatch.{module}.display", lambda data, **how: shown.append((data, how)))
    inspector._ipython_display_()
    (still, how), (caption, _), (view, _) = shown
    said = still["text/plain"]
    assert said.count("output pixel") == 6 and "global: " in said and "U-Net: output pixel (32, 40)" in said
    assert how["metadata"]["image/png"]["alt"] == said and said in caption.data
    assert "application/vnd.jupyter.widget-view+json" in view
    pixels = np.asarray(Image.open(BytesIO(still["image/png"])))
    assert pixels.shape[0] > 500 and pixels.std() > 20


def test_a_network_with_one_answer_has_a_picture():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3))
    assert Inspector(image(), {"one": network}, CLASSES).figure().axes


def test_what_is_no_proof_is_not_called_one():
    size = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.AdaptiveAvgPool2d((8, 10)))
    assert ask(Inspector(image(), {"by size": size}, CLASSES), "by size", 3, 4)["said"].startswith(
        "Not the same"
    )


def test_figure_shows_the_pixel_asked_for(networks):
    inspector = Inspector(image(), {"U-Net": networks["U-Net"]})
    left, right = inspector.figure(5, 70).axes
    assert right.get_title() == "U-Net: pixel (5, 70)"
    (box,) = left.patches
    field = receptive_field(networks["U-Net"], (1, 1, 64, 80)).box(5, 70)
    corner = (field.left - 0.5, field.top - 0.5)
    assert (box.get_xy(), box.get_height(), box.get_width()) == (
        corner,
        field.bottom - field.top,
        80 - field.left,
    )


def test_figure_counts_the_pixels_of_a_field_with_holes():
    left, _ = Inspector(image(), {"holes": dilated()}).figure().axes
    assert left.get_title() == "input: 81 of 17 x 17 pixels are seen"


def test_one_page_that_needs_nothing_else(inspector, tmp_path):
    page = tmp_path / "page.html"
    inspector.to_html(page)
    text = page.read_text()
    assert re.findall(r"(?:src|href)=(?!\"data:).{9}|https?://|import\(|^import |url\(", text, re.M) == []
    assert [*tmp_path.iterdir()] == [page]  # no part is left


def test_names_cannot_break_out_of_the_page(tmp_path):
    name = "</script><b>&\"'"
    Inspector(image(), {name: dilated()}).to_html(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert text.count("</script>") == 1 and name not in text


def test_a_page_that_cannot_be_finished_leaves_the_old_one(inspector, tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    page.write_text("old")
    monkeypatch.setattr(json, "dumps", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        inspector.to_html(page)
    assert page.read_text() == "old"


# --- in a browser ----------------------------------------------------------------------------------------

# A model like the notebook's, whose kernel is a function of this test.
MODEL = """
state.contents.live = true;
const handlers = [];
window.sent = 0;
const model = {
  get: (key) => state[key], set: (key, value) => { state[key] = value; },
  on: (_, handler) => handlers.push(handler), off() {},
  async save_changes() {
    window.sent++;
    state.answer = await kernel(state.request);
    handlers.forEach((handler) => handler());
  },
};
"""


@pytest.fixture(scope="module")
def pages(inspector, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    inspector.to_html(folder / "still.html")
    text = (folder / "still.html").read_text()
    live, changed = re.subn(r"^const model = .*$", lambda _: MODEL, text, flags=re.M)
    assert changed == 1
    (folder / "live.html").write_text(live)
    return folder


@pytest.fixture
def show(chromium, pages, inspector):
    """show("live") is a page; errors in it fail the test."""
    opened, errors = [], []

    def open_page(name, **options):
        context = chromium.new_context(**{"viewport": {"width": 1100, "height": 900}} | options)
        page = context.new_page()
        page.set_default_timeout(1000 * SECONDS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: message.type == "error" and errors.append(message.text))
        page.expose_function("kernel", lambda request: ask(inspector, **request))
        page.goto((pages / f"{name}.html").as_uri())
        page.wait_for_selector(".patch-output")
        opened.append(context)
        return page

    yield open_page
    for context in opened:
        context.close()
    assert errors == []


def readout(page):
    return page.locator(".patch-readout").inner_text().replace("\u2212", "-")


def where(page, row, col, height=64, width=80, part=".patch-output"):
    """The middle of a pixel on the screen, seen from the corner of the picture."""
    box = page.locator(part).first.bounding_box()
    return {"x": (col + 0.5) * box["width"] / width, "y": (row + 0.5) * box["height"] / height}


def hover(page, row, col, *size):
    page.locator(".patch-output").hover(position=where(page, row, col, *size))


def drawn(page, panel, row, col):
    """The colour of a sheet (0 over the input, 1 over the prediction) at input or output pixel (row, col)."""
    script = """([panel, row, col]) => {
        const [picture, sheet] = document.querySelectorAll(".patch-stack")[panel].children;
        const [x, y] = [(col + .5) / picture.width * sheet.width, (row + .5) / picture.height * sheet.height];
        return [...sheet.getContext("2d").getImageData(x, y, 1, 1).data];
    }"""
    return page.evaluate(script, [panel, row, col])


ORANGE = [0xD5, 0x5E, 0x00]


def says(field, pixel):
    box = field.box(*pixel)
    return f"rows {box.top} to {box.bottom - 1}, columns {box.left} to {box.right - 1}"


def test_hover_shows_field_class_and_scores_without_the_kernel(show, inspector, networks):
    page, field = show("live"), receptive_field(networks["U-Net"], (1, 1, 64, 80))
    scores = networks["U-Net"](image())[0].detach()
    for row, col in [(10, 20), (0, 0), (63, 79), (33, 41)]:
        hover(page, row, col)
        text, at = readout(page), scores[:, row, col]
        assert text.startswith(f"Pixel ({row}, {col}): {CLASSES[at.argmax()]};")
        assert says(field, (row, col)) in text
        said = [float(number) for number in re.findall(r"(?:cyto|memb|mito)\w+ (-?\d+\.\d\d)", text)]
        np.testing.assert_allclose(said, at, atol=0.006)
    assert page.evaluate("window.sent") == 0


def test_the_box_is_drawn_where_the_field_is(show, networks):
    page, field = show("live"), receptive_field(networks["dense"], (1, 1, 64, 80))
    page.get_by_role("tab", name="dense").click()
    hover(page, 20, 30, 48, 64)
    top, left, bottom, right = field.box(20, 30)
    middle = (top + bottom) // 2
    painted = [drawn(page, 0, middle, col)[3] > 0 for col in range(left - 2, right + 2)]
    assert painted == [False, True, *[False] * (right - left), True, False]  # the line runs round it
    painted = [drawn(page, 0, row, left + 5)[3] > 0 for row in range(top - 2, bottom + 2)]
    assert painted == [False, True, *[False] * (bottom - top), True, False]
    assert "centred on (28.0, 38.0)" in readout(page)


def test_holes_are_drawn_exactly(show, networks):
    page, field = show("live"), receptive_field(networks["holes"], (1, 1, 64, 80))
    page.get_by_role("tab", name="holes").click()
    hover(page, 30, 40)
    mask, box = field.mask(30, 40), field.box(30, 40)
    for row in range(box.top, box.bottom):
        for col in range(box.left, box.right):
            if max(abs(row - 30), abs(col - 40)) > 3:  # nearer, the ring round the pixel itself is in the way
                assert (drawn(page, 0, row, col)[:3] == ORANGE) == mask[row, col], (row, col)
    assert f"{mask.sum()} of {17 * 17} seen" in readout(page)


def test_a_warped_field_is_drawn_for_each_pixel(show, networks):
    page, field = show("live"), receptive_field(networks["warped"], (1, 1, 64, 80))
    assert field.whole_image == []
    page.get_by_role("tab", name="warped").click()
    for row, col in [(30, 40), (5, 70), (63, 0)]:
        hover(page, row, col)
        top, left, bottom, right = field.box(row, col)
        assert f"rows {top} to {bottom - 1}, columns {left} to {right - 1}" in readout(page)


def test_hover_over_the_input_chooses_the_pixel_there(show):
    page = show("live")
    at = where(page, 12, 50, part=".patch-stack canvas:last-child")
    page.locator(".patch-stack canvas:last-child").first.hover(position=at)
    assert readout(page).startswith("Pixel (12, 50)")
    page.get_by_role("tab", name="dense").click()
    page.locator(".patch-stack canvas:last-child").first.hover(position=at)
    assert readout(page).startswith("Pixel (4, 42)")  # the window round it starts 8 pixels before


def test_keyboard_alone_reaches_everything(show):
    page = show("live")
    page.evaluate("window.heard = []; addEventListener('keydown', (e) => window.heard.push(e.key))")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "U-Net"
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", selected=True).inner_text() == "dense"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Tab")
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label.startswith("Prediction of U-Net, 64 by 80 pixels. Arrow keys choose")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for key in ["ArrowDown", "ArrowDown", "ArrowRight", "PageUp", "Control+ArrowLeft", "b", "a", "x"]:
        page.keyboard.press(key)
    assert readout(page).startswith("Pixel (24, 31)")
    for key, pixel in [
        ("Home", (24, 0)),
        ("ArrowLeft", (24, 0)),
        ("End", (24, 79)),
        ("ArrowRight", (24, 79)),
    ]:
        page.keyboard.press(key)
        assert readout(page).startswith(f"Pixel {pixel}")
    page.keyboard.press("Shift+Enter")
    assert "Pinned (24, 79)" in readout(page) and page.evaluate("window.sent") == 0
    page.keyboard.press("Enter")
    page.wait_for_selector("text=from the patch alone")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "range"
    page.keyboard.press("ArrowRight")
    assert "In layer down.0.0" in readout(page)
    page.keyboard.press("Escape")
    assert page.evaluate("window.heard") == ["Tab", "Tab", "Tab", "Escape"]  # the notebook hears nothing else


def test_touch_chooses_and_asks(show):
    page = show("live", has_touch=True)
    box = page.locator(".patch-output").bounding_box()
    at = where(page, 15, 5)
    page.touchscreen.tap(box["x"] + at["x"], box["y"] + at["y"])
    assert readout(page).startswith("Pixel (15, 5)")
    page.wait_for_selector("text=U-Net, pixel (15, 5). Proof")
    page.get_by_role("button", name="Pin this pixel").tap()
    assert "Pinned (15, 5)" in readout(page)


def test_click_shows_proof_patch_and_heat_map(show, inspector):
    page = show("live")
    page.locator(".patch-output").click(position=where(page, 20, 5))
    page.wait_for_selector("text=U-Net, pixel (20, 5). Proof")
    answer = page.locator(".patch-answer")
    assert "from the full image" in answer.inner_text() and "Half of the influence" in answer.inner_text()
    assert answer.get_attribute("aria-live") == "polite"
    pictures = answer.locator("canvas[role=img]")
    sizes = [[node.evaluate("n => n.height"), node.evaluate("n => n.width")] for node in pictures.all()]
    top, left, bottom, right = inspector.answer["cut"]
    assert sizes == [[bottom - top, right - left]] * 2
    script = "n => [...n.getContext('2d').getImageData(0, 0, n.width, n.height).data]"
    patch = np.reshape(pictures.first.evaluate(script), (bottom - top, right - left, 4))
    np.testing.assert_allclose(patch[..., 0] / 255, image()[0, 0, top:bottom, left:right], atol=0.003)
    assert all(node.bounding_box()["width"] > 200 for node in pictures.all())
    page.get_by_role("tab", name="global").click()
    page.get_by_role("button", name="Explain").click()
    page.wait_for_selector("text=No proof: the patch of every pixel is the whole image")
    assert "because of layer deep: average pooling" in readout(page)


def test_a_click_lays_the_effective_field_over_the_patch_until_the_pixel_changes(show):
    page = show("live")
    inked = """() => {
        const sheet = document.querySelectorAll(".patch-stack canvas")[1];
        const { data } = sheet.getContext("2d").getImageData(0, 0, sheet.width, sheet.height);
        return data.filter((value, i) => i % 4 === 3 && value > 0).length / (sheet.width * sheet.height);
    }"""
    hover(page, 20, 5)
    before = page.evaluate(inked)
    page.locator(".patch-output").click(position=where(page, 20, 5))
    page.wait_for_selector("text=U-Net, pixel (20, 5). Proof")
    assert page.evaluate(inked) > before + 0.02, "the patch is covered, not only its outline drawn"
    assert "The box in it is the patch" in page.locator(".patch-answer").inner_text()
    hover(page, 20, 6)
    assert page.evaluate(inked) < before + 0.02
    hover(page, 20, 5)
    assert page.evaluate(inked) > before + 0.02, "and comes back with its pixel"


def test_shift_click_pins_and_unpins(show):
    page = show("live")
    for row, col in [(10, 20), (40, 60)]:
        page.locator(".patch-output").click(position=where(page, row, col), modifiers=["Shift"])
        assert f"Pinned ({row}, {col})" in readout(page)
    hover(page, 5, 6)
    assert "Pixel (5, 6)" in readout(page) and "Pinned (40, 60)" in readout(page)
    page.locator(".patch-output").click(position=where(page, 40, 60), modifiers=["Shift"])
    assert "Pinned" not in readout(page) and page.evaluate("window.sent") == 0


def test_slider_shows_every_layer(show, networks):
    page, field = show("live"), receptive_field(networks["U-Net"], (1, 1, 64, 80))
    hover(page, 20, 33)
    for number, layer in enumerate([field, *field.layers]):
        page.get_by_role("slider").fill(str(number))
        text = readout(page)
        if number:
            assert f"In layer {layer.name}: " in text
            assert text.rstrip(".").endswith(says(layer, (20, 33)))
    assert "head (conv2d), 64 × 80" in page.locator(".patch-slider").inner_text()


def test_tabs_keep_the_place(show):
    page = show("live")
    hover(page, 32, 40)
    for name, pixel in [("dense", (24, 32)), ("U-Net", (32, 40)), ("holes", (32, 40))]:
        page.get_by_role("tab", name=name).click()
        assert readout(page).startswith(f"Pixel {pixel}")


def test_without_a_kernel_pointing_and_keys_live(show):
    page = show("still", java_script_enabled=True, offline=True)
    hover(page, 10, 20)
    page.locator(".patch-output").focus()
    page.keyboard.press("ArrowDown")
    assert readout(page).startswith("Pixel (11, 20)")
    page.keyboard.press("Enter")
    assert "need a running notebook" in page.locator(".patch-answer").inner_text()


def test_a_kernel_that_does_not_answer_is_reported(show):
    page = show("live")
    page.evaluate("() => { window.kernel = () => new Promise(() => {}); }")
    page.clock.install()
    page.get_by_role("button", name="Explain").click()
    page.wait_for_selector("text=Asking about pixel (32, 40)")
    page.clock.fast_forward(5001)
    page.wait_for_selector("text=the kernel is busy, or was restarted")


def test_an_error_of_the_kernel_is_shown(show):
    page = show("live")
    page.evaluate(
        "() => { window.kernel = async (asked) => ({ ...asked, error: 'ValueError: too large' }); }"
    )
    page.get_by_role("button", name="Explain").click()
    page.wait_for_selector("text=That failed. ValueError: too large")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_light_and_dark(show, scheme):
    page = show("live", color_scheme=scheme)
    for part in ["readout p", "panels figcaption", "tabs [aria-selected=true]", "buttons button"]:
        assert contrast(page.locator(f".patch-{part}").first) > 7, part  # WCAG 2, level AAA
    corner = np.asarray(Image.open(BytesIO(page.screenshot())).convert("L"))[-5:, -5:].mean()
    assert (corner < 64) == (scheme == "dark")


def test_narrow_windows_wrap(show):
    page = show("live", viewport={"width": 340, "height": 700})
    first, second = (page.locator(".patch-panels figure").nth(k).bounding_box() for k in (0, 1))
    assert second["y"] >= first["y"] + first["height"] and first["width"] > 200
    assert page.evaluate("document.documentElement.scrollWidth") <= 340
    wide = show("live")
    first, second = (wide.locator(".patch-panels figure").nth(k).bounding_box() for k in (0, 1))
    assert first["y"] == second["y"]
