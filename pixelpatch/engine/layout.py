"""Where do the rows and columns of a map lie in a tensor?

A `Map` is a grid of positions that the trace tells apart, and what they read. A `Layout` says where the rows
and columns of a map lie in a tensor: mostly (N, C, H, W), but after `permute(0, 2, 3, 1)` they come before
the channels, and after `flatten(2)` they share one dimension. All channels of a layer share one field, and so
do all images of a batch.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import prod
from typing import NamedTuple

import numpy as np

from pixelpatch.engine.taps import NOWHERE, Taps, all_of

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
        return (self, *(None if n == count else Taps(np.zeros(count, int), n) for n, count in pairs))


class Place(NamedTuple):
    """Where one axis lies: index i of dimension `dim` (-1 is the last) is position `i // inner % size`."""

    dim: int
    inner: int = 1


class Layout(NamedTuple):
    """Where the positions of a map lie in a tensor of this shape.

    places  of its rows and of its columns; None for an axis of one position. What else the dimensions hold
            are channels and images.
    """

    map: Map
    shape: tuple[int, ...]
    places: tuple[Place | None, Place | None]

    def axes(self, dim: int) -> list[int]:
        """The axes (0 rows, 1 columns) that lie in dimension `dim`, counted from the last one, -1."""
        return [axis for axis in (0, 1) if self.places[axis] and self.places[axis].dim == dim]

    def read_by(self, taps: Sequence, shape: Sequence[int], places: Sequence, why: str = "") -> "Layout":
        """The layout of what reads this one by `taps` of rows and columns; None reads each its own."""
        pairs = zip(taps, self.map.size, strict=True)
        size = [n if along is None else len(along) for along, n in pairs]
        places = tuple(place if n > 1 else None for place, n in zip(places, size, strict=True))
        return Layout(Map(size, [(self.map, *taps)], why), tuple(shape), places)

    def fold(self, dims: Iterable[int] | None = None, why: str = REARRANGED) -> "Layout":
        """Let every index of the dimensions `dims`, or of all, read all of them: mean, matrix product, ..."""
        n = max(len(self.shape), 1)
        axes = [axis for dim in (range(n) if dims is None else dims) for axis in self.axes(dim % n - n)]
        taps = [all_of(n) if axis in axes else None for axis, n in enumerate(self.map.size)]
        return self.read_by(taps, self.shape, self.places, why) if axes else self

    def mixed(self, dims: Iterable[int], why: str) -> "Layout":
        """Every index along `dims` reads itself and all others, and keeps its place."""
        grid, size = self.fold(dims, why).map, self.map.size
        if grid is self.map:
            return self
        return self._replace(map=Map(size, [grid.edge_from(size), self.map.edge_from(size)]))

    def moved(self, shape: Sequence[int], to: dict[int, int]) -> "Layout":
        """What lay in dimension `dim` lies in dimension `to[dim]`, counted from the last one, -1."""
        places = [None if place is None else place._replace(dim=to[place.dim]) for place in self.places]
        return Layout(self.map, tuple(shape), tuple(places))

    def reshaped(self, shape: Sequence[int]) -> "Layout":
        """view, flatten, squeeze, ...: rows or columns that go whole into one dimension can be followed."""
        places, shape = [None, None], tuple(shape)
        for axis, place in enumerate(self.places):
            if place:
                inner = place.inner * prod(self.shape[place.dim :][1:])
                outer = inner * self.map.size[axis]
                for dim in range(-len(shape), 0):
                    unit = prod(shape[dim:][1:])
                    if inner % unit == 0 and unit * shape[dim] % outer == 0:
                        places[axis] = Place(dim, inner // unit)
                if not places[axis]:
                    return self.fold()._replace(shape=shape)
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
        size, inner = self.map.size[axis], places[axis].inner if places[axis] else 1
        reads = np.where(inside, index // inner % size, NOWHERE)
        taps[axis] = Taps(reads, size, None if step is None else Fraction(step))
        places[axis] = Place(dim)
        return self.read_by(taps, shape, places)

    def gridded(self) -> tuple["Layout", list[int]]:
        """The same as (..., H, W) with whole rows and columns, and which axis lies in which of the two."""
        layout = self.fold(range(-len(self.shape), -2))
        if max(len(layout.axes(-2)), len(layout.axes(-1))) > 1:
            layout = layout.fold()
        axes = [1, 0] if 0 in layout.axes(-1) or 1 in layout.axes(-2) else [0, 1]
        taps, places = [None, None], [Place(axes[0] - 2), Place(axes[1] - 2)]
        for axis, place in enumerate(layout.places):
            n, size = layout.shape[places[axis].dim], layout.map.size[axis]
            if n != size:
                taps[axis] = Taps(np.arange(n) // (place.inner if place else 1) % size, size)
        if taps == [None, None]:
            return layout, axes
        return layout.read_by(taps, layout.shape, places), axes


def whole(grid: Map, shape: Sequence[int]) -> Layout:
    """The layout (..., H, W)."""
    return Layout(grid, tuple(shape), tuple(Place(i - 2) if grid.size[i] > 1 else None for i in (0, 1)))


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
    places = tuple(next(filter(None, each), None) for each in zip(*(p.places for p in parts), strict=True))
    size = [max(part.map.size[axis] for part in parts) for axis in (0, 1)]
    grids = list(dict.fromkeys(part.map for part in parts))
    grid = grids[0] if len(grids) == 1 else Map(size, [each.edge_from(size) for each in grids])
    return Layout(grid, tuple(shape), places)


def agree(parts: list[Layout]) -> bool:
    """Do the rows of all parts lie in one place, their columns in another?"""
    rows, columns = ({(*p.places[i], p.map.size[i]) for p in parts if p.places[i]} for i in (0, 1))
    if not rows or not columns:
        return len(rows | columns) <= 1
    (row_dim, row, n), (column_dim, column, m) = min(rows), min(columns)
    apart = row_dim != column_dim or row * n <= column or column * m <= row
    return len(rows) == len(columns) == 1 and apart
