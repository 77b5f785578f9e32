"""Bend a map, and bend it back: the two layers of a Dense Transformer Network.

    positions = (thin_plate(4, 32, 32) @ targets).view(-1, 32, 32, 2)
    bent = encode(maps, positions)     each node reads the map where its position is
    back = decode(bent, positions)     each node writes its value back there

Jun Li, Yongjun Chen, Lei Cai, Ian Davidson and Shuiwang Ji, "Dense transformer networks", 2017 (arXiv
1705.08881). A position is (x, y), and -1 and 1 are the centres of the first and the last pixel, as in
`grid_sample` with align_corners=True.
"""

import torch
from torch.nn import functional as F

EMPTY = 1e-5  # a pixel of less weight than this was written by nobody


def lattice(height, width):
    """The positions of a grid's nodes, row by row: (height * width, 2) float64 between -1 and 1."""
    y, x = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in (height, width))
    return torch.cartesian_prod(y, x).flip(1)


def thin_plate(points, height, width):
    """The matrix M with which control points bend a grid: positions = M @ targets.

    A thin-plate spline is the surface through given heights that bends least (Bookstein, "Principal warps:
    thin-plate splines and the decomposition of deformations", IEEE PAMI 11, 1989); here one such surface
    says x, another y. It is linear in the targets, so M is the same for every image.

    Args:
        points: control points along one side; they form a lattice from -1 to 1, numbered row by row.
        height, width: size of the grid.

    Returns:
        (height * width, points ** 2) float64.

    Raises:
        ValueError: there are fewer than two points a side, too few to say where a plane lies.
    """
    if points < 2:
        raise ValueError(f"points is {points}, expected at least 2 along a side; the paper's code has 4.")
    control = lattice(points, points)

    def basis(at):  # 1, x, y, and r^2 log r for the distance r to each control point
        squares = (at[:, None] - control).square().sum(2)
        return torch.cat([torch.ones_like(at[:, :1]), at, torch.xlogy(squares, squares) / 2], dim=1)

    through = basis(control)  # the surface goes through its targets, and is flat far away
    flat = torch.cat([torch.zeros(3, 3, dtype=torch.float64), through[:, :3].T], dim=1)
    solution = torch.linalg.inv(torch.cat([through, flat]))
    return basis(lattice(height, width)).mm(solution[:, : points**2])


def encode(maps, positions):
    """Bend maps: every node takes the value at its position, between four pixels.

    Args:
        maps: (N, C, H, W).
        positions: (N, H, W, 2); those outside -1 to 1 take the value of the border.

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: the positions have another shape.
    """
    _check(maps, positions)
    return F.grid_sample(maps, positions, padding_mode="border", align_corners=True)


def decode(maps, positions):
    """Bend maps back: every node adds its value to the four pixels around its position; divided by weight.

    This is the transpose of `encode`, normalised, and no inverse: what several nodes wrote is averaged. A
    pixel that no node came near keeps the value that the maps have there.

    Arguments, result and errors as in `encode`.
    """
    _check(maps, positions)
    index, weight = corners(positions)
    own = maps.flatten(2)
    written = (own[:, :, None] * weight[:, None]).flatten(2)  # (N, C, 4 * nodes)
    index, weight = index.flatten(1)[:, None], weight.flatten(1)[:, None]
    total = own.new_zeros(own.shape).scatter_add(2, index.expand_as(written), written)
    weights = weight.new_zeros(own[:, :1].shape).scatter_add(2, index, weight)
    mean = total / weights.clamp(min=EMPTY)
    return torch.where(weights > EMPTY, mean, own).view_as(maps)


def corners(positions):
    """The four pixels around each position (N, H, W, 2), and the weights with which they are read.

    Returns:
        index (N, 4, H * W) of pixels counted row by row, and weight (N, 4, H * W); weights add up to 1.
    """
    height, width = positions.shape[1:3]
    x, y = positions.flatten(1, 2)[:, None].unbind(-1)  # (N, 1, H * W)
    x, y = ((at.clamp(-1, 1) + 1) / 2 * (n - 1) for at, n in ((x, width), (y, height)))
    left, top = x.detach().floor().clamp(max=width - 2), y.detach().floor().clamp(max=height - 2)
    right, down = x - left, y - top  # how far the position is from there, 0 to 1
    corner = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]], dtype=x.dtype, device=x.device)
    row, col = corner[..., None]  # the four corners
    index = (top + row) * width + left + col
    weight = (row * down + (1 - row) * (1 - down)) * (col * right + (1 - col) * (1 - right))
    return index.long(), weight


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
    """A source of training batches, as `utils.patches.random_crops` gives, through a lens for each image."""
    return lambda random: through_lens(random, *draw(random))


def _check(maps, positions):
    images, _, height, width = maps.shape
    if positions.shape != (images, height, width, 2):
        raise ValueError(
            f"the positions have shape {tuple(positions.shape)}, expected {(images, height, width, 2)}: an x "
            "and a y for every node; view them so, or expand one warp to all images."
        )
    if min(height, width) < 2:
        raise ValueError(f"the maps are {height} x {width}, expected at least 2 x 2; enlarge the image.")
