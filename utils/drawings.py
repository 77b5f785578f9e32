"""Drawings of how networks work. A grid is a feature map, an orange box a patch, a ring a pixel, a dashed
box a cut, and a hatched cell is padding.

sheet, grid, box, ring   the marks themselves
stack                    what one output of a stack of layers sees, along one axis
stamps                   a transposed convolution, after some of its stamps
u_shape                  the maps of a traced network, as people draw a U-Net
"""

from collections import namedtuple
from itertools import pairwise

import numpy as np
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch, Rectangle

from pixelpatch.drawing import MARK, PALETTE

SEEN, LINE = "#fbd9bd", "#9a9a9a"


def sheet(columns, rows, width=7):
    """A figure of that width in inches, and its one Axes: a cell is one unit, rows count downwards.

    As in an image, the cell in row r and column c has its centre at (x, y) = (c, r).
    """
    figure = Figure(figsize=(width, width * rows / columns))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), aspect="equal")
    axis.set_axis_off()
    return figure, axis


def grid(axis, top, left, fills, side=1.0):
    """A feature map from row `top` and column `left` on: a cell for every colour in fills (rows, columns)."""
    fills = np.asarray(fills, dtype=object)
    corners = [(left - 0.5 + c * side, top - 0.5 + r * side) for r, c in np.ndindex(fills.shape)]
    cells(axis, corners, fills.flatten(), side)


def cells(axis, corners, fills, side=1.0, **style):
    """Squares with their upper left corners at (x, y), each in its colour; all at once, which is fast."""
    squares = np.reshape(corners, (-1, 1, 2)) + side * np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
    axis.add_collection(PolyCollection(squares, facecolor=list(fills), edgecolor=LINE, lw=0.7, **style))


def box(axis, top, left, rows, columns, **style):
    """The outline of a patch; with linestyle="--" and edgecolor="black", of a cut."""
    style = {"edgecolor": MARK, "linewidth": 2.2, "fill": False, "joinstyle": "miter"} | style
    axis.add_patch(Rectangle((left - 0.5, top - 0.5), columns, rows, **style))


def ring(axis, row, column, radius=0.34):
    """A pixel, ringed."""
    for colour, width in (("white", 4), ("black", 1.8)):
        axis.add_patch(Circle((column, row), radius, fill=False, ec=colour, lw=width))


Step = namedtuple("Step", "kernel stride padding dilation", defaults=(3, 1, 0, 1))  # a layer along one axis


def size_jump_start(steps):
    """What the outputs see after each layer: (size, jump, start) of the image and of every layer."""
    numbers = [(1, 1, 0)]
    for kernel, stride, padding, dilation in steps:
        size, jump, start = numbers[-1]
        numbers.append((size + (kernel - 1) * dilation * jump, jump * stride, start - padding * jump))
    return numbers


def reads(steps, output):
    """The positions on every level, from the image to the output, that one output depends on: sets."""
    levels = [{output}]
    for kernel, stride, padding, dilation in reversed(steps):
        taps = [tap * dilation - padding for tap in range(kernel)]
        levels.append({at * stride + tap for at in levels[-1] for tap in taps})
    return levels[::-1]


def stack(steps, positions=28):
    """The cone of one output: the image's positions at the bottom, and a row for every `Step` above it.

    Returns a matplotlib Figure. Raises ValueError where a layer has no output.
    """
    lengths = [positions]
    for kernel, stride, padding, dilation in steps:
        room = lengths[-1] + 2 * padding - (kernel - 1) * dilation - 1
        lengths.append(room // stride + 1)
        if room < 0:
            raise ValueError(f"layer {len(lengths) - 1} has no output; make its kernel smaller.")
    output = lengths[-1] // 2
    numbers, cone = size_jump_start(steps), reads(steps, output)
    firsts = [12 + start + (size - 1) / 2 for size, _, start in numbers]  # above the middle of what it sees
    figure, axis = sheet(positions + 26, 2 * len(lengths) + 1.6)
    for column, title in enumerate(("size", "jump", "start")):
        axis.text(positions + 17 + 3.5 * column, 0.3, title, ha="right", fontsize=9, weight="bold")
    for level, (length, seen) in enumerate(zip(lengths, cone, strict=True)):
        row, first, jump = 2 * (len(lengths) - level), firsts[level], numbers[level][1]
        pads = steps[level].padding if level < len(steps) else 0
        inside, padding = range(length), [*range(-pads, 0), *range(length, length + pads)]
        for places, hatch in ((inside, None), (padding, "/////")):
            corners = [(first + at * jump - 0.5, row - 0.5) for at in places]
            cells(axis, corners, [SEEN if at in seen else "white" for at in places], hatch=hatch)
        if level:
            lines = [
                [(firsts[level - 1] + tap * numbers[level - 1][1], row + 1.5), (first + at * jump, row + 0.5)]
                for at in seen
                for tap in reads(steps[level - 1 : level], at)[0]
            ]
            axis.add_collection(LineCollection(lines, color=MARK, lw=0.8, alpha=0.6))
        name = f"layer {level}: {said(steps[level - 1])}" if level else "image"
        axis.text(-0.3, row, name, va="center", fontsize=8)
        for column, number in enumerate(numbers[level]):
            axis.text(positions + 17 + 3.5 * column, row, number, ha="right", va="center", fontsize=9)
    size, jump, start = numbers[-1]
    ring(axis, 2, firsts[-1] + output * jump)
    box(axis, 2 * len(lengths), 12 + start + output * jump, 1, size)
    box(axis, 2 * len(lengths) + 0.2, 12 + start + (output + 1) * jump, 1, size, linestyle=":", linewidth=1.5)
    return figure


def said(step):
    """A layer in a few letters: its kernel, and of the rest what is not as usual."""
    unusual = [("stride", step.stride, 1), ("pad", step.padding, 0), ("dil", step.dilation, 1)]
    return ", ".join([f"k {step.kernel}"] + [f"{name} {n}" for name, n, usual in unusual if n != usual])


def stamps(kernel, stride, done, inputs=3):
    """A map of inputs x inputs, and its canvas after the first `done` stamps of a kernel of ones.

    Returns a matplotlib Figure, and an array (rows, columns): how many stamps cover each cell of the canvas.
    """
    side = (inputs - 1) * stride + kernel
    canvas = np.zeros((side, side), dtype=int)
    for number in range(done):
        row, column = divmod(number, inputs)
        canvas[row * stride : row * stride + kernel, column * stride : column * stride + kernel] += 1
    figure, axis = sheet(18, 12, width=5.4)  # for every kernel, so that a knob's picture stands still
    top, fills = (side - inputs) / 2 + 0.5, [SEEN] * done + ["white"] * (inputs**2 - done)
    grid(axis, top, 0, np.reshape(np.array(fills, dtype=object), (inputs, inputs)))
    shades = ["white", "#e8eef3", "#c3d5e2", "#94b6cd", "#6497b8", "#3d7aa1", "#1f5d86", "#0b3c5d", "#072a42"]
    left = inputs + 3
    grid(axis, 0.5, left, [[shades[min(count, 8)] for count in row] for row in canvas])
    for (row, column), count in np.ndenumerate(canvas):
        colour = "white" if count > 4 else "black"
        axis.text(left + column, 0.5 + row, count or "", ha="center", va="center", color=colour, fontsize=10)
    axis.annotate("", (left - 0.8, side / 2), (inputs - 0.2, side / 2), arrowprops={"arrowstyle": "-|>"})
    if done:
        row, column = divmod(done - 1, inputs)
        ring(axis, top + row, column)
        box(axis, 0.5 + row * stride, left + column * stride, kernel, kernel)
    return figure, canvas


LOOKS = {  # of an operation: its name in the key, its colour, its hatch
    "conv2d": ("convolution", PALETTE[3], None),
    "max_pool2d": ("max pooling", PALETTE[2], "\\\\\\"),
    "max_pool2d_with_indices": ("max pooling", PALETTE[2], "\\\\\\"),
    "max_unpool2d": ("unpooling", PALETTE[6], "..."),
    "conv_transpose2d": ("transposed convolution", PALETTE[4], "///"),
    "cat": ("two maps side by side", "white", None),
    "add": ("sum of two maps", "white", "+++"),
}
JOINS = "cat", "add", "max_unpool2d"  # what uses a map of the way down again


def u_shape(field, width=7):
    """The maps of a network in their order, the lower, the coarser; arrows lead to where one is used again.

    Over a map stands its number of channels, below the first of each size its rows and columns.

    Takes the network's `pixelpatch.ReceptiveField`; returns a matplotlib Figure, `width` inches wide.
    """
    drawn = [layer for layer in field.layers if layer.op in LOOKS]
    tallest, left, level, corners = drawn[0].shape[2], 0.0, 0, []
    for before, layer in pairwise([drawn[0], *drawn]):
        down = round(np.log2(before.shape[2] / layer.shape[2]))
        left, level = left + (1.7 if down else 0.3), level + down
        corners.append((left, 2.4 * level))
        left += 0.16 * np.log2(1 + layer.shape[1])
    lowest = max(y for _, y in corners)
    figure, axis = sheet(left + 1.5, lowest + 3 + 0.6 * (left + 1.5) / width, width)  # with room for the key
    last, turned = {}, False  # on the way down, the right edge of the last map of each size
    for (x, y), layer in zip(corners, drawn, strict=True):
        _, channels, rows, columns = layer.shape
        _, colour, hatch = LOOKS[layer.op]
        wide, high = 0.16 * np.log2(1 + channels), 1.5 * (rows / tallest) ** 0.5
        style = {"fc": colour, "ec": "black", "lw": 0.6, "hatch": hatch}
        axis.add_patch(Rectangle((x, y + 1), wide, high, **style))
        axis.text(x + wide / 2, y + 0.85, channels, ha="center", fontsize=7)
        if y not in last:
            axis.text(x, y + 1.15 + high, f"{rows} x {columns}", fontsize=8, va="top")
        turned = turned or y == lowest
        if layer.op in JOINS and y in last:
            height, arrow = y + 1 + high / 2, {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0}
            axis.annotate("", (x, height), (last[y], height), arrowprops=arrow, zorder=0.5)
        if not turned or y not in last:
            last[y] = x + wide
    _, _, rows, columns = drawn[-1].shape
    axis.text(x + wide, y + 1.15 + high, f"{rows} x {columns}", ha="right", fontsize=8, va="top")
    names = {LOOKS[layer.op][0]: LOOKS[layer.op] for layer in drawn}
    keys = [Patch(facecolor=c, edgecolor="black", hatch=h, label=name) for name, c, h in names.values()]
    figure.legend(handles=keys, loc="lower left", frameon=False, fontsize=8, ncols=2)
    return figure
