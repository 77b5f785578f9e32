"""The table of all networks: what the README says is what the shipped weights give."""

import re
from itertools import pairwise

import pytest
import torch

from experiments.comparison import (
    BEGIN,
    END,
    FIGURE,
    NETWORKS,
    README,
    SEEDS,
    Patch,
    Quality,
    Turned,
    figure,
    patch,
    quality,
    spread,
    table,
)
from pixelpatch import receptive_field
from utils.data import micrographs
from utils.networks import DeconvNet, PatchNet, UNet, for_whole_images, labels_of, trained
from utils.windows import sliding_window


def readme_rows():
    """The cells of the README's table by network, the heading under ""."""
    found = re.search(f"{BEGIN}(.*?){END}", README.read_text(encoding="utf-8"), re.S)[1]
    rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in found.split("\n") if line]
    rows = [row for row in rows if len(row) > 1 and not row[0].startswith("---")]
    return {row[0] if number else "": row[1:] for number, row in enumerate(rows)}


def receptive_field_of(name):
    return receptive_field(for_whole_images(trained(name)), (1, 1, 256, 256))


@pytest.mark.parametrize("name", NETWORKS)
def test_readme_says_what_the_shipped_weights_give(name):
    """Another processor sums in another order, and may give a few pixels another class."""
    measured, written = quality(name), readme_rows()[NETWORKS[name]]
    assert len(measured.mean) == len(SEEDS) >= 3
    for values, cell in zip([measured.mean, *measured.classes.T], written, strict=False):
        mean, half_range = map(float, cell.split(" ± "))
        assert abs(values.mean() - mean) < 0.002
        assert abs((values.max() - values.min()) / 2 - half_range) < 0.002


@pytest.mark.parametrize("name", NETWORKS)
def test_readme_says_what_the_networks_are(name):
    measured, heading, written = patch(name), readme_rows()[""], readme_rows()[NETWORKS[name]]
    row = dict(zip(heading, written, strict=True))
    assert row["weights"] == f"{measured.weights:,}"
    assert row["MACs per pixel"] == f"{measured.macs:,.0f}"
    assert row["patch"] == " or ".join(map(str, measured.sides))
    assert abs(float(row["effective"]) - measured.effective) <= 1
    assert row["exact patch"] == ("yes" if measured.exact else "whole crop")
    assert measured.effective < max(measured.sides)


def test_the_deconvnets_patch_is_its_crop_and_the_others_have_an_exact_one():
    assert [name for name in NETWORKS if receptive_field_of(name).whole_image] == ["deconvnet"]
    box = receptive_field_of("deconvnet").box(200, 30)
    assert box == (128, 0, 256, 128)


def test_patches_have_the_sizes_that_the_chapters_derive():
    sides = {name: patch(name).sides for name in ("patch-65", "fcn-8s", "segnet", "unet")}
    assert sides == {"patch-65": [65], "fcn-8s": [188, 220], "segnet": [252, 284], "unet": [92, 100]}


def test_the_order_is_what_the_readme_says():
    """U-Net leads in every class on average; in the mean of the classes no seed changes the order."""
    found = {name: quality(name) for name in NETWORKS}
    others = torch.stack([found[name].classes.mean(0) for name in NETWORKS if name != "unet"]).amax(0)
    assert (found["unet"].classes.mean(0) > others).all()
    groups = [("unet",), ("unet-without-skips", "segnet"), ("patch-65", "fcn-8s"), ("deconvnet",)]
    for better, worse in pairwise(groups):
        least = min(found[name].mean.min() for name in better)
        assert least > max(found[name].mean.max() for name in worse), (better, worse)


def test_a_patch_net_for_whole_images_is_the_sliding_window():
    torch.manual_seed(0)
    net, image = PatchNet(9).double().eval(), torch.rand(1, 1, 20, 24, dtype=torch.float64)
    with torch.no_grad():
        whole = for_whole_images(net)(image)
    torch.testing.assert_close(whole, sliding_window(net, image, 9), rtol=0, atol=1e-12)


def test_a_deconvnet_labels_crop_by_crop():
    torch.manual_seed(0)
    net, images = DeconvNet(side=32).eval(), torch.rand(2, 1, 64, 96)
    found = labels_of(net, images)
    with torch.no_grad():
        alone = net(images[1:, :, 32:, 64:]).argmax(1)
    assert found.shape == (2, 64, 96)
    assert torch.equal(found[1:, 32:, 64:], alone)
    with pytest.raises(
        ValueError, match=r"40 x 64, expected multiples of 32, because the network takes crops"
    ):
        labels_of(net, torch.rand(1, 1, 40, 64))


def test_others_are_used_as_they_are():
    network, without_code = UNet(), DeconvNet(code=None)
    assert for_whole_images(network) is network
    assert for_whole_images(without_code) is without_code


def test_turned_gives_the_turned_image_the_turned_answer():
    """The mean over all turns and flips knows no direction; the network alone does."""
    torch.manual_seed(0)
    net, image = UNet(depth=2).double().eval(), torch.rand(1, 1, 32, 48, dtype=torch.float64)
    with torch.no_grad():
        for network, indifferent in ((Turned(net), True), (net, False)):
            upright = network(image)
            for turn in (lambda x: torch.rot90(x, 1, (-2, -1)), lambda x: x.flip(-1), lambda x: x.mT):
                same = torch.allclose(network(turn(image)), turn(upright), rtol=0, atol=1e-10)
                assert same == indifferent


def test_spread_is_mean_and_half_of_the_range():
    assert spread(torch.tensor([0.5, 0.6, 0.55])) == "0.550 ± 0.050"


def invented():
    classes = torch.linspace(0.3, 0.9, len(SEEDS) * 3).reshape(len(SEEDS), 3)
    qualities = {name: Quality(classes, classes.mean(1)) for name in NETWORKS}
    return qualities, {name: Patch(12345, 678.9, [92, 100], 12.3, name != "deconvnet") for name in NETWORKS}


def test_table_has_a_line_for_each_network_and_a_cell_for_each_heading():
    lines = table(*invented(), dict.fromkeys(NETWORKS, 0.1)).split("\n")
    assert len(lines) == len(NETWORKS) + 2
    assert len({line.count("|") for line in lines}) == 1
    assert "| 12,345 | 679 | 92 or 100 | 12 | yes | 0.100 |" in lines[-1]


def test_figure_marks_every_seed_of_every_network():
    (axis,) = figure(invented()[0]).axes
    classes = len(micrographs("test").classes)
    marks = [line for line in axis.lines if line.get_marker() in "os^D"]
    assert len(marks) == len(NETWORKS) * (classes + 1)
    assert all(len(line.get_xdata()) == len(SEEDS) for line in marks)


def test_readme_shows_the_figure_with_words():
    assert FIGURE.exists()
    text = README.read_text(encoding="utf-8")
    assert re.search(r"!\[[^\]]{80,}\]\(\.github/comparison\.png\)", text)
