"""One run of a module on tensors that have a shape and no data, meeting every operation on the way.

torch hands each operation that the module dispatches to `Trace.__torch_dispatch__`, whatever Python code led
to it. Where the input is involved, a rule of `utils.rules` says what the result reads; constants are computed
as they stand. What has no rule is an `UnknownOperation`: never a guess.
"""

from collections.abc import Iterable
from contextlib import contextmanager
from functools import lru_cache
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module
from torch.utils._python_dispatch import TorchDispatchMode

from utils.layouts import Layout, Map, standard
from utils.rules import (
    FRESH,
    RULES,
    SEVERAL,
    VALUES,
    VIEWS,
    WORDS,
    UnknownOperation,
    free,
    listed,
    pointwise,
    same,
    unchanged,
)
from utils.taps import Taps


class Trace(TorchDispatchMode):
    """Meets every operation of one run of `model`; collects its maps, layers and the output's layout."""

    @classmethod
    def _should_skip_dynamo(cls):
        return False  # nothing is compiled here, and to say so torch would import its compiler: 150 MB

    def __init__(self, model: nn.Module, shape: tuple[int, int, int, int]):
        super().__init__()
        self.model, self.names = model, {m: name for name, m in model.named_modules()}
        self.stack: list[nn.Module] = []
        self.ops: list[str] = []
        self.maps: list[Map] = []
        self.layers: list[tuple[str, str, tuple[int, ...], Map]] = []
        self.known: dict[int, SimpleNamespace] = {}  # by id, with the tensor, to keep it alive
        self.windows: dict[int, list[Taps]] = {}  # id of a max pooling's indices: the taps of its windows
        self.own: dict[int, Tensor] = {}  # storages that the run itself allocated, which it may write to
        self.input = Map(self, tuple(shape[-2:]))
        floating = (p.dtype for p in model.parameters() if p.is_floating_point())
        dtype = next(floating, torch.get_default_dtype())
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
        outer = f", part of {self.ops[0]!r}" if len(self.ops) > 1 else ""
        return UnknownOperation(
            f"receptive_field has no rule for {what}{outer} (in layer {self.path!r}): "
            "write that layer with operations it knows, or add a rule beside the others in utils/rules.py"
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
        """Tensors that share memory: what is written to one shows in the others."""
        if a.in_place and VIEWS[a.op] is not same:
            raise self.unknown(f"{a.op + '_'!r}, which changes the shape of a tensor in place")
        for out, (forward, backward) in zip(listed(a.out), VIEWS[a.op](self, a), strict=True):
            if out is a.x:
                continue
            self.known[id(out)] = SimpleNamespace(
                tensor=out, base=a.x, forward=forward, backward=backward, seen=self, layout=None
            )  # seen: the base's layout when it was last looked at, at first none at all
            if out.is_meta and a.x.is_meta and storage(out) != storage(a.x):  # a reshape that had to copy
                self.known[id(out)] = SimpleNamespace(tensor=out, base=None, layout=self.read(out))
        return a.out

    def apply(self, a: "Call"):
        """Find the rule of an operation that depends on the input, and note what it says."""
        if a.op in VALUES:
            raise self.unknown(f"{a.op!r}, which looks at values where a trace has only shapes")
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
        grid = layout and len(layout.shape) == 4 and handler is not unchanged
        if grid and layout == standard(layout.map, layout.shape):
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
    defaults = {each.name: each.default_value for each in arguments if each.has_default_value()}
    return func._schema.name.partition("::")[2], [argument.name for argument in arguments], defaults


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
    """Put back what the module's code notes on itself, such as a table cached for the size of the image."""
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
