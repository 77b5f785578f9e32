"""The receptive field of any output pixel, under the reader's hand: input and prediction side by side.

    Inspector(image, {"patch CNN": net1, "U-Net": net2}, classes=("cytoplasm", "membrane"))

Pointing costs no round trip: all fields of all layers go to the browser once, as the small tables of
`pixelpatch.receptive_field`, and `inspector.js` draws from them. Only a click asks Python, for what needs the
network itself: the effective field, the patch cut out, and the proof that it suffices.
"""

import html
import json
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from string import Template
from typing import NamedTuple

import anywidget
import numpy as np
import torch
import traitlets
from IPython.display import display
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import nn

from pixelpatch.drawing import MARK, colours, outline, show
from pixelpatch.fields import ReceptiveField, UnknownOperation, receptive_field
from pixelpatch.proofs import effective_pixels, influence, prove
from pixelpatch.scores import rounding, score_map

HERE = Path(__file__).parent


class Known(NamedTuple):
    """What is computed once for a network."""

    model: nn.Module
    image: torch.Tensor  # (1, C, H, W) of the network's device and type
    field: ReceptiveField
    scores: torch.Tensor  # (1, classes, h, w)

    @property
    def size(self):
        return tuple(self.scores.shape[-2:])


class Inspector(anywidget.AnyWidget):
    """Point at an output pixel, see the patch that decides it; click, and see it proved.

    Args:
        image: (H, W), (C, H, W) or (1, C, H, W), floats in [0, 1]; an array or a tensor.
        networks: mapping of name to network, which gives (1, C, H, W) scores (1, classes, h, w). Each is
            taken in the mode it is in, and never changed.
        classes: a name for every channel of the scores; their colours are those of
            `pixelpatch.drawing.PALETTE`, in its order.

    Raises:
        ValueError or TypeError: the image, a network, its scores or the names are not as they should be.
        UnknownOperation: a network does something for which `pixelpatch.receptive_field` has no rule.
    """

    _esm = HERE / "inspector.js"
    _css = HERE / "inspector.css"
    contents = traitlets.Dict().tag(sync=True)  # pictures, scores and fields: written once
    request = traitlets.Dict().tag(sync=True)  # from the browser: {"number", "network", "row", "col"}
    answer = traitlets.Dict().tag(sync=True)  # to the browser, with the same number

    def __init__(
        self,
        image: np.ndarray | torch.Tensor,
        networks: dict[str, nn.Module],
        classes: Sequence[str] | None = None,
    ):
        self._image = checked_image(image)
        if not isinstance(networks, dict) or not networks:
            raise ValueError(f"networks is {networks!r}, expected a dict such as {{'U-Net': network}}.")
        self._known = {name: examined(name, model, self._image) for name, model in networks.items()}
        self._classes = {name: class_names(name, classes, each) for name, each in self._known.items()}
        contents = {"live": True, "image": _picture(_pixels(self._image[0]))}
        contents["networks"] = [self._described(name) for name in self._known]
        super().__init__(contents=contents)
        self.observe(self._reply, "request")

    def _described(self, name):
        """All that the browser is told about a network, ready for JSON."""
        known, tables = self._known[name], self._known[name].field.tables()
        scores = known.scores[0].double().cpu().numpy()
        unit = max(float(np.abs(scores).max()), 1e-30) / 32767  # sent as 16 bits: five digits
        strides = zip(known.field.stride, known.field.step, known.size, known.image.shape[-2:], strict=True)
        return {
            "name": name,
            "classes": self._classes[name],
            "colours": colours(len(self._classes[name])),
            "size": known.size,
            "scores": as_base64(np.rint(scores / unit).astype("<i2")),
            "unit": unit,
            "whole": [whole._asdict() for whole in known.field.whole_image],
            "shares": [min(1, n * stride / abs(step) / size) for stride, step, n, size in strides],
            "layers": tables["layers"],
            "axes": [
                {"offset": as_base64(axis["offset"]), "runs": as_base64(axis["runs"]), "joint": axis["joint"]}
                for axis in tables["axes"]
            ],
            "bits": 8 * tables["axes"][0]["runs"].itemsize,
        }

    def _prediction(self, name):
        """(h, w, 3) uint8: the colour of each pixel's class, or grey where there is one score."""
        scores = self._known[name].scores[0].double().cpu()
        if len(scores) == 1:
            spread = scores.max() - scores.min()
            return _pixels((scores - scores.min()) / (spread if spread else 1))
        palette = np.array([to_rgb(colour) for colour in colours(len(scores))])
        return np.rint(255 * palette[scores.argmax(0).numpy()]).astype(np.uint8)

    def _reply(self, change):
        request = change["new"]
        try:
            found = self._explain(request["network"], request["row"], request["col"])
        except Exception as error:  # whatever it is, the reader should see it where they clicked
            found = {"error": f"{type(error).__name__}: {error}"}
        self.answer = request | found

    def _explain(self, name, row, col):
        """The effective field, the patch, and the proof, for the browser to show."""
        known, classes = self._known[name], self._classes[name]
        known.field.box(row, col)  # an error for a pixel outside
        best = int(known.scores[0, :, row, col].argmax())
        image = known.image.clone().requires_grad_()  # proof and effective field from one pass
        try:
            proof = prove(known.model, image, known.field, known.scores, row, col)
        except ValueError as error:  # nothing to cut out, or no cut that leaves the patch as it is
            cut, said = (0, 0, *image.shape[-2:]), f"No proof: {error}"
            heat = influence(score_map(known.model, image)[0, best, row, col], image)
        else:
            cut, full, alone = proof.cut, proof.full_scores[best], proof.patch_scores[best].detach()
            allowed = rounding(full.dtype) * known.scores.std(correction=0) + 1e-6
            verdict = "Proof" if proof.max_abs_difference <= allowed else "Not the same"
            if verdict == "Proof" and proof.box == (0, 0, *image.shape[-2:]):
                verdict = "No proof, as the patch is all of this image"
            said = (
                f"{verdict}: the score of {classes[best]} is {full:.2f} from the full image and "
                f"{alone:.2f} from the patch alone; the largest difference of any score is "
                f"{proof.max_abs_difference:.1g}."
            )
            heat = influence(proof.patch_scores[best], proof.patch)
        heat = heat.double().cpu()
        return {
            "cut": [*cut],
            "heat": _picture(
                np.rint(255 * colormaps["inferno"](heat.numpy() ** 0.5)[..., :3]).astype(np.uint8)
            ),
            "said": said,
            "effective": effective(heat),
        }

    def describe(self, row: int | None = None, col: int | None = None) -> str:
        """What `figure` shows, in words: one sentence for each network."""
        said = []
        for name, known in self._known.items():
            at = _pixel(known, row, col)
            box, scores, classes = known.field.box(*at), known.scores[0, :, *at], self._classes[name]
            best = int(scores.argmax())
            height, width = known.image.shape[-2:]
            whole = "".join(f", because of layer {w.layer} ({w.reason})" for w in known.field.whole_image[:1])
            said.append(
                f"{name}: output pixel {at}, {classes[best]} (score {scores[best]:.2f}), sees rows {box.top} "
                f"to {box.bottom - 1} and columns {box.left} to {box.right - 1} of the {height} x {width} "
                f"image{whole}."
            )
        return " ".join(said)

    def figure(self, row: int | None = None, col: int | None = None) -> Figure:
        """A matplotlib Figure: for each network the input with the pixel's field, and the prediction.

        Args:
            row, col: an output pixel; by default the one in the middle.
        """
        n = len(self._known)  # two networks and more stand side by side, the input above the prediction
        figure = Figure(figsize=(7, 3.8) if n == 1 else (3.4 * n, 7.4), layout="constrained")
        axes = figure.subplots(1, 2, squeeze=False) if n == 1 else figure.subplots(2, n).T
        for (left, right), (name, known) in zip(axes, self._known.items(), strict=True):
            at = _pixel(known, row, col)
            box, mask = known.field.box(*at), known.field.mask(*at)
            left.imshow(_pixels(self._image[0]))
            seen = f"{box.bottom - box.top} x {box.right - box.left}"
            if mask.sum() < (box.bottom - box.top) * (box.right - box.left):
                seen = f"{mask.sum()} of {seen}"
                left.imshow(np.where(mask[..., None], (*to_rgb(MARK), 0.9), 0), interpolation="nearest")
            outline(left, *box)
            if [*known.size] == [*known.image.shape[-2:]]:
                left.plot(at[1], at[0], "o", ms=6, mfc="none", mec=MARK, mew=1.5)  # the pixel itself
            left.set_title(f"input: {seen} pixels are seen", fontsize=10)
            right.imshow(self._prediction(name), interpolation="nearest")
            right.plot(at[1], at[0], "o", ms=9, mfc="none", mec="white", mew=4)
            right.plot(at[1], at[0], "o", ms=9, mfc="none", mec=MARK, mew=2)
            right.set_title(f"{name}: pixel {at}", fontsize=10)
            names = self._classes[name]
            if len(names) > 1:
                keys = [Patch(facecolor=c, edgecolor="black") for c in colours(len(names))]
                right.legend(
                    keys, names, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, fontsize=8,
                    columnspacing=1, handlelength=1.2,
                )  # fmt: skip
            for axis in (left, right):
                axis.set(xticks=[], yticks=[])
        return figure

    def _ipython_display_(self):
        caption = "The box on the input is what the ringed pixel of the prediction sees."
        show_live(self, self.describe(), f"{caption} Run this cell to choose pixels yourself.")

    def to_html(self, path: str | Path) -> None:
        """Write one page that needs neither network nor kernel: pointing and keys live, a click cannot."""
        state = {"contents": self.contents | {"live": False}, "answer": {}, "request": {}}
        files = [HERE / f"inspector.{kind}" for kind in ("html", "css", "js")]
        page, css, esm = (file.read_text(encoding="utf-8") for file in files)
        self.figure().savefig(png := BytesIO(), format="png", dpi=100)
        page = Template(page).substitute(
            title=html.escape(", ".join(self._known)),
            css=css,
            png=b64encode(png.getvalue()).decode(),
            alt=html.escape(self.describe()),
            esm=esm.replace("export default", "const widget ="),
            state=json.dumps(state).replace("</", "<\\/"),
        )
        unfinished = Path(f"{path}.part")  # renamed when it is whole
        unfinished.write_text(page, encoding="utf-8")
        unfinished.replace(path)


def show_live(widget, description, caption):
    """A picture for where no kernel runs, then the widget, whose style sheet hides the picture."""
    show(widget.figure(), description, caption)
    data, metadata = widget._repr_mimebundle_()
    display(data | {"text/plain": ""}, metadata=metadata, raw=True)


def checked_image(image):
    """Any of the three forms as a tensor (1, C, H, W), or an error in one sentence."""
    if not isinstance(image, (np.ndarray, torch.Tensor)):
        raise TypeError(f"image is a {type(image).__name__}, expected a numpy array or a torch tensor.")
    image = torch.as_tensor(image).detach()
    shape = tuple(image.shape)
    if len(shape) not in (2, 3, 4) or 0 in shape or (len(shape) == 4 and shape[0] != 1):
        raise ValueError(f"image has shape {shape}, expected (H, W), (C, H, W) or (1, C, H, W).")
    if len(shape) == 3 and shape[-1] in (1, 3, 4) and shape[0] not in (1, 3, 4):
        raise ValueError(f"image has shape {shape}, expected (C, H, W); turn it with image.permute(2, 0, 1).")
    if not image.is_floating_point():
        raise ValueError(f"image has type {image.dtype}, expected floats in [0, 1]; divide bytes by 255.")
    if image.is_meta:
        raise ValueError("image is on the meta device, which holds no values; give an image that has some.")
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):  # not a number fails too
        raise ValueError(f"image has values from {low:g} to {high:g}, expected [0, 1]; rescale it.")
    return image.reshape((1,) * (4 - len(shape)) + shape)


def examined(name, model, image):
    """The field and the scores of a network, or an error that says which network and what is wrong."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"network {name!r} is a {type(model).__name__}, expected a torch.nn.Module.")
    image = image.to(next(model.parameters(), torch.zeros(1)))  # its device and its type
    try:
        with torch.no_grad():
            scores = score_map(model, image)
    except Exception as error:
        shape = tuple(image.shape)
        raise ValueError(f"network {name!r} fails on the image, made {shape}: {error}") from error
    if not scores.isfinite().all():
        raise ValueError(f"network {name!r} gives scores that are not finite; check its weights.")
    try:
        return Known(model, image, receptive_field(model, tuple(image.shape)), scores)
    except UnknownOperation as error:
        raise UnknownOperation(f"network {name!r}: {error}") from error


def class_names(name, classes, known):
    count = known.scores.shape[1]
    if classes is None:
        return [f"class {number}" for number in range(count)] if count > 1 else ["output"]
    if isinstance(classes, str) or len(classes) != count:
        raise ValueError(
            f"classes is {classes!r}, expected {count} names, one for each score of network {name!r}."
        )
    return [str(each) for each in classes]


def effective(heat):
    """In words: how few pixels make up most of the effective field."""
    if not heat.any():
        return "No pixel moves this score: its gradient is 0 everywhere."
    half, most = (effective_pixels(heat, share) for share in (0.5, 0.9))
    return f"Half of the influence comes from {half} of these {heat.numel()} pixels, nine tenths from {most}."


def _pixel(known, row, col):
    """Output pixel (row, col), each by default in the middle."""
    height, width = known.size
    return (height // 2 if row is None else row, width // 2 if col is None else col)


def _pixels(image):
    """(C, H, W) in [0, 1] -> (H, W, 3) uint8, grey unless there are three channels."""
    image = image.double().cpu()
    image = image if len(image) == 3 else image.mean(0, keepdim=True).expand(3, -1, -1)
    return np.rint(255 * image.permute(1, 2, 0).numpy()).astype(np.uint8)


def _picture(pixels):
    return {"height": pixels.shape[0], "width": pixels.shape[1], "rgb": as_base64(pixels)}


def as_base64(array):
    """The bytes of an array, row by row."""
    return b64encode(np.ascontiguousarray(array)).decode()
