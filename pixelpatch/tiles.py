"""Tiles that are as good as one pass: the scores of a large image, tile by tile."""

import sys
from collections.abc import Iterable
from functools import cache
from numbers import Integral

import torch
from torch import Tensor, nn

from pixelpatch.fields import Box, ReceptiveField, receptive_field
from pixelpatch.proofs import check_local, cut_out
from pixelpatch.scores import check_image, rounding, score_map


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
    total stride. So it is exact, with zero padding and at the image's borders too. Fields show which pixels
    a score depends on, not how. So one tile is scored twice, the second time with a stride more of the image
    around it where there is more: most networks that know a pixel's place or the image's size, or that draw
    at random, are found out by their other scores.

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
        ValueError: the image has another shape or type, tile is no positive number, no part of the image
            gives a tile the patches that it has there, or a tile's scores change with what lies around it.
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
    middle = height // 2 // tile * tile, width // 2 // tile * tile
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
        size = part.bottom - part.top, part.right - part.left
        tile_scores = answer[..., row : row + size[0], col : col + size[1]]
        if part[:2] == middle:
            _check_once(model, image, field, cut, (row, col), tile_scores)
        scores[..., part.top : part.bottom, part.left : part.right] = tile_scores
    return scores


def _check_once(
    model: nn.Module, image: Tensor, field: ReceptiveField, cut: Box, place: tuple[int, int], scores: Tensor
) -> None:
    """Raise ValueError if a tile's scores change when a stride more of the image lies around its cut.

    `place` is that of the tile's first pixel in the scores of `cut`. Nothing is checked where the cut is the
    whole image already, or the network does not run on the larger part.
    """
    strides, sizes = field.stride, image.shape[2:]
    starts = [max(start - stride, 0) for start, stride in zip(cut[:2], strides, strict=True)]
    stops = [min(stop + stride, size) for stop, stride, size in zip(cut[2:], strides, sizes, strict=True)]
    added = [  # before the cut, or behind it in a network that turns the image over
        (old - new if step > 0 else more - stop) // stride * abs(step)
        for old, new, stop, more, stride, step in zip(
            cut[:2], starts, cut[2:], stops, strides, field.step, strict=True
        )
    ]
    if [*starts, *stops] == [*cut]:
        return
    row, col = (at + by for at, by in zip(place, added, strict=True))
    try:
        again = score_map(model, image[..., starts[0] : stops[0], starts[1] : stops[1]])
    except Exception:  # a network that takes fewer sizes than its stride suggests
        return
    again = again[..., row : row + scores.shape[-2], col : col + scores.shape[-1]].double()
    once = scores.double()
    differ = torch.where(again == once, 0, (again - once).abs()).max()  # infinite scores may be the same
    finite = once[once.isfinite()]
    spread = max(float(finite.std(correction=0)), float(finite.abs().max()) / 100) if len(finite) else 1.0
    if not differ <= rounding(image.dtype) * spread:
        raise ValueError(
            f"a tile gets other scores, by {differ:.2g}, when more of the image lies around it: the network "
            "knows a pixel's place or the image's size, or draws at random, so it cannot be tiled; score the "
            "image in one pass, and ask audit(model, image)."
        )
