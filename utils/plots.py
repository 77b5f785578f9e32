"""The series' pictures: labelled panels, and a network as its maps."""

from itertools import pairwise

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from pixelpatch.drawing import PALETTE, colours


def panels(pictures, classes=(), width=3.2):
    """Images and label maps side by side.

    Args:
        pictures: mapping of title to array. (H, W) integers are labels, drawn in their classes' colours;
            (H, W) floats are a grey image between 0 and 1.
        classes: names of the classes of the label maps, for colours and legend.
        width: width of one panel in inches.

    Returns:
        figure, axes: the figure, and one matplotlib Axes for every picture.
    """
    figure, axes = plt.subplots(
        1, len(pictures), figsize=(width * len(pictures), width + 0.5), squeeze=False, layout="constrained"
    )
    for axis, (title, picture) in zip(axes[0], pictures.items(), strict=True):
        picture = np.asarray(picture)
        if np.issubdtype(picture.dtype, np.floating):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
        else:
            axis.imshow(
                picture,
                cmap=ListedColormap(colours(len(classes))),
                vmin=-0.5,
                vmax=len(classes) - 0.5,
                interpolation="nearest",
            )
        axis.set_title(title, fontsize=10)
        axis.set(xticks=[], yticks=[])
    if classes:
        pairs = zip(colours(len(classes)), classes, strict=True)
        keys = [Patch(facecolor=colour, edgecolor="black", label=name) for colour, name in pairs]
        figure.legend(handles=keys, loc="outside lower center", ncols=len(classes), frameon=False, fontsize=9)
    return figure, axes[0]


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
