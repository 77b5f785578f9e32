"""Drawings of how networks work, made from the networks themselves."""

from itertools import pairwise

from matplotlib import pyplot as plt
from matplotlib.patches import Patch

from pixelpatch.drawing import PALETTE


def maps(field):
    """The maps of a network from left to right, as wide as their channels; an arrow where one is used again.

    Args:
        field: `pixelpatch.ReceptiveField` of a network whose skips join maps of one size.

    Returns:
        matplotlib Figure.
    """
    looks = {
        "conv2d": ("convolution", PALETTE[3], ""),
        "max_pool2d": ("max pooling", PALETTE[2], "\\\\\\"),
        "conv_transpose2d": ("transposed convolution", PALETTE[4], "///"),
        "cat": ("two maps side by side", "white", ""),
    }
    figure, axis = plt.subplots(figsize=(9, 3.8), layout="constrained")
    drawn = [layer for layer in field.layers if layer.op in looks]
    tallest = max(layer.shape[2] for layer in drawn)
    left, places, joined = 0, {}, {}
    for layer in drawn:
        _, channels, rows, columns = layer.shape
        size = f"{rows} x {columns}"
        _, colour, hatch = looks[layer.op]
        style = {"color": colour, "edgecolor": "black", "linewidth": 0.6, "hatch": hatch}
        axis.bar(left, rows, channels, bottom=-rows / 2, align="edge", **style)
        if size not in places:
            axis.text(left, -rows / 2 - tallest / 32, size, fontsize=8, va="top")
        if layer.op == "cat":
            joined[size] = left
        places.setdefault(size, []).append((left, left + channels))
        left += channels + 14
    for size, end in joined.items():  # from the last map before the widest gap, where the way down ends
        last, _ = max(pairwise(places[size]), key=lambda pair: pair[1][0] - pair[0][1])
        height = int(size.split()[0]) / 2 + tallest / 64
        arrow = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", (end, height), (last[1] - 4, height), arrowprops=arrow)
    axis.set(xticks=[], yticks=[], ylim=(-0.64 * tallest, 0.6 * tallest))
    axis.set_frame_on(False)
    used = [looks[op] for op in looks if any(layer.op == op for layer in drawn)]
    keys = [Patch(facecolor=c, edgecolor="black", hatch=h, label=name) for name, c, h in used]
    figure.legend(handles=keys, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return figure
