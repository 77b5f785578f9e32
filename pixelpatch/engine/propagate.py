"""From the output back to the input: which output pixels does each position of each map influence?

Every row of every map collects the set of output rows that it influences, and every column the set of output
columns. Rows and columns can be kept apart because a local layer reads a rectangle, full or with holes: a set
of rows times a set of columns. Where branches meet, a field is the *union* of such products: a 1x7
convolution beside a 7x1 makes a plus. Before a warp they go together, pixel by pixel (`Axis.joint`).
"""

from fractions import Fraction
from functools import cached_property
from math import lcm

import numpy as np

from pixelpatch.engine.layout import Map
from pixelpatch.engine.taps import Taps, Warp


class Axis:
    """Which of n_out output positions do the n positions of a layer influence, along one axis?

    bits   (n, words) uint64: bit o of row i is set if position i influences output position o
    joint  before a warp rows and columns no longer go apart: then o counts the output's pixels row by row,
           in both axes of a term, and n_out is their number
    """

    def __init__(self, bits: np.ndarray, n_out: int, joint: bool = False):
        self.bits, self.n_out, self.joint = bits, n_out, joint

    @cached_property
    def influences(self) -> np.ndarray:
        """(n, n_out) bool"""
        return np.unpackbits(self.bits.view(np.uint8), axis=1, bitorder="little", count=self.n_out).view(bool)

    @cached_property
    def fields(self) -> np.ndarray:
        """(n_out, n) bool: the positions that each output position sees."""
        return np.ascontiguousarray(self.influences.T)

    @cached_property
    def hulls(self) -> np.ndarray:
        """(n_out, 2) the first position that each output position sees, one past the last; 0, 0 if none."""
        first, stop = self.fields.argmax(1), self.fields.shape[1] - self.fields[:, ::-1].argmax(1)
        return np.stack([first, stop], 1) * self.fields.any(1)[:, None]

    @cached_property
    def runs(self) -> tuple[np.ndarray, np.ndarray]:
        """offset (n_out + 1,), runs (k, 2): o sees start <= i < stop of runs[offset[o] : offset[o + 1]]."""
        edges = np.diff(np.pad(self.fields, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        output, start = np.nonzero(edges == 1)
        offset = np.searchsorted(output, np.arange(self.n_out + 1))
        return offset.astype(np.uint32), np.stack([start, np.nonzero(edges == -1)[1]], 1).astype(np.uint32)


def propagate(maps: list[Map], output: Map, local: bool) -> dict[Map, list[tuple[Axis, Axis]]]:
    """For each map, the pairs (rows, columns) whose union is what each position of it influences.

    local  without the ways on which one position reads a whole map
    """
    known: dict[tuple, Axis] = {}  # equal axes are one object, so that a square network costs half
    done: dict[tuple, Axis] = {}

    def unique(bits: np.ndarray, n_out: int, joint: bool = False) -> Axis:
        return known.setdefault((n_out, joint, len(bits), bits.tobytes()), Axis(bits, n_out, joint))

    def pulled(axis: Axis, taps: Taps | None) -> Axis:
        """What the positions of a layer's input influence: all that their readers do."""
        if taps and (axis, taps) not in done:
            bits = np.concatenate([axis.bits, np.zeros_like(axis.bits[:1])])  # the last: no reader
            reached = bits[taps.inverse[:, 0]]
            for reader in taps.inverse.T[1:]:
                reached |= bits[reader]
            done[axis, taps] = unique(reached, axis.n_out, axis.joint)
        return done[axis, taps] if taps else axis

    def unwarped(term: tuple[Axis, Axis], warp: Warp, size: tuple[int, int]) -> tuple[Axis, Axis]:
        """The same for what a warp reads: for each output pixel, a box of rows first to last, and columns."""
        first, last = extremes(warp, *term)
        at = [np.arange(n)[:, None] for n in size]
        inside = [(at[axis] >= first[:, axis]) & (at[axis] <= last[:, axis]) for axis in (0, 1)]
        return tuple(unique(packed(each), len(first), joint=True) for each in inside)

    terms = {grid: [] for grid in maps}
    terms[output] = [tuple(unique(packed(np.eye(n, dtype=bool)), n) for n in output.size)]
    for grid in reversed(maps):
        terms[grid] = undominated(terms[grid])
        for source, *taps in grid.edges:
            if local and any(along and along.reads_all for along in taps):
                continue
            if isinstance(taps[0], Warp):
                through = [unwarped(term, taps[0], source.size) for term in terms[grid]]
            else:
                through = [tuple(map(pulled, term, taps)) for term in terms[grid]]
            terms[source] = terms[source] + through
    return terms


BEYOND = 2**31  # behind all positions


def extremes(warp: Warp, rows: Axis, cols: Axis) -> tuple[np.ndarray, np.ndarray]:
    """First and last (row, column) that each output pixel's rows x columns of a warp read: (pixels, 2)."""
    if rows.joint:
        parts = [(slice(*r), slice(*c)) for r, c in zip(rows.hulls, cols.hulls, strict=True)]
        first = [warp.first[part].min((0, 1), initial=BEYOND) for part in parts]
        return np.array(first), np.array([warp.last[part].max((0, 1), initial=-1) for part in parts])
    seen = (rows.hulls[:, 1, None] > 0) & (cols.hulls[:, 1] > 0)
    found = []
    for least, boxes, none in ((np.minimum, warp.first, BEYOND), (np.maximum, warp.last, -1)):
        boxes = np.pad(boxes, ((0, 1), (0, 1), (0, 0)))  # because a hull may end where the map does
        boxes = least.reduceat(boxes, rows.hulls.ravel(), axis=0)[::2]  # hull by hull
        boxes = least.reduceat(boxes, cols.hulls.ravel(), axis=1)[:, ::2]
        found.append(np.where(seen[..., None], boxes, none).reshape(-1, 2))
    return tuple(found)


def packed(influences: np.ndarray) -> np.ndarray:
    """(n, n_out) bool -> (n, words) uint64, one bit each."""
    bits = np.packbits(influences, axis=1, bitorder="little")
    return np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8))).view(np.uint64)


def undominated(terms: list[tuple[Axis, Axis]]) -> list[tuple[Axis, Axis]]:
    """Drop every product of rows and columns that lies inside another, and those that are empty."""

    def inside(a: Axis, b: Axis) -> bool:
        return a is b or (a.joint == b.joint and not (a.bits & ~b.bits).any())

    kept: list[tuple[Axis, Axis]] = []
    for rows, cols in dict.fromkeys(terms):
        if any(inside(rows, r) and inside(cols, c) for r, c in kept):
            continue
        if rows.bits.any() and cols.bits.any():
            kept = [(r, c) for r, c in kept if not (inside(r, rows) and inside(c, cols))] + [(rows, cols)]
    return kept


def repeat(maps: list[Map], output: Map, axis: int) -> tuple[int, int]:
    """Input pixels after which the pattern of fields repeats, and how many output pixels further on.

    Strides multiply, branches meet at a multiple. None for a map whose positions are all alike.
    """
    shifts: dict[Map, tuple[int, int] | None] = {maps[0]: (1, 1)}  # (of the input, of the map)
    never = maps[0].size[axis], output.size[axis]
    for grid in maps[1:]:
        options = []
        for source, *taps in grid.edges:
            step = Fraction(1) if taps[axis] is None else taps[axis].step
            if step == 0:
                return never
            if shifts.get(source) and step:
                pixels, moved = shifts[source]
                unit = lcm(moved, step.numerator)
                options.append((pixels * unit // moved, int(unit / step)))
        if len({Fraction(*option) for option in options}) > 1:
            return never
        pixels = lcm(*(pixels for pixels, _ in options))
        shifts[grid] = (pixels, pixels * options[0][1] // options[0][0]) if options else None
    pixels, moved = shifts[output] or (1, 1)
    if abs(pixels) > maps[0].size[axis]:
        return never
    return abs(pixels), moved if pixels > 0 else -moved
