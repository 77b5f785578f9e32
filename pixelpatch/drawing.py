"""Pictures that everybody can read: colours safe for colour blindness, and a text alternative for each."""

from io import BytesIO

from IPython.display import Markdown, display
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

# From the palette of Okabe and Ito (2008); the first three in steps of lightness, so that they differ in grey
# print as well: a pale ground, dark lines, and what stands out.
PALETTE = ["#f3efe2", "#0b3c5d", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#cc79a7", "#000000", "#bbbbbb"]
MARK = "#d55e00"  # what the text points at: the patch, the pixel


def colours(count: int) -> list[str]:
    """A colour for each of `count` classes, in their order."""
    return [PALETTE[number % len(PALETTE)] for number in range(count)]


def show(figure: Figure, description: str, caption: str | None = None) -> None:
    """Show a matplotlib figure, with its description as its text alternative.

    JupyterLab gives a screen reader no alternative text for a picture, so the description is text as well:
    below the caption, folded, or as the caption where there is no other; nbconvert writes it as `alt`; a
    terminal prints it.

    Args:
        figure: matplotlib Figure; it is closed.
        description: what the picture shows, for somebody who cannot see it: one or a few sentences.
        caption: what to look at, for somebody who can: one sentence or two.
    """
    png = BytesIO()
    figure.savefig(png, format="png", dpi=100, bbox_inches="tight")
    plt.close(figure)
    display(
        {"image/png": png.getvalue(), "text/plain": description},
        metadata={"image/png": {"alt": description}},
        raw=True,
    )
    words = f"\n\n<details><summary>The picture in words</summary>{description}</details>" if caption else ""
    display(Markdown(f"*{caption or description}*{words}"))


def outline(axis: Axes, top: int, left: int, bottom: int, right: int, **style) -> None:
    """Draw the border of a half-open box of pixels on an image."""
    style = {"edgecolor": MARK, "linewidth": 1.8, "fill": False} | style
    axis.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, **style))
