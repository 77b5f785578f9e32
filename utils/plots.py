"""Labelled panels: images and label maps side by side."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from pixelpatch.drawing import colours


def panels(pictures, classes=(), width=3.2):
    """Images and label maps side by side.

    Args:
        pictures: mapping of title to array. (H, W) integers are labels, drawn in their classes' colours;
            (H, W) floats are a grey image between 0 and 1.
        classes: names of the classes of the label maps, for colours and legend.
        width: width of one panel in inches.

    Returns the figure, and one matplotlib Axes for every picture.
    """
    figure, axes = plt.subplots(
        1, len(pictures), figsize=(width * len(pictures), width + 0.5), squeeze=False, layout="constrained"
    )
    for axis, (title, picture) in zip(axes[0], pictures.items(), strict=True):
        picture = np.asarray(picture)
        if np.issubdtype(picture.dtype, np.floating):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
        else:
            palette, limits = (
                ListedColormap(colours(len(classes))),
                {"vmin": -0.5, "vmax": len(classes) - 0.5},
            )
            axis.imshow(picture, cmap=palette, interpolation="nearest", **limits)
        axis.set_title(title, fontsize=10)
        axis.set(xticks=[], yticks=[])
    if classes:
        pairs = zip(colours(len(classes)), classes, strict=True)
        keys = [Patch(facecolor=colour, edgecolor="black", label=name) for colour, name in pairs]
        figure.legend(handles=keys, loc="outside lower center", ncols=len(classes), frameon=False, fontsize=9)
    return figure, axes[0]
