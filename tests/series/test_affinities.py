"""Pairs of pixels: which lie in one cell, what is learned of them, and what is cut up by them."""

import pytest
import torch
from torch.nn import functional as F

from experiments.affinities import PARTNERS, beside, joined, loss, with_cells
from utils.data import Pictures


def test_cells_are_numbered_and_membranes_are_none():
    labels = torch.zeros(1, 6, 7, dtype=torch.int64)
    labels[0, :, 3] = 1
    classes, cells = with_cells(Pictures(torch.zeros(1, 1, 6, 7), labels, ("a", "b"))).labels[0]
    assert torch.equal(classes, labels[0])
    assert set(cells[:, :3].unique().tolist()) == {1} and set(cells[:, 4:].unique().tolist()) == {2}
    assert (cells[:, 3] == 0).all()


def test_a_partner_lies_beside_and_outside_is_none():
    maps = torch.arange(12).view(3, 4)
    assert beside(maps, (0, 1)).tolist() == [[1, 2, 3, -1], [5, 6, 7, -1], [9, 10, 11, -1]]
    assert beside(maps, (2, 0)).tolist() == [[8, 9, 10, 11], [-1] * 4, [-1] * 4]


def test_the_loss_is_lowest_for_the_truth_and_leaves_out_pairs_that_reach_outside():
    cells = torch.randint(3, (2, 12, 12), generator=torch.Generator().manual_seed(0))
    labels = torch.stack([(cells == 0).long(), cells], dim=1)
    together = [(cells == beside(cells, partner)) & (cells > 0) for partner in PARTNERS]
    sure = torch.stack([cells > 0, cells == 0, *together], dim=1) * 40.0 - 20
    assert loss(sure, labels) < 1e-6
    for channel in range(6):
        wrong = sure.clone()
        wrong[:, channel, 1, 1] *= -1
        assert loss(wrong, labels) > 1e-3
    outside = sure.clone()
    outside[:, 2, :, -1] *= -1
    torch.testing.assert_close(loss(outside, labels), loss(sure, labels))
    assert loss(torch.zeros(2, 6, 12, 12), labels) == pytest.approx(5 * F.softplus(torch.zeros(())).item())


def test_cells_hang_together_by_their_pairs():
    near = torch.full((2, 4, 6), 3.0)
    near[0, :, 2] = -3.0  # nothing joins columns 2 and 3
    cells = joined(near, 0)
    assert cells.min() == 1 and cells.max() == 2
    assert (cells[:, :3] == 1).all() and (cells[:, 3:] == 2).all()
    near[0, 1, 2] = 1.0  # one pair is enough
    assert joined(near, 0).max() == 1 and joined(near, 2).max() == 2
