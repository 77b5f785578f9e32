"""Which input pixels can an output pixel see? The exact receptive field of any segmentation network.

    rf = receptive_field(model, (1, 1, 256, 256))
    rf.box(row, col), rf.mask(row, col), rf.stride, rf.layers, rf.whole_image

1. **Trace** (`utils.tracing`). The module runs once, unmodified, on tensors that have a shape and no data.
2. **Taps** (`utils.operations`). Each operation says what it reads: one table of indices for rows, one for
   columns.
3. **Propagate** (here). From the output back to the input, every row of every layer collects the set of
   output rows that it influences, and every column the set of output columns. Read the other way round, the
   same tables hold the field of each output pixel, in the input and in every layer between.

Rows and columns can be kept apart because a local layer reads a rectangle, full or with holes: a set of rows
times a set of columns. Where branches meet, a field is the *union* of such products: a 1x7 convolution beside
a 7x1 makes a plus. Araujo et al. 2019, "Computing receptive fields of convolutional neural networks"
(Distill), derive the sizes of known networks by hand.

The answer is structural: what *can* influence a pixel, for some weights and some image. It is exact, save for
upper bounds, never too small: the channels of a layer (and the images of a batch) share one field; before a
warp by a given grid (`grid_sample`) a field is a box; a warp by a grid that the image itself decides counts
as reading the whole map, a cumulative sum as reading its whole line, and so does rearranging positions into
something that no longer has rows and columns (windows of a transformer, tokens joined by a class token). All
but the first two are listed in `whole_image`.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property
from inspect import signature
from math import lcm
from numbers import Integral
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from utils.operations import RULES, VIEWS
from utils.tracing import Map, Taps, Trace, UnknownOperation, Warp, Whole

__all__ = ["Axis", "Box", "Layer", "ReceptiveField", "UnknownOperation", "Whole", "receptive_field"]


class Box(NamedTuple):
    """Half-open rectangle in pixels: rows `top <= r < bottom` and columns `left <= c < right`."""

    top: int
    left: int
    bottom: int
    right: int


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


class Layer:
    """A traced layer (or the input), and the field in it of each output pixel.

    name   its module's path, such as "encoder.1.conv"; several layers may come from one module
    op     the operation, such as "conv2d"
    shape  (N, C, H, W), and `output_shape` that of the model's output
    terms  the field is the union of rows x columns over these pairs
    """

    def __init__(self, name: str, op: str, shape: tuple, output_shape: tuple, terms: list[tuple[Axis, Axis]]):
        self.name, self.op, self.shape, self.output_shape, self.terms = name, op, shape, output_shape, terms

    def __repr__(self) -> str:
        return f"Layer({self.name!r}, {self.op!r}, {self.shape})"

    def box(self, row: int, col: int) -> Box:
        """The smallest box round the field of output pixel (row, col); (0, 0, 0, 0) if it sees nothing."""
        return self.box_of(Box(row, col, row + 1, col + 1))

    def box_of(self, part: Box) -> Box:
        """The smallest box round the fields of all output pixels in a box of them, such as a tile."""
        if part.bottom <= part.top or part.right <= part.left:
            raise ValueError(
                f"{part} holds no output pixel: let it end behind its start, in rows and columns"
            )
        check(*part[:2], self.output_shape, "output")
        check(part.bottom - 1, part.right - 1, self.output_shape, "output")
        found = []
        for rows, cols in self.terms:
            if rows.joint:
                lines = np.arange(part.top, part.bottom)[:, None] * self.output_shape[-1]
                pixels = (lines + np.arange(part.left, part.right)).ravel()
                r, c = rows.hulls[pixels], cols.hulls[pixels]
                seen = (r[:, 1] > 0) & (c[:, 1] > 0)
                r, c = r[seen], c[seen]
            else:
                r, c = rows.hulls[part.top : part.bottom], cols.hulls[part.left : part.right]
                r, c = r[r[:, 1] > 0], c[c[:, 1] > 0]
            if len(r) and len(c):
                found.append((r[:, 0].min(), c[:, 0].min(), r[:, 1].max(), c[:, 1].max()))
        edges = np.array(found or [(0, 0, 0, 0)])
        return Box(*(int(edge) for edge in (*edges[:, :2].min(0), *edges[:, 2:].max(0))))

    def mask(self, row: int, col: int) -> np.ndarray:
        """(H, W) bool: exactly the positions in this layer that output pixel (row, col) sees."""
        check(row, col, self.output_shape, "output")
        pixel = row * self.output_shape[-1] + col
        seen = np.zeros(self.shape[-2:], bool)
        for rows, cols in self.terms:
            i, j = (pixel, pixel) if rows.joint else (row, col)
            seen |= rows.fields[i][:, None] & cols.fields[j]
        return seen

    def influence(self, row: int, col: int) -> np.ndarray:
        """(H, W) bool, like the output: the pixels that position (row, col) of this layer influences."""
        check(row, col, self.shape, self.name)
        reached = np.zeros(self.output_shape[-2:], bool)
        for rows, cols in self.terms:
            tall, wide = (reached.shape, reached.shape) if rows.joint else ((-1, 1), (1, -1))
            reached |= rows.influences[row].reshape(tall) & cols.influences[col].reshape(wide)
        return reached


def check(row: int, col: int, shape: tuple, name: str) -> None:
    height, width = shape[-2:]
    if not (0 <= row < height and 0 <= col < width):
        raise IndexError(
            f"pixel ({row}, {col}) lies outside the {name}, which is {height} x {width}: "
            f"take a row from 0 to {height - 1} and a column from 0 to {width - 1}"
        )


class ReceptiveField(Layer):
    """The receptive fields of all output pixels; itself the layer "input".

    layers       every traced layer that the output depends on, first to last, each a `Layer`
    stride       input pixels (rows, columns) after which the pattern of boxes repeats, borders aside;
                 the image's own size where it never does
    step         output pixels (rows, columns) in one stride; negative where the network turns the image over
    whole_image  the layers that let one pixel read a whole map, each a `Whole(layer, reason)`; empty if none
    """

    def __init__(self, trace: Trace, shape: tuple, output: Map, output_shape: tuple, local: bool = False):
        terms = propagate(trace.maps, output, local)
        super().__init__("input", "input", shape, output_shape, terms[trace.input])
        self.layers = [Layer(*layer, output_shape, terms[at]) for *layer, at in trace.layers if terms[at]]
        used = [grid for grid in trace.maps if terms[grid] or grid is trace.input]
        self.whole_image = list(dict.fromkeys(grid.whole for grid in used if grid.whole and not local))
        self.trace, self.output = trace, output
        self.stride, self.step = zip(*(repeat(used, output, axis) for axis in (0, 1)), strict=True)

    @cached_property
    def local(self) -> "ReceptiveField":
        """The fields, were it not for what reads a whole map: all other ways from the image to the output."""
        return ReceptiveField(self.trace, self.shape, self.output, self.output_shape, local=True)

    def tables(self) -> dict:
        """Everything above as plain lists and small arrays, for a page that hovers without asking Python.

        {"input": shape, "output": shape, "stride": [rows, columns],
         "axes": [{"offset": uint16 (n_out + 1,), "runs": uint16 (k, 2), "joint"}, ...],   see `Axis`
         "layers": [{"name", "op", "shape", "terms": [[axis of rows, axis of columns], ...]}, ...]}

        The first layer is the input. Layers with the same fields share their axes.
        """
        layers = [self, *self.layers]
        axes = list(dict.fromkeys(axis for layer in layers for term in layer.terms for axis in term))
        number = {axis: i for i, axis in enumerate(axes)}
        small = all(table.max(initial=0) < 2**16 for axis in axes for table in axis.runs)
        kind = np.uint16 if small else np.uint32
        return {
            "input": list(self.shape),
            "output": list(self.output_shape),
            "stride": list(self.stride),
            "axes": [
                {"offset": axis.runs[0].astype(kind), "runs": axis.runs[1].astype(kind), "joint": axis.joint}
                for axis in axes
            ],
            "layers": [
                {
                    "name": layer.name,
                    "op": layer.op,
                    "shape": list(layer.shape),
                    "terms": [[number[rows], number[cols]] for rows, cols in layer.terms],
                }
                for layer in layers
            ],
        }


def receptive_field(model: nn.Module, shape: tuple[int, int, int, int]) -> ReceptiveField:
    """The exact receptive field of every output pixel of `model` for images of `shape` (N, C, H, W).

    The model maps one (N, C, H, W) tensor to one tensor, or to a dict that has one under "out". It is not
    changed, and it is judged in the mode it is in: call `model.eval()` first unless training is meant.

    Raises TypeError or ValueError where model or shape are of the wrong form, and `UnknownOperation`, which
    names the operation and the layer, where there is no rule for an operation.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}: give a torch.nn.Module")
    positive = isinstance(shape, Sequence) and all(isinstance(n, Integral) and n > 0 for n in shape)
    if not positive or len(shape) != 4:
        raise ValueError(f"shape is {shape}: give four positive integers, such as (1, 1, 256, 256)")
    if any(map(is_lazy, model.parameters())):
        raise ValueError("the model has lazy layers, which get weights from their first image: run it once")
    check_forward(model)
    shape = tuple(map(int, shape))
    trace = Trace(model, shape, RULES, VIEWS)
    check_output(trace.output)
    layout = trace.read(trace.output)
    if layout is None:
        raise ValueError("the model's output does not depend on its input, so it has no receptive field")
    if not any(layout.places) and len(layout.shape) < 3:  # (N, classes): one position
        layout = layout._replace(shape=(*layout.shape, 1, 1))
    if len(layout.shape) != 4:
        raise ValueError(
            f"the model's output has shape {layout.shape}, expected (N, classes, h, w): wrap the model in a "
            "module that returns the tensor you ask about in this shape"
        )
    layout, axes = layout.gridded()
    if axes != [0, 1]:
        raise ValueError("the output's rows are the input's columns: let the model return (N, C, H, W)")
    return ReceptiveField(trace, shape, layout.map, layout.shape)


def check_forward(model: nn.Module) -> None:
    """Raise TypeError if the model's forward wants more, or less, than one image."""
    try:
        form = signature(model.forward)
        form.bind(None)
    except TypeError as error:
        raise TypeError(
            f"the model's forward is forward{form}, expected one that takes an image alone ({error}): wrap "
            "the model in a module that fills in the rest"
        ) from error
    except ValueError:  # compiled code may have no signature
        return


def check_output(out) -> None:
    """Raise TypeError if a model returns something else than a tensor."""
    if not isinstance(out, Tensor):
        keys = f" with {', '.join(map(repr, out))}" if isinstance(out, dict) else ""
        raise TypeError(
            f"the model returns a {type(out).__name__}{keys}, not one tensor or a dict with one under 'out': "
            "wrap the model in a module that returns the tensor you ask about"
        )


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
