"""One run of a module on tensors that have a shape and no data, meeting every operation on the way.

torch hands each operation that the module dispatches to `Trace.__torch_dispatch__`, whatever Python code led
to it. Where the input is involved, a rule of `utils.operations` says what the result reads; constants are
computed as they stand. What has no rule is an `UnknownOperation`: never a guess.

A `Map` is a grid of positions that the trace tells apart, and what they read. A `Layout` says where the rows
and columns of a map lie in a tensor: mostly (N, C, H, W), but after `permute(0, 2, 3, 1)` they come before
the channels, and after `flatten(2)` they share one dimension. All channels of a layer share one field, and so
do all images of a batch.
"""

from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import cached_property, lru_cache
from math import prod
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from utils import without_compiler

NOWHERE = -(2**31)  # a tap that reads nothing: a zero of the padding, a gap of a transposed convolution
REARRANGED = "positions rearranged"  # why rows and columns are no longer told apart


class UnknownOperation(NotImplementedError):
    """The module uses an operation for which there is no rule."""


class Whole(NamedTuple):
    """A layer that makes the patch the whole image, and why."""

    layer: str
    reason: str


# ------------------------------------------------------------------ which positions read which


class Taps:
    """Along one axis, position `o` of the output reads the positions `index[o]` of the input.

    index  (n_out, k) integers, or (n_out,) for one tap each; those outside 0 .. n_in - 1 read nothing
    step   input positions per output position: 2 for a stride of 2, 1/2 for upsampling by 2
    """

    def __init__(self, index: np.ndarray, n_in: int, step: Fraction | None = None):
        self.index, self.n_in, self._step = index if index.ndim == 2 else index[:, None], n_in, step

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def inside(self) -> np.ndarray:
        """(n_out, k) bool: the taps that do read something."""
        return (self.index >= 0) & (self.index < self.n_in)

    @cached_property
    def inverse(self) -> np.ndarray:
        """(n_in, k) the outputs that read each input position; filled up with n_out, which is none."""
        reader, source = np.nonzero(self.inside)[0], self.index[self.inside]
        order = np.argsort(source, kind="stable")
        reader, source = reader[order], source[order]
        rank = np.arange(len(source)) - np.searchsorted(source, source)  # a count for each source
        table = np.full((self.n_in, rank.max(initial=0) + 1), len(self))
        table[source, rank] = reader
        return table

    @cached_property
    def step(self) -> Fraction | None:
        """The shift of the input over the smallest shift of the output that moves all taps alike.

        0 if no shift does; None if there is nothing to move, every output position reading the same.
        """
        if self.n_in == 1 or self.reads_all:
            return None
        if self._step or len(self) == 1:
            return self._step
        for shift in range(1, len(self) // 2 + 1):  # seen at least twice
            both = self.inside[shift:] & self.inside[:-shift]
            moved = (self.index[shift:] - self.index[:-shift])[both]
            if moved.size and (moved == moved[0]).all():
                return Fraction(int(moved[0]), shift) if moved[0] else None
        return Fraction(0)

    @cached_property
    def reads_all(self) -> bool:
        """One output position that reads every input position, of which there are several."""
        return len(self) == 1 < self.n_in <= len(np.unique(self.index[self.inside]))


class Warp(NamedTuple):
    """Each output position reads a box of its own: first <= (row, column) <= last, (h, w, 2) integers."""

    first: np.ndarray
    last: np.ndarray
    reads_all: bool = False
    step: Fraction = Fraction(0)  # no shift of the output moves all boxes alike


@lru_cache(4096)
def all_of(n: int) -> Taps:
    """One position that reads all n."""
    return Taps(np.arange(n)[None], n)


class Map:
    """A grid of size (rows, columns), and what it reads: edges (map, taps of rows, taps of columns).

    Taps are None where position i reads position i. `whole` tells whether, and why, one position reads all.
    """

    def __init__(self, trace: "Trace", size: Sequence[int], edges: Sequence[tuple] = (), why: str = ""):
        self.trace, self.size, self.edges, self.whole = trace, tuple(size), edges, None
        for source, *pair in edges:
            axes = zip(("rows", "columns"), pair, strict=True)
            if extent := " and ".join(name for name, taps in axes if taps and taps.reads_all):
                height, width = source.size
                self.whole = Whole(trace.stack[-1], f"{why} over all {extent} of a {height} x {width} map")
        trace.maps.append(self)

    def edge_from(self, size: Sequence[int]) -> tuple:
        """The edge by which a map of `size` reads this one, which may have one position where it has many."""
        pairs = zip(self.size, size, strict=True)
        return (self, *(None if n == count else Taps(np.zeros(count, int), n) for n, count in pairs))


# ------------------------------------------------------------------ where rows and columns lie in a tensor


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
        size = [len(along) if along else n for along, n in zip(taps, self.map.size, strict=True)]
        places = tuple(place if n > 1 else None for place, n in zip(places, size, strict=True))
        return Layout(Map(self.map.trace, size, [(self.map, *taps)], why), tuple(shape), places)

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
        return self._replace(map=Map(grid.trace, size, [grid.edge_from(size), self.map.edge_from(size)]))

    def moved(self, shape: Sequence[int], to: dict[int, int]) -> "Layout":
        """What lay in dimension `dim` lies in dimension `to[dim]`, counted from the last one, -1."""
        places = [place and place._replace(dim=to[place.dim]) for place in self.places]
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
        taps[axis], places[axis] = Taps(reads, size, step and Fraction(step)), Place(dim)
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
        return layout.read_by(taps, layout.shape, places) if any(taps) else layout, axes


def whole(grid: Map, shape: Sequence[int]) -> Layout:
    """The layout (..., H, W)."""
    return Layout(grid, tuple(shape), tuple(Place(i - 2) if grid.size[i] > 1 else None for i in (0, 1)))


def joined(layouts: Iterable[Layout | None], shape: Sequence[int]) -> Layout | None:
    """Everything that broadcasts: index i of the result reads index i of each of `layouts`."""
    parts = [part for part in layouts if part]
    if not parts:
        return None
    if not agree(parts) and min(len(part.shape) for part in parts) >= 2:
        parts = [part.gridded()[0] for part in parts]
    if not agree(parts):  # rows of one meet columns of another, say
        parts = [parts[0], *(part.fold() for part in parts[1:])]
    places = tuple(next(filter(None, each), None) for each in zip(*(p.places for p in parts), strict=True))
    size = [max(part.map.size[axis] for part in parts) for axis in (0, 1)]
    grids = list(dict.fromkeys(part.map for part in parts))
    if len(grids) > 1:
        grids = [Map(grids[0].trace, size, [grid.edge_from(size) for grid in grids])]
    return Layout(grids[0], tuple(shape), places)


def agree(parts: list[Layout]) -> bool:
    """Do the rows of all parts lie in one place, their columns in another?"""
    rows, columns = ({(*p.places[i], p.map.size[i]) for p in parts if p.places[i]} for i in (0, 1))
    if not rows or not columns:
        return len(rows | columns) <= 1
    (row_dim, row, n), (column_dim, column, m) = min(rows), min(columns)
    apart = row_dim != column_dim or row * n <= column or column * m <= row
    return len(rows) == len(columns) == 1 and apart


# ------------------------------------------------------------------ the run


class Trace(TorchDispatchMode):
    """Meets every operation of one run of `model`; collects its maps, layers and the output's layout.

    rules  for the operations by name: rule(call) is the layout of the result
    views  for those whose result shares memory with their argument, see `view`
    """

    @classmethod
    def _should_skip_dynamo(cls):
        return False  # nothing is compiled here, and to say so torch would import its compiler: 150 MB

    def __init__(self, model: nn.Module, shape: tuple[int, int, int, int], rules: dict, views: dict):
        super().__init__()
        self.rules, self.views, self.maps, self.layers = rules, views, [], []
        self.names = {module: name for name, module in model.named_modules()}
        self.names[model] = type(model).__name__
        self.stack, self.ops = [self.names[model]], []  # the modules and the operations that are running
        self.known: dict[int, SimpleNamespace] = {}  # by id, with the tensor, to keep it alive
        self.windows: dict[int, list[Taps]] = {}  # id of a max pooling's indices: the taps of its windows
        self.storages: set[int] = set()  # of the tensors in `known`
        self.own: dict[int, Tensor] = {}  # storages that the run itself allocated, which it may write to
        self.input = Map(self, shape[-2:])
        floating = (p.dtype for p in model.parameters() if p.is_floating_point())
        dtype = next(floating, torch.get_default_dtype())
        entering = nn_module.register_module_forward_pre_hook(self.enter)  # for all modules: none is put on
        leaving = nn_module.register_module_forward_hook(self.leave)  # the model itself
        random = torch.random.fork_rng([])
        light = without_compiler()
        with light, entering, leaving, torch.inference_mode(), random, untouched(model), NumbersHere(), self:
            x = torch.empty(shape, dtype=dtype, device="meta")
            self.write(x, whole(self.input, shape))
            try:
                out = model(x)
            except UnknownOperation:
                raise
            except RuntimeError as error:
                raise UnknownOperation(
                    f"layer {self.stack[-1]!r} fails on tensors that have a shape and no data: {error}; if "
                    "it runs on an image of this shape, it looks at values, which a trace does not have"
                ) from error
            self.output = out["out"] if isinstance(out, dict) and "out" in out else out

    def enter(self, module, args) -> None:
        self.stack.append(self.names.get(module, self.stack[-1]))

    def leave(self, module, args, out) -> None:
        self.stack.pop()

    def unknown(self, what: str) -> UnknownOperation:
        outer = f", part of {self.ops[0]!r}" if len(self.ops) > 1 else ""
        return UnknownOperation(
            f"receptive_field has no rule for {what}{outer} (in layer {self.stack[-1]!r}): write that layer "
            "with operations it knows, or add a rule beside the others in utils/operations.py"
        )

    def read(self, tensor: Tensor | None) -> Layout | None:
        """The layout of a tensor; None if it does not depend on the input. Views follow their base."""
        entry = self.known.get(id(tensor))
        if entry is None:
            if isinstance(tensor, Tensor) and tensor.is_meta and storage(tensor) in self.storages:
                raise self.unknown("a tensor made out of torch's sight (as_subclass, nn.Parameter)")
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
        self.storages.add(storage(tensor))
        if entry.base is not None:
            entry.seen = entry.backward(self.read(entry.base), layout)
            self.write(entry.base, entry.seen)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        a = Call(self, func, args, kwargs or {})
        self.ops.append(a.op)
        try:
            if a.op in self.views:
                return self.view(a)
            if a.op not in self.rules:
                with self:  # an operation that torch defines by others is known by those
                    out = func.decompose(*args, **a.kwargs)
                if out is not NotImplemented:
                    return out
                if a.shares_memory:
                    raise self.unknown(f"the view {a.op!r}")
            return self.apply(a) if any(a.sources) else self.constant(a)
        finally:
            self.ops.pop()

    def constant(self, a: "Call"):
        """What does not depend on the image is computed, as far as there is data."""
        if a.in_place and storage(a.x) not in self.own:
            return a.x  # perhaps the model's own counter: left alone
        if any(x.is_meta for x in a.tensors) or {"running_mean", "out"} & vars(a).keys():  # also written to
            return a.out
        out, given = a.computed(), set(map(storage, a.tensors))
        self.own.update((storage(x), x) for x in tensors_of([out]) if storage(x) not in given)
        return out

    def view(self, a: "Call"):
        """Tensors that share memory: what is written to one shows in the others.

        A rule gives, for each tensor that results, how its layout follows from that of its base, and how the
        base's changes when it is written to: forward(base) and backward(base, new).
        """
        if a.op == "lift_fresh":  # what torch.tensor has just made
            self.own[storage(a.x)] = a.x
            return a.x
        if a.in_place:
            if a.op == "detach":
                return a.x
            raise self.unknown(f"{a.op + '_'!r}, which changes the shape of a tensor in place")
        a.out = a.out if any(a.sources) or a.x.is_meta else a.computed()
        for out, (forward, backward) in zip(tensors_of([a.out]), self.views[a.op](a), strict=True):
            entry = self.known[id(out)] = SimpleNamespace(tensor=out, base=a.x, seen=None, layout=None)
            entry.forward, entry.backward = forward, backward
            self.read(out)
        return a.out

    def apply(self, a: "Call"):
        """Find the rule of an operation that depends on the input, and note what it says."""
        if a.func._schema.is_mutable and not a.in_place:
            raise self.unknown(f"{a.op!r} with out=")
        if a.op in self.rules:
            layout = self.rules[a.op](a)
        elif torch.Tag.pointwise in a.func.tags:
            layout = joined(a.sources, np.broadcast_shapes(*(x.shape for x in a.tensors)))
        elif not any(any(each.places) for each in a.sources if each):
            layout = joined(a.sources, a.shape)  # one position: whatever it does, it reads no other
        else:
            raise self.unknown(f"the operation {str(a.func)!r}")
        if layout and len(a.func._schema.returns) == 1 and "out" not in vars(a) and not a.in_place:
            # torch is slow to say a shape, and not asked where the rule knows it
            a.out = a.like_first(layout.shape)
        for out in tensors_of([a.out]):
            if layout and layout.shape != tuple(out.shape) and any(layout.places):
                raise self.unknown(f"{str(a.func)!r} with these arguments")
            self.write(out, layout and layout._replace(shape=tuple(out.shape)))
        grid = layout and len(layout.shape) == 4 and layout.map.size == layout.shape[2:]
        if grid and a.op not in ("clone", "_to_copy") and layout == whole(layout.map, layout.shape):
            self.layers.append((self.stack[-1], a.op, layout.shape, layout.map))
        return a.out


class NumbersHere(TorchFunctionMode):
    """`torch.tensor([2, 3], device=x.device)` and `x[:, [2, 3]]` keep numbers that would else lack data."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.tensor, torch.as_tensor):
            kwargs = {**(kwargs or {}), "device": None}
        if func is Tensor.__getitem__:
            given = args[1] if isinstance(args[1], tuple) else (args[1],)
            args = args[0], tuple(torch.tensor(each) if isinstance(each, list) else each for each in given)
        return func(*args, **(kwargs or {}))


class Call:
    """One operation as torch dispatched it: `a.stride` is the argument `stride`, `a.x` the first one.

    `a.tensors` are the tensors among its arguments, `a.sources` their layouts.
    """

    def __init__(self, trace: Trace, func, args: tuple, kwargs: dict):
        op, names, defaults, self.shares_memory = schema(func)
        vars(self).update(defaults)
        vars(self).update(zip(names, args, strict=False), **kwargs)
        self.trace, self.func, self.args, self.kwargs = trace, func, args, kwargs
        self.op, self.in_place = op.removesuffix("_"), op.endswith("_") and func._schema.is_mutable
        self.x = next(iter(args), None)
        self.tensors = list(tensors_of([*args, *kwargs.values()]))
        self.sources = [trace.read(tensor) for tensor in self.tensors]

    @property
    def source(self) -> Layout:
        """The layout of the first tensor, where no other may depend on the image."""
        first, *rest = self.sources
        if first is None or any(rest):
            raise self.trace.unknown(f"{self.op!r} with weights or other arguments that depend on the image")
        return first

    @cached_property
    def out(self):
        """The result on tensors without data: everything is traced on the meta device."""
        if self.in_place:
            return self.x
        args, kwargs = tree_map_only(Tensor, lambda x: x.to("meta"), (self.args, self.kwargs))
        args, kwargs = tree_map_only(torch.device, lambda _: torch.device("meta"), (args, kwargs))
        return self.func(*args, **kwargs)

    def computed(self):
        """The result with its data. What is made "on the device of the image" would have none there."""
        here = torch.device("cpu")
        args, kwargs = tree_map_only(torch.device, lambda _: here, (self.args, self.kwargs))
        return self.func(*args, **kwargs)

    def like_first(self, shape: tuple[int, ...]) -> Tensor:
        """A result without data of this shape, of the type and the order in memory that torch gives it."""
        first = self.tensors[0]
        if torch.Tag.pointwise in self.func.tags:  # x > 0 is bool, 2.0**x as x is: single values tell
            args, kwargs = tree_map_only(Tensor, one_like, (self.args, self.kwargs))
            dtype = self.func(*args, **kwargs).dtype
        else:
            dtype = first.dtype
        span = 1 + sum((n - 1) * stride for n, stride in zip(first.shape, first.stride(), strict=True))
        if tuple(first.shape) == shape and span == first.numel():  # without gaps: it keeps its order
            return torch.empty_strided(shape, first.stride(), dtype=dtype, device="meta")
        return torch.empty(shape, dtype=dtype, device="meta")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result, or of the first of several."""
        for tensor in tensors_of([self.out]):
            return tuple(tensor.shape)
        raise self.trace.unknown(f"{self.op!r}, which returns no tensor")


@lru_cache(None)
def schema(func) -> tuple[str, list[str], dict, bool]:
    """Name of an operation, names of its arguments and their defaults; is its result a view of them?"""
    name, arguments = func._schema.name.partition("::")[2], func._schema.arguments
    defaults = {each.name: each.default_value for each in arguments if each.has_default_value()}
    aliases = [each.alias_info for each in func._schema.returns if each.alias_info]
    return name, [each.name for each in arguments], defaults, any(not each.is_write for each in aliases)


def tensors_of(values: Iterable) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_of(value)


def one_like(tensor: Tensor) -> Tensor:
    return torch.ones((1,) * min(tensor.dim(), 1), dtype=tensor.dtype)


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


@contextmanager
def untouched(model: nn.Module):
    """Put back what the module's code notes on itself, such as a table cached for the size of the image."""
    modules = [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]
    books = [vars(module) for module in modules]
    books += [each for book in books for each in book.values() if type(each) in (dict, list)]
    saved = [(book, book.copy()) for book in books]
    try:
        yield
    finally:
        for book, old in saved:
            book.clear()
            (book.update if isinstance(book, dict) else book.extend)(old)
