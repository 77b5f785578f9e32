"""A network that is also asked about pairs of pixels: chapter 8c.

For each pixel it says whether the pixel to the right, the one below, and those nine pixels to the right and
below lie in the same cell: its *affinities*. Lee et al., "Superhuman accuracy on the SNEMI3D connectomics
challenge", 2017, learn near affinities to cut the picture up by, and far ones as a second task.
"""

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from utils.networks import UNet

PARTNERS = (0, 1), (1, 0), (0, 9), (9, 0)  # rows down and columns right


def network():
    """A small U-Net with six scores: cell interior, membrane, and a log-odds for each of PARTNERS."""
    return UNet(depth=2, width=5, classes=2 + len(PARTNERS), batch_norm=True)


def with_cells(pictures):
    """`utils.data.Pictures` with two labels (N, 2, H, W): the class and the cell's number, 0 in membranes."""
    cells = [torch.from_numpy(ndimage.label(label.numpy() != 1)[0]).long() for label in pictures.labels]
    return pictures._replace(labels=torch.stack([pictures.labels, torch.stack(cells)], dim=1))


def beside(maps, partner):
    """The value at each pixel's partner: (..., H, W) -> the same; -1 where the partner is outside."""
    down, right = partner
    return F.pad(maps, (0, right, 0, down), value=-1)[..., down:, right:]


def loss(scores, labels):
    """Cross-entropy of the classes, plus that of all pairs: scores (N, 6, H, W), labels (N, 2, H, W)."""
    classes, cells = labels.unbind(1)
    total = F.cross_entropy(scores[:, :2], classes)
    for score, partner in zip(scores[:, 2:].unbind(1), PARTNERS, strict=True):
        other = beside(cells, partner)
        together = ((cells == other) & (cells > 0)).float()
        inside = other >= 0
        total = total + F.binary_cross_entropy_with_logits(score[inside], together[inside])
    return total


def joined(near, threshold):
    """Cells (H, W), numbered from 1, from the scores (2, H, W) of the partners to the right and below.

    Two neighbours are joined where their score exceeds the threshold, and a cell is what hangs together.
    """
    right, below = (near > threshold).numpy()
    height, width = right.shape
    links = np.zeros((2 * height - 1, 2 * width - 1), dtype=bool)  # pixels, and what lies between them
    links[::2, ::2] = True
    links[::2, 1::2], links[1::2, ::2] = right[:, :-1], below[:-1]
    return ndimage.label(links)[0][::2, ::2]
