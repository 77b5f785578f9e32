"""Warps: every identity that chapters 6 and 6b claim, and what the engine and the browser make of them."""

import base64
import json
from unittest.mock import patch

import numpy as np
import pytest
import torch
from instrument.browser import SECONDS
from torch import nn
from torch.nn import functional as F

from experiments import trial
from experiments.bender import POINTS, SIDE, Bender
from experiments.dense_transformer import (
    EMPTY,
    NEAREST,
    DenseTransformerNet,
    GivenWarp,
    corners,
    decode,
    encode,
    lattice,
    thin_plate,
)
from experiments.lens import lens, through_lens
from experiments.recipes import NETWORKS, RECIPES
from experiments.results import stored
from pixelpatch import receptive_field
from utils.data import micrographs
from utils.networks import UNet, with_weights


def home(height, width, count=1):
    return lattice(height, width).view(1, height, width, 2).expand(count, -1, -1, -1)


def bent(amount, height, width, count=1, seed=0):
    """Positions with all control points displaced at random, by about amount."""
    random = torch.Generator().manual_seed(seed)
    targets = lattice(4, 4) + amount * torch.randn(count, 16, 2, generator=random, dtype=torch.float64)
    return (thin_plate(4, height, width) @ targets).view(count, height, width, 2)


def noise(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix(positions):
    """A (nodes, pixels) of one grid, from the weights of `corners`."""
    (index,), (weight,) = corners(positions)
    nodes = index.shape[-1]
    return torch.zeros(nodes, nodes, dtype=torch.float64).scatter_add(1, index.T, weight.T)


def close(one, other, tolerance=1e-12):
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


# --- the spline ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("points", [2, 3, 4, 7])
@pytest.mark.parametrize("size", [(32, 32), (5, 9), (2, 2)])
def test_a_spline_leaves_home_alone_reproduces_affine_maps_and_hits_its_targets(points, size):
    spline, control = thin_plate(points, *size), lattice(points, points)
    assert spline.dtype == torch.float64
    close(spline.sum(1), torch.ones(size[0] * size[1], dtype=torch.float64), 1e-11)
    close(spline @ control, lattice(*size), 1e-11)
    affine, shift = noise(2, 2), noise(2)
    close(spline @ (control @ affine + shift), lattice(*size) @ affine + shift, 1e-11)
    targets = noise(points**2, 2)
    close(thin_plate(points, points, points) @ targets, targets, 1e-11)


def test_of_all_surfaces_the_spline_bends_least():
    """Away from its targets the sheet adds no bend: a bump that is 0 at all control points costs energy."""
    spline = thin_plate(4, 31, 31)[:, 5].view(31, 31)  # nodes hit the control points: 0, 10, 20, 30
    steps = torch.arange(31, dtype=torch.float64) / 10 * torch.pi
    bump = torch.outer(steps.sin(), torch.ones(31, dtype=torch.float64))

    def energy(sheet):
        rows, cols = sheet.diff(n=2, dim=0).square().sum(), sheet.diff(n=2, dim=1).square().sum()
        return rows + cols + 2 * sheet.diff(dim=0).diff(dim=1).square().sum()

    # (It bends least over the whole plane, of which this is a part: a very small bump could be cheaper here.)
    assert energy(spline + 0.05 * bump) > energy(spline) and energy(spline - 0.05 * bump) > energy(spline)


def test_a_spline_needs_two_points():
    with pytest.raises(ValueError, match="points is 1, expected at least 2"):
        thin_plate(1, 8, 8)


# --- encoder and decoder ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 32), (6, 11), (2, 2)])
@pytest.mark.parametrize("amount", [0, 0.1, 0.4])
def test_encoder_and_decoder_are_a_matrix_and_its_normalised_transpose(size, amount):
    maps, positions = noise(2, 3, *size), bent(amount, *size, count=2)
    for image, back, grid, map_ in zip(
        encode(maps, positions), decode(maps, positions), positions, maps, strict=True
    ):
        A, u = matrix(grid[None]), map_.flatten(1).T
        close(A.sum(1), torch.ones(len(A), dtype=torch.float64))
        close(image.flatten(1).T, A @ u)
        weight = A.sum(0)[:, None]
        close(back.flatten(1).T, torch.where(weight > EMPTY, A.T @ u / weight.clamp(min=EMPTY), u))


@pytest.mark.parametrize("amount", [0, 0.05, 0.2, 1.0])
def test_constants_stay(amount):
    maps = torch.full((3, 2, 16, 16), 7.0, dtype=torch.float64)
    positions = bent(amount, 16, 16, count=3)
    close(encode(maps, positions), maps)
    close(decode(maps, positions), maps)


def test_home_changes_nothing():
    maps = noise(1, 2, 32, 32)
    close(decode(encode(maps, home(32, 32)), home(32, 32)), maps, 1e-11)


def test_a_shift_by_whole_pixels_comes_back_but_for_its_holes():
    maps = noise(1, 2, 32, 32)
    positions = home(32, 32) + torch.tensor([3 * 2 / 31, 0], dtype=torch.float64)
    back = decode(encode(maps, positions), positions)
    holes = (matrix(positions).sum(0) <= EMPTY).view(32, 32)
    assert holes.sum() == 96 and holes[:, :3].all()
    close(back[..., 3:], maps[..., 3:], 1e-11)
    close(back[..., :3], maps[..., 3:6], 1e-11)  # the bent map's own values


def test_gradients():
    maps, positions = noise(2, 2, 5, 4).requires_grad_(), bent(0.1, 5, 4, count=2).requires_grad_()
    assert torch.autograd.gradcheck(encode, (maps, positions))
    assert torch.autograd.gradcheck(decode, (maps, positions))


def test_both_layers_teach_the_warp():
    maps, wanted = noise(1, 2, 16, 16), noise(1, 2, 16, 16, seed=2)
    slopes = []
    for back in (lambda grid: grid, torch.Tensor.detach):
        positions = bent(0.1, 16, 16).requires_grad_()
        there = decode(encode(maps, positions).tanh(), back(positions))
        slopes.append(torch.autograd.grad((there - wanted).square().sum(), positions)[0])
    assert (slopes[0] - slopes[1]).norm() > 0.1 * slopes[0].norm()


@pytest.mark.parametrize("layer", [encode, decode])
@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((1, 8, 8, 2), r"positions have shape \(1, 8, 8, 2\), expected \(2, 8, 8, 2\)"),
        ((2, 2, 8, 8), r"positions have shape \(2, 2, 8, 8\), expected"),
        ((2, 64, 2), r"positions have shape \(2, 64, 2\), expected"),
    ],
)
def test_positions_of_another_shape_are_named(layer, shape, says):
    with pytest.raises(ValueError, match=says):
        layer(torch.rand(2, 3, 8, 8), torch.zeros(shape))


@pytest.mark.parametrize("layer", [encode, decode])
def test_a_map_of_one_row_is_refused(layer):
    with pytest.raises(ValueError, match="the maps are 1 x 8, expected at least 2 x 2"):
        layer(torch.rand(1, 3, 1, 8), torch.zeros(1, 1, 8, 2))


# --- the network -----------------------------------------------------------------------------------------


def small(level=1):
    torch.manual_seed(0)
    return DenseTransformerNet(depth=2, width=2, level=level)


def moved(network, amount=0.05):
    """The same network, after its localisation has learned something."""
    torch.manual_seed(1)
    nn.init.normal_(network.localisation[-1].weight, std=amount)
    return network


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_before_training_it_is_the_unet(level, size):
    network = small(level).double()
    unet = UNet(depth=2, width=2, widest=24).double()
    unet.load_state_dict({name: network.state_dict()[name] for name in unet.state_dict()})
    image = torch.rand(2, 1, *size, dtype=torch.float64)
    at_home = home(size[0] >> level, size[1] >> level, 2)
    close(network(image, at_home), unet(image), 1e-10)
    close(network.positions(image), at_home, 1.5 * (1 - NEAREST))  # tanh never reaches the border
    assert (moved(network)(image) - unet(image)).abs().max() > 1e-3


def test_each_image_has_a_warp_of_its_own():
    network, images = moved(small()).double(), torch.rand(2, 1, 32, 32, dtype=torch.float64)
    one, other = network.positions(images)
    assert (one - other).abs().max() > 1e-4
    close(network(images)[1:], network(images[1:]))


def test_a_given_warp_is_followed():
    network, images = moved(small()).double(), torch.rand(2, 1, 32, 32, dtype=torch.float64)
    positions = network.positions(images[:1])
    close(GivenWarp(network, positions)(images[:1]), network(images[:1]))
    assert (GivenWarp(network, positions)(images[1:]) - network(images[1:])).abs().max() > 1e-6
    with pytest.raises(ValueError, match=r"positions have shape \(1, 16, 16, 2\), expected \(1, 32, 32, 2\)"):
        GivenWarp(network, positions)(torch.rand(1, 1, 64, 64, dtype=torch.float64))


@pytest.mark.parametrize("level", [-1, 2])
def test_a_level_that_is_not_on_both_ways_is_refused(level):
    with pytest.raises(ValueError, match=f"level is {level}, expected one of 0 to 1"):
        DenseTransformerNet(depth=2, level=level)


@pytest.mark.parametrize("ask", [lambda network, image: network(image), DenseTransformerNet.positions])
def test_an_image_that_cannot_be_halved_is_refused(ask):
    with pytest.raises(ValueError, match="the image is 30 x 32, expected multiples of 4"):
        ask(small(), torch.rand(1, 1, 30, 32))


@pytest.mark.parametrize("bounded", [True, False])
def test_control_points_stay_on_the_map_where_they_are_bounded(bounded):
    torch.manual_seed(0)
    network = moved(DenseTransformerNet(depth=2, width=2, level=1, bounded=bounded), amount=50).double()
    farthest = network.positions(torch.rand(1, 1, 8, 8).double()).abs().max()  # nodes = control points
    assert 0.999 < farthest < 1 + 1e-9 if bounded else farthest > 2


def test_the_localisation_network_learns():
    network = small()
    F.cross_entropy(network(torch.rand(2, 1, 32, 32)), torch.zeros(2, 32, 32).long()).backward()
    assert network.localisation[-1].weight.grad.abs().max() > 0


# --- its patches -----------------------------------------------------------------------------------------


def region(network, size, row, col):
    """What has a gradient where all weights are 1 and pooling takes means: what a pixel sees."""
    for weight in network.parameters():
        nn.init.constant_(weight, float(weight.ndim == 4))
    maps = torch.ones(1, 1, *size, dtype=torch.float64, requires_grad=True)
    network.pool = nn.AvgPool2d(2)
    (slope,) = torch.autograd.grad(network(maps)[0, 0, row, col], maps)
    return slope[0, 0].numpy() > 1e-6  # rounded positions leave weights of 1e-16


def test_a_predicted_warp_makes_the_patch_the_whole_image():
    field = receptive_field(DenseTransformerNet(), (1, 1, 64, 64))
    layer, reason = field.whole_image[0]
    assert layer == "localisation.2" and "fully connected" in reason
    assert field.box(20, 20) == (0, 0, 64, 64)
    network = moved(small()).double()
    image = torch.rand(1, 1, 32, 32, dtype=torch.float64, requires_grad=True)
    network.pool = nn.AvgPool2d(2)
    with patch.object(F, "relu", F.softplus):
        for module in network.modules():
            if isinstance(module, nn.Sequential):
                for n, layer in enumerate(module):
                    if isinstance(layer, nn.ReLU):
                        module[n] = nn.Softplus()
        (slope,) = torch.autograd.grad(network(image)[0, 0, 3, 4], image)
    assert (slope != 0).sum() == 1024


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("amount", [0, 0.1, 0.3])
def test_a_given_warp_makes_irregular_local_patches_and_the_engine_misses_nothing(level, amount):
    size = (48, 64)
    positions = bent(amount, size[0] >> level, size[1] >> level)
    network = GivenWarp(DenseTransformerNet(depth=2, width=1, widest=1, level=level), positions).double()
    field = receptive_field(network, (1, 1, *size))
    assert field.whole_image == []
    shapes = set()
    for row, col in [(0, 0), (13, 22), (24, 32), (31, 5), (40, 60)]:
        seen = region(network, size, row, col)
        assert not (seen & ~field.mask(row, col)).any()
        shapes.add((int(seen.sum()), field.box(row, col)[2] - field.box(row, col)[0]))
    assert len(shapes) > (2 if amount else 0)


def test_a_scatter_reads_no_more_than_it_must():
    """The box round those that write: exactly what autograd finds, if all of the box do."""

    class Scatter(nn.Module):
        def forward(self, maps):
            return decode(maps, bent(0.15, 12, 10, seed=3).to(maps.dtype))

    field, network = receptive_field(Scatter(), (1, 1, 12, 10)), Scatter()
    tight = 0
    for row in range(12):
        for col in range(10):
            seen, box = region(network, (12, 10), row, col), field.box(row, col)
            assert not (seen & ~field.mask(row, col)).any()
            rows, cols = np.nonzero(seen)
            tight += box == (rows.min(), cols.min(), rows.max() + 1, cols.max() + 1)
    assert tight > 0.6 * 120  # at others the pixel itself, read by the hole rule, or a weight of 0 is added


# --- pictures through a lens, and the trial --------------------------------------------------------------


def test_a_lens_enlarges_here_shrinks_there_and_stays_in_the_picture():
    positions = lens(torch.Generator().manual_seed(0), 50, 65)
    assert positions.shape == (50, 65, 65, 2) and positions.abs().max() <= 1 + 1e-6
    steps = positions[:, :, 1:, 0] - positions[:, :, :-1, 0]
    scale = (2 / 64) / steps  # along x
    assert (steps > 0).all(), "nothing folds over"
    assert scale.amax((1, 2)).min() > 1.9 and scale.amax() < 4.1
    assert scale.amin((1, 2)).max() < 0.95


def test_image_and_labels_go_through_the_same_lens():
    labels = torch.zeros(3, 64, 64, dtype=torch.int64)
    labels[:, 20:40, 10:50] = 2
    images, seen = through_lens(torch.Generator().manual_seed(0), labels[:, None].float() / 2, labels)
    assert seen.dtype == torch.int64 and set(seen.unique().tolist()) == {0, 2}
    assert ((images[:, 0] > 0.5) == (seen == 2)).float().mean() > 0.99


def test_the_stored_trial_is_whole_and_fair():
    found = trial.results()
    assert [*found] == trial.CASES
    for qualities in found.values():
        assert qualities.shape == (5, 3) and ((qualities > 0.4) & (qualities < 1)).all()
        assert len(set(qualities.mean(1).tolist())) == 5
    counts = [sum(weight.numel() for weight in make().parameters()) for make in trial.NETWORKS.values()]
    assert max(counts) / min(counts) < 1.04


@pytest.mark.parametrize("name, title", [("dtn", "DTN"), ("dtn-rival", "U-Net")])
def test_the_shipped_networks_are_the_trials_first_on_lenses(name, title):
    network = with_weights(NETWORKS[name](), name)
    then, now = trial.results()["lens", title][0], trial.quality(network, trial.pictures("lens", "test"))
    torch.testing.assert_close(now, then.double(), rtol=0, atol=2e-3)  # half precision
    assert RECIPES[name].draw is trial.SETS["lens"] and RECIPES[name].steps == trial.STEPS


def test_the_recipe_has_the_rate_that_the_trial_chose():
    factor = trial.chosen(stored(trial.RESULTS))
    assert RECIPES["dtn"].slower == {"localisation": factor}


def test_an_incomplete_trial_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "RESULTS", tmp_path / "trial.json")
    with pytest.raises(FileNotFoundError, match=r"go on with `python -m experiments\.trial`"):
        trial.results()


def test_the_trial_does_what_is_missing_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trial, "RESULTS", tmp_path / "trial.json")
    asked = []

    def instead(*arguments):
        asked.append(arguments)
        if len(asked) == 7:
            raise KeyboardInterrupt
        return {"iou": [0.5, 0.6, 0.7 + arguments[2] / 100], "moved": 0.0}

    monkeypatch.setattr(trial, "trial", instead)
    with pytest.raises(KeyboardInterrupt):
        trial.main()
    assert len(json.loads(trial.RESULTS.read_text())) == 6
    trial.main()
    assert len(asked) == 29 and len(set(asked)) == 28
    assert [arguments[-1] for arguments in asked[:3]] == ["validation"] * 3  # what chooses the rate
    assert {arguments[-1] for arguments in asked[3:]} == {"test"}
    assert [path.name for path in tmp_path.iterdir()] == ["trial.json"]
    assert "lens, DTN: mean IoU 0.607 ± 0.007" in capsys.readouterr().out


def test_the_interval_is_students():
    middle, half = trial.interval(torch.tensor([1.0, 2, 3, 4, 5]))
    assert middle == 3 and half == pytest.approx(2.776 * 2.5**0.5 / 5**0.5, rel=1e-4)


# --- the widget ------------------------------------------------------------------------------------------


@pytest.fixture
def page(chromium):
    page, errors = chromium.new_page(viewport={"width": 1100, "height": 900}), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_default_timeout(1000 * SECONDS)
    text = base64.b64encode(str(Bender._esm).encode()).decode()
    page.set_content("<main></main>")
    page.evaluate(
        "async (text) => { window.bender = await import(`data:text/javascript;base64,${text}`); }", text
    )
    yield page
    page.close()
    assert not errors


@pytest.fixture
def bender():
    return Bender(micrographs("test").images[0])


@pytest.fixture
def widget(page, bender):
    page.add_style_tag(content=str(Bender._css))
    page.evaluate(
        """(contents) => {
            const model = { get: () => contents };
            bender.default.render({ model, el: document.querySelector("main") });
        }""",
        bender.contents,
    )
    return page


def test_the_browser_bends_as_python_does(page):
    targets = lattice(4, 4) + 0.3 * noise(16, 2)
    positions = (thin_plate(4, 20, 20) @ targets).view(1, 20, 20, 2)
    maps = noise(1, 1, 20, 20)
    given = [thin_plate(4, 20, 20), targets, maps]
    found = page.evaluate(
        """([spline, targets, map]) => {
            const side = 20, positions = bender.positionsOf(spline, targets);
            const { back, holes } = bender.decode(Float32Array.from(map), positions, side);
            const bent = bender.encode(Float32Array.from(map), positions, side);
            return [positions, bent, back].map((each) => Array.from(each)).concat(
                [holes, bender.folded(positions, side)]);
        }""",
        [each.flatten().tolist() for each in given],
    )
    expected = positions, encode(maps, positions), decode(maps, positions)
    for theirs, ours in zip(found, expected, strict=False):
        close(torch.tensor(theirs).double(), ours.flatten(), 1e-4)
    assert found[3] == (matrix(positions).sum(0) <= EMPTY).sum()
    right, down = (
        positions[0, :-1, 1:] - positions[0, :-1, :-1],
        positions[0, 1:, :-1] - positions[0, :-1, :-1],
    )
    assert found[4] == (right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0] <= 0).sum()


def said(page):
    return page.locator(".patch-readout").inner_text()


def test_at_home_nothing_is_lost(widget):
    assert said(widget).startswith("Bent back, the picture is off by 0.0 %. 0 of 9216 pixels")


def test_a_point_follows_the_mouse(widget):
    box = widget.locator("canvas").first.bounding_box()
    x, y = (box[side] + box[length] * (1 / 3) for side, length in (("x", "width"), ("y", "height")))
    widget.mouse.move(x, y)
    widget.mouse.down()
    widget.mouse.move(x + 30, y + 10, steps=3)
    widget.mouse.up()
    values = [float(slider.input_value()) for slider in widget.locator("input").all()]
    assert values[0] == pytest.approx(60 / box["width"], abs=0.04)
    assert values[1] == pytest.approx(20 / box["width"], abs=0.04)
    assert widget.locator("select").input_value() == "5"
    moved, widget_said = values, said(widget)
    assert not widget_said.startswith("Bent back, the picture is off by 0.0 %")
    widget.mouse.move(x - 50, y - 50)  # let go: it stays
    assert [float(slider.input_value()) for slider in widget.locator("input").all()] == moved


def test_a_point_follows_the_keyboard(widget):
    widget.locator("select").select_option("10")
    widget.locator("input").first.focus()
    for _ in range(5):
        widget.keyboard.press("ArrowRight")
    assert float(widget.locator("input").first.input_value()) == pytest.approx(0.1)
    assert not said(widget).startswith("Bent back, the picture is off by 0.0 %")
    widget.get_by_role("button", name="All points home").press("Enter")
    assert said(widget).startswith("Bent back, the picture is off by 0.0 %")


def test_keys_do_not_reach_the_notebook(widget):
    widget.evaluate(
        "window.heard = []; document.addEventListener('keydown', (e) => window.heard.push(e.key))"
    )
    widget.locator("input").first.focus()
    for key in ("b", "ArrowLeft", "Tab"):
        widget.keyboard.press(key)
    assert widget.evaluate("heard") == ["Tab"]


def test_without_a_kernel_there_is_a_picture(bender, capsys):
    bender._ipython_display_()
    assert "A micrograph under a grid with sixteen white points" in capsys.readouterr().out
    assert len(bender.figure().axes) == 3
    assert bender.contents["side"] == SIDE and POINTS == 4


def test_a_bad_image_is_named():
    with pytest.raises(ValueError, match="image has values from 0 to 255"):
        Bender(np.array([[0.0, 255.0]]))
