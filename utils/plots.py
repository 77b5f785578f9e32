"""Pictures that everybody can read: labelled panels, colours safe for colour blindness, a text for each."""

from io import BytesIO
from itertools import pairwise

import numpy as np
from IPython.display import Markdown, display
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch, Rectangle

# From the palette of Okabe and Ito (2008), in steps of lightness, so that they differ in grey print as well.
COLOURS = {
    "cytoplasm": "#f3efe2",
    "cell interior": "#f3efe2",
    "membrane": "#0b3c5d",
    "mitochondrion": "#e69f00",
}
MARK = "#d55e00"  # what the text points at
OTHERS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#cc79a7", "#000000", "#bbbbbb"]


def show(figure, description):
    """Show a matplotlib figure with its description: below it, as its text alternative, and in place of it.

    JupyterLab gives a screen reader no alternative text for a picture, so the description is also a visible
    caption; nbconvert writes it as `alt`; a terminal prints it.

    Args:
        figure: matplotlib Figure; it is closed.
        description: what the picture shows, for somebody who cannot see it: one or a few sentences.
    """
    png = BytesIO()
    figure.savefig(png, format="png", dpi=100, bbox_inches="tight")
    plt.close(figure)
    display(
        {"image/png": png.getvalue(), "text/plain": description},
        metadata={"image/png": {"alt": description}},
        raw=True,
    )
    display(Markdown(f"*{description}*"))


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
            colours = ListedColormap([COLOURS[name] for name in classes])
            axis.imshow(picture, cmap=colours, vmin=-0.5, vmax=len(classes) - 0.5, interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.set(xticks=[], yticks=[])
    if classes:
        keys = [Patch(facecolor=COLOURS[name], edgecolor="black", label=name) for name in classes]
        figure.legend(handles=keys, loc="outside lower center", ncols=len(classes), frameon=False, fontsize=9)
    return figure, axes[0]


def outline(axis, top, left, bottom, right, **style):
    """Draw the border of a half-open box of pixels on an image."""
    style = {"edgecolor": MARK, "linewidth": 1.8, "fill": False} | style
    axis.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, **style))


def colours(names):
    """A colour for each class: that of COLOURS, or else the next of the palette that none of them has."""
    free = [colour for colour in OTHERS if colour not in {COLOURS.get(name) for name in names}]
    return [COLOURS.get(name, free[number % len(free)]) for number, name in enumerate(names)]


def maps(field):
    """The maps of a network from left to right, as wide as their channels; an arrow where one is used again.

    Args:
        field: `utils.receptive_field.ReceptiveField` of a network whose skips join maps of one size.

    Returns:
        matplotlib Figure.
    """
    looks = {
        "conv2d": ("convolution", OTHERS[1], ""),
        "max_pool2d": ("max pooling", OTHERS[0], "\\\\\\"),
        "conv_transpose2d": ("transposed convolution", OTHERS[2], "///"),
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
