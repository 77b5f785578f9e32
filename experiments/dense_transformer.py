"""The Dense Transformer Network, and its two layers: bend a map, and bend it back.

    positions = (thin_plate(4, 32, 32) @ targets).view(-1, 32, 32, 2)
    bent = encode(maps, positions)     each node reads the map where its position is
    back = decode(bent, positions)     each node writes its value back there

Jun Li, Yongjun Chen, Lei Cai, Ian Davidson and Shuiwang Ji, "Dense transformer networks", 2017 (arXiv
1705.08881). A position is (x, y), and -1 and 1 are the centres of the first and the last pixel, as in
`grid_sample` with align_corners=True.
"""

import torch
from torch import nn
from torch.nn import functional as F

from utils.networks import UNet, check_divisible, he_initialise

EMPTY = 1e-5  # a pixel of less weight than this was written by nobody
NEAREST = 0.999  # how near to the border, at 1, control points start


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


def _check(maps, positions):
    images, _, height, width = maps.shape
    if positions.shape != (images, height, width, 2):
        raise ValueError(
            f"the positions have shape {tuple(positions.shape)}, expected {(images, height, width, 2)}: an x "
            "and a y for every node; view them so, or expand one warp to all images."
        )
    if min(height, width) < 2:
        raise ValueError(f"the maps are {height} x {width}, expected at least 2 x 2; enlarge the image.")


class DenseTransformerNet(UNet):
    """A U-Net that bends its maps for a while: (N, channels, H, W) -> scores (N, classes, H, W).

    Li, Chen, Cai, Davidson and Ji, "Dense transformer networks", 2017 (arXiv 1705.08881), after the released
    code. Half way through one level of the way down a localisation network looks at the whole map and says
    where 16 control points go, a thin-plate spline carries the rest of the map along (`encode`),
    and half way through the same level of the way up all is bent back (`decode`). What lies
    between, the deeper levels and this level's skip, sees the bent map.

    A control point goes to the hyperbolic tangent of what the localisation network says, as in the released
    code, so that none can leave the map. Before training none moves by more than a thousandth of half the
    map. (The original starts far from there; its localisation network takes the whole map unpooled, and one
    size only.)

    Args:
        depth, width, widest, classes, channels: as in UNet.
        level: of the warp; maps are 2 to the level times smaller than the image, 8 times as in the code.
        points: control points along one side.
        bounded: False adds what the localisation network says to the lattice, and control points may go
            anywhere. That is ours, not the original: a trial of what the bound is good for.

    Raises:
        ValueError: there is no such level on both ways, or the image, or a given warp, has a size that does
            not fit.
    """

    def __init__(self, depth=4, width=8, classes=3, channels=1, widest=24, level=3, points=4, bounded=True):
        super().__init__(depth, width, classes, channels, widest=widest)
        if not 0 <= level < depth:
            raise ValueError(f"level is {level}, expected one of 0 to {depth - 1}, which are on both ways.")
        self.level, self.points, self.bounded = level, points, bounded
        self.localisation = nn.Sequential(
            nn.AdaptiveAvgPool2d(points),
            nn.Flatten(),
            nn.Linear(min(width * 2**level, widest) * points**2, 20),
            nn.Tanh(),
            nn.Linear(20, 2 * points**2),
        )
        he_initialise(self.localisation)
        nn.init.zeros_(self.localisation[-1].weight)
        if bounded:  # tanh never reaches the border, -1 and 1
            self.localisation[-1].bias.data = (NEAREST * lattice(points, points)).atanh().flatten().float()

    def forward(self, image, positions=None):
        """Scores of an image, bent as the network predicts, or by given positions (N, h, w, 2)."""
        check_divisible(image, 2 ** len(self.up))
        seen = []
        for level, stage in enumerate(self.down):
            image = self.pool(image) if seen else image
            if level == self.level:
                image = stage[: len(stage) // 2](image)
                positions = self.predicted(image) if positions is None else positions
                image = stage[len(stage) // 2 :](encode(image, positions))
            else:
                image = stage(image)
            seen.append(image)
        image = seen.pop()
        for up, join in zip(self.up, self.join, strict=True):
            image = torch.cat([seen.pop(), up(image)], dim=1)
            if len(seen) == self.level:
                image = decode(join[: len(join) // 2](image), positions)
                image = join[len(join) // 2 :](image)
            else:
                image = join(image)
        return self.scores(image)

    def predicted(self, maps):
        """The positions (N, h, w, 2) that the localisation network chooses for maps (N, C, h, w)."""
        height, width = maps.shape[-2:]
        spline = thin_plate(self.points, height, width).to(maps)
        said = self.localisation(maps).view(len(maps), -1, 2)
        targets = said.tanh() if self.bounded else lattice(self.points, self.points).to(maps) + said
        return spline.expand(len(maps), -1, -1).bmm(targets).view(-1, height, width, 2)

    def positions(self, image):
        """The warp (N, h, w, 2) that the network predicts for images (N, channels, H, W)."""
        check_divisible(image, 2 ** len(self.up))
        for stage in self.down[: self.level]:
            image = self.pool(stage(image))
        stage = self.down[self.level]
        return self.predicted(stage[: len(stage) // 2](image))


class GivenWarp(nn.Module):
    """A DenseTransformerNet that no longer predicts, but bends by given positions (1, h, w, 2).

    So it is for one size of image, and every pixel has a patch of its own: no square, and seldom the whole
    image.
    """

    def __init__(self, network, positions):
        super().__init__()
        self.network = network
        self.register_buffer("warp", positions.detach().clone())

    def forward(self, image):
        return self.network(image, self.warp.expand(len(image), -1, -1, -1))
