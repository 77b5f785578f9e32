"""Knobs: the sentence that follows says what is true, and in a real JupyterLab the keyboard turns them."""

import re

import nbformat
import pytest
from instrument.browser import SECONDS, SHUTDOWN, ready

from pixelpatch import receptive_field
from utils.data import micrographs
from utils.knobs import build_a_stack, shift_and_stitch, slide_a_tile, stamp_by_stamp
from utils.networks import trained

IMAGE, CLASSES = micrographs("test").images[:1], micrographs("test").classes


def said(knob, **values):
    for name, value in values.items():
        knob.controls[name].value = value
    return re.search("<p role='(?:status|alert)'>(.*)</p>", knob.screen.value)[1]


def test_a_stack_follows_its_layers():
    knob = build_a_stack()
    chosen = knob.children[0]
    assert said(knob).startswith("One output of layer 3 sees 7 positions")
    chosen.value = 2
    assert said(knob, stride=2).startswith("One output of layer 3 sees 9 positions")
    chosen.value = 1
    assert knob.controls["stride"].value == 1, "the controls show the chosen layer"
    assert said(knob, padding=2).endswith(
        "its neighbour looks 2 further on, and output 0 starts at position -2."
    )
    assert said(knob, layers=1).startswith("One output of layer 1 sees 3 positions")
    chosen.value = 2
    assert knob.controls["stride"].value == 2 and knob.controls["padding"].value == 0


def test_a_stack_without_an_output_says_so_and_keeps_its_drawing():
    knob = build_a_stack()
    for layer in (1, 2, 3):
        knob.children[0].value = layer
        text = said(knob, stride=3, kernel=5, dilation=4)
    assert "has no output" in text and knob.screen.value.startswith("<img")
    assert said(knob, layers=1).startswith("One output")


def test_stamps_are_counted():
    knob = stamp_by_stamp()
    assert said(knob, done=9, kernel=3, stride=2) == (
        "Kernel 3, stride 2, 9 of 9 stamps: cells covered 1, 2, 4 times."
    )
    assert said(knob, done=0) == "Kernel 3, stride 2, 0 of 9 stamps: cells covered 0 times."


def test_all_shifted_copies_make_the_dense_map():
    nets = {f"window {window}": trained(f"patch-{window}").double() for window in (5, 9, 17)}
    knob = shift_and_stitch(nets, IMAGE[..., :24, :24].double(), CLASSES)
    assert said(knob, network="window 5", copies=2).startswith("2 of 4 copies fill 50% of the map.")
    assert said(knob, copies=4).endswith("the scores differ by less than 1e-12.")
    assert said(knob, network="window 17").startswith("4 of 16 copies fill 25%")
    assert said(knob, copies=16).startswith("16 of 16 copies fill 100%")
    for copies, same in ((16, True), (4, False)):  # and so the picture says
        figure, _ = knob.draw("window 17", copies)
        _, stitched, at_once = (axis.images[0].get_array() for axis in figure.axes)
        assert (stitched == at_once).all() == same


def test_a_tile_is_exact_in_step_and_with_its_halo_and_only_then():
    net = trained("unet")
    knob, field = slide_a_tile(net, IMAGE[..., :192, :192]), receptive_field(net, (1, 1, 256, 256))
    needed = 128 - field.box(128, 128).top
    for offset, halo in [(64, 0), (64, 16), (64, 48), (64, 56), (67, 48), (72, 48), (68, 52)]:
        exact = (offset - halo) % 8 == 0 and halo >= needed
        assert ("less than 0.01" in said(knob, offset=offset, halo=halo)) == exact, (offset, halo)


@pytest.mark.parametrize("make", [build_a_stack, stamp_by_stamp])
def test_where_no_kernel_runs_there_are_pictures_in_words(make, capsys):
    knob = make()
    knob._ipython_display_()
    printed = capsys.readouterr().out
    assert all(knob.draw(**position)[1] in printed for position in knob.strip)


# --- in a real JupyterLab --------------------------------------------------------------------------------

MAKE = """from utils.data import micrographs
from utils.knobs import *
from utils.networks import trained
image, classes = micrographs("test").images[:1], micrographs("test").classes
"""
LIVE = {
    "build_a_stack()": ("layers", "One output of layer 4"),
    "stamp_by_stamp()": ("stamps", "3 of 9 stamps"),
    "shift_and_stitch({'window 9': trained('patch-9')}, image[..., :24, :24], classes)": (
        "copies",
        "2 of 4 copies",
    ),
    "slide_a_tile(trained('unet'), image[..., :192, :192])": ("halo", "the halo has 4 pixels"),
}


@pytest.mark.xdist_group("browser")
def test_the_keyboard_turns_every_knob(lab, chromium):
    (address, folder), page = lab, chromium.new_page(viewport={"width": 700, "height": 3000})
    page.set_default_timeout(1000 * SECONDS)
    cells = [nbformat.v4.new_code_cell(source) for source in (MAKE, *LIVE)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "knobs.ipynb")
    page.goto(f"{address}/lab/tree/knobs.ipynb?reset")
    ready(page)
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => true)")
    page.wait_for_function("n => document.querySelectorAll('.pixel-knob').length === n", arg=len(LIVE))
    assert page.locator(".jp-RenderedImage:visible").count() == 0, "the knobs stand in for their pictures"
    for knob, (name, sentence) in zip(page.locator(".pixel-knob").all(), LIVE.values(), strict=True):
        knob.locator(f".widget-slider:has-text('{name}') .noUi-handle").first.focus()
        page.keyboard.press("ArrowRight")
        knob.get_by_text(sentence).wait_for()
        picture = knob.locator("img")
        assert sentence in picture.get_attribute("alt")
        assert picture.bounding_box()["width"] > 300
    page.evaluate(SHUTDOWN)
    page.close()
