"""The drawings that stand in the text of the notebooks: one for each mechanism, before its code.

python -m experiments.figures    draws them all again, into notebooks/figures

The marks are those of `utils.drawings`: a grid is a feature map, an orange box a patch, a ring a pixel, a
dashed box a cut, and what is hatched is padding. Every drawing is 7 inches wide, and drawn again it is the
same file, byte for byte. A place is (row, column); rows count downwards.
"""

from io import StringIO
from itertools import pairwise

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Circle, PathPatch, Polygon, Rectangle
from matplotlib.path import Path as Curve

from experiments import write_whole
from pixelpatch.drawing import MARK, PALETTE
from utils.data import DATA
from utils.drawings import LINE, SEEN, box, cells, grid, ring, sheet

FOLDER = DATA.parent / "notebooks" / "figures"
LOOK = {"font.size": 10, "hatch.linewidth": 0.7, "svg.fonttype": "path", "svg.hashsalt": "pixelpatch"}
DOTTED = (0, (1, 1.1))
CUT = {"edgecolor": "black", "linestyle": (0, (4, 2.5)), "linewidth": 1.6}
GREY = "#666666"


def pale(number, share=0.4):
    """A colour of the palette, mixed with white."""
    return to_hex([1 - share * (1 - part) for part in to_rgb(PALETTE[number])])


BLUE, AMBER, GREEN, PINK = (pale(number) for number in (3, 2, 4, 6))


def label(axis, row, column, text, **style):
    """A short text, in the middle of its place unless `style` says otherwise."""
    axis.text(column, row, text, **{"ha": "center", "va": "center"} | style)


def line(axis, start, end, **style):
    """A straight line from place to place."""
    axis.plot((start[1], end[1]), (start[0], end[0]), **{"color": MARK, "lw": 1.1} | style)


def arrow(axis, start, end, text="", **style):
    """An arrow from place to place, with a text above its middle."""
    style = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "lw": 1.2, "color": "black"} | style
    axis.annotate("", end[::-1], start[::-1], arrowprops=style)
    label(axis, (start[0] + end[0]) / 2 - 0.25, (start[1] + end[1]) / 2, text, va="bottom")


def bar(axis, row, column, wide, high, text="", fill=BLUE):
    """A box around a place, with a text in it: a map of which the cells are too many to be drawn."""
    axis.add_patch(Rectangle((column - wide / 2, row - high / 2), wide, high, fc=fill, ec=GREY, lw=0.9))
    label(axis, row, column, text)


def table(axis, top, left, entries, fills="white", side=1.0, **style):
    """A grid with something written in each cell; `fills` is one colour, or one for each cell."""
    entries = np.asarray(entries, dtype=object)
    grid(axis, top, left, np.broadcast_to(fills, entries.shape), side)
    for (row, column), entry in np.ndenumerate(entries):
        place = top - 0.5 + (row + 0.5) * side, left - 0.5 + (column + 0.5) * side
        label(axis, *place, entry, **style)


def blank(rows, columns, fill="white"):
    """The colours of a grid of one colour, to be changed here and there."""
    return np.full((rows, columns), fill, dtype=object)


# --- chapters 1 to 3: windows, and all of them at once ---------------------------------------------------


def windows_overlap():
    """Two windows around neighbouring pixels, and the pixels that both hold."""
    figure, axis = sheet(22, 11)
    fills = blank(9, 12)
    fills[2:7, 4:8] = SEEN
    grid(axis, 1, 1, fills)
    box(axis, 3, 4, 5, 5, linewidth=2.6)
    box(axis, 2.87, 5.13, 5.26, 5, linewidth=2.6, linestyle=DOTTED)  # a little higher, so that both are seen
    for name, pixel, corner, row, style in ("a", 6, 4.1, 2, "-"), ("b", 7, 9.5, 3.3, DOTTED):
        ring(axis, 5, pixel, 0.38)
        label(axis, 5, pixel, name, weight="bold")
        label(axis, 1.9, corner, name, color=MARK, weight="bold", fontsize=13)
        line(axis, (row, 14.5), (row, 16), lw=2.6, linestyle=style)
        label(axis, row, 16.4, f"window of pixel {name}", ha="left")
    line(axis, (6, 8.1), (6, 14.2), color="black", marker="o", ms=4, markevery=[0])
    label(axis, 6, 14.5, "20 of 25 pixels\nare shared", ha="left", weight="bold", fontsize=12)
    return figure


def blob(row, column, radius, turn):
    """The outline of something round, but not quite: (points, 2), each (x, y)."""
    angle = np.linspace(0, 2 * np.pi, 90)
    far = radius * (1 + 0.13 * np.sin(2 * angle + turn) + 0.06 * np.sin(3 * angle))
    return np.column_stack([column + far * np.cos(angle), row + far * np.sin(angle)])


def iou():
    """Two blobs and their overlap; and the overlap, divided by everything that is covered."""
    figure, axis = sheet(24, 11.5)
    for row, column, radius, fills, hatch in (
        (5.6, 5.2, 3.1, (BLUE, AMBER, "white"), "xxxx"),
        (2.6, 17, 1.5, ("white", "none", "white"), "xxxx"),
        (8.4, 17, 1.5, (GREEN, GREEN, GREEN), None),
    ):
        predicted = blob(row - 0.2 * radius, column - 0.48 * radius, radius, 0.4)
        true = blob(row + 0.2 * radius, column + 0.48 * radius, radius, 2.6)
        axis.add_patch(Polygon(predicted, fc=fills[0]))
        whole = axis.add_patch(Polygon(true, fc=fills[1]))
        overlap = axis.add_patch(Polygon(predicted, fc=fills[2], hatch=hatch, ec="black", lw=0))
        overlap.set_clip_path(whole)
        axis.add_patch(Polygon(predicted, fill=False, ec="black", lw=1.8))
        axis.add_patch(Polygon(true, fill=False, ec="black", lw=1.8, linestyle=":"))
    label(axis, 3.9, 3.2, "predicted")
    label(axis, 7.6, 8.6, "true")
    label(axis, 5.5, 13, "IoU  =", fontsize=15)
    line(axis, (5.5, 14.7), (5.5, 22.7), color="black", lw=1.6)
    label(axis, 2.6, 19.9, "overlap", ha="left")
    label(axis, 8.4, 19.9, "everything\ncovered", ha="left")
    return figure


def alignment():
    """Pooling groups pixels in pairs; a cut that starts at an odd pixel pairs other pixels."""
    figure, axis = sheet(22, 13.6)
    for border in range(0, 13, 2):
        line(axis, (0.3, 4.9 + border), (12.5, 4.9 + border), color="black", linestyle=":", zorder=3)
    for row, start, count in (1.2, 0, 12), (5.4, 2, 8), (9.6, 3, 8):
        label(axis, row, 4.2, f"cut at pixel {start}" if start else "whole image", ha="right")
        label(axis, row + 2, 4.2, "pooled", ha="right", color=GREY)
        for pixel in range(start, start + count, 2):
            fill, left = (BLUE if pixel // 2 % 2 else PALETTE[0]), 5.4 + pixel
            table(axis, row, left, [[pixel, pixel + 1]], fill)
            grid(axis, row + 2, left + 0.5, [[fill]])
            for end in left, left + 1:
                line(axis, (row + 0.5, end), (row + 1.5, left + 0.5), color="black")
        if start:
            box(axis, row - 0.2, 5.2 + start, 1.4, count + 0.4, **CUT)
    for row, sign, verdict in (6.4, "✓", "same\ngroups"), (10.6, "✗", "other\ngroups"):
        label(axis, row, 18.3, sign, fontsize=20)
        label(axis, row, 19.1, verdict, ha="left", weight="bold")
    return figure


def flatten_to_convolution():
    """The weights of a fully connected layer, folded: the kernel of a convolution, which can slide."""
    figure, axis = sheet(30, 25)
    label(axis, 0.4, 6, "fully connected: flatten", weight="bold")
    label(axis, 0.4, 21, "convolution: the same weights, folded", weight="bold")
    label(axis, 1.8, 6, "map")
    label(axis, 1.8, 9, "weights")
    for middle, letters, fill in (4.5, "abcd", BLUE), (8.5, "efgh", AMBER), (12.5, "ijkl", GREEN):
        weights = [ord(letter) - ord("a") + 1 for letter in letters]
        products = [f"{letter}·{weight}" for letter, weight in zip(letters, weights, strict=True)]
        table(axis, middle - 0.5, 1, np.reshape(list(letters), (2, 2)), fill)
        arrow(axis, (middle, 2.8), (middle, 5.2))
        table(axis, middle - 1.5, 6, np.reshape(list(letters), (4, 1)), fill)
        table(axis, middle - 1.5, 9, np.reshape(weights, (4, 1)), fill)
        for row in range(4):
            label(axis, middle - 1.5 + row, 7.5, "·", weight="bold")
        table(axis, middle - 1.2, 17.5, np.reshape(products, (2, 2)), fill, side=1.7)
        box(axis, middle - 1.2, 17.5, 3.4, 3.4)
        line(axis, (middle, 9.7), (8.5, 11.2), color="black")
        line(axis, (middle, 21), (8.5, 23.5), color="black")
    arrow(axis, (3.4, 9.9), (3.4, 16.6), "fold")
    for column in 11.7, 24:
        label(axis, 8.5, column, "Σ", fontsize=13)
        grid(axis, 8.5, column + 1.8, [[SEEN]])
        label(axis, 9.8, column + 1.8, "score")
    label(axis, 16.2, 14.5, "on a larger map the kernel slides: a score at every place", weight="bold")
    for depth, fill in (2, GREEN), (1, AMBER), (0, BLUE):
        grid(axis, 19.4 - 0.6 * depth, 5 + 0.6 * depth, blank(4, 5, fill))
        box(axis, 19.4 - 0.6 * depth, 8 + 0.6 * depth, 2, 2)
    arrow(axis, (21, 11.8), (21, 15.8), "slide")
    fills = blank(3, 4)
    fills[0, 3] = SEEN
    grid(axis, 19.7, 17.5, fills)
    ring(axis, 19.7, 20.5)
    label(axis, 24, 7, "4 x 5, three channels")
    label(axis, 24, 19, "3 x 4 scores")
    return figure


def shift_and_stitch():
    """Four coarse maps, from an image that is shifted four times, are interleaved into a fine one."""
    figure, axis = sheet(31, 13.2)
    label(axis, 2.3, 3.5, "image")
    grid(axis, 4, 1, blank(6, 6))
    label(axis, 11.2, 3.5, "where each\nshift starts")
    label(axis, 2.3, 26.5, "every pixel")
    grid(axis, 4, 24, blank(6, 6))
    for marker, colour, down, right in ("o", 3, 0, 0), ("s", 2, 0, 1), ("^", 4, 1, 0), ("X", 6, 1, 1):
        top, left = 2.2 + 6.4 * down, 11.8 + 5.2 * right
        label(axis, top - 1.2, left + 1, f"shift ({down}, {right})")
        grid(axis, top, left, blank(3, 3))
        places = [(4 + down, 1 + right)]  # in the image; then in the coarse map and in the fine one
        for row, column in np.ndindex(3, 3):
            places += [(top + row, left + column), (4 + down + 2 * row, 24 + right + 2 * column)]
        for row, column in places:
            axis.plot(column, row, marker, color=pale(colour, 0.9), mec="black", mew=0.9, ms=8.5)
    arrow(axis, (6.5, 7.2), (6.5, 10.6), "stride 2")
    arrow(axis, (6.5, 20), (6.5, 23), "stitch")
    return figure


def holes():
    """Pooling with stride 2 and a kernel; and with stride 1 and a kernel with holes, for more outputs."""
    figure, axis = sheet(28, 12)
    for row, name in (3, "outputs"), (6, "pooled"), (9, "pixels"):
        label(axis, row, 3.4, name, ha="right")
    between = {"color": PALETTE[1], "linestyle": DOTTED, "lw": 1.6}
    for left, stride, title in (5, 2, "pooling with stride 2"), (17, 1, "stride 1, and holes in the kernel"):
        label(axis, 0.6, left + 4.5, title, weight="bold")
        for output, style in [(3, between), (2, {})][stride - 1 :]:
            for pooled in output, output + 2, output + 4:
                line(axis, (3.5, left + output + 2.5), (5.5, left + pooled + 0.5), **style)
                for pixel in pooled, pooled + 1:
                    line(axis, (6.5, left + pooled + 0.5), (8.5, left + pixel), **style)
        for output in range(0, 5, stride):
            grid(axis, 3, left + output + 2.5, [["white"]])
        for pooled in range(0, 9, stride):
            grid(axis, 6, left + pooled + 0.5, [[SEEN if pooled in (2, 4, 6) else "white"]])
        grid(axis, 9, left, [[SEEN if 2 <= pixel <= 7 else "white" for pixel in range(10)]])
        box(axis, 9, left + 2, 1, 6)
        ring(axis, 3, left + 4.5)
    axis.add_patch(Circle((22.5, 3), 0.34, fill=False, ec=PALETTE[1], lw=1.8, linestyle=":"))
    label(axis, 10.8, 9.5, "an output for every second pixel")
    label(axis, 10.8, 21.5, "... and the outputs between them")
    return figure


def holes_instead_of_strides():
    """The maps of a classifier as bars; and with its last two strides left out, and holes instead."""
    figure, axis = sheet(30, 10.5)
    for row, name, strides, gaps in (
        (2.6, "all strides", (1, 2, 4, 8, 16, 32), (1,) * 6),
        (7, "DeepLab", (1, 2, 4, 8, 8, 8), (1, 1, 1, 1, 2, 4)),
    ):
        label(axis, row, 5.6, name, ha="right", weight="bold")
        for place, (stride, gap) in enumerate(zip(strides, gaps, strict=True)):
            column, high = 7.5 + 4 * place, max(3.2 / stride, 0.14)
            bar(axis, row, column, 1.2, high, fill=AMBER if gap > 1 else BLUE)
            label(axis, row + 2.1, column, f"stride {stride}", fontsize=9)
            if gap > 1:
                label(axis, row - 1.2, column, f"a tap every {gap}", fontsize=9, color=MARK)
    return figure


SIDES = {256: (5.6, 3.0), 128: (9.5, 2.2), 64: (12.7, 1.6), 32: (15.7, 1.2), 16: (18.7, 0.9), 8: (21.7, 0.7)}


def fcn_map(axis, row, size, fill):
    """A map of that size as a sheet of cells, fewer than it truly has."""
    place, side = SIDES[size]
    count = round(side * 3)
    grid(axis, row + 0.5 - side / 2, place + 0.5 - side / 2, blank(count, count, fill), side / count)


def fcn():
    """FCN-32s, FCN-16s and FCN-8s: the way down, which is the same in all, and three ways back."""
    figure, axis = sheet(24, 23)
    label(axis, 1.8, 0, "the way\ndown", ha="left")
    before = 0
    for size, (place, side) in SIDES.items():
        fcn_map(axis, 1.8, size, BLUE)
        label(axis, 4, place, f"{size} x {size}")
        if before:
            arrow(axis, (1.8, before), (1.8, place - side / 2 - 0.15))
        before = place + side / 2 + 0.1
        if size < 64:
            label(axis, 5, place, f"stride {256 // size}", color=GREY)
            line(axis, (5.6, place), (20.6, place), color=GREY, lw=0.9, linestyle=":", zorder=0)
    for row, name, path in (8, "FCN-32s", (8,)), (12.8, "FCN-16s", (8, 16)), (17.6, "FCN-8s", (8, 16, 32)):
        label(axis, row, 0, name, ha="left", weight="bold")
        for size, after in zip(path, (*path[1:], 256), strict=True):
            place, side = SIDES[size]
            fcn_map(axis, row + (1.8 if size > 8 else 0), size, AMBER)
            if size > 8:
                axis.add_patch(Circle((place, row), 0.42, fc="white", ec="black", lw=1.2))
                label(axis, row, place, "+", va="center_baseline", fontsize=12)
                arrow(axis, (row + 1.7 - side / 2, place), (row + 0.5, place))
            end = SIDES[after][0] + (1.7 if after == 256 else 0.6)
            arrow(axis, (row, place - 0.6), (row, end), f"×{after // size}", color=MARK, lw=1.6)
        fcn_map(axis, row, 256, AMBER)
        label(axis, row + 2.1, 5.6, "256 x 256")
    grid(axis, 21.6, 9.5, [[AMBER]])
    label(axis, 21.6, 10.5, "class scores", ha="left")
    arrow(axis, (21.6, 16), (21.6, 14.8), color=MARK, lw=1.6)
    label(axis, 21.6, 16.4, "enlarged", ha="left")
    return figure


def hypercolumn():
    """Maps of a network along one axis, and what lies above one pixel in each of them."""
    figure, axis = sheet(29, 11)
    pixel, left = 9, 6
    for row, wide, name in (
        (9, 1, "image"),
        (6.5, 2, "first stage"),
        (4, 4, "second stage"),
        (1.5, 8, "third stage"),
    ):
        label(axis, row, left - 1.2, name, ha="right")
        for place in range(16 // wide):
            fill = SEEN if place == pixel // wide and wide > 1 else "white"
            bar(axis, row, left + (place + 0.5) * wide - 0.5, wide, 1, fill=fill)
        if wide > 1:
            grid(axis, row - 0.75, 25, [[SEEN]] * 4, side=0.5)
    line(axis, (9, left + pixel), (1.5, left + pixel), lw=2)
    ring(axis, 9, left + pixel)
    arrow(axis, (4, 22.2), (4, 24))
    label(axis, 8.7, 25, "one column for\neach pixel: all\nchannels above it", va="center")
    return figure


# --- chapters 4 and 5: back to full size, and tiles ------------------------------------------------------


def what_an_output_reads():
    """A transposed convolution along one axis: to which outputs each input is added."""
    figure, axis = sheet(28, 12.8)
    for row, name in (2.8, "inputs"), (6.8, "outputs"), (8.1, "phase"), (9.4, "lines"):
        label(axis, row, 2.8, name, ha="right")
    even = {"marker": "o", "ms": 8, "color": "black"}
    odd = {"marker": "s", "ms": 8, "color": "white", "mec": "black"}
    for left, kernel in (5, 4), (18, 3):
        length = kernel + 4
        label(axis, 0.6, left + (length - 1) / 2, f"kernel {kernel}, stride 2, padding 1", weight="bold")
        arriving = [0] * (length + 1)  # the last: what the padding cuts off
        for at in range(4):
            place = left + 2 * at + (kernel - 3) / 2
            grid(axis, 2.8, place, [[BLUE]])
            for output in range(2 * at - 1, 2 * at - 1 + kernel):
                outside = output in (-1, length)
                style = {"color": GREY, "linestyle": ":"} if outside else {}
                line(axis, (3.3, place), (6.3, left + output), **style)
                arriving[output] += 1
        cells(axis, [(left - 1.5, 6.3), (left + length - 0.5, 6.3)], ["white"], hatch="////")
        grid(axis, 6.8, left, blank(1, length))
        for output in range(length):
            axis.plot(left + output, 8.1, **(odd if output % 2 else even))
            label(axis, 9.4, left + output, arriving[output])
    axis.plot(5, 11.3, **even)
    label(axis, 11.3, 5.8, "even", ha="left")
    axis.plot(9.6, 11.3, **odd)
    label(axis, 11.3, 10.4, "odd", ha="left")
    cells(axis, [(13.4, 10.8)], ["white"], hatch="////")
    label(axis, 11.3, 14.9, "outside: the padding cuts it off", ha="left")
    return figure


def unpooling():
    """Max pooling that remembers where its maxima were, and unpooling, which puts them back there."""
    figure, axis = sheet(24, 14.4)
    numbers = np.array([[1, 5, 2, 0], [3, 2, 6, 1], [4, 0, 3, 1], [1, 2, 2, 7]])
    fills, back, sparse = blank(4, 4), np.zeros((4, 4), dtype=int), blank(4, 4)
    grid(axis, 9.1, 10.3, blank(4, 4), side=0.8)
    for (row, column), fill in zip(np.ndindex(2, 2), (BLUE, AMBER, GREEN, PINK), strict=True):
        block = slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2)
        down, right = divmod(numbers[block].argmax(), 2)
        place = 2 * row + down, 2 * column + right
        fills[block], sparse[place], back[place] = fill, fill, numbers[place]
        table(axis, 2.45 + 1.25 * row, 10.75 + 1.25 * column, [[numbers[place]]], fill, 1.25, fontsize=12)
        axis.plot(10.2 + 0.8 * place[1], 9 + 0.8 * place[0], "D", color="black", ms=5)
    for left, entries, colours in (1, numbers, fills), (18, back, sparse):
        table(axis, 1.2, left, entries, colours, 1.25, fontsize=12)
        for row, column in np.ndindex(2, 2):
            box(axis, 1.2 + 2.5 * row, left + 2.5 * column, 2.5, 2.5, edgecolor="black", linewidth=1.4)
    label(axis, 12.8, 11.5, "switches: where the maxima were")
    arrow(axis, (3.2, 6), (3.2, 9.8), "max pooling")
    arrow(axis, (3.2, 13.2), (3.2, 17), "unpooling")
    arrow(axis, (6.4, 4), (9.8, 9.5), linestyle=":")
    arrow(axis, (9.8, 13.5), (6.4, 19), linestyle=":")
    return figure


def deconvnet_and_segnet():
    """Two networks that halve five times and double five times; only one has a code between."""
    figure, axis = sheet(28, 21.8)
    rows, widths = (2.6, 4.9, 7.2, 9.5, 11.8, 15.8), (4, 3.3, 2.7, 2.2, 1.8, 1.5)
    for middle, name, code in (6.2, "DeconvNet", "code, 1 x 1"), (20.8, "SegNet-like", "no code"):
        left, right = middle - 4, middle + 4
        label(axis, 0.5, middle, name, weight="bold", fontsize=12)
        label(axis, 18.9, middle, code, weight="bold")
        label(axis, 3.65, middle, "switches", va="bottom")
        bar(axis, 15.8, left, 1.5, 1, 4)
        for level, (row, below) in enumerate(pairwise(rows)):
            for place in left, right:
                bar(axis, row, place, widths[level], 1, 128 // 2**level)
            arrow(axis, (row + 0.6, left), (below - 0.6, left), lw=1.6)
            foot = below if (code, level) == ("no code", 4) else below - 0.6
            arrow(axis, (foot, right), (row + 0.6, right), lw=1.6)
            arrow(axis, (row + 1.15, left + 0.3), (row + 1.15, right - 0.3), linestyle=":")
        if name == "DeconvNet":
            bar(axis, 15.8, right, 1.5, 1, 4)
            bar(axis, 15.8, middle, 0.9, 4.4, fill=PALETTE[1])
            arrow(axis, (15.8, left + 0.9), (15.8, middle - 0.6), lw=1.6)
            arrow(axis, (15.8, middle + 0.6), (15.8, right - 0.9), lw=1.6)
        else:
            line(axis, (15.8, left + 0.9), (15.8, right), color="black", lw=1.6)
    label(axis, 20.6, 13.5, "numbers: the sides of the maps, in pixels", color=GREY)
    return figure


def tile_and_halo():
    """A tile of a large image, and around it the halo, which the pixels at the tile's border also need."""
    figure, axis = sheet(29, 18)
    grid(axis, 0.5, 0.5, blank(17, 19))
    axis.add_patch(Rectangle((3, 3), 14, 12, fc=pale(3, 0.25), ec=PALETTE[3], lw=0, hatch="\\\\\\"))
    grid(axis, 6.5, 6.5, blank(6, 8))
    box(axis, 6.5, 6.5, 6, 8, edgecolor="black", linewidth=2.2)
    box(axis, 3.5, 10.5, 7, 7)
    box(axis, 3.5, 3.5, 12, 14, **CUT)
    ring(axis, 6.5, 13.5)
    for row, column, text in (
        (4.6, 15, "patch of the\nringed pixel"),
        (7.6, 12, "tile: its scores\nare kept"),
        (12.4, 15.5, "halo: only read"),
        (14.3, 17, "cut: tile and halo"),
    ):
        line(axis, (row, column), (row, 20.8), color="black", marker="o", ms=4, markevery=[0])
        label(axis, row, 21.2, text, ha="left")
    return figure


# --- chapter 5c: a gap that is seen, or lost --------------------------------------------------------------


def seen_or_lost():
    """A membrane with a gap, at two places: pooled by pairs, and pooled after a blur."""
    figure, axis = sheet(30, 15.5)
    for left, title in (4, "max pooling"), (18, "blurred, then every second kept"):
        label(axis, 0.2, left + 3.5, title, weight="bold")
    for top, name, gap in (2.2, "a gap", 2), (9.6, "moved by\none pixel", 3):
        pixels = [0 if gap <= place < gap + 2 else 1 for place in range(8)]
        largest = [1, *(max(pair) for pair in pairwise(pixels)), 1]  # bright beyond both ends
        pooled = [max(pixels[place : place + 2]) for place in range(0, 8, 2)]
        blurs = [largest[place : place + 3] for place in range(0, 8, 2)]
        blurred = [(before + 2 * at + after) / 4 for before, at, after in blurs]
        label(axis, top, 3, name, ha="right")
        for left, shown, reads in (4, pooled, range(2)), (18, blurred, range(-1, 3)):
            row_of_values(axis, top, left, pixels)
            for place, value in enumerate(shown):
                for pixel in {2 * place + step for step in reads} & set(range(8)):
                    line(axis, (top + 0.5, left + pixel), (top + 3.5, left + 2 * place + 0.5), color=GREY)
                row_of_values(axis, top + 4, left + 2 * place + 0.5, [value])
    label(axis, 6.2, 12.6, "seen", color=MARK, weight="bold", ha="left")
    label(axis, 13.6, 12.6, "lost", color=MARK, weight="bold", ha="left")
    for top in (6.2, 13.6):
        label(axis, top, 26.6, "seen", color=MARK, weight="bold", ha="left")
    return figure


def row_of_values(axis, row, left, values):
    """Cells from dark (0) to bright (1), with their values in them."""
    fills = [to_hex([share + (1 - share) * part for part in to_rgb(PALETTE[1])]) for share in values]
    grid(axis, row, left, [fills])
    for place, value in enumerate(values):
        label(axis, row, left + place, f"{value:g}", color="white" if value < 0.3 else "black", fontsize=8)


# --- chapters 6 and 6b: a map that bends -----------------------------------------------------------------


def read_and_write():
    """One node and the four pixels around its position: the encoder reads, the decoder writes."""
    figure, axis = sheet(30, 13)
    for left, title, reads in (1, "encoder: reads", True), (17, "decoder: writes", False):
        label(axis, 0.6, left + 5.5, title, weight="bold")
        fills = blank(4, 4)
        fills[1:3, 1:3] = [[pale(1, 0.25), pale(1, 0.5)], [pale(1, 0.4), pale(1, 0.8)]]
        grid(axis, 3.5, left, fills, side=1.8)
        grid(axis, 5, left + 9, blank(3, 3), side=1.2)
        at, node = (7.2, left + 3.4), (6.2, left + 10.1)
        for row, column in (5.7, 2.2), (5.7, 4), (7.5, 2.2), (7.5, 4):
            line(axis, at, (row, left + column), color="black", lw=1, marker="o", ms=3, markevery=[1])
        axis.plot(at[1], at[0], "o", color="white", mec="black", ms=8, mew=1.6, zorder=4)
        ring(axis, *node, 0.5)
        start, end = (at, node) if reads else (node, at)
        style = {"color": MARK, "lw": 2, "shrinkA": 7, "shrinkB": 7, "connectionstyle": "arc3,rad=-0.3"}
        arrow(axis, start, end, **style)
        label(axis, 11.6, left + 2.7, "pixels of the map", color=GREY)
        label(axis, 11.6, left + 10.1, "nodes", color=GREY)
    return figure


def dense_transformer():
    """A U-Net in which the map is bent on one level of the way down, and bent back on the way up."""
    figure, axis = sheet(30, 18)
    for level, (size, inset) in enumerate(((256, 0), (128, 1.6), (64, 3.2))):
        row, left, right = 1.6 + 2.9 * level, 2 + inset, 27 - inset
        bar(axis, row, left, 2.6, 1.2, size)
        bar(axis, row, right, 2.6, 1.2, size)
        arrow(axis, (row, left + 1.4), (row, right - 1.4))
        arrow(axis, (row + 0.7, left + 0.5), (row + 2.2, left + 1.2))
        arrow(axis, (row + 2.2, right - 1.2), (row + 0.7, right - 0.5))
    bent = pale(1, 0.35)
    for column, fill in (6.8, BLUE), (12, bent), (17, bent), (22.2, BLUE):
        bar(axis, 10.3, column, 2.2, 1.2, 32, fill)
    for start, end in (7.9, 8.6), (10.3, 10.9), (13.1, 15.9), (18.1, 18.7), (20.4, 21.1):
        arrow(axis, (10.3, start), (10.3, end))
    bar(axis, 13.2, 14.5, 2.2, 1.2, 16, bent)
    arrow(axis, (11, 12.3), (12.8, 13.3))
    arrow(axis, (12.8, 15.7), (11, 16.7))
    for column, name in (9.4, "bend"), (19.5, "bend back"):
        shape = (-0.75, -0.8), (0.6, -0.5), (0.75, 0.8), (-0.5, 0.6)
        axis.add_patch(Polygon([(column + x, 10.3 + y) for x, y in shape], fc="white", ec=MARK, lw=2))
        label(axis, 8.9, column, name, color=MARK, weight="bold")
        line(axis, (15.4, column), (11.2, column), color="black", lw=1.2, linestyle="--")
    bar(axis, 13.2, 5.4, 5, 1.3, "localisation", AMBER)
    arrow(axis, (11, 6.3), (12.5, 5.9))
    arrow(axis, (13.2, 7.9), (13.2, 9.3))
    line(axis, (15.4, 9.4), (15.4, 19.5), color="black", lw=1.2, linestyle="--")
    label(axis, 16.3, 14.5, "the same positions", color=GREY)
    return figure


# --- chapters 7 and 7b: what a layer can do to the patch, and the border ---------------------------------


def three_verdicts():
    """A cone from a pixel to its patch; the same and a mean over everything; two maps, each stretched."""
    figure, axis = sheet(30, 13)
    for left, title in (
        (0.6, "keeps the patch"),
        (10.4, "sees the whole image"),
        (20.2, "local, but depends\non the size"),
    ):
        label(axis, 0.8, left + 4, title, weight="bold", va="top")
    for left in 0.6, 10.4:
        fills = blank(1, 9)
        fills[0, 2:7] = SEEN
        for row, row_fills in (10.6, fills), (7.4, blank(1, 9)), (4.2, blank(1, 9)):
            grid(axis, row, left + 0.5, row_fills)
        for row in 4.7, 7.9:
            for away in (-1, 0, 1) if row < 5 else (-2, 0, 2):
                line(axis, (row, left + 4.5), (row + 2.2, left + 4.5 + away))
        ring(axis, 4.2, left + 4.5)
        box(axis, 10.6, left + 2.5, 1, 5)
        label(axis, 12, left + 4.5, "image", color=GREY)
    line(axis, (9.8, 10.5), (9.8, 19.4), color="black", lw=1.2, marker="|", ms=7)
    line(axis, (9.8, 18.6), (9, 18.6), color="black", lw=1.2)
    axis.add_patch(Circle((18.6, 8.9), 0.75, fc=AMBER, ec="black", lw=1.2, zorder=3))
    label(axis, 8.9, 18.6, "x\u0304", zorder=4)
    line(axis, (8.2, 18.4), (4.6, 15.3), color="black", lw=1.2)
    for row, count in (4.2, 3), (9, 5):
        grid(axis, row + 1.2, 21.2, blank(1, count, BLUE), side=1.4)
        for number in range(2 * count):  # corners on corners: places of the larger map, on the smaller one
            at = 21.4 + 1.4 * number * (count - 1) / (2 * count - 1)
            line(axis, (row, at), (row + 1.5, at), color="black", lw=0.8, marker="o", ms=3.5, markevery=[0])
        label(axis, row + 3, 20.7, f"steps of {count - 1}/{2 * count - 1}", ha="left", color=GREY)
    return figure


def padding_once_or_often():
    """Three layers at the border of an image: zeros added to the image alone, or in every layer."""
    figure, axis = sheet(30, 14)
    for left, title, extra in (4, "zeros once", (3, 2, 1, 0)), (19, "zeros in every layer", (1, 1, 1, 0)):
        label(axis, 0.9, left + 3, title, weight="bold")
        for level, count in enumerate(extra):
            row = 11.4 - 2.8 * level
            computed = level and extra[0] == 3  # what stands outside the image was computed, not added
            corners = [(left - 1 - at - 0.5, row - 0.5) for at in range(count)]
            fills = [BLUE if computed else "white"] * count
            cells(axis, corners, fills, hatch=None if computed else "/////")
            grid(axis, row, left, blank(1, 7))
            name = f"layer {level}" if level else "image"
            label(axis, row, left + 7, name, ha="left", color=GREY)
            for away in (-1, 0, 1) if level else ():
                line(axis, (row + 0.5, left), (row + 2.3, left + away))
        ring(axis, 3, left)
        line(axis, (2, left - 0.5), (12.4, left - 0.5), color="black", linestyle=":", lw=1.4)
    return figure


def windows_of_attention():
    """A row of positions in windows of four, in shifted windows, and in the windows of two cuts."""
    figure, axis = sheet(26, 11.2)
    fills = (BLUE, AMBER, GREEN, PINK)
    for row, name, start, border in (
        (0.8, "whole row", 0, 0),
        (3.2, "next layer, shifted by 2", 0, 2),
        (6.4, "cut at 4: in step", 4, 4),
        (9.2, "cut at 5: out of step", 5, 5),
    ):
        label(axis, row, 8, name, ha="right")
        shown = [fills[place // 4] if border % 4 == 0 else "white" for place in range(start, 16)]
        table(axis, row, 9 + start, [list(range(start, 16))], [shown], fontsize=8)
        for edge in range(border, 17, 4):
            line(axis, (row - 0.8, 8.5 + edge), (row + 0.8, 8.5 + edge), color="black", lw=2.4)
        if start:
            box(axis, row - 0.6, 9 + start, 2.2, 16 - start, **CUT)
    return figure


def tokens():
    """An image cut into tokens; a vector for each, and one for its place; blocks; and back to pixels."""
    figure, axis = sheet(34, 14)
    fills = blank(8, 8)
    fills[2:4, 4:6] = AMBER
    for left in 1, 24.5:
        grid(axis, 2, left, fills)
        for edge in range(0, 9, 2):
            line(axis, (1.5, left - 0.5 + edge), (9.5, left - 0.5 + edge), color="black", lw=1.8)
            line(axis, (1.5 + edge, left - 0.5), (1.5 + edge, left + 7.5), color="black", lw=1.8)
    fills = [[AMBER if (row, column) == (1, 2) else BLUE for column in range(4)] for row in range(4)]
    table(axis, 3.5, 12, np.arange(1, 17).reshape(4, 4), fills, side=1.25, fontsize=9)
    arrow(axis, (5.5, 8.9), (5.5, 11.2))
    arrow(axis, (5.5, 16.6), (5.5, 17.7))
    axis.add_patch(Rectangle((17.8, 2), 4.6, 7, fc="white", ec="black", lw=1.4))
    label(axis, 3.9, 20.1, "ask\nthe others", weight="bold")
    line(axis, (5.5, 17.8), (5.5, 22.4), color=GREY)
    label(axis, 7.2, 20.1, "think\nalone", weight="bold")
    arrow(axis, (5.5, 22.5), (5.5, 23.9))
    for column, text in (
        (4.5, "the image,\ncut into tokens"),
        (14, "a vector for each,\nplus one for its place"),
        (20.1, "blocks"),
        (28, "each vector\nscores its pixels"),
    ):
        label(axis, 11.7, column, text)
    return figure


def windows_that_shift():
    """Tokens in a row through three blocks: what the last one sees, back to the image."""
    figure, axis = sheet(30, 13.5)
    rows = (
        ("the image", 0, range(4, 16), False),
        ("block 1: windows", 0, range(4, 16), True),
        ("block 2: shifted", 2, range(6, 14), True),
        ("block 3: windows", 0, range(8, 12), True),
    )
    for number, (name, shift, seen, in_windows) in enumerate(rows):
        row = 11 - 3 * number
        label(axis, row, 8, name, ha="right")
        grid(axis, row, 9, [[SEEN if place in seen else "white" for place in range(20)]])
        for edge in range(shift, 21, 4) if in_windows else ():
            line(axis, (row - 0.85, 8.5 + edge), (row + 0.85, 8.5 + edge), color="black", lw=2.6)
    ring(axis, 2, 18)
    for upper, lower, row in (
        ((8, 12), (6, 14), 3.5),
        ((6, 14), (4, 16), 6.5),
        ((4, 16), (4, 16), 9.5),
    ):
        for above, below in zip(upper, lower, strict=True):
            line(axis, (row - 1, 8.5 + above), (row + 1, 8.5 + below), lw=1.6)
    return figure


def halo_or_blend():
    """Two tiles with halos, whose middles touch; and two tiles that overlap, with their weights."""
    figure, axis = sheet(30, 14.2)
    for left, title in (1, "halo: the rim is thrown away"), (17, "blend: the rim has little weight"):
        label(axis, 0.2, left + 5.5, title, weight="bold")
    for left, style in (2, {}), (6, {"linestyle": (0, (4, 2.5))}):
        axis.add_patch(
            Rectangle((left - 0.5, 1.5), 7, 6, fc="none", ec=PALETTE[3], lw=1.4, hatch="\\\\", **style)
        )
    for left, fill in (3.5, BLUE), (7.5, AMBER):
        axis.add_patch(Rectangle((left - 0.5, 3), 4, 3, fc=fill, ec="black", lw=1.6))
        label(axis, 4.5, left + 1.5, "kept")
    for left, fill, style in (18, BLUE, "-"), (21.5, AMBER, (0, (4, 2.5))):
        tile = Rectangle(
            (left - 0.5, 1.5), 7, 6, fc=to_rgb(fill), alpha=0.55, ec="black", lw=1.6, linestyle=style
        )
        axis.add_patch(tile)
    across = np.linspace(0, 7, 60)
    bell = np.exp(-0.5 * ((across - 3.5) / (7 / 8)) ** 2)
    for kept, whole, colour in (3, 17.5, PALETTE[1]), (7, 21, PALETTE[2]):
        axis.plot([kept, kept, kept + 4, kept + 4], [12, 9, 9, 12], color=colour, lw=2.2)
        axis.plot(whole + across, 12 - 3 * bell, color=colour, lw=2.2)
    for left in (1.5, 17.5):
        line(axis, (12, left), (12, left + 11), color=GREY)
        label(axis, 12.8, left + 5.5, "weight along a row")
    return figure


# --- chapter 0: the whole series -------------------------------------------------------------------------

UPPER = "windows", "receptive fields", "all at once", "enlarging"
LOWER = "U-Net", "a patch that bends", "where it breaks", "real micrographs"


def code_map():
    """The eight chapters as stations on one road, each with a small picture of its idea."""
    figure, axis = sheet(28, 20)
    bend = [(0.4, 6), (22.5, 6), (28, 6), (28, 16.2), (22.5, 16.2), (0.4, 16.2)]
    codes = [Curve.MOVETO, Curve.LINETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4, Curve.LINETO]
    axis.add_patch(PathPatch(Curve(bend, codes), fill=False, ec=pale(8, 0.6), lw=6, capstyle="round"))
    for number, name in enumerate(UPPER + LOWER, start=1):  # from left to right, and below back to the left
        row, column = (6, 6.3 * number - 3) if number < 5 else (16.2, 53.7 - 6.3 * number)
        axis.add_patch(Circle((column, row), 0.75, fc=PALETTE[1], ec="white", lw=2, zorder=3))
        label(axis, row, column, number, color="white", weight="bold", va="center_baseline")
        label(axis, row + 1.7, column, name)
    small_pictures(axis)
    return figure


def small_pictures(axis):
    """What each chapter is about, above its station."""
    for column, boxes in (3.3, [(0.8, 0)]), (15.9, [(0, 0), (0.8, 0.8), (1.6, 1.6)]):  # windows, all at once
        grid(axis, 1.1, column - 1.5, blank(5, 5), side=0.8)
        for down, right in boxes:
            box(axis, 1.1 + down, column - 1.5 + right, 2.4, 2.4)
            ring(axis, 1.8 + down, column - 0.8 + right, 0.25)
    for level, count in enumerate((1, 3, 5)):  # receptive fields: a cone
        grid(axis, 1.1 + 1.6 * level, 10.1 - 0.4 * count, blank(1, count, SEEN), side=0.8)
    for row, middles in (1.4, [9.6]), (3, [8.8, 9.6, 10.4]):
        for middle in middles:
            for end in middle - 0.8, middle, middle + 0.8:
                line(axis, (row, middle), (row + 0.8, end), lw=0.9)
    along, shades = (1, 1, 2, 1, 1), {1: pale(3, 0.2), 2: pale(3, 0.55), 4: PALETTE[3]}
    grid(axis, 1.1, 20.7, [[shades[a * b] for a in along] for b in along], side=0.8)  # enlarging: stamps
    box(axis, 1.1, 20.7, 2.4, 2.4)
    for row, left, right in (11.4, 20.6, 23.8), (12.9, 20.8, 23.6):  # U-Net
        bar(axis, row, left, 1.4, 0.9)
        bar(axis, row, right, 1.4, 0.9)
        arrow(axis, (row, left + 0.75), (row, right - 0.75))
    bar(axis, 14.2, 22.2, 1, 0.9)
    line(axis, (13.4, 20.9), (14.1, 21.6), color="black")
    line(axis, (14.1, 22.8), (13.4, 23.5), color="black")
    along = np.linspace(-1.8, 1.8, 41)
    for at in np.linspace(-1.8, 1.8, 6):  # a patch that bends
        style = {"color": MARK, "lw": 2.2} if abs(at) == 1.8 else {"color": LINE, "lw": 0.9}
        for x, y in (at, along), (along, at):
            bent = x + 0.3 * np.sin(1.6 * y + 0.5 * x), y + 0.3 * np.sin(1.6 * x + 0.5 * y)
            axis.plot(15.9 + bent[0], 12.8 + bent[1], **style)
    tear = [(0.1, -1.6), (-0.3, -0.8), (0.3, 0), (-0.3, 0.8), (0.1, 1.6)]
    for side in -0.35, 0.35:  # where it breaks: a box in two pieces
        piece = np.array([*tear, (5 * side, 1.6), (5 * side, -1.6)]) + side
        axis.add_patch(Polygon(piece + np.array((9.6, 12.8)), fc=SEEN, ec=MARK, lw=2.2))
    frame = Rectangle((1.3, 10.8), 4, 4, fc="#555555", ec=GREY, lw=0.9)  # real micrographs: cells in grey
    axis.add_patch(frame)
    tissue = (11.5, 2.2, 1), (11.4, 4.5, 1.1), (13.2, 3.6, 0.9), (13.4, 1.5, 0.9), (15, 2.6, 1), (14.4, 5, 1)
    inside = (11.3, 2, 0.3), (11.8, 4.6, 0.35), (13.3, 3.8, 0.28), (14.3, 4.8, 0.3)
    for fill, places in ("#d2d2d2", tissue), ("#8c8c8c", inside):
        for turn, place in enumerate(places):
            axis.add_patch(Polygon(blob(*place, turn), fc=fill)).set_clip_path(frame)


FIGURES = {
    "windows-overlap": windows_overlap,
    "iou": iou,
    "alignment": alignment,
    "flatten-to-convolution": flatten_to_convolution,
    "shift-and-stitch": shift_and_stitch,
    "holes": holes,
    "holes-instead-of-strides": holes_instead_of_strides,
    "fcn-32-16-8": fcn,
    "hypercolumn": hypercolumn,
    "what-an-output-reads": what_an_output_reads,
    "unpooling": unpooling,
    "deconvnet-and-segnet": deconvnet_and_segnet,
    "tile-and-halo": tile_and_halo,
    "seen-or-lost": seen_or_lost,
    "read-and-write": read_and_write,
    "dense-transformer": dense_transformer,
    "three-verdicts": three_verdicts,
    "padding-once-or-often": padding_once_or_often,
    "windows-of-attention": windows_of_attention,
    "halo-or-blend": halo_or_blend,
    "tokens": tokens,
    "windows-that-shift": windows_that_shift,
    "code-map": code_map,
}


def main():
    with rc_context(LOOK):
        for stem, draw in FIGURES.items():
            svg = StringIO()
            draw().savefig(svg, format="svg", facecolor="white", metadata={"Date": None})
            write_whole(FOLDER / f"{stem}.svg", svg.getvalue())


if __name__ == "__main__":
    main()
