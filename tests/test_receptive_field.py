"""The receptive-field engine against the truth: automatic differentiation, and published sizes."""

import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from tests.random_networks import Net, networks, true_fields
from utils.receptive_field import receptive_field

torch.set_num_threads(1)
MANY = int(os.environ.get("RANDOM_NETWORKS", "0"))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@settings(
    max_examples=MANY or 600,
    derandomize=not MANY,  # the usual run draws the same networks each time; a long one draws its own
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(networks)
def test_random_networks_match_autograd_at_every_pixel(network):
    size, program = network
    truth = true_fields(program, size)
    rf = receptive_field(Net(program), (1, 1, *size))
    assert rf.output_shape[2:] == truth.shape[:2]
    rows, cols = np.indices(truth.shape[:2]).reshape(2, -1)
    masks = np.stack([rf.mask(row, col) for row, col in zip(rows, cols, strict=True)])
    np.testing.assert_array_equal(masks.reshape(truth.shape), truth)
    for row, col in zip(rows, cols, strict=True):
        at = np.argwhere(truth[row, col])
        hull = (*at.min(0), *(at.max(0) + 1)) if len(at) else (0, 0, 0, 0)
        assert rf.box(row, col) == hull
    for row, col in np.ndindex(size):
        np.testing.assert_array_equal(rf.influence(row, col), truth[:, :, row, col])
