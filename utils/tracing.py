"""One run of a module on tensors that have a shape and no data: which positions does each operation read?

torch hands every operation that the module dispatches to `Trace`, whatever Python code led to it. A *rule*
(below, one for each family of operations) says what the result reads, along rows and along columns. What has
no rule is an `UnknownOperation`: never a guess.

A `Map` is a grid of positions that the trace tells apart; a `Layout` says where the rows and columns of a map
lie in a tensor. After `flatten(2)`, rows and columns share one dimension; after `permute(0, 2, 3, 1)`, they
come before the channels; a window of a Swin transformer holds some digits of the row index. So the layout
notes, like a number system, which digit of which dimension counts how much along which axis. All channels of
a layer, and all images of a batch, share one field.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from functools import lru_cache
from math import prod
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module
from torch.utils._python_dispatch import TorchDispatchMode

from utils.taps import NOWHERE, Taps, adaptive, resized, transposed, window


class UnknownOperation(NotImplementedError):
    """The module uses an operation for which there is no rule."""


class Whole(NamedTuple):
    """A layer that makes the patch the whole image, and why."""

    layer: str
    reason: str


class Map:
    """A grid of size (rows, columns), and what it reads: edges (map, taps of rows, taps of columns).

    Taps are None where position i reads position i. `whole` tells whether, and why, one position reads all.
    """

    def __init__(self, trace: "Trace", size: tuple[int, int], edges: Sequence[tuple] = ()):
        self.size, self.edges, self.whole = size, edges, None
        for source, *pair in edges:
            axes = [name for name, taps in zip(("rows", "columns"), pair, strict=True) if taps and taps.reads_all]
            if axes:
                height, width = source.size
                reason = f"{trace.wording()} over all {' and '.join(axes)} of a {height} x {width} map"
                self.whole = Whole(trace.path, reason)
        trace.maps.append(self)


class Digit(NamedTuple):
    """Index i of a tensor's dimension adds `(i // inner) % size * step` to the position along `axis`."""

    inner: int
    size: int
    axis: int  # 0 rows, 1 columns
    step: int


class Layout(NamedTuple):
    """Where the positions of a map lie in a tensor; a dimension without digits holds channels or images."""

    map: Map
    shape: tuple[int, ...]
    dims: tuple[tuple[Digit, ...], ...]

    def axes(self, dims: Iterable[int]) -> set[int]:
        return {digit.axis for dim in dims for digit in self.dims[dim]}


def standard(grid: Map, shape: Sequence[int], axes: tuple[int, int] = (0, 1)) -> Layout:
    """The layout (..., H, W)."""
    last = [tidy([Digit(1, n, axis, 1)]) for n, axis in zip(shape[-2:], axes, strict=True)]
    return Layout(grid, tuple(shape), ((),) * (len(shape) - 2) + tuple(last))


def tidy(digits: Iterable[Digit]) -> tuple[Digit, ...]:
    """Highest digit first; none of size 1; neighbours that count on are one digit."""
    out: list[Digit] = []
    for digit in sorted(digits, key=lambda d: d.inner):
        if digit.size == 1:
            continue
        low = out[-1] if out else None
        if low and digit[0::2] == (low.inner * low.size, low.axis) and digit.step == low.step * low.size:
            out[-1] = low._replace(size=low.size * digit.size)
        else:
            out.append(digit)
    return tuple(reversed(out))


def positions(digits: Iterable[Digit], n: int, axis: int) -> np.ndarray:
    """(n,) position along `axis` of each index of a dimension."""
    at = np.zeros(n, int)
    for digit in digits:
        if digit.axis == axis:
            at += np.arange(n) // digit.inner % digit.size * digit.step
    return at


def combinations(digits: Iterable[Digit]) -> np.ndarray:
    """All positions that these digits can spell, the last digit running fastest."""
    at = np.zeros(1, int)
    for digit in digits:
        at = (at[:, None] + np.arange(digit.size) * digit.step).ravel()
    return at


# ------------------------------------------------------------------ from layout to layout


def fold(trace: "Trace", layout: Layout, dims: Iterable[int]) -> Layout:
    """Let every index of the dimensions `dims` read all of them: mean, softmax, a matrix product, ..."""
    dims = {dim % len(layout.shape) for dim in dims} if layout.shape else set()
    folded, edge, size = layout.axes(dims), [None, None], list(layout.map.size)
    kept = [[] if dim in dims else list(digits) for dim, digits in enumerate(layout.dims)]
    for axis in folded:
        lost = [digit for dim in dims for digit in layout.dims[dim] if digit.axis == axis]
        rest = sorted((d for digits in kept for d in digits if d.axis == axis), key=lambda d: -d.step)
        edge[axis] = Taps(combinations(rest)[:, None] + combinations(lost), size[axis])
        size[axis] = prod(digit.size for digit in rest)
        renumber = {digit.step: prod(r.size for r in rest[i + 1 :]) for i, digit in enumerate(rest)}
        kept = [[d._replace(step=renumber[d.step]) if d.axis == axis else d for d in ds] for ds in kept]
    if not folded:
        return layout
    return Layout(Map(trace, tuple(size), [(layout.map, *edge)]), layout.shape, tuple(map(tidy, kept)))


def fold_all(trace: "Trace", layout: Layout) -> Layout:
    return fold(trace, layout, range(len(layout.shape)))


def reshaped(trace: "Trace", layout: Layout, shape: Sequence[int]) -> Layout:
    """view, reshape, flatten, squeeze, ...: the same digits, dealt out to other dimensions."""
    flat, dims, shape = [], [], tuple(shape)
    for dim, digits in enumerate(layout.dims):
        flat += [d._replace(inner=d.inner * prod(layout.shape[dim + 1 :])) for d in digits]
    for dim, n in enumerate(shape):
        inner, digits = prod(shape[dim + 1 :]), []
        for d in flat:
            low, high = max(d.inner, inner), min(d.inner * d.size, inner * n)
            if low < high:
                if low % d.inner or high % low or d.inner * d.size % high or low % inner:
                    return reshaped(trace, fold_all(trace, layout), shape)  # cuts through a row: no digit fits
                digits.append(Digit(low // inner, high // low, d.axis, d.step * (low // d.inner)))
        dims.append(tidy(digits))
    return Layout(layout.map, shape, tuple(dims))


def permuted(layout: Layout, order: Sequence[int]) -> Layout:
    return Layout(layout.map, *(tuple(part[dim] for dim in order) for part in layout[1:]))


def picked(trace: "Trace", layout: Layout, dim: int, index: np.ndarray, step=None) -> Layout | None:
    """Index i of dimension `dim` becomes what was at `index[i]`, or nothing: slices, flips, pads, ..."""
    dim, n, index = dim % len(layout.shape), layout.shape[dim], np.asarray(index)
    if not n or not len(index):
        return None
    shape = (*layout.shape[:dim], len(index), *layout.shape[dim + 1 :])
    inside = (index >= 0) & (index < n)
    axes = layout.axes([dim])
    if len(axes) > 1:
        layout, axes = fold(trace, layout, [dim]), set()  # rows and columns in one dimension
    if not axes and not inside.all() and len(shape) - dim <= 2:  # an axis of length 1 is about to be padded
        axes = {0, 1} - layout.axes(range(len(shape)))
        axes = axes & {2 + dim - len(shape)} or axes
    if not axes:
        return layout._replace(shape=shape)
    axis = min(axes)
    rest = [(d, g) for d, digits in enumerate(layout.dims) for g in digits if g.axis == axis and d != dim]
    rest.sort(key=lambda pair: -pair[1].step)
    here = positions(layout.dims[dim], n, axis)
    whole = not rest and n == layout.map.size[axis] and (here == np.arange(n)).all()
    reads = index if whole else np.where(inside, here[np.where(inside, index, 0)], NOWHERE)
    reads = reads.reshape(len(index), -1)
    base = combinations(g for _, g in rest)
    taps = Taps((base[:, None, None] + reads).reshape(-1, reads.shape[1]), layout.map.size[axis], step)
    dims = [[g for g in digits if g.axis != axis] for digits in layout.dims]
    dims[dim].append(Digit(1, len(index), axis, 1))
    below = len(index)
    for d, g in reversed(rest):
        dims[d].append(g._replace(step=below))
        below *= g.size
    size, edge = list(layout.map.size), [None, None]
    size[axis], edge[axis] = below, taps
    return Layout(Map(trace, tuple(size), [(layout.map, *edge)]), shape, tuple(map(tidy, dims)))


def gridded(trace: "Trace", layout: Layout) -> tuple[Layout, tuple[int, int]]:
    """The layout as (..., H, W) with whole rows and columns, and which axis lies in which of the two."""
    layout = fold(trace, layout, range(len(layout.shape) - 2))
    rows, columns = layout.axes([-2]), layout.axes([-1])
    if len(rows) > 1 or len(columns) > 1 or rows & columns:
        layout, rows, columns = fold_all(trace, layout), set(), set()
    first = min(rows) if rows else 1 - min(columns) if columns else 0
    axes, (height, width) = (first, 1 - first), layout.shape[-2:]
    if layout == standard(layout.map, layout.shape, axes):
        if all(layout.map.size[axis] == n for axis, n in zip(axes, (height, width), strict=True)):
            return layout, axes
    size, edge = [0, 0], [None, None]
    for axis, dim in zip(axes, (-2, -1), strict=True):
        size[axis] = layout.shape[dim]
        edge[axis] = Taps(positions(layout.dims[dim], size[axis], axis), layout.map.size[axis])
    return standard(Map(trace, tuple(size), [(layout.map, *edge)]), layout.shape, axes), axes


def joined(trace: "Trace", layouts: Iterable[Layout | None], shape: Sequence[int]) -> Layout | None:
    """Everything that broadcasts: index i of the result reads index i of each of `layouts`."""
    parts = list({(id(part.map), part.shape, part.dims): part for part in layouts if part}.values())
    if not parts:
        return None
    slots = aligned(parts)
    if slots is None and min(len(part.shape) for part in parts) >= 2:
        parts = [gridded(trace, part)[0] for part in parts]
        slots = aligned(parts)
    if slots is None:  # rows of one meet columns of another, say
        parts = [parts[0]] + [fold_all(trace, part) for part in parts[1:]]
        slots = aligned(parts)
    return derived(trace, parts, slots, shape)


def derived(trace: "Trace", parts: Iterable[Layout], slots: dict, shape: Sequence[int]) -> Layout:
    """The layout that `slots` spell, each position of it reading the matching one of each part."""
    shape, dims = tuple(shape), [[] for _ in shape]
    size = [1, 1]
    for (dim, _), digit in slots.items():
        dims[len(shape) - 1 - dim].append(digit)
        size[digit.axis] *= digit.size
    edges = {}
    for part in parts:
        pair = [matching(part, slots, axis, size[axis]) for axis in (0, 1)]
        edges[part.map, *(taps and taps.index.tobytes() for taps in pair)] = (part.map, *pair)
    edges = list(edges.values())
    same = len(edges) == 1 and edges[0][1:] == (None, None)
    return Layout(edges[0][0] if same else Map(trace, tuple(size), edges), shape, tuple(map(tidy, dims)))


def aligned(parts: list[Layout]) -> dict[tuple[int, int], Digit] | None:
    """The digits of a joint result by (dimension from the right, inner); None if the parts disagree."""
    slots: dict[tuple[int, int], Digit] = {}
    for part in sorted(parts, key=lambda part: -sum(map(len, part.dims))):
        own = {(len(part.shape) - 1 - dim, g.inner): g for dim, gs in enumerate(part.dims) for g in gs}
        taken_dims, taken_axes = {dim for dim, _ in slots}, {g.axis for g in slots.values()}
        fresh = {}
        for key, digit in own.items():
            if key in slots:
                if slots[key][:3] != digit[:3]:
                    return None
            elif key[0] in taken_dims or digit.axis in taken_axes:
                return None
            else:
                fresh[key] = digit
        slots |= fresh
    return slots


def matching(part: Layout, slots: dict[tuple[int, int], Digit], axis: int, n: int) -> Taps | None:
    """The taps from n positions of the result, spelled by `slots`, to the positions of one part."""
    at = np.zeros(n, int)
    for dim, digits in enumerate(part.dims):
        for digit in digits:
            if digit.axis == axis:
                slot = slots[len(part.shape) - 1 - dim, digit.inner]
                at += np.arange(n) // slot.step % slot.size * digit.step
    identity = n == part.map.size[axis] and (at == np.arange(n)).all()
    return None if identity else Taps(at, part.map.size[axis])


# ------------------------------------------------------------------ the rules


RULES: dict[str, Callable] = {}
VIEWS: dict[str, Callable] = {}
FRESH: set[str] = set()  # operations whose rule knows the result's shape: torch itself is slow to compute it
SEVERAL: set[Callable] = set()  # rules for several tensors that depend on the image; the others take one
VALUES = {"item", "_local_scalar_dense", "is_nonzero", "equal", "allclose", "nonzero", "masked_select"}


def rule(*names: str, fresh=False, several=False, book: dict[str, Callable] = RULES) -> Callable:
    """Register `rule(trace, a) -> Layout` for the ATen operations `names`; `a` is the `Call`."""

    def register(function: Callable) -> Callable:
        book.update(dict.fromkeys(names, function))
        FRESH.update(names if fresh else ())
        SEVERAL.update([function] if several else ())
        return function

    return register


def pair(value: Sequence[int] | int) -> tuple[int, int]:
    value = [value] if isinstance(value, int) else value
    return (value[0], value[-1])


def local(trace: "Trace", layout: Layout, channels: int | None, taps: Callable[[int, int], Taps]) -> Layout:
    """A layer that reads a rectangle: `taps(i, n)` for its rows (i = 0) and columns (i = 1), n long."""
    layout, axes = gridded(trace, layout)
    size, edge, lead = [0, 0], [None, None], layout.shape[:-2]
    for i, axis in enumerate(axes):
        edge[axis] = taps(i, layout.shape[i - 2])
        size[axis] = len(edge[axis])
    if min(size) < 1:
        raise ValueError(f"layer {trace.path!r} shrinks its {layout.shape[-2:]} map to nothing: use a larger image")
    lead = lead if channels is None else (*lead[:-1], channels)
    grid = Map(trace, tuple(size), [(layout.map, *edge)])
    return standard(grid, (*lead, size[axes[0]], size[axes[1]]), axes)


@rule("conv2d", fresh=True)
def convolution(trace, a):
    layout, (filters, depth, *kernel) = trace.read(a.x), a.weight.shape
    trace.expect_channels(layout, depth * a.groups)
    stride, dilation = pair(a.stride), pair(a.dilation)
    if isinstance(a.padding, str):  # "same" puts the odd one after, "valid" is none
        total = [d * (k - 1) if a.padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        ends = [(t // 2, t - t // 2) for t in total]
    else:
        ends = [(p, p) for p in pair(a.padding)]
    return local(trace, layout, filters, lambda i, n: window(n, kernel[i], stride[i], *ends[i], dilation[i]))


@rule("conv_transpose2d", fresh=True)
def transposed_convolution(trace, a):
    layout, (depth, filters, *kernel) = trace.read(a.x), a.weight.shape
    trace.expect_channels(layout, depth)
    options = list(zip(kernel, *map(pair, (a.stride, a.padding, a.output_padding, a.dilation)), strict=True))
    return local(trace, layout, filters * a.groups, lambda i, n: transposed(n, *options[i]))


@rule("max_pool2d", "avg_pool2d", fresh=True)
@rule("max_pool2d_with_indices")
def pooling(trace, a):
    kernel, padding = pair(a.kernel_size), pair(a.padding)
    stride, dilation = pair(a.stride or kernel), pair(getattr(a, "dilation", 1))
    edges = [None, None]

    def taps(i, n):
        edges[i] = window(n, kernel[i], stride[i], padding[i], padding[i], dilation[i], a.ceil_mode)
        return edges[i]

    layout = local(trace, trace.read(a.x), None, taps)
    trace.switches = edges
    return layout


@rule("adaptive_avg_pool2d", "adaptive_max_pool2d")
def adaptive_pooling(trace, a):
    size = pair(a.output_size)
    return local(trace, trace.read(a.x), None, lambda i, n: adaptive(n, n if size[i] is None else size[i]))


@rule("max_unpool2d", several=True)
def unpooling(trace, a):
    """A value goes where its maximum was: anywhere in the pooling's window, as the input decides."""
    windows = trace.windows.get(id(a.indices))
    if windows is None or tuple(a.output_size[-2:]) != tuple(taps.n_in for taps in windows):
        raise UnknownOperation(
            f"layer {trace.path!r} unpools with other indices, or to another size, than a max pooling in the "
            "module gave it: pass on the pooling's own indices, and output_size = the size before the pooling"
        )
    both = joined(trace, [trace.read(a.x), trace.read(a.indices)], a.x.shape)
    back = [Taps(taps.inverse, len(taps), taps.step and 1 / taps.step) for taps in windows]
    return local(trace, both, None, lambda i, n: back[i])


@rule("upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d", "upsample_bicubic2d")
@rule("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")
def interpolation(trace, a):
    scales = getattr(a, "scale_factors", None) or (getattr(a, "scales_h", None), getattr(a, "scales_w", None))
    corners = getattr(a, "align_corners", None)
    return local(trace, trace.read(a.x), None, lambda i, n: resized(a.op, n, a.out.shape[i - 2], scales[i], corners))


@rule("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d")
def padding(trace, a):
    layout, pads = trace.read(a.x), getattr(a, "pad", None) or a.padding
    mode = getattr(a, "mode", a.op.partition("_")[0])
    names = {"reflect": "reflect", "reflection": "reflect", "replicate": "edge", "replication": "edge"}
    for i in range(len(pads) // 2):
        low, high, n = pads[2 * i], pads[2 * i + 1], layout.shape[-1 - i]
        index = np.arange(-low, n + high)  # a negative padding crops
        if mode != "constant":
            how = {**names, "circular": "wrap"}[mode]
            index = np.pad(np.arange(n), (max(low, 0), max(high, 0)), mode=how)
            index = index[max(-low, 0) : len(index) - max(-high, 0)]
        layout = picked(trace, layout, -1 - i, index, 1)
    return layout


@rule("flip", "roll")
def reordering(trace, a):
    layout = trace.read(a.x)
    for i, dim in enumerate(a.dims):
        n = np.arange(layout.shape[dim])
        layout = picked(trace, layout, dim, n[::-1] if a.op == "flip" else np.roll(n, a.shifts[i]))
    return layout


@rule("repeat")
def repeating(trace, a):
    layout = trace.read(a.x)
    layout = reshaped(trace, layout, (1,) * (len(a.repeats) - len(layout.shape)) + layout.shape)
    for dim, times in enumerate(a.repeats):
        layout = picked(trace, layout, dim, np.arange(layout.shape[dim] * times) % layout.shape[dim])
    return layout


@rule("index_select", "index")
def indexing(trace, a):
    """x[:, :, rows] with one list of constant indices."""
    listed = a.indices if a.op == "index" else [None] * (a.dim % a.x.dim()) + [a.index]
    dims = [dim for dim, index in enumerate(listed) if index is not None]
    if len(dims) != 1 or listed[dims[0]].is_meta or listed[dims[0]].dim() != 1:
        raise trace.unknown("indexing with more than one list, or with positions that are computed")
    index = listed[dims[0]]
    index = index.nonzero().flatten() if index.dtype == torch.bool else index
    n = a.x.shape[dims[0]]
    return picked(trace, trace.read(a.x), dims[0], index.cpu().numpy() % n)


@rule("cat", "stack", several=True)
def concatenation(trace, a):
    """Along channels all are read; along rows or columns, each where it lies."""
    dim, out = a.dim % a.out.dim(), tuple(a.out.shape)
    layouts = [(trace.read(x), tuple(x.shape)) for x in a.x]
    if a.op == "stack":
        layouts = [(p and reshaped(trace, p, (*s[:dim], 1, *s[dim:])), (*s[:dim], 1, *s[dim:])) for p, s in layouts]
    spatial = len(out) - dim <= 2 < len(out) or any(part and part.axes([dim]) for part, _ in layouts)
    parts, start = [], 0
    for part, shape in layouts:
        if part and spatial:
            part = picked(trace, part, dim, np.arange(out[dim]) - start, 1)
        parts.append(part and part._replace(shape=(*shape[:dim], out[dim], *shape[dim + 1 :])))
        start += shape[dim]
    return joined(trace, parts, out)


@rule("pixel_shuffle", "pixel_unshuffle")
def shuffling(trace, a):
    layout, (*lead, channels, height, width) = trace.read(a.x), a.x.shape
    n, r = len(lead), getattr(a, "upscale_factor", None) or a.downscale_factor
    if a.op == "pixel_shuffle":
        split, order = (*lead, channels // r**2, r, r, height, width), (0, 3, 1, 4, 2)
    else:
        split, order = (*lead, channels, height // r, r, width // r, r), (0, 2, 4, 1, 3)
    layout = permuted(reshaped(trace, layout, split), [*range(n), *(n + i for i in order)])
    return reshaped(trace, layout, a.out.shape)


@rule("channel_shuffle", "native_channel_shuffle", "clone", "contiguous", "to", "_to_copy", "detach", "alias")
@rule("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "lift_fresh", "type_as", "cpu", "cuda")
def unchanged(trace, a):
    return trace.read(a.x)


@rule("hardswish", "hardsigmoid", "hardtanh", "relu6", "prelu", "elu", "selu", "celu", "rrelu", several=True)
@rule("silu", "gelu", "mish", "softplus", "log_sigmoid", "expand", "expand_as", "broadcast_to", several=True)
def pointwise(trace, a):
    """Arithmetic with broadcasting; also everything that torch itself tags as pointwise."""
    return joined(trace, map(trace.read, a.tensors), a.out.shape)


@rule("relu", fresh=True)
def rectifier(trace, a):
    return trace.read(a.x)


@rule("copy", several=True)
def copying(trace, a):
    return joined(trace, [trace.read(a.src)], a.x.shape)


@rule("fill", "zero", "uniform", "normal", "bernoulli", "zeros_like", "ones_like", "full_like", "empty_like")
@rule("rand_like", "randn_like", "new_empty", "new_zeros", "new_ones", "new_full")
def constant(trace, a):
    return None


def mixing(trace, a, dims):
    """Every index along `dims` reads all of them, and keeps its place."""
    layout = trace.read(a.x)
    folded = fold(trace, layout, dims)
    return layout if folded is layout else derived(trace, [folded], aligned([layout]), layout.shape)


@rule("softmax", "log_softmax", "_softmax", "_safe_softmax", "cumsum", "cumprod", "logcumsumexp", "sort", "argsort")
def along(trace, a):
    return mixing(trace, a, [a.dim])


@rule("batch_norm", fresh=True)
def batch_norm(trace, a):
    return mixing(trace, a, [0, *range(2, a.x.dim())]) if a.training else trace.read(a.x)


@rule("instance_norm")
def instance_norm(trace, a):
    return mixing(trace, a, range(2, a.x.dim())) if a.use_input_stats else trace.read(a.x)


@rule("group_norm")
def group_norm(trace, a):
    return mixing(trace, a, range(1, a.x.dim()))


@rule("layer_norm", "rms_norm")
def layer_norm(trace, a):
    return mixing(trace, a, range(-len(a.normalized_shape), 0))


@rule("mean", "sum", "prod", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean", "median", "any", several=True)
@rule("norm", "linalg_vector_norm", "logsumexp", "all", "argmax", "argmin", "topk")
def reduction(trace, a):
    layout = trace.read(a.x)
    if hasattr(a, "other"):
        return pointwise(trace, a)
    dims = getattr(a, "dim", None)
    dims = [dims] if isinstance(dims, int) else list(dims or range(len(layout.shape)))
    out = a.out[0] if isinstance(a.out, tuple) else a.out
    folded = fold(trace, layout, dims)
    if len(out.shape) == len(layout.shape):  # keepdim, or topk
        return folded._replace(shape=tuple(out.shape))
    gone = {dim % len(layout.shape) for dim in dims}
    return Layout(folded.map, tuple(out.shape), tuple(d for i, d in enumerate(folded.dims) if i not in gone))


@rule("linear")
def linear(trace, a):
    return product(trace, trace.read(a.x), None, a.out.shape)


@rule("mm", "bmm", several=True)
def matrix_product(trace, a):
    return product(trace, *map(trace.read, a.tensors), a.out.shape)


@rule("addmm", "baddbmm", several=True)
def added_product(trace, a):
    start, left, right = map(trace.read, a.tensors)
    return joined(trace, [start, product(trace, left, right, a.out.shape)], a.out.shape)


def product(trace, left: Layout | None, right: Layout | None, shape) -> Layout:
    """(..., i, k) @ (..., k, j): sums over k. If i and j are both positions, each meets all of the other."""
    parts = []
    if left:
        left = fold(trace, left, [-1])
        parts.append(left._replace(shape=(*left.shape[:-1], shape[-1])))
    if right:
        right = fold(trace, right, [-2, -1] if left and left.axes([-2]) else [-2])
        parts.append(right._replace(shape=(*right.shape[:-2], shape[-2], right.shape[-1])))
    return joined(trace, parts, shape)


@rule("im2col")
def unfolding(trace, a):
    kernel, stride, low, dilation = map(pair, (a.kernel_size, a.stride, a.padding, a.dilation))
    grid = local(
        trace, trace.read(a.x), a.out.shape[-2],
        lambda i, n: window(n, kernel[i], stride[i], low[i], low[i], dilation[i]),
    )  # fmt: skip
    return reshaped(trace, grid, a.out.shape)


@rule("grid_sampler", "grid_sampler_2d", "deform_conv2d", several=True)
def free(trace, a):
    """Reads any position of anything: an upper bound, where rows and columns do not separate."""
    inputs = [layout for layout in map(trace.read, a.tensors) if layout]
    folded = [fold_all(trace, layout)._replace(shape=(1,), dims=((),)) for layout in inputs]
    return joined(trace, folded, a.out.shape)


WORDS = {
    "conv2d": "a kernel that reaches", "max_pool2d": "max pooling", "avg_pool2d": "average pooling",
    "adaptive_avg_pool2d": "average pooling", "adaptive_max_pool2d": "max pooling", "linear": "a fully connected layer",
    "batch_norm": "statistics of the batch (training mode)", "instance_norm": "statistics of the image (instance norm)",
    "group_norm": "statistics of the image (group norm)", "layer_norm": "statistics of the image (layer norm)",
    "scaled_dot_product_attention": "attention", "bmm": "a matrix product (attention)", "matmul": "a matrix product",
    "grid_sampler": "sampling at free positions", "deform_conv2d": "sampling at free positions",
}  # fmt: skip


# ------------------------------------------------------------------ views: tensors that share memory


@rule("view", "reshape", "flatten", "unflatten", "_unsafe_view", "squeeze", "unsqueeze", "view_as", book=VIEWS)
def reshaping(trace, a):
    yield (
        lambda base: reshaped(trace, base, a.out.shape),
        lambda base, new: reshaped(trace, new, a.x.shape),
    )


@rule("permute", "transpose", "t", "numpy_T", "movedim", "swapaxes", "mT", book=VIEWS)
def permuting(trace, a):
    """torch permutes a tensor of telling sizes, and so says the order itself."""
    sizes = list(range(2, 2 + a.x.dim()))
    order = [sizes.index(n) for n in a.run(torch.empty(sizes, device="meta"), *a.args[1:]).shape]
    inverse = np.argsort(order).tolist()
    yield lambda base: permuted(base, order), lambda base, new: permuted(new, inverse)


@rule("slice", "select", "narrow", "split", "split_with_sizes", "chunk", "unbind", "tensor_split", book=VIEWS)
def slicing(trace, a):
    """torch slices the numbers 0 .. n - 1, and so says which it takes."""
    dim, shape = a.dim % a.x.dim(), tuple(a.x.shape)
    count = torch.arange(shape[dim]).reshape([-1 if d == dim else 1 for d in range(len(shape))])
    for piece in listed(a.func(count, *a.args[1:], **a.kwargs)):
        index, gone = piece.flatten().numpy(), piece.dim() < len(shape)

        def forward(base, index=index, gone=gone):
            taken = picked(trace, base, dim, index)
            return reshaped(trace, taken, shape[:dim] + shape[dim + 1 :]) if gone and taken else taken

        def backward(base, new, index=index):
            place, keep = np.full(shape[dim], NOWHERE), np.arange(shape[dim])
            place[index], keep[index] = np.arange(len(index)), NOWHERE
            new = new and reshaped(trace, new, (*shape[:dim], len(index), *shape[dim + 1 :]))
            parts = [(base, keep), (new, place)]
            return joined(trace, [part and picked(trace, part, dim, at, 1) for part, at in parts], shape)

        yield forward, backward


# ------------------------------------------------------------------ the trace


class Trace(TorchDispatchMode):
    """Meets every operation of one run of `model`; collects its maps, layers and the output's layout."""

    def __init__(self, model: nn.Module, shape: tuple[int, int, int, int]):
        super().__init__()
        self.model, self.names = model, {m: name for name, m in model.named_modules()}
        self.stack: list[nn.Module] = []
        self.ops: list[str] = []
        self.maps: list[Map] = []
        self.layers: list[tuple[str, str, tuple[int, ...], Map]] = []
        self.known: dict[int, SimpleNamespace] = {}  # id of a tensor: the tensor (kept alive), its layout, ...
        self.windows: dict[int, list[Taps]] = {}  # id of a max pooling's indices: the taps of its windows
        self.own: dict[int, Tensor] = {}  # storages that the run itself allocated, which it may write to
        self.input = Map(self, tuple(shape[-2:]))
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())
        with torch.inference_mode(), torch.random.fork_rng(devices=[]), untouched(model), self.named(), self:
            x = torch.empty(shape, dtype=dtype, device="meta")
            self.write(x, standard(self.input, shape))
            out = model(x)
            self.output = out["out"] if isinstance(out, dict) and "out" in out else out

    @contextmanager
    def named(self):
        """Follow which module is running, by hooks on all modules: none is put on the model itself."""

        def enter(module, args):
            if module in self.names:
                self.stack.append(module)

        def leave(module, args, out):
            if module in self.names:
                self.stack.pop()

        handles = [
            nn_module.register_module_forward_pre_hook(enter),
            nn_module.register_module_forward_hook(leave),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def path(self) -> str:
        """The running module's path in the model, such as "encoder.1.norm"."""
        return (self.names[self.stack[-1]] if self.stack else "") or type(self.model).__name__

    def wording(self) -> str:
        return next((WORDS[op] for op in self.ops if op in WORDS), self.ops[-1] if self.ops else "")

    def unknown(self, what: str) -> UnknownOperation:
        return UnknownOperation(
            f"receptive_field has no rule for {what} (in layer {self.path!r}): write that layer with operations "
            "it knows, or add a rule beside the others in utils/tracing.py"
        )

    def expect_channels(self, layout: Layout, channels: int) -> None:
        if layout.shape[-3] != channels:
            raise ValueError(
                f"layer {self.path!r} expects {channels} channels but gets {layout.shape[-3]}: "
                "give receptive_field the (N, C, H, W) shape that the model is made for"
            )

    def read(self, tensor: Tensor | None) -> Layout | None:
        """The layout of a tensor; None if it does not depend on the input. Views follow their base."""
        entry = self.known.get(id(tensor))
        if entry is None:
            return None
        if entry.base is not None:
            base = self.read(entry.base)
            if base is not entry.seen:
                entry.seen, entry.layout = base, base and entry.forward(base)
        return entry.layout

    def write(self, tensor: Tensor, layout: Layout | None) -> None:
        """Note the layout of a new tensor, or of one changed in place: then its base changes with it."""
        entry = self.known.setdefault(id(tensor), SimpleNamespace(tensor=tensor, base=None))
        entry.layout = layout
        if entry.base is not None:
            entry.seen = entry.backward(self.read(entry.base), layout)
            self.write(entry.base, entry.seen)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        a = Call(func, args, kwargs or {})
        depends = any(map(self.read, a.tensors))
        self.ops.append(a.op)
        try:
            if not depends and self.has_data(a):
                a.out = func(*a.args, **a.kwargs)
                inherited = set(map(storage, a.tensors))
                self.own.update((storage(x), x) for x in tensors_of([a.out]) if storage(x) not in inherited)
            elif a.op in VIEWS or not (depends or a.in_place):
                a.out = a.run(*a.args)
            if a.op in VIEWS:
                return self.view(a)
            if depends:
                return self.apply(a)
            return a.x if a.in_place else a.out  # in place: perhaps the model's own counter, left alone
        finally:
            self.ops.pop()

    def has_data(self, a: "Call") -> bool:
        """A computation on constants alone is run as it stands, unless it would change the model."""
        if any(x.is_meta for x in a.tensors):
            return False
        return not a.func._schema.is_mutable or storage(a.x) in self.own

    def view(self, a: "Call"):
        for out, (forward, backward) in zip(listed(a.out), VIEWS[a.op](self, a), strict=True):
            entry = SimpleNamespace(tensor=out, base=a.x, forward=forward, backward=backward, seen=self, layout=None)
            self.known[id(out)] = entry
            if out.is_meta and a.x.is_meta and storage(out) != storage(a.x):  # a reshape that had to copy
                self.known[id(out)] = SimpleNamespace(tensor=out, base=None, layout=self.read(out))
        return a.out

    def apply(self, a: "Call"):
        """Find the rule of an operation that depends on the input, and note what it says."""
        if a.op in VALUES:
            raise self.unknown(f"{a.op!r}, which looks at the values of the image where a trace has only shapes")
        if a.func._schema.is_mutable and not a.in_place:
            raise self.unknown(f"{a.op!r} with out=")
        handler = RULES.get(a.op) or (pointwise if torch.Tag.pointwise in a.func.tags else None)
        layouts = [layout for layout in map(self.read, a.tensors) if layout]
        if handler is None and any(layout.axes(range(len(layout.shape))) for layout in layouts):
            with self:
                out = a.func.decompose(*a.args, **a.kwargs)
            if out is NotImplemented:
                raise self.unknown(f"the operation {str(a.func)!r}")
            return out
        handler = handler or free  # there is one position only: whatever it does, it reads no other
        if handler not in SEVERAL and (not self.read(a.x) or len(layouts) > 1):
            raise self.unknown(f"{a.op!r} with weights or other arguments that depend on the image")
        if a.op not in FRESH:
            a.out = a.x if a.in_place else a.run(*a.args)
        layout = handler(self, a)
        if a.in_place:
            self.write(a.x, layout)
            return a.x
        if a.op in FRESH:
            a.out = torch.empty(layout.shape, dtype=a.x.dtype, device="meta")
        for i, out in enumerate(tensors_of([a.out])):
            if layout and layout.shape != tuple(out.shape):
                raise self.unknown(f"{str(a.func)!r} with these arguments")
            self.write(out, layout)
            if i == 1 and a.op == "max_pool2d_with_indices":
                self.windows[id(out)] = self.switches
        if layout and len(layout.shape) == 4 and layout == standard(layout.map, layout.shape):
            self.layers.append((self.path, a.op, layout.shape, layout.map))
        return a.out


class Call:
    """One operation as torch dispatched it: `a.stride` is the argument `stride`, `a.x` the first one.

    `a.out` is its result on tensors without data, `a.tensors` are the tensors among its arguments.
    """

    def __init__(self, func, args: tuple, kwargs: dict):
        op, names, defaults = schema(func)
        vars(self).update(defaults)
        vars(self).update(zip(names, args, strict=False), **kwargs)
        self.func, self.args, self.kwargs = func, args, kwargs
        self.op, self.in_place = op.removesuffix("_"), op.endswith("_")
        self.x, self.out = args[0] if args else None, None
        self.tensors = list(tensors_of([*args, *kwargs.values()]))

    def run(self, *args):
        """The operation on the shapes of `args` alone."""
        kwargs = {key: dataless(value) for key, value in self.kwargs.items()}
        return self.func(*map(dataless, args), **kwargs)


@lru_cache(None)
def schema(func) -> tuple[str, list[str], dict]:
    """Name of an operation, names of its arguments, and their defaults."""
    arguments = func._schema.arguments
    defaults = {argument.name: argument.default_value for argument in arguments if argument.has_default_value()}
    return func._schema.name.partition("::")[2], [argument.name for argument in arguments], defaults


def listed(value) -> Sequence:
    return value if isinstance(value, list | tuple) else [value]


def tensors_of(values: Iterable) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_of(value)


def dataless(value):
    """A tensor's shape without its data; also a device, since everything is traced on the meta device."""
    if isinstance(value, Tensor):
        return value if value.is_meta else value.to("meta")
    if isinstance(value, list | tuple):
        return type(value)(map(dataless, value))
    return torch.device("meta") if isinstance(value, torch.device) else value


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


@contextmanager
def untouched(model: nn.Module):
    """Put back whatever the module's code notes on itself, such as a table cached for the size of the image."""
    modules = [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]
    books = [book for m in modules for book in (vars(m), m._parameters, m._buffers, m._modules)]
    saved = [dict(book) for book in books]
    try:
        yield
    finally:
        for book, old in zip(books, saved, strict=True):
            for key in set(book) - set(old):
                del book[key]
            book.update(old)
