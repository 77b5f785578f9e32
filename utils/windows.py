"""The window around every pixel: to score an image the slow, literal way, and to train on.

sliding_window   scores every pixel from the window around it
random_patches   batches to train on: windows around random pixels, and the class of each
random_crops     batches to train on: crops, and the class of each of their pixels
"""

import copy

import torch
from torch.nn import functional as F

from pixelpatch.scores import check_image
from utils import progress


def mirror(images, window):
    """Continue images (N, C, H, W) by half a window on every side, mirrored at their border pixels.

    Then every pixel, at the border too, has a full window around it. So did Ciresan et al. (NIPS 2012): the
    input is mirrored once, and nothing is padded inside the network.

    Raises ValueError where the images are too small to be mirrored that far.
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

    Returns scores (1, classes, rows, columns). Raises ValueError where the image has another shape or is too
    small to be mirrored, or the window is even.
    """
    check_image(classifier, image)
    if window % 2 == 0:
        raise ValueError(f"window is {window}, expected an odd number, so that one pixel is in the middle.")
    views = windows(mirror(image, window), window, stride)[0]
    network = copy.deepcopy(classifier).to(memory_format=torch.channels_last)  # convolves twice as fast
    scores = []
    for row in progress(views, unit="row", desc=f"sliding a {window} x {window} window"):
        batches = (patches.contiguous(memory_format=torch.channels_last) for patches in row.split(batch))
        scores.append(torch.cat([network(patches) for patches in batches]))
    return torch.stack(scores).permute(2, 0, 1)[None]


def random_patches(pictures, window, batch=256):
    """A source of training batches: windows around random pixels, and the class of each middle pixel.

    All windows of one batch are turned or flipped alike: tissue has no upright direction. The borders of the
    `utils.data.Pictures` are mirrored.

    Returns a function of a torch.Generator that gives patches (N, C, window, window) and classes (N,).
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

    Returns a function of a torch.Generator that gives images (N, C, size + 2 margin, size + 2 margin) and
    labels (N, size, size) or (N, K, size, size).
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
