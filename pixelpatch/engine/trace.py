"""One run of a module on tensors that have a shape and no data, meeting every operation on the way.

torch hands each operation that the module dispatches to `Trace.__torch_dispatch__`, whatever Python code led
to it. Where the input is involved, a rule of `pixelpatch.engine.rules` says what the result reads; constants
are computed as they stand. What has no rule is an `UnknownOperation`: never a guess.

Everything here that torch does not document (`_schema`, `_cdata`, `TorchDispatchMode`) is used here alone.
"""

import sys
from collections.abc import Iterable
from contextlib import contextmanager
from functools import cached_property, lru_cache
from threading import RLock
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from pixelpatch.engine.layout import Layout, Map, joined, whole
from pixelpatch.engine.rules import RULES, VIEWS, UnknownOperation
from pixelpatch.engine.taps import Taps
from pixelpatch.scores import only_tensor


class Trace(TorchDispatchMode):
    """Meets every operation of one run of `model` on an image of `shape` (N, C, H, W).

    maps    every `Map` that was met, in order, and the name of the layer that made it
    layers  (name, operation, shape, map) of every result that is a feature map (N, C, H, W)
    output  what the model returned
    """

    def __init__(self, model: nn.Module, shape: tuple[int, int, int, int]):
        super().__init__()
        self.maps: dict[Map, str] = {}
        self.layers: list[tuple[str, str, tuple[int, ...], Map]] = []
        self.names = {module: name for name, module in model.named_modules()}
        self.names[model] = type(model).__name__
        self.model, self.ops = model, []  # and the operations that are running
        self.known: dict[int, SimpleNamespace] = {}  # by id, with the tensor, to keep it alive
        self.windows: dict[int, list[Taps]] = {}  # id of a max pooling's indices: the taps of its windows
        self.storages: set[int] = set()  # of the tensors in `known`
        self.own: dict[int, Tensor] = {}  # storages that the run itself allocated, which it may write to
        self.input = Map(shape[-2:])
        floating = (p.dtype for p in model.parameters() if p.is_floating_point())
        dtype = next(floating, torch.get_default_dtype())
        x = torch.empty(shape, dtype=dtype, device="meta")
        with (
            ONE_AT_A_TIME,
            torch.inference_mode(),
            torch.random.fork_rng([]),
            untouched(model),
            NumbersHere(),
            self,
        ):
            self.write(x, whole(self.input, shape))
            try:
                out = model(x)
            except UnknownOperation:
                raise
            except RuntimeError as error:
                raise UnknownOperation(
                    f"layer {self.failed(error)!r} fails on tensors that have a shape and no data: {error}; "
                    "if it runs on an image of this shape, it looks at values, which a trace does not have"
                ) from error
            self.output = only_tensor(out)

    @property
    def running(self) -> str:
        """The name of the module that is running, read off the stack of this thread's calls.

        Hooks would tell it, too, but on modules or on torch itself, where other threads meet them.
        """
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_code is CALL and (module := frame.f_locals["self"]) in self.names:
                return self.names[module]
            if frame.f_code is TRACE:
                break
            frame = frame.f_back
        return self.names[self.model]

    def failed(self, error: Exception) -> str:
        """The name of the module that raised an error: the innermost of its traceback."""
        name, place = self.names[self.model], error.__traceback__
        while place is not None:
            if place.tb_frame.f_code is CALL:
                name = self.names.get(place.tb_frame.f_locals["self"], name)
            place = place.tb_next
        return name

    def note(self, grid: Map) -> None:
        """Enter a map, and what it was made of, under the layer that is running."""
        if grid not in self.maps:
            for source, *_ in grid.edges:
                self.note(source)
            self.maps[grid] = self.running

    def unknown(self, what: str) -> UnknownOperation:
        outer = f", part of {self.ops[0]!r}" if len(self.ops) > 1 else ""
        return UnknownOperation(
            f"receptive_field has no rule for {what}{outer} (in layer {self.running!r}): write that layer "
            "with operations it knows, or add a rule beside the others in pixelpatch/engine/rules.py"
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
                entry.seen = base
                self.set_layout(entry, None if base is None else entry.forward(base))
        return entry.layout

    def set_layout(self, entry: SimpleNamespace, layout: Layout | None) -> None:
        entry.layout = layout
        if layout is not None:
            self.note(layout.map)

    def write(self, tensor: Tensor, layout: Layout | None) -> None:
        """Note the layout of a new tensor, or of one changed in place: then its base changes with it."""
        entry = self.known.setdefault(id(tensor), SimpleNamespace(tensor=tensor, base=None))
        self.set_layout(entry, layout)
        self.storages.add(storage(tensor))
        if entry.base is not None:
            entry.seen = entry.backward(self.read(entry.base), layout)
            self.write(entry.base, entry.seen)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        call = Call(self, func, args, kwargs or {})
        self.ops.append(call.op)
        try:
            if call.op in VIEWS:
                return self.view(call)
            if call.op not in RULES:
                if call.op == "scaled_dot_product_attention" and any(x.is_meta for x in call.tensors):
                    # It wants all on one device, before any operation: learned queries where the keys are.
                    args = tree_map_only(Tensor, lambda x: x.to("meta"), args)
                with self:  # an operation that torch defines by others is known by those
                    out = func.decompose(*args, **call.kwargs)
                if out is not NotImplemented:
                    return out
                if call.shares_memory:
                    raise self.unknown(f"the view {call.op!r}")
            return self.apply(call) if call.depends else self.constant(call)
        finally:
            self.ops.pop()

    def constant(self, call: "Call"):
        """What does not depend on the image is computed, as far as there is data."""
        if call.in_place and storage(call.x) not in self.own:
            return call.x  # perhaps the model's own counter: left alone
        writes_elsewhere = {"running_mean", "out"} & vars(call).keys()
        if writes_elsewhere or any(x.is_meta for x in call.tensors):
            return call.out
        out, given = call.computed(), set(map(storage, call.tensors))
        self.own.update((storage(x), x) for x in tensors_of([out]) if storage(x) not in given)
        return out

    def view(self, call: "Call"):
        """Tensors that share memory: what is written to one shows in the others.

        A rule gives, for each tensor that results, how its layout follows from that of its base, and how the
        base's changes when it is written to: forward(base) and backward(base, new).
        """
        if call.op == "lift_fresh":  # what torch.tensor has just made
            self.own[storage(call.x)] = call.x
            return call.x
        if call.in_place:
            if call.op == "detach":
                return call.x
            raise self.unknown(f"{call.op + '_'!r}, which changes the shape of a tensor in place")
        call.out = call.out if call.depends or call.x.is_meta else call.computed()
        for out, (forward, backward) in zip(tensors_of([call.out]), VIEWS[call.op](call), strict=True):
            entry = self.known[id(out)] = SimpleNamespace(tensor=out, base=call.x, seen=None, layout=None)
            entry.forward, entry.backward = forward, backward
            self.read(out)
        return call.out

    def apply(self, call: "Call"):
        """Find the rule of an operation that depends on the input, and note what it says."""
        if call.func._schema.is_mutable and not call.in_place:
            raise self.unknown(f"{call.op!r} with out=")
        if call.op in RULES:
            layout = RULES[call.op](call)
        elif torch.Tag.pointwise in call.func.tags:
            layout = joined(call.sources, np.broadcast_shapes(*(x.shape for x in call.tensors)))
        elif not any(any(source.places) for source in call.sources if source is not None):
            layout = joined(call.sources, call.shape)  # one position: whatever it does, it reads no other
        else:
            raise self.unknown(f"the operation {str(call.func)!r}")
        for out in tensors_of([call.out]):
            shape = tuple(out.shape)
            if layout is not None and layout.shape != shape and any(layout.places):
                raise self.unknown(f"{str(call.func)!r} with these arguments")
            self.write(out, None if layout is None else layout._replace(shape=shape))
        is_map = layout is not None and len(layout.shape) == 4 and layout.map.size == layout.shape[2:]
        if is_map and call.op not in ("clone", "_to_copy") and layout == whole(layout.map, layout.shape):
            self.layers.append((self.running, call.op, layout.shape, layout.map))
        return call.out


ONE_AT_A_TIME = RLock()  # two traces of one model would put back what the other noted on it
CALL, TRACE = nn.Module._call_impl.__code__, Trace.__init__.__code__


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
    """One operation as torch dispatched it: `call.stride` is the argument `stride`, `call.x` the first one.

    `call.tensors` are the tensors among its arguments, `call.sources` their layouts, `call.layer` the name of
    the module that runs it, and `call.windows` those of the max poolings so far, for unpooling.
    """

    def __init__(self, trace: Trace, func, args: tuple, kwargs: dict):
        op, names, defaults, self.shares_memory = schema(func)
        vars(self).update(defaults)
        vars(self).update(zip(names, args, strict=False), **kwargs)
        self.func, self.args, self.kwargs = func, args, kwargs
        self.layer, self.unknown, self.windows = trace.running, trace.unknown, trace.windows
        self.op, self.in_place = op.removesuffix("_"), op.endswith("_") and func._schema.is_mutable
        self.x = next(iter(args), None)
        self.tensors = list(tensors_of([*args, *kwargs.values()]))
        self.sources = [trace.read(tensor) for tensor in self.tensors]
        self.depends = any(source is not None for source in self.sources)

    @property
    def source(self) -> Layout:
        """The layout of the first tensor, where no other may depend on the image."""
        first, *rest = self.sources
        if first is None or any(source is not None for source in rest):
            raise self.unknown(f"{self.op!r} with weights or other arguments that depend on the image")
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

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result, or of the first of several."""
        for tensor in tensors_of([self.out]):
            return tuple(tensor.shape)
        raise self.unknown(f"{self.op!r}, which returns no tensor")


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
            put_back(book, old)


def put_back(book: dict | list, old: dict | list) -> None:
    """Make a dict or a list what it was, without a moment in which it is anything else."""
    if isinstance(book, list):
        if len(book) != len(old) or any(now is not then for now, then in zip(book, old, strict=True)):
            book[:] = old
        return
    for key in [key for key in book if key not in old]:
        del book[key]
    for key, then in old.items():
        if book.get(key, book) is not then:
            book[key] = then
