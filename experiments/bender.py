"""Sixteen points under the reader's hand: drag one, and a picture bends and is bent back.

    Bender(image)

The browser (`bender.js`) computes what `experiments.dense_transformer` does, from its spline matrix, as fast
as the pointer moves; a test holds the two against each other.
"""

from pathlib import Path

import anywidget
import torch
import traitlets
from matplotlib.figure import Figure
from torch.nn import functional as F

from experiments.dense_transformer import decode, encode, lattice, thin_plate
from pixelpatch.drawing import MARK
from pixelpatch.widget import inspector
from pixelpatch.widget.inspector import as_base64, checked_image, show_live

SIDE, POINTS = 96, 4  # of the picture in pixels, and of the control points


class Bender(anywidget.AnyWidget):
    """Move control points with mouse, finger or sliders; see the grid, the bent picture, and the way back.

    Args:
        image: (H, W), (C, H, W) or (1, C, H, W), floats in [0, 1]; it is shown in grey, 96 x 96.

    Raises:
        ValueError or TypeError: the image is not as it should be.
    """

    _esm = Path(__file__).with_name("bender.js")
    _css = inspector.HERE / "inspector.css"
    contents = traitlets.Dict().tag(sync=True)

    def __init__(self, image):
        grey = checked_image(image).float().mean(1, keepdim=True)
        self._image = F.interpolate(grey, (SIDE, SIDE), mode="bilinear", antialias=True)
        spline = thin_plate(POINTS, SIDE, SIDE)
        contents = {"image": self._image, "spline": spline, "control": lattice(POINTS, POINTS)}
        floats = {name: as_base64(each.numpy().astype("<f4")) for name, each in contents.items()}
        super().__init__(contents={"side": SIDE} | floats)

    def figure(self):
        """A matplotlib Figure: the grid of an example, the picture bent by it, and bent back."""
        moved = torch.zeros(POINTS**2, 2, dtype=torch.float64)
        moved[5], moved[10] = torch.tensor([-0.3, -0.3]), torch.tensor([0.3, 0.2])
        targets = lattice(POINTS, POINTS) + moved
        positions = (thin_plate(POINTS, SIDE, SIDE) @ targets).float().view(1, SIDE, SIDE, 2)
        bent = encode(self._image, positions)
        figure = Figure(figsize=(9, 3.3), layout="constrained")
        axes = figure.subplots(1, 3)
        back = decode(bent, positions)
        titles = "where the nodes look", "encoder: bent", "decoder: bent back"
        for axis, picture, title in zip(axes, (self._image, bent, back), titles, strict=True):
            axis.imshow(picture[0, 0].numpy(), cmap="gray", vmin=0, vmax=1)
            axis.set_title(title, fontsize=10)
            axis.set(xticks=[], yticks=[])
        at, points = ((each + 1) / 2 * (SIDE - 1) for each in (positions[0], targets))
        for lines in (at[::5], at[:, ::5].transpose(0, 1)):
            for line in lines:
                axes[0].plot(*line.T.numpy(), color=MARK, lw=0.8)
        axes[0].plot(*points.T.numpy(), "o", color="white", mec="black", ms=6)
        return figure

    def _ipython_display_(self):
        show_live(
            self,
            "A micrograph under a grid with sixteen white points, two of which are pulled away from the "
            "middle, and the grid with them; the picture bent by that grid, in which the middle looks "
            "smaller; and the same bent back, like the first but blurred in places.",
            "Two of the sixteen points were pulled away. Run this cell to move the points yourself.",
        )
