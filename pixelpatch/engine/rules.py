"""One short rule for each family of operations: what does its result read?

A rule gets the `Call`, whose attributes are the operation's arguments under torch's names, and returns the
layout of the result. To teach the engine an operation, add a rule, and a step to the random networks of the
tests, which hold every rule against automatic differentiation.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from pixelpatch.engine.layout import Layout, Map, Place, joined, whole
from pixelpatch.engine.taps import NOWHERE, Taps, Warp, adaptive, resized, sampled, transposed, window

if TYPE_CHECKING:
    from pixelpatch.engine.trace import Call


class UnknownOperation(NotImplementedError):
    """The module uses an operation for which there is no rule."""


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


def local(call: "Call", taps: Callable[[int, int], Taps], why: str, channels: int | None = None) -> Layout:
    """A layer that reads a rectangle: `taps(i, n)` for its rows (i = 0) and columns (i = 1), n long."""
    return local_in(call, call.source, taps, why, channels)


def local_in(call: "Call", layout: Layout, taps: Callable, why: str, channels: int | None = None) -> Layout:
    """The same for a layer that reads something else than its first argument alone."""
    layout, axes = layout.gridded()
    *images, depth, height, width = layout.shape
    edge = [taps(0, height), taps(1, width)]
    if min(map(len, edge)) < 1:
        raise ValueError(
            f"layer {call.layer!r} shrinks its {height} x {width} map to nothing: enlarge the image"
        )
    shape = (*images, channels or depth, *map(len, edge))
    ordered = [edge[axis] for axis in axes]  # [1, 0], the transposed image, is its own inverse
    places = [(Place(axis - 2, len(edge[axis])),) for axis in axes]
    return layout.read_by(ordered, shape, places, why)


def expect_channels(call: "Call", expected: int) -> None:
    if call.source.shape[-3] != expected:
        raise ValueError(
            f"layer {call.layer!r} expects {expected} channels but gets {call.source.shape[-3]}: "
            "give receptive_field the (N, C, H, W) shape that the model is made for"
        )


@rule("conv2d")
def convolution(call):
    filters, depth, *kernel = call.weight.shape
    expect_channels(call, depth * call.groups)
    stride, dilation, ends = pair(call.stride), pair(call.dilation), [(0, 0), (0, 0)]
    if call.padding == "same":  # the odd one comes after
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        ends = [(t // 2, t - t // 2) for t in total]
    elif call.padding != "valid":
        ends = [(p, p) for p in pair(call.padding)]
    options = list(zip(kernel, stride, *zip(*ends, strict=True), dilation, strict=True))
    return local(call, lambda i, n: window(n, *options[i]), "a kernel that reaches", filters)


@rule("conv_transpose2d")
def transposed_convolution(call):
    depth, filters, *kernel = call.weight.shape
    expect_channels(call, depth)
    options = list(
        zip(kernel, *map(pair, (call.stride, call.padding, call.output_padding, call.dilation)), strict=True)
    )
    return local(
        call, lambda i, n: transposed(n, *options[i]), "a kernel that reaches", filters * call.groups
    )


@rule("max_pool2d max_pool2d_with_indices avg_pool2d")
def pooling(call):
    given = (
        call.kernel_size,
        call.stride or call.kernel_size,
        call.padding,
        call.padding,
        getattr(call, "dilation", 1),
    )
    options = list(zip(*map(pair, given), strict=True))
    if call.op == "max_pool2d_with_indices":
        call.windows[id(call.out[1])] = [
            window(n, *options[i], call.ceil_mode) for i, n in enumerate(call.x.shape[-2:])
        ]
    why = "average pooling" if call.op == "avg_pool2d" else "max pooling"
    return local(call, lambda i, n: window(n, *options[i], call.ceil_mode), why)


@rule("max_unpool2d")
def unpooling(call):
    """A value goes where its maximum was: anywhere in the pooling's window, as the input decides."""
    windows = call.windows.get(id(call.indices))
    if windows is None or tuple(call.output_size[-2:]) != tuple(taps.n_in for taps in windows):
        raise UnknownOperation(
            f"layer {call.layer!r} unpools with other indices, or to another size, than a max pooling "
            "in the module gave it: pass its own indices, and output_size = the size before the pooling"
        )
    back = [Taps(taps.inverse, len(taps), 1 / taps.step if taps.step else None) for taps in windows]
    return local_in(call, joined(call.sources, call.x.shape), lambda i, n: back[i], "max unpooling")


@rule("adaptive_avg_pool2d adaptive_max_pool2d")
def adaptive_pooling(call):
    size, why = pair(call.output_size), "max pooling" if "max" in call.op else "average pooling"
    return local(call, lambda i, n: adaptive(n, n if size[i] is None else size[i]), why)


@rule("upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d upsample_bicubic2d")
@rule("_upsample_bilinear2d_aa _upsample_bicubic2d_aa")
def interpolation(call):
    each = getattr(call, "scales_h", None), getattr(call, "scales_w", None)
    scales = getattr(call, "scale_factors", None) or each
    size, corners = call.output_size or call.shape[-2:], getattr(call, "align_corners", None)
    # Which pixel is nearest may hang on how float32 rounds; what float32 leaves of a zero weight is no tap.
    dtype = torch.float32 if "nearest" in call.op and call.x.dtype != torch.float64 else torch.float64
    return local(call, lambda i, n: resized(call.op, dtype, n, size[i], scales[i], corners), "interpolation")


@rule("pixel_shuffle pixel_unshuffle")
def shuffling(call):
    taps, r = window, getattr(call, "downscale_factor", 1)
    if call.op == "pixel_shuffle":
        taps, r = transposed, call.upscale_factor
    return local(call, lambda i, n: taps(n, r, r, 0, 0, 1), call.op, call.shape[-3])


PADDING = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}  # in torch's words, in numpy's


@rule("pad constant_pad_nd")
def padding(call):
    layout, mode = call.source, PADDING.get(getattr(call, "mode", "constant"))
    for i, (low, high) in enumerate(zip(call.pad[::2], call.pad[1::2], strict=True)):
        inside = np.arange(max(-low, 0), layout.shape[-1 - i] - max(-high, 0))  # a negative padding crops
        ends, how = (max(low, 0), max(high, 0)), {"mode": mode} if mode else {"constant_values": NOWHERE}
        size = layout.shape[-1 - i]
        most = {"reflect": size - 1, "wrap": size}.get(mode, max(ends))  # numpy would go on, torch does not
        if max(ends) > most:
            raise ValueError(
                f"layer {call.layer!r} pads a side of {size} by {max(ends)} in {call.mode} mode, which "
                f"takes {most} at most: enlarge the image"
            )
        layout = layout.picked(-1 - i, np.pad(inside, ends, **how), 1)
    return layout


@rule("flip roll")
def reordering(call):
    layout = call.source
    if not call.dims:
        raise call.unknown("rolling over the end of a row into the next")
    for i, dim in enumerate(call.dims):
        n = np.arange(layout.shape[dim])
        index, step = (n[::-1], -1) if call.op == "flip" else (np.roll(n, call.shifts[i]), 1)
        layout = layout.picked(dim, index, step)
    return layout


@rule("index_select index")
def indexing(call):
    """x[:, :, rows] with one list of constant indices."""
    given = call.indices if call.op == "index" else [None] * (call.dim % call.x.dim()) + [call.index]
    (dim, index), *more = [(dim, index) for dim, index in enumerate(given) if index is not None]
    if more or index.is_meta or index.dim() != 1:
        raise call.unknown("indexing with more than one list, or with positions that are computed")
    if index.dtype == torch.bool:  # how many are true, a tensor without data could not say
        index = index.nonzero().flatten()
        call.args = call.x, [None] * dim + [index]
    return call.source.picked(dim, index.cpu().numpy() % call.x.shape[dim])


@rule("rot90")
def turning(call):
    """A quarter turn is a flip and an exchange of two dimensions."""
    layout, (first, second) = call.source, (dim % call.x.dim() - call.x.dim() for dim in call.dims)
    for _ in range(call.k % 4):
        layout = layout.picked(second, np.arange(layout.shape[second])[::-1], -1)
        to = {dim: dim for dim in range(-call.x.dim(), 0)} | {first: second, second: first}
        shape = [layout.shape[to[dim]] for dim in range(-call.x.dim(), 0)]
        layout = layout.moved(shape, to)
    return layout


@rule("glu")
def gating(call):
    """One half times the sigmoid of the other: of channels, or of lines."""
    n = call.x.shape[call.dim]
    halves = np.arange(n // 2), np.arange(n // 2) + n // 2
    return joined([call.source.picked(call.dim, half, 1) for half in halves], call.shape)


@rule("gather")
def gathering(call):
    """Along channels; along rows or columns the index may lead anywhere."""
    along = call.dim % call.x.dim() - call.x.dim()
    sizes = [[n for dim, n in enumerate(x.shape, -x.dim()) if dim != along] for x in (call.x, call.index)]
    if sizes[0] != sizes[1]:
        raise call.unknown("'gather' with an index that leaves places out")
    if any(source is not None and source.axes(along) for source in call.sources):
        return free(call)
    return joined(call.sources, call.shape)


@rule("im2col")
def unfolding(call):
    """F.unfold: every window becomes a column, windows in the order of their positions."""
    options = list(zip(*map(pair, (call.kernel_size, call.stride, call.padding, call.padding)), strict=True))
    options = [(*each, d) for each, d in zip(options, pair(call.dilation), strict=True)]
    seen = local(call, lambda i, n: window(n, *options[i]), "a window that reaches", call.shape[-2])
    return seen.reshaped(call.shape)


@rule("col2im")
def folding(call):
    """F.fold: every column is added to its window."""
    size, options = pair(call.output_size), []
    for n, k, s, p, d in zip(
        size, *map(pair, (call.kernel_size, call.stride, call.padding, call.dilation)), strict=True
    ):
        count = (n + 2 * p - d * (k - 1) - 1) // s + 1
        options.append((count, (k, s, p, n - ((count - 1) * s - 2 * p + d * (k - 1) + 1), d)))
    columns = call.source.reshaped((*call.x.shape[:-1], *(count for count, _ in options)))
    return local_in(call, columns, lambda i, n: transposed(n, *options[i][1]), "windows", call.shape[-3])


@rule("cat stack")
def concatenation(call):
    """Along channels all are read; along rows or columns, each where it lies."""
    out, sources = call.shape, call.sources
    dim = call.dim % len(out)
    if call.op == "stack":  # each gets one more dimension, of size 1
        shape = (*out[:dim], 1, *out[dim + 1 :])
        sources = [None if part is None else part.reshaped(shape) for part in sources]
    parts = [part for part in sources if part is not None]
    along_axis = dim - len(out) >= -2 and len(out) > 2
    if not along_axis and not any(part.axes(dim - len(out)) for part in parts):
        return joined(parts, out)
    placed, start = [], 0
    for part, tensor in zip(sources, call.tensors, strict=True):
        if part is not None:
            placed.append(part.picked(dim, np.arange(out[dim]) - start, 1))
        start += 1 if call.op == "stack" else tensor.shape[dim]
    return joined(placed, out)


@rule("mean sum prod amax amin max min argmax argmin any all topk")
@rule("var std var_mean std_mean median norm linalg_vector_norm logsumexp")
def reduction(call):
    if hasattr(call, "other"):  # the larger of two
        return joined(call.sources, call.shape)
    n, dims = call.x.dim(), getattr(call, "dim", None)
    dims = [dims] if isinstance(dims, int) else dims or range(n)
    left = call.source.fold(dims, call.op)
    if len(call.shape) == n:  # keepdim, or topk
        return left._replace(shape=call.shape)
    kept = [dim for dim in range(-n, 0) if dim not in dims and dim + n not in dims]
    return left.moved(call.shape, {dim: i - len(kept) for i, dim in enumerate(kept)})


@rule("batch_norm instance_norm group_norm layer_norm rms_norm")
def normalization(call):
    if call.op == "batch_norm":
        dims = [0, *range(2, call.x.dim())] if call.training else []
        return call.source.mixed(dims, "statistics of the batch (training mode)")
    if call.op == "instance_norm":
        dims = range(2, call.x.dim()) if call.use_input_stats else []
    else:
        dims = range(1, call.x.dim()) if call.op == "group_norm" else range(-len(call.normalized_shape), 0)
    return call.source.mixed(dims, f"statistics of the image ({call.op.replace('_', ' ')})")


@rule("mm bmm addmm baddbmm")
def matrix_product(call):
    """(..., i, k) @ (..., k, j): sums over k. If i and j are both positions, each meets all of the other."""
    (*start, left, right), why = call.sources, "a matrix product (attention)"
    summed = [-2]
    if left is not None:
        left = left.fold([-1], why)
        summed = [-2, -1] if left.axes(-2) else [-2]
    if right is not None:
        right = right.fold(summed, why)
    (*rows, _), columns = call.tensors[-2].shape, call.tensors[-1].shape[-1]
    return joined([*start, left, right], (*rows, columns))


@rule("grid_sampler grid_sampler_2d")
def sampling(call):
    """A given grid reads a box for each pixel; where the image decides the grid, it may be any position."""
    image, grid = call.sources
    if grid is not None or call.grid.is_meta or image.gridded()[1] != [0, 1]:
        return free(call)
    image, _ = image.gridded()
    first, last = sampled(call.grid.double().cpu().numpy(), image.shape[-2:], *call.args[2:])
    warp = Warp(first.min(0), last.max(0))  # the images of a batch share one field
    return whole(Map(first.shape[1:3], [(image.map, warp, warp)]), call.shape)


@rule("scatter_add")
def scattering(call):
    """At given places, each pixel reads a box of those that write to it, with whatever weight."""
    into, index, written = call.sources
    given = into is None and index is None and written is not None and not call.index.is_meta
    if not given or [place.dim for own in written.places for place in own] != [-1, -1]:
        return free(call)
    height, width = written.map.size
    if call.x.shape[-1] != height * width:
        return free(call)
    target = call.index.cpu().numpy()
    writer = np.broadcast_to(np.arange(target.shape[-1]), target.shape)
    first, last = np.full((2, height * width, 2), [[[max(height, width)]], [[-1]]])  # nobody yet
    for axis, (place,) in enumerate(written.places):
        at = writer // place.inner % place.size
        np.minimum.at(first[:, axis], target, at)
        np.maximum.at(last[:, axis], target, at)
    warp = Warp(first.reshape(height, width, 2), last.reshape(height, width, 2))
    grid = Map((height, width), [(written.map, warp, warp)])
    return Layout(grid, tuple(call.x.shape), ((Place(-1, height, width),), (Place(-1, width),)))


@rule("deform_conv2d")
def free(call):
    """Reads any position of anything: an upper bound, where rows and columns do not separate."""
    sources = [source for source in call.sources if source is not None]
    return joined([source.fold(why="sampling at free positions") for source in sources], call.shape)


@rule("item _local_scalar_dense is_nonzero equal allclose nonzero masked_select")
def looking(call):
    raise call.unknown(f"{call.op!r}, which looks at values where a trace has only shapes")


# Each value by itself. (Arithmetic needs no rule: torch tags it as pointwise.)
rule("relu hardswish hardsigmoid hardtanh relu6 prelu elu selu celu rrelu")(lambda call: call.source)
rule("silu gelu mish softplus log_sigmoid native_dropout")(lambda call: call.source)
# The same again; positions repeat with their dimension, as `Place` has it.
rule("clone _to_copy channel_shuffle native_channel_shuffle repeat")(
    lambda call: call.source._replace(shape=call.shape)
)
# Channel by channel: rows and columns stay where they are.
rule("masked_fill")(lambda call: joined(call.sources, call.shape))
# What is written over no longer counts, and what only takes another's shape depends on nothing.
rule("copy fill zero")(lambda call: joined(call.sources[1:], call.x.shape))
rule("zeros_like ones_like full_like empty_like rand_like randn_like")(lambda call: None)
rule("new_empty new_zeros new_ones new_full")(lambda call: None)
# All along one dimension is read.
rule("softmax log_softmax _softmax _log_softmax _safe_softmax cumsum cumprod sort argsort")(
    lambda call: call.source.mixed([call.dim], call.op)
)


@rule("linear")
def fully_connected(call):
    shape = (*call.x.shape[:-1], len(call.weight))
    return call.source.fold([-1], "a fully connected layer")._replace(shape=shape)


# ------------------------------------------------------------------ views: tensors that share memory


def covering(forward: Callable, backward: Callable) -> tuple[Callable, Callable]:
    """A view that shows all of its base: what is written to it replaces the base, a constant too."""
    return forward, lambda base, new: None if new is None else backward(new)


@rule("view _unsafe_view _reshape_alias squeeze unsqueeze", VIEWS)
def reshaping(call):
    if call.out.dtype != call.x.dtype:
        raise call.unknown("a view of the same memory as another type of number")
    yield covering(lambda base: base.reshaped(call.shape), lambda new: new.reshaped(call.x.shape))


@rule("detach alias lift_fresh", VIEWS)
def same(call):
    yield covering(lambda base: base, lambda new: new)


@rule("expand", VIEWS)
def expanding(call):
    def backward(base, new):
        raise call.unknown("writing in place to the result of 'expand'")

    yield lambda base: base._replace(shape=call.shape), backward


@rule("permute transpose t", VIEWS)
def permuting(call):
    """torch permutes a tensor of telling sizes, and so says the order itself."""
    n = call.x.dim()
    sizes = call.func(torch.empty(*range(2, 2 + n)), *call.args[1:], **call.kwargs).shape
    to = {size - 2 - n: i - n for i, size in enumerate(sizes)}
    back = {there: here for here, there in to.items()}
    yield covering(lambda base: base.moved(call.shape, to), lambda new: new.moved(call.x.shape, back))


@rule("slice select split split_with_sizes unbind", VIEWS)
def slicing(call):
    """torch slices the numbers 0 .. n - 1, and so says which it takes."""
    dim, shape = call.dim % call.x.dim(), tuple(call.x.shape)
    count = torch.arange(shape[dim]).reshape([-1 if d == dim else 1 for d in range(len(shape))])
    pieces = call.func(count, *call.args[1:], **call.kwargs)
    for piece in [pieces] if isinstance(pieces, torch.Tensor) else pieces:
        yield slice_of(shape, dim, piece.flatten().numpy(), dropped=piece.dim() < len(shape))


def slice_of(shape: tuple, dim: int, index: np.ndarray, dropped: bool) -> tuple[Callable, Callable]:
    """The view of a base of `shape` that takes `index` of dimension `dim`, which goes if it is `dropped`."""
    n, before, after = shape[dim], shape[:dim], shape[dim + 1 :]

    def forward(base):
        taken = base.picked(dim, index)
        return taken.reshaped(before + after) if dropped and taken is not None else taken

    def backward(base, new):
        place, keep = np.full(n, NOWHERE), np.arange(n)
        place[index], keep[index] = np.arange(len(index)), NOWHERE
        parts = [] if base is None else [base.picked(dim, keep, 1)]
        if new is not None:
            parts.append(new.reshaped((*before, len(index), *after)).picked(dim, place, 1))
        return joined(parts, shape)

    return forward, backward
