"""Drawings: what they say is what the engine and PyTorch say."""

import re

import pytest
import torch
from matplotlib.patches import Rectangle
from torch import nn
from torch.nn import functional as F

from experiments import figures
from experiments.notebooks import ROOT
from pixelpatch import receptive_field
from utils.drawings import Step, reads, size_jump_start, stack, stamps, u_shape
from utils.networks import FCN, UNet

STACKS = [
    [Step(3)],
    [Step(3), Step(2, stride=2), Step(3)],
    [Step(3, padding=1), Step(3, stride=2, padding=1), Step(3, dilation=2)],
    [Step(5, stride=3), Step(1, padding=2), Step(2, dilation=4)],
]


def words(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


@pytest.mark.parametrize("steps", STACKS)
def test_the_cone_of_a_stack_is_the_engines_field(steps):
    layers = [nn.Conv1d(1, 1, k, s, p, d) for k, s, p, d in steps]
    rows = [nn.Conv2d(1, 1, (each.kernel_size[0], 1), *pairs(each)) for each in layers]
    field = receptive_field(nn.Sequential(*rows), (1, 1, 60, 1))
    output = field.output_shape[2] // 2
    inside = {at for at in reads(steps, output)[0] if 0 <= at < 60}
    assert inside == set(field.mask(output, 0)[:, 0].nonzero()[0].tolist())
    size, jump, start = size_jump_start(steps)[-1]
    assert (start + output * jump, size) == (min(inside), max(inside) + 1 - min(inside))


def pairs(layer):
    """Stride, padding and dilation of a 1-D layer, for one that leaves columns alone."""
    return (layer.stride[0], 1), (layer.padding[0], 0), (layer.dilation[0], 1)


def test_a_stack_is_drawn_with_its_numbers():
    figure = stack([Step(3), Step(2, stride=2)], positions=20)
    assert (
        " ".join(words(figure))
        == "size jump start image 1 1 0 layer 1: k 3 3 1 0 layer 2: k 2, stride 2 4 2 0"
    )


def test_a_stack_without_an_output_says_which_layer():
    with pytest.raises(ValueError, match="layer 2 has no output; make its kernel smaller"):
        stack([Step(3, stride=3), Step(5, dilation=4)], positions=12)


@pytest.mark.parametrize("kernel, stride", [(3, 2), (4, 2), (2, 3), (1, 1), (5, 3)])
def test_all_stamps_together_are_a_transposed_convolution(kernel, stride):
    _, canvas = stamps(kernel, stride, 9)
    wanted = F.conv_transpose2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, kernel, kernel), stride=stride)
    assert torch.equal(torch.from_numpy(canvas), wanted[0, 0].long())
    assert stamps(kernel, stride, 0)[1].sum() == 0


def u_drawing(network, side):
    figure = u_shape(receptive_field(network, (1, 1, side, side)))
    boxes = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    arrows = [text for text in figure.axes[0].texts if getattr(text, "arrow_patch", None)]
    return words(figure), boxes, arrows


def test_the_u_has_every_map_with_its_channels_and_an_arrow_for_each_skip_connection():
    said, boxes, arrows = u_drawing(UNet(depth=2, width=4), 64)
    numbers = [word for word in said if word.isdigit()]
    assert " ".join(numbers) == "4 4 4 8 8 8 16 16 8 16 8 8 4 8 4 4 3"
    assert len(boxes) == len(numbers) and len(arrows) == 2
    assert [word for word in said if " x " in word] == ["64 x 64", "32 x 32", "16 x 16", "64 x 64"]


def test_a_network_without_skip_connections_has_no_arrow():
    assert not u_drawing(UNet(depth=2, width=4, skips=False), 64)[2]
    assert not u_drawing(FCN(32, width=2), 64)[2]
    assert len(u_drawing(FCN(8, width=2), 64)[2]) == 2


# --- the figures beside the notebooks --------------------------------------------------------------------


def test_every_figure_is_there_used_and_drawn_by_its_function():
    folder = ROOT / "notebooks" / "figures"
    assert {path.stem for path in folder.iterdir()} == set(figures.FIGURES)
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "notebooks").glob("*.ipynb"))
    for name in figures.FIGURES:
        alt = re.search(rf"!\[([^\]]*)\]\(figures/{name}\.svg\)", sources)
        assert alt and len(alt[1].split()) >= 15, f"{name} is not used, or has no text alternative"


@pytest.mark.parametrize("name", figures.FIGURES)
def test_no_word_of_a_figure_is_clipped(name):
    figure = figures.FIGURES[name]()
    figure.canvas.draw()
    page = figure.bbox
    for axis in figure.axes:
        for text in axis.texts:
            box = text.get_window_extent()
            assert not text.get_text() or (page.x0 <= box.x0 and box.x1 <= page.x1), text.get_text()
            assert not text.get_text() or (page.y0 <= box.y0 and box.y1 <= page.y1), text.get_text()
