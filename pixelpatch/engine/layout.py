"""Where do the rows and columns of a map lie in a tensor?

A `Map` is a grid of positions that the trace tells apart, and what they read. A `Layout` says where the rows
and columns of a map lie in a tensor: mostly (N, C, H, W), but after `permute(0, 2, 3, 1)` they come before
the channels, and after `flatten(2)` they share one dimension. Where an image is cut into windows, each axis
lies in two places, as a number has two digits: which window, and which position in it. All channels of a
layer share one field, and so do all images of a batch.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import combinations, takewhile
from math import prod
from typing import NamedTuple

import numpy as np

from pixelpatch.engine.taps import NOWHERE, Taps, in_blocks

REARRANGED = "positions rearranged"  # why rows and columns are no longer told apart


class Map:
    """A grid of size (rows, columns), and what it reads: edges (map, taps of rows, taps of columns).

    Taps are None where position i reads position i. `reason` says why one position reads a whole axis; it is
    empty where none does.
    """

    def __init__(self, size: Sequence[int], edges: Sequence[tuple] = (), why: str = ""):
        self.size, self.edges, self.reason = tuple(size), edges, ""
        for source, *pair in edges:
            axes = zip(("rows", "columns"), pair, strict=True)
            if extent := " and ".join(name for name, taps in axes if taps is not None and taps.reads_all):
                height, width = source.size
                self.reason = f"{why} over all {extent} of a {height} x {width} map"

    def edge_from(self, size: Sequence[int]) -> tuple:
        """The edge by which a map of `size` reads this one, which may have one position where it has many."""
        pairs = zip(self.size, size, strict=True)
        return (self, *(None if n == count else Taps(np.arange(count) * n // count, n) for n, count in pairs))


class Place(NamedTuple):
    """Where an axis, or a digit of it, lies: in dimension `dim` (-1 is the last) as `i // inner % size`."""

    dim: int
    size: int
    inner: int = 1


class Layout(NamedTuple):
    """Where the positions of a map lie in a tensor of this shape.

    places  those of its rows and those of its columns: none for an axis of one position, mostly one, and
            several where the axis is cut, the most significant digit first. What else the dimensions hold are
            channels and images.
    """

    map: Map
    shape: tuple[int, ...]
    places: tuple[tuple[Place, ...], tuple[Place, ...]]

    def axes(self, dim: int) -> list[int]:
        """The axes (0 rows, 1 columns) that lie in dimension `dim`, counted from the last one, -1."""
        return [axis for axis in (0, 1) if any(place.dim == dim for place in self.places[axis])]

    def read_by(self, taps: Sequence, shape: Sequence[int], places: Sequence, why: str = "") -> "Layout":
        """The layout of what reads this one by `taps` of rows and columns; None reads each its own."""
        pairs = zip(taps, self.map.size, strict=True)
        size = [n if along is None else len(along) for along, n in pairs]
        places = tuple(tuple(place for place in each if place.size > 1) for each in places)
        return Layout(Map(size, [(self.map, *taps)], why), tuple(shape), places)

    def fold(self, dims: Iterable[int] | None = None, why: str = REARRANGED) -> "Layout":
        """Let every index of the dimensions `dims`, or of all, read all of them: mean, matrix product, ...

        Of an axis that is cut, windows stay apart where only the positions in them are read together.
        """
        n = max(len(self.shape), 1)
        dims = {dim % n - n for dim in (range(n) if dims is None else dims)}
        taps, places = [], []
        for own, size in zip(self.places, self.map.size, strict=True):
            left = list(takewhile(lambda place: place.dim not in dims, own))
            count = prod(place.size for place in left)
            taps.append(None if left == [*own] else in_blocks(size, count))
            places.append(left)
        return self if taps == [None, None] else self.read_by(taps, self.shape, places, why)

    def mixed(self, dims: Iterable[int], why: str) -> "Layout":
        """Every index along `dims` reads itself and all others, and keeps its place."""
        grid, size = self.fold(dims, why).map, self.map.size
        if grid is self.map:
            return self
        return self._replace(map=Map(size, [grid.edge_from(size), self.map.edge_from(size)]))

    def moved(self, shape: Sequence[int], to: dict[int, int]) -> "Layout":
        """What lay in dimension `dim` lies in dimension `to[dim]`, counted from the last one, -1."""
        places = [tuple(place._replace(dim=to[place.dim]) for place in own) for own in self.places]
        return Layout(self.map, tuple(shape), tuple(places))

    def reshaped(self, shape: Sequence[int]) -> "Layout":
        """view, flatten, squeeze, ...: rows and columns that dimensions take whole, or cut, are followed."""
        places, shape = [], tuple(shape)
        for own, size in zip(self.places, self.map.size, strict=True):
            digits = []
            for place in own:
                digits += cut(place.inner * prod(self.shape[place.dim :][1:]), place.size, shape)
            if prod(digit.size for digit in digits) != size:
                return self.fold()._replace(shape=shape)
            places.append(merged(digits))
        return Layout(self.map, shape, tuple(places))

    def picked(self, dim: int, index: np.ndarray, step: int | None = None) -> "Layout | None":
        """Index i of dimension `dim` becomes what was at `index[i]`, or nothing: slices, flips, pads, ..."""
        dim = dim if dim < 0 else dim - len(self.shape)
        n, shape, places = self.shape[dim], list(self.shape), list(self.places)
        if not n or not len(index):
            return None
        shape[dim], inside, axes = len(index), (index >= 0) & (index < n), self.axes(dim)
        if np.array_equal(index, np.arange(n)):
            return self
        if not axes and not inside.all() and dim >= -2:  # an axis of length 1 is about to be padded
            axes = [axis for axis in (dim + 2, -1 - dim) if not places[axis]][:1]
        if len(axes) != 1:  # channels, or rows and columns in one dimension
            return (self.fold() if axes else self)._replace(shape=tuple(shape))
        (axis,), taps = axes, [None, None]
        own = list(places[axis] or [Place(dim, self.map.size[axis])])
        number, *more = [i for i, place in enumerate(own) if place.dim == dim]
        if more:
            return self.fold()._replace(shape=tuple(shape))
        digit, after = own[number], prod(place.size for place in own[number + 1 :])
        reads = np.where(inside, index // digit.inner % digit.size, NOWHERE)
        if len(own) > 1:
            before = np.arange(self.map.size[axis] // digit.size // after)[:, None, None] * digit.size
            every = (before + reads[:, None]) * after + np.arange(after)
            reads, step = np.where(inside[:, None], every, NOWHERE).ravel(), None
        taps[axis] = Taps(reads, self.map.size[axis], None if step is None else Fraction(step))
        own[number] = Place(dim, len(index))
        places[axis] = own
        return self.read_by(taps, shape, places)

    def gridded(self) -> tuple["Layout", list[int]]:
        """The same as (..., H, W) with whole rows and columns, and which axis lies in which of the two."""
        layout = self.fold(range(-len(self.shape), -2))
        in_both = any(len({place.dim for place in own}) > 1 for own in layout.places)
        if in_both or max(len(layout.axes(-2)), len(layout.axes(-1))) > 1:
            layout = layout.fold()
        axes = [1, 0] if 0 in layout.axes(-1) or 1 in layout.axes(-2) else [0, 1]
        dims = [axis - 2 for axis in axes]
        taps, places = [], [(Place(dim, layout.shape[dim]),) for dim in dims]
        for own, place, size in zip(layout.places, places, layout.map.size, strict=True):
            at = np.zeros(place[0].size, int)
            for digit in own:
                at = at * digit.size + np.arange(len(at)) // digit.inner % digit.size
            taps.append(None if np.array_equal(at, np.arange(size)) else Taps(at, size))
        if taps == [None, None]:
            return layout, axes
        return layout.read_by(taps, layout.shape, places), axes


def cut(unit: int, size: int, shape: Sequence[int]) -> list[Place]:
    """The digits, in dimensions of a new shape, of a digit of `size` whose step is `unit` elements.

    Their sizes do not multiply up to `size` where a dimension takes neither a digit nor all of it.
    """
    digits = []
    for dim in range(-len(shape), 0):
        step = prod(shape[dim:][1:])
        low, high = max(unit, step), min(unit * size, step * shape[dim])
        fits = high % low == low % unit == low % step == 0
        if low < high and fits and unit * size % high == step * shape[dim] % high == 0:
            digits.append(Place(dim, high // low, low // step))
    return digits


def merged(digits: Sequence[Place]) -> tuple[Place, ...]:
    """Digits that follow each other in one dimension are one."""
    found = []
    for digit in digits:
        if found and found[-1].dim == digit.dim and found[-1].inner == digit.inner * digit.size:
            digit = Place(digit.dim, found.pop().size * digit.size, digit.inner)
        found.append(digit)
    return tuple(found)


def whole(grid: Map, shape: Sequence[int]) -> Layout:
    """The layout (..., H, W)."""
    return Layout(
        grid, tuple(shape), tuple((Place(i - 2, n),) if n > 1 else () for i, n in enumerate(grid.size))
    )


def joined(layouts: Iterable[Layout | None], shape: Sequence[int]) -> Layout | None:
    """Everything that broadcasts: index i of the result reads index i of each of `layouts`.

    None among them does not depend on the image; None is the result where none of them does.
    """
    parts = [part for part in layouts if part is not None]
    if not parts:
        return None
    if not agree(parts) and min(len(part.shape) for part in parts) >= 2:
        parts = [part.gridded()[0] for part in parts]
    if not agree(parts):  # rows of one meet columns of another, say
        parts = [parts[0], *(part.fold() for part in parts[1:])]
    places = tuple(max(each, key=len) for each in zip(*(part.places for part in parts), strict=True))
    size = [max(part.map.size[axis] for part in parts) for axis in (0, 1)]
    grids = list(dict.fromkeys(part.map for part in parts))
    grid = grids[0] if len(grids) == 1 else Map(size, [each.edge_from(size) for each in grids])
    return Layout(grid, tuple(shape), places)


def agree(parts: list[Layout]) -> bool:
    """Do the rows of all parts lie in the same places, or are cut off early, and their columns elsewhere?"""
    longest = [max(each, key=len) for each in zip(*(part.places for part in parts), strict=True)]
    pairs = (zip(part.places, longest, strict=True) for part in parts)
    apart = all(
        a.dim != b.dim or a.size * a.inner <= b.inner or b.size * b.inner <= a.inner
        for a, b in combinations([*longest[0], *longest[1]], 2)
    )
    return apart and all(own == most[: len(own)] for pair in pairs for own, most in pair)
