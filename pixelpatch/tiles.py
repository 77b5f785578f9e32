"""Tiles that are as good as one pass: the scores of a large image, tile by tile."""

import sys
from collections.abc import Iterable
from functools import cache
from numbers import Integral

import torch
from torch import Tensor, nn

from pixelpatch.fields import Box, receptive_field
from pixelpatch.proofs import check_local, cut_out
from pixelpatch.scores import check_image, score_map


def progress(work: Iterable, **options) -> Iterable:
    """A progress bar that goes when the work is done; none without tqdm, which the core does not need."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return work
    return tqdm(work, file=sys.stdout, leave=False, **options)


@torch.no_grad()
def tiled(model: nn.Module, image: Tensor, tile: int) -> Tensor:
    """Score a large image tile by tile: the scores of one pass over all of it, with the memory of a tile.

    The overlap-tile strategy of Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical
    image segmentation", MICCAI 2015, section 2. Each tile of the output is computed from the part of the
    image that its pixels can see: the halo is their receptive field, and the cut starts at a multiple of the
    total stride. So it is exact, with zero padding and at the image's borders too. (Fields show which pixels
    a score depends on, not how: of a network that knows a pixel's place in the image, or the image's size,
    or that drops out at random, they cannot tell that it must not be cut.)

    >>> model, image = nn.Conv2d(1, 2, 7, padding=3).double(), torch.rand(1, 1, 96, 80, dtype=torch.float64)
    >>> torch.allclose(tiled(model, image, tile=32), model(image), atol=1e-12)
    True

    Args:
        model: network that gives images (1, C, H, W) scores (1, classes, h, w), in eval mode.
        image: (1, C, H, W).
        tile: side of a tile in output pixels. The larger it is, the less is computed twice; a multiple of the
            network's stride wastes least.

    Returns:
        scores (1, classes, h, w).

    Raises:
        WholeImageError: a layer lets every pixel see the whole image; the message says which, and why.
        ValueError: the image has another shape or type, tile is no positive number, or no part of the image
            gives a tile the patches that it has there.
        TypeError: the image is no tensor.
    """
    check_image(model, image)
    if not isinstance(tile, Integral) or tile < 1:
        raise ValueError(f"tile is {tile!r}, expected a whole number of output pixels from 1 up; try 256.")
    field_of = cache(lambda shape: receptive_field(model, shape))  # most tiles are cut to the same few shapes
    field = field_of(tuple(image.shape))
    check_local(field)
    height, width = field.output_shape[-2:]
    if tile >= max(height, width):
        return score_map(model, image)
    tiles = [
        Box(top, left, min(top + tile, height), min(left + tile, width))
        for top in range(0, height, tile)
        for left in range(0, width, tile)
    ]
    scores = None
    for part in progress(tiles, unit="tile", desc=f"tiles of {tile} x {tile}"):
        cut, (row, col), same = cut_out(field_of, field, part)
        if not same:
            raise ValueError(
                f"no part of the image gives the tile at {part[:2]} the patches that it has in the whole "
                "image, so the network cannot be tiled; score the image in one pass."
            )
        answer = score_map(model, image[..., cut.top : cut.bottom, cut.left : cut.right])
        if scores is None:
            scores = answer.new_empty(1, answer.shape[1], height, width)
        scores[..., part.top : part.bottom, part.left : part.right] = answer[
            ..., row : row + part.bottom - part.top, col : col + part.right - part.left
        ]
    return scores
