"""The proof that a patch decides: cut it out, run the network on it alone, and get the same scores.

patch_proof  the patch alone gives the scores of the whole image
influence    how much each pixel of a patch moves a score: the effective field
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pixelpatch.fields import Box, ReceptiveField, receptive_field
from pixelpatch.scores import check_image, score_map


class PatchProof(NamedTuple):
    """The scores of one pixel from the whole image, and from its patch alone."""

    box: Box  # the pixel's receptive field
    cut: Box  # what was cut out: the box, its start and end moved out until the network's strides line up
    patch: Tensor  # (1, C, h, w), that part of the image; the network saw of it what lies in the field
    pixel: tuple[int, int]  # the pixel's place (row, col) in the patch's own scores
    full_scores: Tensor  # (classes,)
    patch_scores: Tensor  # (classes,), with noise around the field
    max_abs_difference: float  # the largest of both scores, with noise and with other pixels around the field


class WholeImageError(ValueError):
    """A pixel's patch is the whole image, so there is nothing to cut out."""


@torch.no_grad()
def patch_proof(model: nn.Module, image: Tensor, row: int, col: int) -> PatchProof:
    """Cut the receptive field of one output pixel out of the image, and run the same network on it alone.

    If the network is a patch classifier in disguise, it says the same about that pixel. Every unit that
    influences the pixel has its own field inside the patch, so this holds with zero padding and at the
    image's borders too. But a layer with a stride must start counting at the same pixels as before, so the
    cut starts at a multiple of the total stride, and may be larger than the field. What lies between is
    filled with noise, and once more with another part of the image: a field too small would be found out.

    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
    >>> model = model.double().eval()
    >>> proof = patch_proof(model, torch.rand(1, 1, 64, 64, dtype=torch.float64), row=30, col=0)
    >>> proof.box
    Box(top=28, left=0, bottom=33, right=3)
    >>> proof.max_abs_difference < 1e-12
    True

    Args:
        model: network that gives images (1, C, H, W) scores (1, classes, h, w), taken in the mode it is in.
        image: (1, C, H, W).
        row, col: an output pixel.

    Returns:
        PatchProof.

    Raises:
        WholeImageError: a layer lets every pixel see the whole image; the message says which, and why.
        ValueError: the image or the scores have another shape or type, the pixel sees no input at all, or no
            part of the image gives it the patch that it has there.
        TypeError: the image, or what the network returns, is no tensor.
        IndexError: the pixel lies outside the output.
    """
    check_image(model, image)
    field = receptive_field(model, tuple(image.shape))
    field.box(row, col)  # an error for a pixel outside comes before any work
    check_local(field)
    return prove(model, image, field, score_map(model, image), row, col)


def prove(
    model: nn.Module, image: Tensor, field: ReceptiveField, scores: Tensor, row: int, col: int
) -> PatchProof:
    """`patch_proof` where the field of the image and all its scores (1, classes, h, w) are known.

    Where the image requires its gradient, `influence` can go back from the patch's scores to the patch.
    """
    check_local(field)
    box = field.box(row, col)
    if not any(box):
        raise ValueError(f"output pixel ({row}, {col}) sees no pixel of the image, so it has no patch.")
    cut, pixel, _ = cut_out(partial(receptive_field, model), field, Box(row, col, row + 1, col + 1))
    patch = image[..., cut.top : cut.bottom, cut.left : cut.right]
    full, seen = scores[0, :, row, col], field.mask(row, col)
    alone, other = (score_map(model, filled)[0, :, *pixel] for filled in _filled(patch, cut, image, seen))
    difference = max(float((full - each).detach().abs().max()) for each in (alone, other))
    return PatchProof(box, cut, patch, pixel, full, alone, difference)


def _filled(patch: Tensor, cut: Box, image: Tensor, seen: np.ndarray) -> tuple[Tensor, Tensor]:
    """A patch (1, C, h, w) with noise, and with other pixels of its image, where nothing is `seen` (H, W)."""
    window = (..., slice(cut.top, cut.bottom), slice(cut.left, cut.right))
    kept, plain = torch.from_numpy(seen[window]).to(image.device), image.detach()
    low, high, random = plain.min(), plain.max(), torch.Generator().manual_seed(0)
    noise = low + (high - low) * torch.rand(patch.shape, generator=random).to(plain)
    return torch.where(kept, patch, noise), torch.where(kept, patch, plain.flip(-2, -1)[window])


def cut_out(
    field_of: Callable[[tuple], ReceptiveField], field: ReceptiveField, part: Box
) -> tuple[Box, tuple[int, int], bool]:
    """The part of the image to cut out for some output pixels, and where they are in its scores.

    Whole strides are cut away before and behind the field: then every layer reads what it read before, and
    maps of different strides still fit each other where they meet. Where an output pixel is one stride
    (nothing is enlarged again), the patch may as well end where the field does. Where the field does not
    cover its own pixel, as in a network that crops its output, more strides are needed.

    Args:
        field_of: function that gives the receptive field for a shape (1, C, H, W).
        field: that of the whole image.
        part: Box of output pixels.

    Returns:
        the Box to cut out; the place (row, col) of the part's first pixel in its scores; and whether the
        part's first and last pixel see in it what they see in the image, and so do all between.

    Raises:
        ValueError: no part of the image has those pixels at all.
    """
    box = field.box_of(part)
    axes = [_axis(field, axis) for axis in (0, 1)]
    size = part.bottom - part.top - 1, part.right - part.left - 1  # from the first pixel to the last
    corners = [field.box(*part[:2]), field.box(part.bottom - 1, part.right - 1)]
    usual = None
    for more in (None, 0, 1, 2, 4, 8, 16, 32, 64):  # strides to add on all sides; None: end with the field
        if more is None and any(step != 1 for *_, step in axes):
            continue
        (top, bottom, row), (left, right, col) = (
            _aligned(start, stop, index, *axis, more)
            for start, stop, index, axis in zip(box[:2], box[2:], part[:2], axes, strict=True)
        )
        cut = Box(top, left, bottom, right)
        if more and cut == (0, 0, *field.shape[-2:]):
            break  # the whole image, which would prove nothing
        alone = _fields_in(cut, field_of, field, [(row, col), (row + size[0], col + size[1])])
        if alone == corners:
            ends = zip(cut[:2], cut[2:], field.shape[-2:], field.stride, strict=True)
            same = all(stride < size or (start, stop) == (0, size) for start, stop, size, stride in ends)
            return cut, (row, col), same  # where no pattern repeats, only the whole image is sure to do
        usual = usual or (alone and (cut, (row, col), False))
    if usual:  # which the proof will show to be wrong
        return usual
    raise ValueError(
        f"no part of the image gives output pixel {part[:2]} the patch that it has in the whole of it; score "
        "the image in one pass."
    )


def _axis(field, axis):
    """Along rows or columns: the image's size, the total stride, and the output pixels in one stride."""
    size, stride, step = field.shape[axis - 2], field.stride[axis], field.step[axis]
    if stride == size:  # no pattern, as with align_corners=True, where no cut is right: take the usual one
        stride = max(size // layer.shape[axis - 2] for layer in [field, *field.layers])
        step = stride * field.output_shape[axis - 2] // size
    return size, stride, step


def _aligned(start, stop, index, size, stride, step, more):
    """Start and end of the cut along one axis, and where output position index comes to lie."""
    start -= start % stride
    if more is not None:
        start = max(start - more * stride, 0)
        stop = min(stop + (size - stop) % stride + more * stride, size)
    before = start if step > 0 else size - stop  # a network that turns the image over counts from its end
    return start, stop, index - before // stride * abs(step)


def _fields_in(cut, field_of, field, pixels):
    """The boxes that pixels of the cut's own scores see, in the image; None if there are no such pixels."""
    try:
        alone = field_of((*field.shape[:2], cut.bottom - cut.top, cut.right - cut.left))
        found = [alone.box(*pixel) for pixel in pixels]
    except Exception:  # whatever the network raises where its maps do not fit each other
        return None
    return [Box(b.top + cut.top, b.left + cut.left, b.bottom + cut.top, b.right + cut.left) for b in found]


def check_local(field: ReceptiveField) -> None:
    """Raise WholeImageError, which names the layers, if a pixel sees the whole image."""
    if field.whole_image:
        layers = "; ".join(f"layer {layer!r}: {reason}" for layer, reason in field.whole_image[:2])
        if more := len(field.whole_image[2:]):
            layers += f"; and {more} more, see receptive_field(...).whole_image"
        raise WholeImageError(f"the patch of every pixel is the whole image, nothing to cut out ({layers}).")


def influence(score: Tensor, image: Tensor) -> Tensor:
    """How much each pixel of image (1, C, H, W) moves a score computed from it: the effective field.

    Luo et al., "Understanding the effective receptive field in deep convolutional neural networks", NIPS
    2016.

    >>> image = torch.rand(1, 1, 9, 9, requires_grad=True)
    >>> score = nn.Conv2d(1, 1, 3)(image)[0, 0, 3, 3]
    >>> int((influence(score, image) > 0).sum())
    9

    Args:
        score: one number, computed from `image`, which requires its gradient.

    Returns:
        (H, W) absolute gradient, summed over the image's channels, the largest being 1 (or all 0).
    """
    (slope,) = torch.autograd.grad(score, image)
    heat = slope[0].abs().sum(0)
    return heat / heat.max().clamp(min=torch.finfo(heat.dtype).tiny)


def effective_pixels(heat: Tensor, share: float) -> int:
    """The fewest pixels of an `influence` (H, W), not all 0, that have a share of it, from 0 to 1."""
    falling = heat.flatten().sort(descending=True).values.cumsum(0)
    return int(torch.searchsorted(falling, share * falling[-1])) + 1
