"""One rule for each family of operations: what does its result read?

A rule gets the trace and the `Call`, whose attributes are the operation's arguments under torch's names, and
returns the layout of the result. To teach the engine an operation, add a rule here, and a step to the random
networks of the tests, which hold every rule against automatic differentiation.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from utils.layouts import (
    Layout,
    Map,
    aligned,
    derived,
    fold,
    fold_all,
    gridded,
    joined,
    permuted,
    picked,
    reshaped,
    standard,
)  # fmt: skip
from utils.taps import NOWHERE, Taps, adaptive, resized, transposed, window


class UnknownOperation(NotImplementedError):
    """The module uses an operation for which there is no rule."""


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


def listed(value) -> Sequence:
    return value if isinstance(value, list | tuple) else [value]


def pair(value: Sequence[int] | int) -> tuple[int, int]:
    value = [value] if isinstance(value, int) else value
    return (value[0], value[-1])


def local(trace, layout: Layout, channels: int | None, taps: Callable[[int, int], Taps]) -> Layout:
    """A layer that reads a rectangle: `taps(i, n)` for its rows (i = 0) and columns (i = 1), n long."""
    layout, axes = gridded(trace, layout)
    size, edge, lead = [0, 0], [None, None], layout.shape[:-2]
    for i, axis in enumerate(axes):
        edge[axis] = taps(i, layout.shape[i - 2])
        size[axis] = len(edge[axis])
    if min(size) < 1:
        height, width = layout.shape[-2:]
        raise ValueError(
            f"layer {trace.path!r} shrinks its {height} x {width} map to nothing: enlarge the image"
        )
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


@rule(
    "upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d", "upsample_bicubic2d", fresh=True
)
@rule("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", fresh=True)
def interpolation(trace, a):
    scales = getattr(a, "scale_factors", None) or (getattr(a, "scales_h", None), getattr(a, "scales_w", None))
    size = a.output_size or [int(n * scale) for n, scale in zip(a.x.shape[-2:], scales, strict=True)]
    corners = getattr(a, "align_corners", None)
    return local(trace, trace.read(a.x), None, lambda i, n: resized(a.op, n, size[i], scales[i], corners))


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
        turned, step = (n[::-1], -1) if a.op == "flip" else (np.roll(n, a.shifts[i]), 1)
        layout = picked(trace, layout, dim, turned, step)
    return layout


@rule("repeat")
def repeating(trace, a):
    layout = trace.read(a.x)
    layout = reshaped(trace, layout, (1,) * (len(a.repeats) - len(layout.shape)) + layout.shape)
    for dim, times in enumerate(a.repeats):
        layout = picked(trace, layout, dim, np.arange(layout.shape[dim] * times) % layout.shape[dim])
    return layout


@rule("index_select", "index", fresh=True)
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
    shapes = [(*x.shape[:dim], 1, *x.shape[dim:]) if a.op == "stack" else tuple(x.shape) for x in a.x]
    layouts = [trace.read(x) for x in a.x]
    layouts = [part and reshaped(trace, part, shape) for part, shape in zip(layouts, shapes, strict=True)]
    spatial = len(out) - dim <= 2 < len(out) or any(part and part.axes([dim]) for part in layouts)
    parts, start = [], 0
    for part, shape in zip(layouts, shapes, strict=True):
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


@rule("clone", "lift_fresh", "channel_shuffle", "native_channel_shuffle")
def unchanged(trace, a):
    return trace.read(a.x)


@rule("glu")
def gated(trace, a):
    half = np.arange(a.out.shape[a.dim])
    halves = [picked(trace, trace.read(a.x), a.dim, half + start) for start in (0, len(half))]
    return joined(trace, halves, a.out.shape)


@rule("hardswish", "hardsigmoid", "hardtanh", "relu6", "prelu", "elu", "selu", "celu", "rrelu", several=True)
@rule("silu", "gelu", "mish", "softplus", "log_sigmoid", several=True)
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


@rule("softmax", "log_softmax", "_softmax", "_safe_softmax", "cumsum", "cumprod", "sort", "argsort")
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


@rule(
    "mean",
    "sum",
    "prod",
    "amax",
    "amin",
    "max",
    "min",
    "argmax",
    "argmin",
    "any",
    "all",
    "topk",
    several=True,
)
@rule("var", "std", "var_mean", "std_mean", "median", "norm", "linalg_vector_norm", "logsumexp")
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


WORDS = {  # for the reason why a patch is the whole image
    "conv2d": "a kernel that reaches",
    "max_pool2d": "max pooling",
    "max_pool2d_with_indices": "max pooling",
    "avg_pool2d": "average pooling",
    "adaptive_avg_pool2d": "average pooling",
    "adaptive_max_pool2d": "max pooling",
    "linear": "a fully connected layer",
    "batch_norm": "statistics of the batch (training mode)",
    "instance_norm": "statistics of the image (instance norm)",
    "group_norm": "statistics of the image (group norm)",
    "layer_norm": "statistics of the image (layer norm)",
    "scaled_dot_product_attention": "attention",
    "bmm": "a matrix product (attention)",
    "matmul": "a matrix product (attention)",
    "grid_sampler": "sampling at free positions",
    "deform_conv2d": "sampling at free positions",
    "cat": "positions joined with something else in one dimension",
}


# ------------------------------------------------------------------ views: tensors that share memory


@rule("view", "reshape", "flatten", "unflatten", "_unsafe_view", "squeeze", "unsqueeze", book=VIEWS)
def reshaping(trace, a):
    yield (
        lambda base: reshaped(trace, base, a.out.shape),
        lambda base, new: reshaped(trace, new, a.x.shape),
    )


@rule("contiguous", "to", "_to_copy", "type_as", "cpu", "cuda", "detach", "alias", book=VIEWS)
@rule("dropout", "feature_dropout", "alpha_dropout", book=VIEWS)
def same(trace, a):
    yield lambda base: base, lambda base, new: new


@rule("expand", "expand_as", "broadcast_to", book=VIEWS)
def expanding(trace, a):
    def backward(base, new):
        raise trace.unknown(f"writing in place to the result of {a.op!r}")

    yield lambda base: joined(trace, [base], a.out.shape), backward


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
