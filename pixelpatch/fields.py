"""Which input pixels can an output pixel see? The exact receptive field of any segmentation network.

    rf = receptive_field(model, (1, 1, 256, 256))
    rf.box(row, col), rf.mask(row, col), rf.stride, rf.layers, rf.whole_image

1. **Trace** (`engine.trace`). The module runs once, unmodified, on tensors that have a shape and no data.
2. **Taps** (`engine.rules`). Each operation says what it reads: one table of indices for rows, one for
   columns.
3. **Propagate** (`engine.propagate`). From the output back to the input, every row of every layer collects
   the set of output rows that it influences, and every column the set of output columns. Read the other way
   round, the same tables hold the field of each output pixel, in the input and in every layer between.

Rows and columns can be kept apart because a local layer reads a rectangle, full or with holes: a set of rows
times a set of columns. Where branches meet, a field is the *union* of such products: a 1x7 convolution beside
a 7x1 makes a plus. Araujo et al. 2019, "Computing receptive fields of convolutional neural networks"
(Distill), derive the sizes of known networks by hand.

The answer is structural: what *can* influence a pixel, for some weights and some image. It is exact, save for
upper bounds, never too small: the channels of a layer (and the images of a batch) share one field; before a
warp by a given grid (`grid_sample`) a field is a box; a warp by a grid that the image itself decides counts
as reading the whole map, a cumulative sum as reading its whole line, and so does rearranging positions into
something that no longer has rows and columns (tokens joined by a class token, windows that a layer reads in
one). All but the first two are listed in `whole_image`. A weight counts however small it is: where a window
of a shifted Swin joins both ends of a map, torchvision subtracts 100 before the softmax, and e^-100 is left.
"""

from collections.abc import Sequence
from functools import cached_property
from numbers import Integral
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from torch import nn
from torch.nn.parameter import is_lazy

from pixelpatch.engine.layout import Map, whole
from pixelpatch.engine.propagate import Axis, propagate, repeat
from pixelpatch.engine.rules import UnknownOperation
from pixelpatch.engine.trace import Trace
from pixelpatch.scores import check_forward

__all__ = ["Box", "Layer", "ReceptiveField", "UnknownOperation", "Whole", "receptive_field"]


class Whole(NamedTuple):
    """A layer that makes the patch the whole image, and why."""

    layer: str
    reason: str


class Box(NamedTuple):
    """Half-open rectangle in pixels: rows `top <= r < bottom` and columns `left <= c < right`."""

    top: int
    left: int
    bottom: int
    right: int


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
    if not (isinstance(row, Integral) and isinstance(col, Integral)):
        raise TypeError(f"pixel ({row}, {col}) is no place: give whole numbers")
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
        terms = propagate(list(trace.maps), output, local)
        super().__init__("input", "input", shape, output_shape, terms[trace.input])
        self.layers = [Layer(*layer, output_shape, terms[at]) for *layer, at in trace.layers if terms[at]]
        used = [grid for grid in trace.maps if terms[grid] or grid is trace.input]
        found = [Whole(trace.maps[grid], grid.reason) for grid in used if grid.reason and not local]
        self.whole_image = list(dict.fromkeys(found))
        # What of the trace is asked again; the tensors that it met are let go.
        self.trace = SimpleNamespace(maps=trace.maps, layers=trace.layers, input=trace.input)
        self.output = output
        self.stride, self.step = zip(*(repeat(used, output, axis) for axis in (0, 1)), strict=True)

    @cached_property
    def local(self) -> "ReceptiveField":
        """The fields, were it not for what reads a whole map: all other ways from the image to the output."""
        return ReceptiveField(self.trace, self.shape, self.output, self.output_shape, local=True)

    @cached_property
    def halo(self) -> tuple[tuple[int, int] | None, ...] | None:
        """How much image a tile needs (before, after) its own rows, and columns, for its scores to be exact.

        Its own pixels are those it lies on; where the output is smaller than the image, it lies in its
        middle. A tile starts at a multiple of the stride, and so does what is cut out for it: hence whole
        strides. None where no halo is enough, because a pixel sees the whole image or the pattern never
        repeats; and along one axis, where the image is too small to tell: its border cuts off every patch.
        """
        if self.whole_image or self.stride == self.shape[2:]:
            return None
        return tuple(None if sides_of(self, axis)[1] else halo_of(self, axis) for axis in (0, 1))

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


def ends_of(field: Layer, axis: int) -> list[tuple[int, int]]:
    """Where the patch of each output position starts and stops along one axis, through the middle."""
    middle, n = field.output_shape[3 - axis] // 2, field.output_shape[2 + axis]
    boxes = [field.box(*((at, middle) if axis == 0 else (middle, at))) for at in range(n)]
    return [(box[axis], box[axis + 2]) for box in boxes]


def sides_of(field: ReceptiveField, axis: int) -> tuple[list[int], bool]:
    """The sides of the patches of one stride of outputs, in the middle; are all cut off at the border?"""
    ends, size, period = ends_of(field, axis), field.shape[2 + axis], abs(field.step[axis])
    first = len(ends) // 2 // period * period
    middle = ends[first : first + period]
    whole = sorted({stop - start for start, stop in middle if start > 0 and stop < size})
    return (whole, False) if whole else ([max(stop - start for start, stop in middle)], True)


def halo_of(field: ReceptiveField, axis: int) -> tuple[int, int]:
    """`ReceptiveField.halo` along one axis."""
    ends, size, stride, step = (
        ends_of(field, axis),
        field.shape[2 + axis],
        field.stride[axis],
        field.step[axis],
    )
    margin = max((size - len(ends) * stride // abs(step)) // 2, 0)  # none where the output rounds up
    own = [margin + at // abs(step) * stride for at in range(len(ends))]  # where the stride around it starts
    pairs = zip(own, ends if step > 0 else ends[::-1], strict=True)
    pairs = [(start, *end) for start, end in pairs if any(end)]  # some see nothing, but padding
    before = max([margin, *(start - first for start, first, _ in pairs)])
    after = max([margin, *(stop - start - stride for start, _, stop in pairs)])
    return before + (margin - before) % stride, after + (size - margin - after) % stride


def receptive_field(model: nn.Module, shape: tuple[int, int, int, int]) -> ReceptiveField:
    """The exact receptive field of every output pixel of `model` for images of `shape` (N, C, H, W).

    The model maps one (N, C, H, W) tensor to one tensor, of scores or of labels (N, h, w), or to a dict that
    has one under "out", or to whatever holds a single one. It is not changed, and it is judged in the mode it
    is in: call `model.eval()` first unless training is meant.

    Raises TypeError or ValueError where model or shape are of the wrong form, and `UnknownOperation`, which
    names the operation and the layer, where there is no rule for an operation.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}: give a torch.nn.Module")
    if hasattr(shape, "shape"):
        raise TypeError(f"shape is a {type(shape).__name__}: give its shape, {tuple(shape.shape)}")
    positive = isinstance(shape, Sequence) and all(isinstance(n, Integral) and n > 0 for n in shape)
    if not positive or len(shape) != 4:
        raise ValueError(f"shape is {shape}: give four positive integers, such as (1, 1, 256, 256)")
    if any(map(is_lazy, model.parameters())):
        raise ValueError("the model has lazy layers, which get weights from their first image: run it once")
    check_forward(model)
    shape = tuple(map(int, shape))
    trace = Trace(model, shape)
    layout = trace.read(trace.output)
    if layout is None:
        raise ValueError("the model's output does not depend on its input, so it has no receptive field")
    if not any(layout.places) and len(layout.shape) < 3:  # (N, classes): one position
        layout = layout._replace(shape=(*layout.shape, 1, 1))
    if len(layout.shape) == 3 and layout == whole(layout.map, layout.shape):  # labels (N, H, W)
        layout = layout.reshaped((layout.shape[0], 1, *layout.shape[1:]))
    if len(layout.shape) != 4:
        raise ValueError(
            f"the model's output has shape {layout.shape}, expected (N, classes, h, w): wrap the model in a "
            "module that returns the tensor you ask about in this shape"
        )
    layout, axes = layout.gridded()
    if axes != [0, 1]:
        raise ValueError("the output's rows are the input's columns: let the model return (N, C, H, W)")
    trace.note(layout.map)
    return ReceptiveField(trace, shape, layout.map, layout.shape)
