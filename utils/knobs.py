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
from matplotlib.figure import Figure
from matplotlib.image import imread

from pixelpatch.widget.inspector import show_live
from utils.drawings import Step, size_jump_start, stack

# Where the widget lives, its static picture is not shown: the same rule as the inspector's.
STYLE = """<style>
.jp-OutputArea-child:has(.jp-RenderedImage):has(~ .jp-OutputArea-child .pixel-knob),
.jp-OutputArea-child:has(.jp-RenderedMarkdown):has(~ .jp-OutputArea-child .pixel-knob) { display: none; }
.pixel-knob img { max-width: 100%; background: white; }
</style>"""


class Knob(widgets.VBox):
    """Controls, and below them a drawing and a sentence that follow.

    Args:
        draw: function of the controls' values, by name, that returns a matplotlib Figure and a sentence that
            says what the drawing shows.
        controls: name -> ipywidgets control, with a description.
        strip: a few positions, as mappings of name to value, for where no kernel runs.
    """

    def __init__(self, draw, controls, strip):
        self.draw, self.controls, self.strip = draw, controls, strip
        self.screen = widgets.HTML()
        rows = [widgets.HBox([*controls.values()], layout={"flex_flow": "row wrap"}), self.screen]
        super().__init__([widgets.HTML(STYLE), *rows])
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
        picture, sentence = b64encode(png(figure)).decode(), html.escape(sentence)
        self.screen.value = (
            f"<img alt='{sentence}' src='data:image/png;base64,{picture}'><p role='status'>{sentence}</p>"
        )

    def figure(self):
        """A matplotlib Figure: the positions of the strip, one below the other."""
        drawn = [imread(BytesIO(png(self.draw(**position)[0]))) for position in self.strip]
        height, width = sum(len(each) + 20 for each in drawn), max(each.shape[1] for each in drawn)
        whole, top = Figure(figsize=(width / 100, height / 100)), 1.0
        for each in drawn:
            share = len(each) / height
            axis = whole.add_axes((0, top - share, each.shape[1] / width, share))
            axis.imshow(each)
            axis.set_axis_off()
            top -= share + 20 / height
        return whole

    def _ipython_display_(self):
        said = " ".join(self.draw(**position)[1] for position in self.strip)
        show_live(self, f"{said} Run this cell to turn the knob yourself.")


def png(figure):
    figure.savefig(file := BytesIO(), format="png", dpi=100)
    return file.getvalue()


def slider(description, low, high, value, **options):
    return widgets.IntSlider(value, low, high, description=description, continuous_update=True, **options)


def build_a_stack():
    """Up to five layers, each with kernel, stride, padding and dilation; the cone of one output follows."""
    made = [Step() for _ in range(5)]
    controls = {
        "layers": slider("layers", 1, 5, 3),
        "chosen": slider("change layer", 1, 5, 1),
        "kernel": slider("kernel", 1, 5, 3),
        "stride": slider("stride", 1, 3, 1),
        "padding": slider("padding", 0, 2, 0),
        "dilation": slider("dilation", 1, 4, 1),
    }

    def draw(layers, chosen, **step):
        made[chosen - 1] = Step(**step)
        size, jump, start = size_jump_start(made[:layers])[-1]
        sentence = (
            f"One output of layer {layers} sees {size} positions of the image; its neighbour looks "
            f"{jump} further on, and output 0 starts at position {start}."
        )
        return stack(made[:layers]), sentence

    knob = Knob(draw, controls, [])

    def show_chosen(change):
        for name, value in made[change["new"] - 1]._asdict().items():
            controls[name].value = value

    controls["chosen"].observe(show_chosen, "value")
    return knob
