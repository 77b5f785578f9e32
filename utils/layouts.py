"""Where the positions of an image lie in a tensor, and how they move when the tensor is rearranged.

A `Map` is a grid of positions that a trace tells apart, and what it reads. A `Layout` says where the rows and
columns of a map lie in a tensor, mostly (N, C, H, W). But after `flatten(2)` rows and columns share one
dimension, after `permute(0, 2, 3, 1)` they come before the channels, and in a window of a Swin transformer
there are only the low digits of the row, the high ones having gone to the images of the batch. So a layout
notes, as a number system does, which digit of which dimension counts how much along which axis.

All channels of a layer share one field, and so do all images of a batch: no digit, no difference.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from utils.taps import NOWHERE, Taps

if TYPE_CHECKING:
    from utils.tracing import Trace


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
            axes = zip(("rows", "columns"), pair, strict=True)
            extent = " and ".join(name for name, taps in axes if taps and taps.reads_all)
            if extent:
                height, width = source.size
                reason = f"{trace.wording()} over all {extent} of a {height} x {width} map"
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
    last = (line(shape[-2], axes[0]), line(shape[-1], axes[1]))
    return Layout(grid, tuple(shape), ((),) * (len(shape) - 2) + last)


@lru_cache(None)
def line(n: int, axis: int) -> tuple[Digit, ...]:
    """The digits of a dimension that is a whole axis of n positions."""
    return tidy([Digit(1, n, axis, 1)])


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
                    return recut(trace, layout, shape)
                digits.append(Digit(low // inner, high // low, d.axis, d.step * (low // d.inner)))
        dims.append(tidy(digits))
    return Layout(layout.map, shape, tuple(dims))


def recut(trace: "Trace", layout: Layout, shape: Sequence[int]) -> Layout:
    """A reshape that cuts through a digit: make rows and columns plain ones, else stop telling them apart."""
    grid = gridded(trace, layout)[0] if len(layout.shape) >= 2 else layout
    return reshaped(trace, grid if grid != layout else fold_all(trace, layout), shape)


def permuted(layout: Layout, order: Sequence[int]) -> Layout:
    return Layout(layout.map, *(tuple(part[dim] for dim in order) for part in layout[1:]))


def picked(
    trace: "Trace", layout: Layout, dim: int, index: np.ndarray, step: int | None = None
) -> Layout | None:
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
    taps = Taps(
        (base[:, None, None] + reads).reshape(-1, reads.shape[1]),
        layout.map.size[axis],
        step and Fraction(step),
    )
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
    whole = (layout.map.size[axes[0]], layout.map.size[axes[1]]) == (height, width)
    if whole and layout == standard(layout.map, layout.shape, axes):
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
