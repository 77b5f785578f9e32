"""Patches: the window around every pixel, and what a classifier says about each."""

import torch
from torch.nn import functional as F

from utils import progress


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
def sliding_window(classifier, image, window, stride=1, batch=64):
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
    if image.ndim != 4 or len(image) != 1:
        raise ValueError(f"the image has shape {tuple(image.shape)}, expected (1, C, H, W); try image[None].")
    if window % 2 == 0:
        raise ValueError(f"window is {window}, expected an odd number, so that one pixel is in the middle.")
    views = windows(mirror(image, window), window, stride)[0]
    rows, columns = views.shape[:2]
    scores = []
    with progress(total=rows * columns, unit="patch", desc=f"sliding a {window} x {window} window") as bar:
        for numbers in torch.arange(rows * columns).split(batch):
            patches = views[numbers // columns, numbers % columns]
            scores.append(classifier(patches.contiguous(memory_format=torch.channels_last)))
            bar.update(len(patches))
    return torch.cat(scores).T.reshape(1, -1, rows, columns)


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


def random_crops(pictures, size, batch=8, margin=0):
    """A source of training batches: crops of the pictures with the classes of their pixels.

    Args:
        pictures: `utils.data.Pictures`.
        size: side of the labelled square in pixels.
        batch: number of crops, N.
        margin: pixels of image around the labelled square, mirrored at the picture's border: what a network
            without padding needs, half its window.

    Returns:
        function of a torch.Generator that gives images (N, C, size + 2 margin, size + 2 margin) and classes
        (N, size, size).
    """
    images = windows(mirror(pictures.images, 2 * margin + 1), size + 2 * margin)
    labels = pictures.labels.unfold(1, size, 1).unfold(2, size, 1)

    def draw(random):
        n, row, column = (torch.randint(top, (batch,), generator=random) for top in labels.shape[:3])
        return _turned(random, images[n, row, column], labels[n, row, column])

    return draw


def _turned(random, *squares):
    """The same random one of the eight turns and flips of a square, for all of (..., S, S)."""
    quarter_turns, flip = torch.randint(4, (), generator=random), torch.randint(2, (), generator=random)
    turned = (torch.rot90(square, int(quarter_turns), (-2, -1)) for square in squares)
    return tuple(square.flip(-1) if flip else square for square in turned)
