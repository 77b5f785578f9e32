"""Blurred pooling, and how far a network looks."""

import pytest
import torch
from torch import nn

from experiments.blurred import BlurredPool, blurred
from experiments.effective import NETWORKS, STEPS, courses, side
from pixelpatch import receptive_field
from utils.networks import FCN, DeconvNet, UNet


def test_a_gap_weighs_the_same_wherever_it_lies():
    for start in range(6, 10):
        membrane = torch.ones(1, 1, 20, 20)
        membrane[..., start : start + 2] = 0
        pooled = BlurredPool()(membrane)
        plain = nn.functional.max_pool2d(membrane, 2)
        assert (1 - pooled[0, 0, 5]).sum() - (
            1 - BlurredPool()(torch.ones(1, 1, 20, 20))[0, 0, 5]
        ).sum() == 0.5
        assert (1 - plain[0, 0, 5]).sum() == (start % 2 == 0), "plain pooling loses every second gap"


def test_pools_every_channel_alone_and_halves_the_map():
    maps = torch.rand(2, 3, 16, 24)
    together = BlurredPool()(maps)
    assert together.shape == (2, 3, 8, 12)
    alone = [BlurredPool()(maps[:, channel : channel + 1]) for channel in range(3)]
    torch.testing.assert_close(together, torch.cat(alone, dim=1))


@pytest.mark.parametrize("make", [UNet, FCN])
def test_every_pooling_is_replaced_and_the_field_grows(make):
    plain, soft = make(), blurred(make())
    assert not any(isinstance(layer, nn.MaxPool2d) for layer in soft.modules())
    boxes = [receptive_field(network, (1, 1, 512, 512)).box(256, 256) for network in (plain, soft)]
    narrow, wide = (box.right - box.left for box in boxes)
    assert wide == narrow + 2 * sum(2**level for level in range(3 if make is UNet else 5))
    assert plain.state_dict().keys() == soft.state_dict().keys(), "a blur has nothing to learn"


def test_unpooling_needs_its_switches():
    with pytest.raises(ValueError, match=r"'pool' is MaxPool2d.*without switches"):
        blurred(DeconvNet(code=None))


def test_side_of_the_effective_field():
    network = nn.Conv2d(1, 2, 5, padding=2)
    nn.init.constant_(network.weight, 0.1)
    assert side(network, torch.rand(1, 1, 256, 256)) == pytest.approx(23**0.5), "nine tenths of 25 pixels"


@pytest.mark.parametrize("title", NETWORKS)
def test_the_record_holds_every_step_of_two_seeds(title):
    sides, qualities = courses(title).unbind(-1)
    assert sides.shape == (2, len(STEPS))
    assert (sides > 10).all() and (sides < 256).all() and (qualities[:, -1] > 0.5).all()
