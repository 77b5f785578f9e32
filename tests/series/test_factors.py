"""What the trainings of `experiments.factors` differ in, and that their record is of these networks."""

import pytest
import torch

from experiments.factors import HOLES, QUESTIONS, RESULTS, measured, through, with_field
from experiments.results import stored
from pixelpatch import receptive_field
from utils.networks import UNet, trained


def weights(network):
    return sum(each.numel() for each in network.parameters())


@pytest.mark.parametrize("side", HOLES)
def test_fields_are_as_large_as_said_and_weights_are_equal(side):
    network = with_field(side).eval()
    box = receptive_field(network, (1, 1, side + 8, side + 8)).box(4, 4)
    assert (box.bottom - box.top, box.right - box.left) == (side, side)
    assert weights(network) == weights(with_field(17))


@pytest.mark.parametrize("channels", [3, 8])
def test_a_narrow_code_lies_between_the_two_ways(channels):
    network, read = through(channels), []
    network.down[-1][-1][1].register_forward_pre_hook(lambda _, given: read.append(given[0].shape))
    assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 3, 64, 64)
    assert read == [(1, channels, 8, 8)], "so many numbers for each position of the lowest map"
    assert weights(network) == weights(UNet(skips=False)) + 2 * 64 * channels + 64 + channels


@pytest.mark.parametrize(
    "name, arm", [("unet", "U-Net, without"), ("segnet", "DeconvNet without its code, with")]
)
def test_what_ships_is_measured_as_recorded(name, arm):
    found = torch.tensor(measured(trained(name)))
    recorded = torch.tensor(stored(RESULTS)[f"norm: {arm}, seed 0"])
    assert (found - recorded).abs().max() < 2e-3, "rounding moves a label in a thousand"


def test_the_record_is_of_these_questions():
    recorded = {key.rpartition(", seed ")[0] for key in stored(RESULTS)}
    assert recorded == {f"{question}: {name}" for question, names in QUESTIONS.items() for name in names}
