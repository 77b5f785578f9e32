"""The micrographs: the shipped files are what the generator draws, and they are what they promise to be."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from experiments.tissue import CYTOPLASM, MEMBRANE, MITOCHONDRION, SPLITS, tissue
from utils.data import DATA, micrographs
from utils.metrics import mean_iou
from utils.networks import trained


def stored(split, number):
    folder = DATA / "micrographs" / split
    return [np.array(Image.open(folder / kind / f"{number}.png")) for kind in ("image", "label")]


@pytest.mark.parametrize(
    ("split", "number", "seed"),
    [(split, number, seed) for split, seeds in SPLITS.items() for number, seed in enumerate(seeds)],
)
def test_shipped_pictures_are_drawn_again_bit_for_bit(split, number, seed):
    for file, drawn in zip(stored(split, number), tissue(seed), strict=True):
        assert np.array_equal(file, drawn)


def test_no_seed_is_in_two_splits():
    seeds = [seed for split in SPLITS.values() for seed in split]
    assert len(seeds) == len(set(seeds)) == 36


def test_every_class_is_in_every_picture_and_none_takes_over():
    for split, seeds in SPLITS.items():
        for number in range(len(seeds)):
            shares = [
                np.mean(stored(split, number)[1] == grey) for grey in (CYTOPLASM, MEMBRANE, MITOCHONDRION)
            ]
            assert 0.5 < shares[0] < 0.85 and 0.08 < shares[1] < 0.3 and 0.03 < shares[2] < 0.25, shares


@pytest.mark.parametrize("axis", [0, 1])
def test_image_and_label_are_sampled_at_the_same_place(axis):
    """A network's scores fit the labels best where they are, and not a fraction of a pixel further on."""
    pictures = micrographs("validation")
    with torch.inference_mode():
        scores = trained("unet")(pictures.images)

    def quality(shift):
        move = torch.eye(2, 3)
        move[axis, 2] = 2 * shift / scores.shape[-1]
        grid = F.affine_grid(move.expand(len(scores), -1, -1), scores.shape, align_corners=False)
        moved = F.grid_sample(scores, grid, "bicubic", padding_mode="border", align_corners=False)
        return mean_iou(moved.argmax(1), pictures.labels, 3)

    before, here, after = map(quality, (-0.25, 0, 0.25))
    best = 0.25 * (before - after) / (before - 2 * here + after) / 2  # of a parabola
    assert abs(best) < 0.1, f"the scores fit best {best:.2f} pixels away"


def test_a_dark_line_has_the_same_grey_whatever_it_is():
    """One pen: on their middle lines, membranes and mitochondria's outlines are equally dark."""
    dark = {MEMBRANE: [], MITOCHONDRION: []}
    for number in range(len(SPLITS["train"])):
        image, label = stored("train", number)
        for grey, values in dark.items():
            values.append(np.percentile(image[label == grey], 10))
    assert abs(np.mean(dark[MEMBRANE]) - np.mean(dark[MITOCHONDRION])) < 0.5 * 41.0  # sd of all greys
