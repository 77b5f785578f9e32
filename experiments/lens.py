"""Pictures through a strong lens, where the scale changes from place to place: what a warp could undo."""

import torch
from torch.nn import functional as F

from experiments.dense_transformer import encode, lattice


def lens(random, count, side):
    """The positions (count, side, side, 2) of pictures seen through a strong lens at a random place.

    In the middle of the lens they are enlarged two to four times; outwards the scale falls, and far away
    things are made smaller. No picture looks beyond its border.
    """
    middle = torch.rand(count, 1, 1, 2, generator=random) * 1.2 - 0.6
    enlarged = torch.rand(count, 1, 1, 1, generator=random) * 2 + 2
    away = lattice(side, side).float().view(side, side, 2) - middle
    far = away.square().sum(-1, keepdim=True) / (1 + middle.abs()).square().sum(-1, keepdim=True)  # 0 to 1
    return middle + away * (1 / enlarged + (1 - 1 / enlarged) * far)


def through_lens(random, images, labels):
    """Images (N, 1, S, S) and labels (N, S, S), each pair through another lens."""
    positions = lens(random, len(images), images.shape[-1])
    seen = F.grid_sample(labels[:, None].float(), positions, mode="nearest", align_corners=True)
    return encode(images, positions), seen[:, 0].to(labels.dtype)


def through_lenses(draw):
    """A source of training batches, as `utils.windows.random_crops` gives, through a lens for each image."""
    return lambda random: through_lens(random, *draw(random))
