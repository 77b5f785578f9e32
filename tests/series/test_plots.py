"""Pictures: what they say in words, and what they draw."""

import torch
from matplotlib import pyplot as plt
from matplotlib.text import Annotation

from pixelpatch import receptive_field
from utils.drawings import maps
from utils.networks import FCN, UNet


def drawn(network, height, width):
    with torch.device("meta"):
        figure = maps(receptive_field(network, (1, 1, height, width)))
    (axis,) = figure.axes
    plt.close(figure)
    arrows = [text for text in axis.texts if isinstance(text, Annotation)]
    return axis, [text.get_text() for text in axis.texts if text not in arrows], arrows


def test_maps_are_drawn_to_scale_and_named_once():
    axis, words, arrows = drawn(UNet(depth=2, width=4), 64, 96)
    assert words == ["64 x 96", "32 x 48", "16 x 24"]
    assert len(arrows) == 2, "one for each skip"
    assert {bar.get_height() for bar in axis.patches} == {64, 32, 16}
    assert {bar.get_width() for bar in axis.patches} == {4, 8, 16, 3}
    low, high = axis.get_ylim()
    assert low < -32 and high > 32


def test_maps_of_a_network_without_skips_have_no_arrow():
    assert drawn(UNet(depth=2, width=4, skips=False), 64, 64)[2] == []
    assert drawn(FCN(32, width=2), 64, 64)[2] == []


def test_an_arrow_leads_from_the_way_down_to_the_joined_map():
    axis, _, (arrow,) = drawn(UNet(depth=1, width=4), 64, 64)
    bars = sorted(axis.patches, key=lambda bar: bar.get_x())
    joined = next(bar for bar in bars if bar.get_width() == 8 and bar.get_height() == 64)
    assert arrow.xy[0] == joined.get_x()
    assert bars[1].get_x() <= arrow.xyann[0] <= bars[1].get_x() + 4, "the second convolution"
