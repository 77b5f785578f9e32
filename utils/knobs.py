"""Knobs: drawings that follow a few controls. Each is one idea for the reader's hand (ipywidgets).

build_a_stack         layers, and what one of their outputs sees
stamp_by_stamp        a transposed convolution, one stamp after the other
shift_and_stitch      shifted copies fill a map of scores, until it equals the dense one
slide_a_tile          a tile that starts anywhere, with any halo, and the seam that it makes
"""

import html
from base64 import b64encode
from io import BytesIO

import ipywidgets as widgets
import torch
from IPython.display import display
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import nn

from pixelpatch.drawing import MARK, outline, show
from utils.drawings import Step, size_jump_start, stack, stamps
from utils.networks import a_trous, convolutional
from utils.plots import panels
from utils.windows import mirror

# Where the widget lives, its static picture is not shown: the same rule as the inspector's.
STYLE = """<style>
.jp-OutputArea-child:has(.jp-RenderedImage):has(~ .jp-OutputArea-child .pixel-knob),
.jp-OutputArea-child:has(.jp-RenderedMarkdown):has(~ .jp-OutputArea-child .pixel-knob) { display: none; }
.pixel-knob img { max-width: 100%; background: white; }
</style>"""


class Knob(widgets.VBox):
    """Controls, and below them a drawing and a sentence that follow.

    `draw` takes the controls' values by name, and returns a matplotlib Figure and the sentence; `strip` holds
    a few positions (name -> value) for where no kernel runs.
    """

    def __init__(self, draw, controls, strip):
        self.draw, self.controls, self.strip, self.screen = draw, controls, strip, widgets.HTML()
        turn = widgets.HBox([*controls.values()], layout={"flex_flow": "row wrap"})
        super().__init__([widgets.HTML(STYLE), turn, self.screen])
        self.add_class("pixel-knob")
        for control in controls.values():
            control.observe(self.turned, "value")
        self.turned()

    def turned(self, change=None):
        """Draw what the controls say."""
        try:
            figure, sentence = self.draw(**{name: control.value for name, control in self.controls.items()})
        except ValueError as error:  # a position that makes no sense: the last drawing stays
            self.screen.value = self.screen.value.partition("<p")[0] + f"<p role='alert'>{error}</p>"
            return
        figure.set_dpi(100)  # whatever the reader's style says
        FigureCanvasAgg(figure).print_png(file := BytesIO(), pil_kwargs={"compress_level": 1})  # fast
        plt.close(figure)
        picture, said = f"data:image/png;base64,{b64encode(file.getvalue()).decode()}", html.escape(sentence)
        self.screen.value = f"<img alt='{said}' src='{picture}'><p role='status'>{said}</p>"

    def _ipython_display_(self):
        for position in self.strip:
            show(*self.draw(**position))
        display(self._repr_mimebundle_() | {"text/plain": ""}, raw=True)


def below(value, bound):  # rounding is a claim: its digits differ from machine to machine
    return f"less than {bound}" if value < bound else f"{value:.2f}"


def slider(description, low, high, value, **options):
    options |= {"description": description, "style": {"description_width": "initial"}}
    return widgets.IntSlider(value, low, high, **options)


def build_a_stack():
    """Up to five layers, each with kernel, stride, padding and dilation; the cone of one output follows."""
    made, chosen = [Step() for _ in range(5)], slider("change layer", 1, 5, 1)
    controls = {
        "layers": slider("layers", 1, 5, 3),
        "kernel": slider("kernel", 1, 5, 3),
        "stride": slider("stride", 1, 3, 1),
        "padding": slider("padding", 0, 2, 0),
        "dilation": slider("dilation", 1, 4, 1),
    }

    def draw(layers, **step):
        made[chosen.value - 1] = Step(**step)
        size, jump, start = size_jump_start(made[:layers])[-1]
        return stack(made[:layers]), (
            f"One output of layer {layers} sees {size} positions of the image; its neighbour looks "
            f"{jump} further on, and output 0 starts at position {start}."
        )

    def show_chosen(change):
        for name, value in made[change["new"] - 1]._asdict().items():
            controls[name].value = value

    chosen.observe(show_chosen, "value")
    plain = {"layers": 3, "kernel": 3, "stride": 1, "padding": 0, "dilation": 1}
    knob = Knob(draw, controls, [plain, plain | {"stride": 2}, plain | {"layers": 1, "dilation": 3}])
    knob.children = chosen, *knob.children
    return knob


def stamp_by_stamp():
    """A map of 3 x 3 values is stamped onto its canvas, one value after the other."""
    controls = {
        "kernel": slider("kernel", 1, 5, 3),
        "stride": slider("stride", 1, 3, 2),
        "done": slider("stamps", 0, 9, 2),
    }

    def draw(kernel, stride, done):
        figure, canvas = stamps(kernel, stride, done)
        counts = ", ".join(map(str, sorted({*canvas.flat})))
        return figure, f"Kernel {kernel}, stride {stride}, {done} of 9 stamps: cells covered {counts} times."

    strip = [{"kernel": k, "stride": 2, "done": done} for k, done in [(3, 2), (3, 9), (4, 9)]]
    return Knob(draw, controls, strip)


@torch.inference_mode()
def shift_and_stitch(patch_nets, image, classes):
    """Shifted copies fill a map of classes; beside it the map that a network with holes makes at once.

    Takes name -> `PatchNet`, the choices; an image (1, 1, H, W), to be mirrored; and the classes' names.
    """
    known = {}
    for name, net in patch_nets.items():
        stride = 2 ** sum(isinstance(layer, nn.MaxPool2d) for layer in net.features)
        surrounded, coarse = mirror(image, net.window), convolutional(net)
        shifts = [(row, col) for row in range(stride) for col in range(stride)]
        copies = {(row, col): coarse(surrounded[..., row:, col:]) for row, col in shifts}
        known[name] = stride, copies, a_trous(net)(surrounded)
    blank = torch.zeros_like(image[0, 0], dtype=torch.long)
    pictures = {"image": image[0, 0], "stitched so far": blank, "holes, at once": blank}
    figure, (_, filled, full) = panels(pictures, [*classes, "missing"], width=2.3)
    figure.canvas.draw()  # laid out once, since that is what takes time
    figure.set_layout_engine("none")
    controls = {
        "network": widgets.Dropdown(options=[*known], description="network"),
        "copies": slider("copies", 0, max(len(copies) for _, copies, _ in known.values()), 1),
    }

    def draw(network, copies):
        stride, shifted, dense = known[network]
        stitched = torch.full_like(dense, torch.nan)
        for row, col in [*shifted][:copies]:
            stitched[..., row::stride, col::stride] = shifted[row, col]
        there = ~stitched[0, 0].isnan()
        labels = stitched.nan_to_num().argmax(1)[0].where(there, torch.tensor(len(classes)))
        filled.images[0].set_data(labels.numpy())
        full.images[0].set_data(dense.argmax(1)[0].numpy())
        apart = (stitched - dense)[..., there].abs().amax().item() if copies else 0.0
        return figure, (
            f"{min(copies, stride**2)} of {stride**2} copies fill {there.double().mean():.0%} of the map. "
            f"Where it is filled, the scores differ by {below(apart, 1e-12)}."
        )

    strip = [{"network": [*known][-1], "copies": copies} for copies in (1, 4, 16)]
    return Knob(draw, controls, strip)


@torch.inference_mode()
def slide_a_tile(network, image, side=48):
    """A tile of side x side pixels, labelled on its own with a halo, against the same place in the image.

    Takes a U-Net with three poolings, in eval mode, and an image (1, 1, H, W) of at least 192 x 192 pixels.
    """
    whole = network(image)
    controls = {"offset": slider("tile starts at", 64, 80, 64), "halo": slider("halo", 0, 56, 0, step=4)}

    @torch.inference_mode()
    def draw(offset, halo):
        cut, inner = slice(offset - halo, offset + side + halo), slice(offset, offset + side)
        alone = network(image[..., cut, cut])[..., halo : halo + side, halo : halo + side]
        error = ((alone - whole[..., inner, inner]).abs()[0].amax(0) / whole.std()).numpy()
        room = {"left": 0.01, "right": 0.99, "bottom": 0.01, "top": 0.9, "wspace": 0.03}
        figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.8), gridspec_kw=room)
        left.imshow(image[0, 0].numpy(), cmap="gray", vmin=0, vmax=1)
        outline(left, offset, offset, offset + side, offset + side, edgecolor=MARK)
        outline(left, cut.start, cut.start, cut.stop, cut.stop, edgecolor="white", linestyle="--")
        right.imshow(error, cmap="magma", vmin=0, vmax=1)
        left.set(xticks=[], yticks=[], title="tile, and cut (dashed)")
        right.set(xticks=[], yticks=[], title="error (bright: 1 sd or more)")
        return figure, (
            f"The cut starts {(offset - halo) % 8} pixels after a multiple of 8, and the halo has {halo} "
            f"pixels: the largest error is {below(error.max(), 0.01)} standard deviations of the scores."
        )

    strip = [{"offset": 64, "halo": 0}, {"offset": 67, "halo": 48}, {"offset": 64, "halo": 48}]
    return Knob(draw, controls, strip)
