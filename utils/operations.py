"""One short rule for each family of operations: what does its result read?

A 3x3 convolution reads rows `r - 1, r, r + 1` of its input, a 2x2 pooling rows `2r, 2r + 1`, a padding row
nothing at all. Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning", has the pictures
for all of them; the first functions here are their relations, each written as a table of indices.

The rules come next. A rule gets the `Call`, whose attributes are the operation's arguments under torch's
names, and returns the layout of the result. To teach the engine an operation, add a rule, and a step to the
random networks of the tests, which hold every rule against automatic differentiation.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch

from utils.tracing import NOWHERE, Call, Layout, Map, Place, Taps, UnknownOperation, Warp, joined, whole

# ------------------------------------------------------------------ what is read along one axis


@lru_cache(4096)
def window(n: int, kernel: int, stride: int, low: int, high: int, dilation: int, ceil: bool = False) -> Taps:
    """Convolution or pooling over n positions, with `low` and `high` of padding before and after them."""
    room = n + low + high - dilation * (kernel - 1) - 1
    count = (-(-room // stride) if ceil else room // stride) + 1
    if ceil and (count - 1) * stride >= n + low:  # the last window has to start before the padding at the end
        count -= 1
    index = stride * np.arange(max(count, 0))[:, None] - low + dilation * np.arange(kernel)
    return Taps(index, n, Fraction(stride))


@lru_cache(4096)
def transposed(n: int, kernel: int, stride: int, padding: int, output_padding: int, dilation: int) -> Taps:
    """Transposed convolution: input i is added to the outputs i * stride - padding + j * dilation."""
    count = (n - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1
    at = np.arange(max(count, 0))[:, None] + padding - dilation * np.arange(kernel)
    return Taps(np.where(at % stride == 0, at // stride, NOWHERE), n, Fraction(1, stride))


@lru_cache(4096)
def adaptive(n: int, count: int) -> Taps:
    """Adaptive pooling: window o is floor(o n / count) .. ceil((o + 1) n / count) - 1."""
    start, stop = np.arange(count) * n // count, -(-(np.arange(count) + 1) * n // count)
    index = start[:, None] + np.arange((stop - start).max(initial=1))
    return Taps(np.where(index < stop[:, None], index, NOWHERE), n, Fraction(n, count))


@lru_cache(256)
def resized(op: str, dtype, n: int, count: int, scale: float | None, align_corners: bool | None) -> Taps:
    """Interpolation: torch itself resizes n unit impulses, and every weight above 1e-9 is a tap."""
    corners = () if align_corners is None else (align_corners,)
    impulses = torch.eye(n, dtype=dtype).reshape(1, n, n, 1)  # impulse c: channel c, row c
    rows = getattr(torch.ops.aten, op).default(impulses, [count, 1], *corners, scale, None)
    weight = rows[0, :, :, 0].T.abs().numpy() > 1e-9  # (count, n)
    index = np.sort(np.where(weight, np.arange(n), NOWHERE), axis=1)[:, n - weight.sum(1).max(initial=1) :]
    step = Fraction(n, count) if scale is None else 1 / Fraction(scale).limit_denominator(1000)
    if align_corners and n > 1 and count > 1:
        step = Fraction(n - 1, count - 1)
    return Taps(index, n, step)


# ------------------------------------------------------------------ rules

RULES: dict[str, Callable] = {}
VIEWS: dict[str, Callable] = {}


def rule(names: str, book: dict[str, Callable] = RULES) -> Callable:
    """Register a rule for the ATen operations `names`."""

    def register(function: Callable) -> Callable:
        book.update(dict.fromkeys(names.split(), function))
        return function

    return register


def pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def local(layout: Layout, taps: Callable[[int, int], Taps], why: str, channels: int | None = None) -> Layout:
    """A layer that reads a rectangle: `taps(i, n)` for its rows (i = 0) and columns (i = 1), n long."""
    layout, axes = layout.gridded()
    *images, depth, height, width = layout.shape
    edge = [taps(0, height), taps(1, width)]
    if min(map(len, edge)) < 1:
        name = layout.map.trace.stack[-1]
        raise ValueError(f"layer {name!r} shrinks its {height} x {width} map to nothing: enlarge the image")
    shape = (*images, channels or depth, *map(len, edge))
    ordered = [edge[axis] for axis in axes]  # [1, 0], the transposed image, is its own inverse
    return layout.read_by(ordered, shape, [Place(axis - 2) for axis in axes], why)


def expect_channels(a: Call, expected: int) -> None:
    if a.source.shape[-3] != expected:
        raise ValueError(
            f"layer {a.trace.stack[-1]!r} expects {expected} channels but gets {a.source.shape[-3]}: "
            "give receptive_field the (N, C, H, W) shape that the model is made for"
        )


@rule("conv2d")
def convolution(a):
    filters, depth, *kernel = a.weight.shape
    expect_channels(a, depth * a.groups)
    stride, dilation, ends = pair(a.stride), pair(a.dilation), [(0, 0), (0, 0)]
    if a.padding == "same":  # the odd one comes after
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        ends = [(t // 2, t - t // 2) for t in total]
    elif a.padding != "valid":
        ends = [(p, p) for p in pair(a.padding)]
    options = list(zip(kernel, stride, *zip(*ends, strict=True), dilation, strict=True))
    return local(a.source, lambda i, n: window(n, *options[i]), "a kernel that reaches", filters)


@rule("conv_transpose2d")
def transposed_convolution(a):
    depth, filters, *kernel = a.weight.shape
    expect_channels(a, depth)
    options = list(zip(kernel, *map(pair, (a.stride, a.padding, a.output_padding, a.dilation)), strict=True))
    return local(
        a.source, lambda i, n: transposed(n, *options[i]), "a kernel that reaches", filters * a.groups
    )


@rule("max_pool2d max_pool2d_with_indices avg_pool2d")
def pooling(a):
    given = (a.kernel_size, a.stride or a.kernel_size, a.padding, a.padding, getattr(a, "dilation", 1))
    options = list(zip(*map(pair, given), strict=True))
    if a.op == "max_pool2d_with_indices":
        a.trace.windows[id(a.out[1])] = [
            window(n, *options[i], a.ceil_mode) for i, n in enumerate(a.x.shape[-2:])
        ]
    why = "average pooling" if a.op == "avg_pool2d" else "max pooling"
    return local(a.source, lambda i, n: window(n, *options[i], a.ceil_mode), why)


@rule("max_unpool2d")
def unpooling(a):
    """A value goes where its maximum was: anywhere in the pooling's window, as the input decides."""
    windows = a.trace.windows.get(id(a.indices))
    if windows is None or tuple(a.output_size[-2:]) != tuple(taps.n_in for taps in windows):
        raise UnknownOperation(
            f"layer {a.trace.stack[-1]!r} unpools with other indices, or to another size, than a max pooling "
            "in the module gave it: pass its own indices, and output_size = the size before the pooling"
        )
    back = [Taps(taps.inverse, len(taps), taps.step and 1 / taps.step) for taps in windows]
    return local(joined(a.sources, a.x.shape), lambda i, n: back[i], "max unpooling")


@rule("adaptive_avg_pool2d adaptive_max_pool2d")
def adaptive_pooling(a):
    size, why = pair(a.output_size), "max pooling" if "max" in a.op else "average pooling"
    return local(a.source, lambda i, n: adaptive(n, n if size[i] is None else size[i]), why)


@rule("upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d upsample_bicubic2d")
def interpolation(a):
    scales = getattr(a, "scale_factors", None) or (getattr(a, "scales_h", None), getattr(a, "scales_w", None))
    size, corners = a.output_size or a.shape[-2:], getattr(a, "align_corners", None)
    # Which pixel is nearest may hang on how float32 rounds; what float32 leaves of a zero weight is no tap.
    dtype = torch.float32 if "nearest" in a.op and a.x.dtype != torch.float64 else torch.float64
    return local(a.source, lambda i, n: resized(a.op, dtype, n, size[i], scales[i], corners), "interpolation")


@rule("pixel_shuffle pixel_unshuffle")
def shuffling(a):
    taps, r = (transposed, a.upscale_factor) if a.op == "pixel_shuffle" else (window, a.downscale_factor)
    return local(a.source, lambda i, n: taps(n, r, r, 0, 0, 1), a.op, a.shape[-3])


PADDING = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}  # in torch's words, in numpy's


@rule("pad constant_pad_nd")
def padding(a):
    layout, mode = a.source, PADDING.get(getattr(a, "mode", "constant"))
    for i, (low, high) in enumerate(zip(a.pad[::2], a.pad[1::2], strict=True)):
        inside = np.arange(max(-low, 0), layout.shape[-1 - i] - max(-high, 0))  # a negative padding crops
        ends, how = (max(low, 0), max(high, 0)), {"mode": mode} if mode else {"constant_values": NOWHERE}
        size = layout.shape[-1 - i]
        most = {"reflect": size - 1, "wrap": size}.get(mode, max(ends))  # numpy would go on, torch does not
        if max(ends) > most:
            raise ValueError(
                f"layer {a.trace.stack[-1]!r} pads a side of {size} by {max(ends)} in {a.mode} mode, which "
                f"takes {most} at most: enlarge the image"
            )
        layout = layout.picked(-1 - i, np.pad(inside, ends, **how), 1)
    return layout


@rule("flip roll")
def reordering(a):
    layout = a.source
    if not a.dims:
        raise a.trace.unknown("rolling over the end of a row into the next")
    for i, dim in enumerate(a.dims):
        n = np.arange(layout.shape[dim])
        index, step = (n[::-1], -1) if a.op == "flip" else (np.roll(n, a.shifts[i]), 1)
        layout = layout.picked(dim, index, step)
    return layout


@rule("index_select index")
def indexing(a):
    """x[:, :, rows] with one list of constant indices."""
    given = a.indices if a.op == "index" else [None] * (a.dim % a.x.dim()) + [a.index]
    (dim, index), *more = [(dim, index) for dim, index in enumerate(given) if index is not None]
    if more or index.is_meta or index.dim() != 1:
        raise a.trace.unknown("indexing with more than one list, or with positions that are computed")
    index = index.nonzero().flatten() if index.dtype == torch.bool else index
    return a.source.picked(dim, index.cpu().numpy() % a.x.shape[dim])


@rule("cat stack")
def concatenation(a):
    """Along channels all are read; along rows or columns, each where it lies."""
    out, parts, start = shape_of_cat(a) or a.shape, list(a.sources), 0
    dim = a.dim % len(out)
    if a.op == "stack":
        parts = [part and part.reshaped((*out[:dim], 1, *out[dim + 1 :])) for part in parts]
    if (dim - len(out) >= -2 and len(out) > 2) or any(part and part.axes(dim - len(out)) for part in parts):
        for i, tensor in enumerate(a.tensors):
            parts[i] = parts[i] and parts[i].picked(dim, np.arange(out[dim]) - start, 1)
            start += 1 if a.op == "stack" else tensor.shape[dim]
    return joined(parts, out)


def shape_of_cat(a):
    """Without asking torch, which would import its compiler for it: 140 MB. None for unusual tensors."""
    first, dim = a.tensors[0], a.dim % max(a.tensors[0].ndim, 1)
    others = [(*x.shape[:dim], *x.shape[dim + 1 :]) for x in a.tensors]
    alike = all((x.dtype, x.ndim) == (first.dtype, first.ndim) for x in a.tensors)
    alike &= all([*x.stride()] == sorted(x.stride(), reverse=True) for x in a.tensors)  # not channels last
    if a.op == "cat" and first.ndim and alike and len(set(others)) == 1:
        return (*first.shape[:dim], sum(x.shape[dim] for x in a.tensors), *first.shape[dim + 1 :])
    return None


@rule("mean sum prod amax amin max min argmax argmin any all topk")
@rule("var std var_mean std_mean median norm linalg_vector_norm logsumexp")
def reduction(a):
    if hasattr(a, "other"):  # the larger of two
        return joined(a.sources, a.shape)
    n, dims = a.x.dim(), getattr(a, "dim", None)
    dims = [dims] if isinstance(dims, int) else dims or range(n)
    left = a.source.fold(dims, a.op)
    if len(a.shape) == n:  # keepdim, or topk
        return left._replace(shape=a.shape)
    kept = [dim for dim in range(-n, 0) if dim not in dims and dim + n not in dims]
    return left.moved(a.shape, {dim: i - len(kept) for i, dim in enumerate(kept)})


@rule("batch_norm instance_norm group_norm layer_norm rms_norm")
def normalization(a):
    if a.op == "batch_norm":
        dims = [0, *range(2, a.x.dim())] if a.training else []
        return a.source.mixed(dims, "statistics of the batch (training mode)")
    if a.op == "instance_norm":
        dims = range(2, a.x.dim()) if a.use_input_stats else []
    else:
        dims = range(1, a.x.dim()) if a.op == "group_norm" else range(-len(a.normalized_shape), 0)
    return a.source.mixed(dims, f"statistics of the image ({a.op.replace('_', ' ')})")


@rule("mm bmm addmm baddbmm")
def matrix_product(a):
    """(..., i, k) @ (..., k, j): sums over k. If i and j are both positions, each meets all of the other."""
    (*start, left, right), why = a.sources, "a matrix product (attention)"
    left = left and left.fold([-1], why)
    right = right and right.fold([-2, -1] if left and left.axes(-2) else [-2], why)
    (*rows, _), columns = a.tensors[-2].shape, a.tensors[-1].shape[-1]
    return joined([*start, left, right], (*rows, columns))


@rule("grid_sampler grid_sampler_2d")
def sampling(a):
    """A given grid reads a box for each pixel; where the image decides the grid, it may be any position."""
    image, grid = a.sources
    shape = (*a.x.shape[:2], *a.grid.shape[1:3])  # torch would import its compiler to say so: 140 MB
    if grid or a.grid.is_meta or image.gridded()[1] != [0, 1]:
        return free(a, shape)
    image, _ = image.gridded()
    first, last = sampled(a.grid.double().cpu().numpy(), image.shape[-2:], *a.args[2:])
    warp = Warp(first.min(0), last.max(0))  # the images of a batch share one field
    return whole(Map(a.trace, first.shape[1:3], [(image.map, warp, warp)]), shape)


def sampled(grid: np.ndarray, size: tuple[int, int], mode: int, padding: int, corners: bool):
    """First and last (row, column) that `grid_sample` reads, each (N, h, w, 2); first > last where nothing.

    grid  (N, h, w, 2) of (x, y) in [-1, 1]; mode 0 bilinear, 1 nearest, 2 bicubic; padding 0 zeros, 1 border,
          2 reflection; all as torch has them
    """
    n = np.array(size)
    low, span = (0.0, n - 1.0) if corners else (-0.5, n * 1.0)
    at = low + (grid[..., ::-1] + 1) / 2 * span
    if padding == 2:
        turn = (at - low) % np.maximum(2 * span, 1)
        at = low + np.minimum(turn, 2 * span - turn)
    if padding and mode != 2:
        at = np.clip(at, 0, n - 1)
    reach = 2 if mode == 2 else 1  # what lies nearer than that has a weight
    first, last = np.ceil(at - reach + 1e-9).astype(int), np.floor(at + reach - 1e-9).astype(int)
    if mode == 1:
        first = last = np.rint(at).astype(int)
    if padding:
        return np.clip(first, 0, n - 1), np.clip(last, 0, n - 1)
    first, last = np.maximum(first, 0), np.minimum(last, n - 1)
    nothing = (first > last).any(-1, keepdims=True)
    return np.where(nothing, n, first), np.where(nothing, -1, last)


@rule("scatter_add")
def scattering(a):
    """At given places, each pixel reads a box of those that write to it, with whatever weight."""
    into, index, written = a.sources
    height, width = written.map.size if written else (1, 1)
    flat = written and all(place and place.dim == -1 for place in written.places)
    if into or index or a.index.is_meta or not flat or a.x.shape[-1] != height * width:
        return free(a, a.x.shape)
    target = a.index.cpu().numpy()
    writer = np.broadcast_to(np.arange(target.shape[-1]), target.shape)
    first, last = np.full((2, height * width, 2), [[[max(height, width)]], [[-1]]])  # nobody yet
    for axis, (place, n) in enumerate(zip(written.places, written.map.size, strict=True)):
        at = writer // place.inner % n
        np.minimum.at(first[:, axis], target, at)
        np.maximum.at(last[:, axis], target, at)
    warp = Warp(first.reshape(height, width, 2), last.reshape(height, width, 2))
    grid = Map(a.trace, (height, width), [(written.map, warp, warp)])
    return Layout(grid, tuple(a.x.shape), (Place(-1, width), Place(-1)))


@rule("deform_conv2d")
def free(a, shape=None):
    """Reads any position of anything: an upper bound, where rows and columns do not separate."""
    parts = [part and part.fold(why="sampling at free positions") for part in a.sources]
    return joined(parts, shape or a.shape)


@rule("item _local_scalar_dense is_nonzero equal allclose nonzero masked_select")
def looking(a):
    raise a.trace.unknown(f"{a.op!r}, which looks at values where a trace has only shapes")


# Each value by itself. (Arithmetic needs no rule: torch tags it as pointwise.)
rule("relu hardswish hardsigmoid hardtanh relu6 prelu elu selu celu rrelu")(lambda a: a.source)
rule("silu gelu mish softplus log_sigmoid native_dropout")(lambda a: a.source)
# The same again; positions repeat with their dimension, as `Place` has it.
rule("clone _to_copy channel_shuffle native_channel_shuffle repeat")(
    lambda a: a.source._replace(shape=a.shape)
)
# What is written over no longer counts, and what only takes another's shape depends on nothing.
rule("copy fill zero")(lambda a: joined(a.sources[1:], a.x.shape))
rule("zeros_like ones_like full_like empty_like rand_like randn_like")(lambda a: None)
rule("new_empty new_zeros new_ones new_full")(lambda a: None)
# All along one dimension is read.
rule("softmax log_softmax _softmax _log_softmax _safe_softmax cumsum cumprod sort argsort")(
    lambda a: a.source.mixed([a.dim], a.op)
)


@rule("linear")
def fully_connected(a):
    shape = (*a.x.shape[:-1], len(a.weight))
    return a.source.fold([-1], "a fully connected layer")._replace(shape=shape)


# ------------------------------------------------------------------ views: tensors that share memory


@rule("view _unsafe_view _reshape_alias squeeze unsqueeze", VIEWS)
def reshaping(a):
    if a.out.dtype != a.x.dtype:
        raise a.trace.unknown("a view of the same memory as another type of number")
    yield lambda base: base.reshaped(a.shape), lambda base, new: new and new.reshaped(a.x.shape)


@rule("detach alias lift_fresh", VIEWS)
def same(a):
    yield lambda base: base, lambda base, new: new


@rule("expand", VIEWS)
def expanding(a):
    def backward(base, new):
        raise a.trace.unknown("writing in place to the result of 'expand'")

    yield lambda base: base._replace(shape=a.shape), backward


@rule("permute transpose t", VIEWS)
def permuting(a):
    """torch permutes a tensor of telling sizes, and so says the order itself."""
    n = a.x.dim()
    sizes = a.func(torch.empty(*range(2, 2 + n)), *a.args[1:], **a.kwargs).shape
    to = {size - 2 - n: i - n for i, size in enumerate(sizes)}
    back = {there: here for here, there in to.items()}
    yield lambda base: base.moved(a.shape, to), lambda base, new: new and new.moved(a.x.shape, back)


@rule("slice select split split_with_sizes unbind", VIEWS)
def slicing(a):
    """torch slices the numbers 0 .. n - 1, and so says which it takes."""
    dim, shape = a.dim % a.x.dim(), tuple(a.x.shape)
    n, before, after = shape[dim], shape[:dim], shape[dim + 1 :]
    count = torch.arange(n).reshape([-1 if d == dim else 1 for d in range(len(shape))])
    pieces = a.func(count, *a.args[1:], **a.kwargs)
    for piece in [pieces] if isinstance(pieces, torch.Tensor) else pieces:
        index, gone = piece.flatten().numpy(), piece.dim() < len(shape)

        def forward(base, index=index, gone=gone):
            taken = base.picked(dim, index)
            return taken.reshaped(before + after) if gone and taken else taken

        def backward(base, new, index=index):
            place, keep = np.full(n, NOWHERE), np.arange(n)
            place[index], keep[index] = np.arange(len(index)), NOWHERE
            new = new and new.reshaped((*before, len(index), *after))
            return joined([base and base.picked(dim, keep, 1), new and new.picked(dim, place, 1)], shape)

        yield forward, backward
