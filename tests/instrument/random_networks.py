"""Random networks, and the truth about their receptive fields from automatic differentiation.

A network is a list of steps such as ("conv", {...}); `run` is its forward pass, with Python control flow on
shapes: a step that does not fit the map it meets is left out. With `truth=True`, every step is linear with
positive weights, so that a gradient is zero only where nothing is read: pooling sums its window, unpooling
spreads each value over the window, statistics add a mean. Gradients are then float64 and exact.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn

LARGEST = 20  # maps are kept small, so that every output pixel can be checked


def draws(**fields):
    return st.fixed_dictionaries(fields)


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


MODES = st.sampled_from(["constant", "constant", "reflect", "replicate", "circular"])
LEAVES = {
    "conv": draws(
        kernel=pairs(1, 4), stride=pairs(1, 3), padding=pairs(0, 3), dilation=pairs(1, 3),
        groups=st.sampled_from([1, 2]),
    ),
    "same": draws(kernel=pairs(1, 4), dilation=pairs(1, 3)),
    "padded": draws(kernel=st.just((3, 3)), mode=MODES, ends=st.tuples(*[st.integers(0, 3)] * 4)),
    "crop": draws(ends=st.tuples(*[st.integers(-2, 2)] * 4)),
    "transposed": draws(
        kernel=pairs(1, 4), stride=pairs(1, 3), padding=pairs(0, 2), extra=pairs(0, 2), dilation=pairs(1, 2)
    ),
    "maxpool": draws(
        kernel=pairs(1, 3), stride=pairs(1, 3), padding=pairs(0, 1), dilation=pairs(1, 2), ceil=st.booleans()
    ),
    "avgpool": draws(
        kernel=pairs(1, 3), stride=pairs(1, 3), padding=pairs(0, 1), ceil=st.booleans(), include=st.booleans()
    ),
    "adaptive": draws(size=pairs(2, 6), kind=st.sampled_from(["max", "avg"])),
    "resize": draws(
        mode=st.sampled_from(["nearest", "nearest-exact", "bilinear", "bicubic"]),
        size=st.one_of(pairs(2, 16), st.sampled_from([0.5, 0.7, 1.5, 1.7, 2.0, 2.5])),
        corners=st.booleans(), recompute=st.sampled_from([None, True]),
    ),
    "slice": draws(start=pairs(0, 2), step=pairs(1, 3)),
    "flip": draws(dims=st.sampled_from([[2], [3], [2, 3]])),
    "roll": draws(shifts=pairs(-3, 3)),
    "shuffle": draws(factor=st.sampled_from([2, 3])),
    "unshuffle": draws(factor=st.sampled_from([2, 3])),
    "repeat_each": draws(factor=pairs(1, 2)),
    "last": draws(),
    "turned": draws(kernel=pairs(1, 3)),
    "interleave": draws(first=st.booleans()),
    "pointwise": draws(),
    "tokens": draws(),
    "strip": draws(dim=st.sampled_from([2, 3])),
    "windows": draws(size=pairs(1, 4), channels=st.booleans()),
}  # fmt: skip
RARE = {"global": draws(kind=st.sampled_from(["excite", "instance", "group", "softmax"]))}


def steps(depth: int):
    often = ["transposed", "resize", "maxpool", "padded"]
    leaf = st.one_of([st.tuples(st.just(kind), LEAVES[kind]) for kind in [*LEAVES, *often]])
    if depth == 0:
        return st.lists(leaf, max_size=3)
    inner = steps(depth - 1)
    merges = st.sampled_from(["add", "cat", "rows", "columns"])
    branches = draws(parts=st.lists(inner, min_size=2, max_size=3), merge=merges)
    unpooled = draws(kernel=pairs(1, 3), stride=pairs(1, 3), padding=pairs(0, 1), inner=LEAVES["same"])
    rare = st.one_of([st.tuples(st.just(kind), fields) for kind, fields in RARE.items()])
    step = st.one_of(
        leaf, leaf, leaf, st.tuples(st.just("branch"), branches), st.tuples(st.just("branch"), branches),
        st.tuples(st.just("hourglass"), draws(inner=inner)), st.tuples(st.just("unpool"), unpooled),
    )  # fmt: skip
    return st.lists(st.one_of([step] * 12 + [rare]), min_size=2, max_size=5)


networks = st.tuples(st.tuples(st.integers(5, 13), st.integers(5, 13)), steps(2))


def weights(*shape):
    """Positive, and no two ratios alike."""
    count = torch.arange(math.prod(shape), dtype=torch.float64)
    return (1 + 0.3 * torch.sin(count**2)).reshape(shape)


def mixed(x, channels=2):
    return F.conv2d(x, weights(channels, x.shape[1], 1, 1))


def unsigned(resample, x):
    """Bicubic sampling by the sizes of its weights: two of opposite signs cannot undo each other."""
    height, width = x.shape[2:]
    one_row = torch.eye(height, dtype=x.dtype)[:, None, :, None].expand(-1, -1, -1, width)
    one_column = torch.eye(width, dtype=x.dtype)[:, None, None].expand(-1, -1, height, -1)
    rows, columns = resample(one_row)[:, 0, :, 0].T, resample(one_column)[:, 0, 0].T
    return rows.abs() @ x @ columns.abs().T


def fits(x, kernel, padding, dilation):
    sizes = zip(x.shape[2:], kernel, padding, dilation, strict=True)
    return all(n + 2 * p > d * (k - 1) for n, k, p, d in sizes)


class Net(nn.Module):
    def __init__(self, program, truth=False):
        super().__init__()
        self.program, self.truth = program, truth
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x):
        return mixed(self.run(mixed(x * self.scale), self.program), 1)

    def run(self, x, program):
        for kind, fields in program:
            y = getattr(self, kind)(x, **fields)
            x = y if min(y.shape[2:]) >= 1 and max(y.shape[2:]) <= LARGEST else x
        return x

    def conv(self, x, kernel, stride, padding, dilation, groups):
        if any(
            n + 2 * p <= d * (k - 1)
            for n, p, d, k in zip(x.shape[2:], padding, dilation, kernel, strict=True)
        ):
            return x
        return F.conv2d(x, weights(2, 2 // groups, *kernel), None, stride, padding, dilation, groups)

    def same(self, x, kernel, dilation):
        return F.conv2d(x, weights(2, 2, *kernel), None, 1, "same", dilation)

    def padded(self, x, kernel, mode, ends):
        if max(ends) >= min(x.shape[2:]):
            return x
        return self.conv(F.pad(x, ends, mode=mode), kernel, 1, (0, 0), (1, 1), 1)

    def crop(self, x, ends):
        return F.pad(x, ends) if min(x.shape[2:]) > 5 else x

    def transposed(self, x, kernel, stride, padding, extra, dilation):
        extra = [min(e, max(s, d) - 1) for e, s, d in zip(extra, stride, dilation, strict=True)]
        size = [
            (n - 1) * s - 2 * p + d * (k - 1) + e + 1
            for n, s, p, d, k, e in zip(x.shape[2:], stride, padding, dilation, kernel, extra, strict=True)
        ]
        if min(size) < 1:
            return x
        return F.conv_transpose2d(x, weights(2, 2, *kernel), None, stride, padding, extra, 1, dilation)

    def window_sum(self, x, size, kernel, stride, padding, dilation):
        """Sums over the windows of a pooling that gives `size`."""
        x = F.pad(x, (padding[1], LARGEST + 9, padding[0], LARGEST + 9))
        y = F.conv2d(
            x, torch.ones(x.shape[1], 1, *kernel, dtype=x.dtype), None, stride, 0, dilation, x.shape[1]
        )
        return y[:, :, : size[0], : size[1]]

    def maxpool(self, x, kernel, stride, padding, dilation, ceil):
        padding = [min(p, k // 2) for p, k in zip(padding, kernel, strict=True)]
        if any(
            n + 2 * p <= d * (k - 1)
            for n, p, d, k in zip(x.shape[2:], padding, dilation, kernel, strict=True)
        ):
            return x
        y = F.max_pool2d(x, kernel, stride, padding, dilation, ceil)
        return self.window_sum(x, y.shape[2:], kernel, stride, padding, dilation) if self.truth else y

    def avgpool(self, x, kernel, stride, padding, ceil, include):
        padding = [min(p, k // 2) for p, k in zip(padding, kernel, strict=True)]
        if min(x.shape[2:]) < 3:
            return x
        return F.avg_pool2d(x, kernel, stride, padding, ceil, include)

    def adaptive(self, x, size, kind):
        pool = F.adaptive_max_pool2d if kind == "max" and not self.truth else F.adaptive_avg_pool2d
        return pool(x, size)

    def resize(self, x, mode, size, corners, recompute):
        if isinstance(size, float):
            if size * max(x.shape[2:]) > LARGEST or size * min(x.shape[2:]) < 1:
                return x
            given = {"scale_factor": size, "recompute_scale_factor": recompute}
        else:
            given = {"size": size}
        corners = {"align_corners": corners} if mode in ("bilinear", "bicubic") else {}
        resample = partial(F.interpolate, mode=mode, **given, **corners)
        return unsigned(resample, x) if self.truth and mode == "bicubic" else resample(x)

    def slice(self, x, start, step):
        return x[:, :, start[0] :: step[0], start[1] :: step[1]]

    def flip(self, x, dims):
        return x.flip(dims)

    def roll(self, x, shifts):
        return torch.roll(x, shifts, (2, 3))

    def shuffle(self, x, factor):
        return F.pixel_shuffle(mixed(x, 2 * factor**2), factor)

    def unshuffle(self, x, factor):
        height, width = (n // factor * factor for n in x.shape[2:])
        return mixed(F.pixel_unshuffle(x[:, :, :height, :width], factor)) if min(height, width) else x

    def repeat_each(self, x, factor):
        """Nearest upsampling by expand and reshape."""
        n, c, h, w = x.shape
        return (
            x[:, :, :, None, :, None]
            .expand(n, c, h, factor[0], w, factor[1])
            .reshape(n, c, h * factor[0], -1)
        )

    def last(self, x):
        """Channels last: LayerNorm over channels, and a residual."""
        y = x.permute(0, 2, 3, 1)
        z = y @ weights(2, 2)
        z = z if self.truth else F.layer_norm(z, (2,))
        return (y + z).permute(0, 3, 1, 2)

    def turned(self, x, kernel):
        """A convolution of the transposed image."""
        return self.same(x.transpose(2, 3), kernel, (1, 1)).transpose(2, 3)

    def interleave(self, x, first):
        """Every second row and column written into a buffer, the rest from another convolution."""
        y = torch.zeros_like(x) if first else x.new_empty(x.shape)
        y[:, :, ::2] = self.same(x, (3, 1), (1, 1))[:, :, ::2]
        y[:, :, 1::2] = x[:, :, 1::2]
        y[..., 1::2] += self.same(x, (1, 2), (1, 1))[..., 1::2]
        return y

    def pointwise(self, x):
        return x + x * 0.5 if self.truth else F.gelu(x).clamp(-1, 1) * torch.sigmoid(x) + 1

    def tokens(self, x):
        """Positions in one dimension, as a transformer has them, and back."""
        y = x.flatten(2).transpose(1, 2)
        return (y + y @ weights(2, 2)).transpose(1, 2).unflatten(2, x.shape[2:])

    def strip(self, x, dim):
        return x + x.mean(dim, keepdim=True)

    def windows(self, x, size, channels):
        """Positions of a window see each other, or become channels."""
        h, w = x.shape[2:]
        x = x[:, :, : h // size[0] * size[0], : w // size[1] * size[1]]
        if not x.numel():
            return self.pointwise(x)
        cut = x.unflatten(3, (-1, size[1])).unflatten(2, (-1, size[0])).permute(0, 2, 4, 1, 3, 5)
        if channels:
            return mixed(cut.permute(0, 3, 4, 5, 1, 2).flatten(1, 3))
        tokens = cut.flatten(1, 2).flatten(3)  # (N, windows, C, positions)
        tokens = tokens + tokens.mean(3, keepdim=True)
        cut = tokens.unflatten(3, size).unflatten(1, (-1, w // size[1]))
        return cut.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)

    def branch(self, x, parts, merge):
        ys = [self.run(x, part) for part in parts]
        height, width = (min(y.shape[dim] for y in ys) for dim in (2, 3))
        if merge in ("add", "cat"):
            ys = [y[:, :, :height, -width:] for y in ys]
            return sum(ys) if merge == "add" else mixed(torch.cat(ys, 1))
        if merge == "rows":
            return torch.cat([y[:, :, :, :width] for y in ys], 2)
        return torch.cat([y[:, :, :height] for y in ys], 3)

    def hourglass(self, x, inner):
        if min(x.shape[2:]) < 2:
            return x
        y = F.avg_pool2d(x, 2) if self.truth else F.max_pool2d(x, 2)
        y = F.interpolate(self.run(y, inner), size=x.shape[2:])
        return mixed(torch.cat([x, y], 1))

    def unpool(self, x, kernel, stride, padding, inner):
        if min(x.shape[2:]) < 3:
            return x
        padding = [min(p, k // 2) for p, k in zip(padding, kernel, strict=True)]
        if self.truth:
            size = F.max_pool2d(x, kernel, stride, padding).shape[2:]
            pooled = self.window_sum(x, size, kernel, stride, padding, 1)
            y = self.same(pooled, **inner) + pooled
            ones = torch.ones(2, 1, *kernel, dtype=x.dtype)
            y = F.pad(F.conv_transpose2d(y, ones, None, stride, 0, 0, 2), (0, 9, 0, 9))
            return y[:, :, padding[0] : padding[0] + x.shape[2], padding[1] : padding[1] + x.shape[3]]
        y, switches = F.max_pool2d(x, kernel, stride, padding, return_indices=True)
        return F.max_unpool2d(
            self.same(y, **inner), switches, kernel, stride, padding, output_size=x.shape[2:]
        )

    def global_(self, x, kind):
        if x.shape[2:].numel() == 1:
            return x
        if kind == "excite" or self.truth:
            return (
                x + x * x.mean((2, 3), keepdim=True) if not self.truth else x + x.mean((2, 3), keepdim=True)
            )
        if kind == "softmax":
            return x.flatten(2).softmax(-1).unflatten(2, x.shape[2:])
        return F.instance_norm(x) if kind == "instance" else F.group_norm(x, 1)


setattr(Net, "global", Net.global_)


def true_fields(program, size):
    """(h, w, H, W) bool: which input pixels each output pixel sees, by one batched backward pass."""
    net = Net(program, truth=True)
    height, width = net(torch.ones(1, 1, *size, dtype=torch.float64)).shape[2:]
    x = torch.ones(height * width, 1, *size, dtype=torch.float64, requires_grad=True)
    net(x).flatten(1).diagonal().sum().backward()  # image i is asked about output pixel i
    largest = x.grad.abs().amax((1, 2, 3), keepdim=True)
    threshold = 1e-9 if any(word in str(program) for word in ("bilinear", "bicubic")) else 0
    return (x.grad.abs() > threshold * largest).reshape(height, width, *size).numpy()
