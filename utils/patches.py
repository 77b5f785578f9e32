"""Patches: the window around every pixel, the proof that it decides, and tiles that are as good as one pass.

sliding_window   scores every pixel from the window around it: the slow, literal way
random_patches   batches to train on: windows; `random_crops`, crops with a class for each pixel
patch_proof      the patch alone gives the scores of the whole image
tiled            the scores of a large image, tile by tile
influence        how much each pixel of a patch moves a score: the effective field
"""

import copy
from functools import cache, partial
from numbers import Integral
from typing import NamedTuple

import torch
from torch.func import functional_call
from torch.nn import functional as F

from utils import give_back, progress
from utils.receptive_field import Box, check_forward, check_output, receptive_field


def mirror(images, window):
    """Continue images (N, C, H, W) by half a window on every side, mirrored at their border pixels.

    Then every pixel, at the border too, has a full window around it. So did Ciresan et al. (NIPS 2012): the
    input is mirrored once, and nothing is padded inside the network.

    Raises:
        ValueError: the images are too small to be mirrored that far.
    """
    half, (height, width) = window // 2, images.shape[-2:]
    if min(height, width) <= half:
        raise ValueError(
            f"the image is {height} x {width}, expected more than {half} pixels a side to mirror it for a "
            f"window of {window}; take a smaller window or a larger image."
        )
    return F.pad(images, (half, half, half, half), mode="reflect")


def windows(images, window, stride=1):
    """Every window of images (N, C, H, W): a view (N, rows, columns, C, window, window), no pixel copied."""
    return images.unfold(2, window, stride).unfold(3, window, stride).permute(0, 2, 3, 1, 4, 5)


@torch.inference_mode()
def sliding_window(classifier, image, window, stride=1, batch=32):
    """Score every pixel by cutting out the window around it: the slow, literal way.

    Ciresan et al., "Deep neural networks segment neuronal membranes in electron microscopy images", NIPS
    2012.

    Args:
        classifier: network in eval mode that gives patches (N, C, window, window) scores (N, classes).
        image: (1, C, H, W). Its borders are mirrored, so that every pixel has a window.
        window: side of the window in pixels, odd.
        stride: score only every stride-th row and column.
        batch: windows classified at a time; more need more memory.

    Returns:
        scores (1, classes, rows, columns): one for every pixel where stride is 1.

    Raises:
        ValueError: the image has another shape or is too small to be mirrored, or the window is even.
    """
    check_image(classifier, image)
    if window % 2 == 0:
        raise ValueError(f"window is {window}, expected an odd number, so that one pixel is in the middle.")
    views = windows(mirror(image, window), window, stride)[0]
    rows, columns = views.shape[:2]
    network = copy.deepcopy(classifier).to(memory_format=torch.channels_last)  # convolves twice as fast
    scores = None  # later one block for all: small pieces, left between large ones, would scatter the memory
    with progress(total=rows * columns, unit="patch", desc=f"sliding a {window} x {window} window") as bar:
        for numbers in torch.arange(rows * columns).split(batch):
            patches = views[numbers // columns, numbers % columns]
            answers = network(patches.contiguous(memory_format=torch.channels_last))
            if scores is None:
                scores = answers.new_empty(rows * columns, answers.shape[1])
            scores[numbers] = answers
            bar.update(len(patches))
    return scores.T.reshape(1, -1, rows, columns)


def random_patches(pictures, window, batch=256):
    """A source of training batches: windows around random pixels, and the class of each middle pixel.

    All windows of one batch are turned or flipped alike: tissue has no upright direction.

    Args:
        pictures: `utils.data.Pictures`; their borders are mirrored.
        window: side of the window in pixels, odd.
        batch: number of windows, N.

    Returns:
        function of a torch.Generator that gives patches (N, C, window, window) and classes (N,).
    """
    views = windows(mirror(pictures.images, window), window)

    def draw(random):
        n, row, column = (torch.randint(top, (batch,), generator=random) for top in views.shape[:3])
        (patches,) = _turned(random, views[n, row, column])
        return patches, pictures.labels[n, row, column]

    return draw


def random_crops(pictures, size, batch=8, margin=0, bend=0):
    """A source of training batches: crops of the pictures with the classes of their pixels.

    All crops of one batch are turned or flipped alike. With `bend`, about half of them are bent as well, with
    their labels: random displacements at 3 x 3 points, continued smoothly between them (Ronneberger, Fischer
    and Brox, "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015, section 3.1).
    Bending blurs a little; the other half stays as sharp as the pictures that a network will be asked about.

    Args:
        pictures: `utils.data.Pictures`; the labels may hold several numbers for each pixel, (N, K, H, W).
        size: side of the labelled square in pixels.
        batch: number of crops, N.
        margin: pixels of image around the labelled square, mirrored at the picture's border: what a network
            without padding needs, half its window.
        bend: standard deviation of the displacements in pixels.

    Returns:
        function of a torch.Generator that gives images (N, C, size + 2 margin, size + 2 margin) and labels
        (N, size, size) or (N, K, size, size).
    """
    labels = pictures.labels.float()  # which can be mirrored and bent
    labels = labels[:, None] if labels.ndim == 3 else labels
    images, labels = (
        windows(mirror(maps, 2 * margin + 1), size + 2 * margin) for maps in (pictures.images, labels)
    )

    def draw(random):
        n, row, column = (torch.randint(top, (batch,), generator=random) for top in labels.shape[:3])
        crops = _turned(random, images[n, row, column], labels[n, row, column])
        image, label = _bent(random, bend, *crops) if bend else crops
        label = label[..., margin : margin + size, margin : margin + size]
        label = label[:, 0] if pictures.labels.ndim == 3 else label
        return image, label.to(pictures.labels.dtype)

    return draw


def _turned(random, *squares):
    """The same random one of the eight turns and flips of a square, for all of (..., S, S)."""
    quarter_turns, flip = torch.randint(4, (), generator=random), torch.randint(2, (), generator=random)
    turned = (torch.rot90(square, int(quarter_turns), (-2, -1)) for square in squares)
    return tuple(square.flip(-1) if flip else square for square in turned)


def _bent(random, bend, images, labels):
    """Images (N, C, S, S) and labels (N, K, S, S), about half of them displaced by the same smooth noise."""
    n, side = len(images), images.shape[-1]
    chosen = torch.rand(n, 1, 1, 1, generator=random) < 0.5
    knots = chosen * torch.randn(n, 2, 3, 3, generator=random) * bend * 2 / (side - 1)  # -1 to 1 is the side
    moved = F.interpolate(knots, (side, side), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    steps = torch.linspace(-1, 1, side)
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1) + moved
    return tuple(
        F.grid_sample(maps.float(), grid, mode, padding_mode="reflection", align_corners=True).to(maps.dtype)
        for maps, mode in ((images, "bicubic"), (labels, "nearest"))
    )


class PatchProof(NamedTuple):
    """The scores of one pixel from the whole image, and from its patch alone."""

    box: Box  # the pixel's receptive field
    cut: Box  # what was cut out: the box, its start and end moved out until the network's strides line up
    patch: torch.Tensor  # (1, C, h, w), that part of the image
    pixel: tuple[int, int]  # the pixel's place (row, col) in the patch's own scores
    full_scores: torch.Tensor  # (classes,)
    patch_scores: torch.Tensor  # (classes,)
    max_abs_difference: float


class WholeImageError(ValueError):
    """A pixel's patch is the whole image, so there is nothing to cut out."""


@torch.no_grad()
def patch_proof(model, image, row, col):
    """Cut the receptive field of one output pixel out of the image, and run the same network on it alone.

    If the network is a patch classifier in disguise, it says the same about that pixel. Every unit that
    influences the pixel has its own field inside the patch, so this holds with zero padding and at the
    image's borders too. But a layer with a stride must start counting at the same pixels as before, so the
    patch starts at a multiple of the total stride.

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
    _check_local(field)
    proof = prove(model, image, field, score_map(model, image), row, col)
    give_back()
    return proof


def prove(model, image, field, scores, row, col):
    """`patch_proof` where the field (`utils.receptive_field`) and all scores (1, classes, h, w) are known.

    Where the image requires its gradient, `influence` can go back from the patch's scores to the patch.
    """
    _check_local(field)
    box = field.box(row, col)
    if not any(box):
        raise ValueError(f"output pixel ({row}, {col}) sees no pixel of the image, so it has no patch.")
    cut, pixel, _ = cut_out(partial(receptive_field, model), field, Box(row, col, row + 1, col + 1))
    patch = image[..., cut.top : cut.bottom, cut.left : cut.right]
    full = scores[0, :, row, col]
    alone = score_map(model, patch)[0, :, *pixel]
    return PatchProof(box, cut, patch, pixel, full, alone, float((full - alone).detach().abs().max()))


@torch.no_grad()
def tiled(model, image, tile):
    """Score a large image tile by tile: the scores of one pass over all of it, with the memory of a tile.

    The overlap-tile strategy of Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical
    image segmentation", MICCAI 2015, section 2. Each tile of the output is computed from the part of the
    image that its pixels can see: the halo is their receptive field, and the cut starts at a multiple of the
    total stride. So it is exact, with zero padding and at the image's borders too. (Fields show which pixels
    a score depends on, not how: of a network that knows a pixel's place in the image, or the image's size,
    or that drops out at random, they cannot tell that it must not be cut.)

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
    _check_local(field)
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
    give_back()
    return scores


def score_map(model, image):
    """The scores (1, classes, h, w) of image (1, C, H, W); (1, classes, 1, 1) of one that classifies it.

    Neither image nor model changes: a model may write to its image, and batch norm does to its buffers.
    """
    _check_devices(model, image)
    check_forward(model)
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    scores = functional_call(model, buffers, (image.clone(),))
    scores = scores["out"] if isinstance(scores, dict) and "out" in scores else scores
    check_output(scores)
    scores = scores[..., None, None] if scores.ndim == 2 else scores
    if scores.ndim != 4 or len(scores) != 1:
        raise ValueError(
            f"the network's output has shape {tuple(scores.shape)}, expected (1, classes, h, w)."
        )
    return scores


def rounding(dtype):
    """What rounding may cost a score, in standard deviations of all scores; generous, for deep networks."""
    return {torch.float64: 1e-9, torch.float32: 1e-3}.get(dtype, 0.1)


def cut_out(field_of, field, part):
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


def check_image(model, image):
    if not isinstance(image, torch.Tensor):
        raise TypeError(f"the image is a {type(image).__name__}, expected a tensor (1, C, H, W).")
    if image.ndim != 4 or len(image) != 1:
        raise ValueError(f"the image has shape {tuple(image.shape)}, expected (1, C, H, W); try image[None].")
    if not image.is_floating_point():
        raise ValueError(f"the image is {image.dtype}, expected floats; make it image.float() / 255.")
    kind = next((weight.dtype for weight in model.parameters()), image.dtype)
    if image.dtype != kind:
        raise ValueError(f"the image is {image.dtype}, the network {kind}; make it image.to({kind}).")
    _check_devices(model, image)


def _check_devices(model, image):
    device = next((weight.device for weight in model.parameters()), image.device)
    if "meta" in (device.type, image.device.type):
        raise ValueError(
            f"the image is on {image.device}, the network on {device}: the meta device holds shapes and no "
            "values, so only receptive_field works there; load image and network to a device with memory."
        )
    if image.device != device:
        raise ValueError(
            f"the image is on {image.device}, the network on {device}; make it image.to({str(device)!r})."
        )


def _check_local(field):
    if field.whole_image:
        layers = "; ".join(f"layer {layer!r}: {reason}" for layer, reason in field.whole_image[:2])
        if more := len(field.whole_image[2:]):
            layers += f"; and {more} more, see receptive_field(...).whole_image"
        raise WholeImageError(f"the patch of every pixel is the whole image, nothing to cut out ({layers}).")


def influence(score, image):
    """How much each pixel of image (1, C, H, W) moves a score computed from it: the effective field.

    Luo et al., "Understanding the effective receptive field in deep convolutional neural networks", NIPS
    2016.

    Returns:
        (H, W) absolute gradient, summed over the image's channels, the largest being 1 (or all 0).
    """
    (slope,) = torch.autograd.grad(score, image)
    heat = slope[0].abs().sum(0)
    return heat / heat.max().clamp(min=torch.finfo(heat.dtype).tiny)


def effective_pixels(heat, share):
    """The fewest pixels of an `influence` (H, W), not all 0, that have a share of it, from 0 to 1."""
    falling = heat.flatten().sort(descending=True).values.cumsum(0)
    return int(torch.searchsorted(falling, share * falling[-1])) + 1
