"""All networks of the series on the same test micrographs: one table, one figure.

python -m experiments.comparison    (or make compare) measures everything; table and figure go into the README

Every number comes from the weights in data/weights. Each network was trained three times, alike but for the
seed, in 1,500 steps of `train`, on the same batches as the others of its seed (the patch CNN on an eighth of
the pixels).
"""

import re
import time
from copy import deepcopy
from typing import NamedTuple

import torch
from matplotlib import pyplot as plt
from torch import nn

from experiments import write_whole
from pixelpatch import effective_pixels, influence, patch_proof, receptive_field
from pixelpatch.drawing import colours
from pixelpatch.proofs import prove
from pixelpatch.scores import score_map
from utils import progress
from utils.data import DATA, micrographs
from utils.metrics import confusion, iou_per_class
from utils.networks import for_whole_images, labels_of, multiply_accumulates, trained

NETWORKS = {
    "patch-65": "patch CNN, dense",
    "fcn-8s": "FCN-8s",
    "deconvnet": "DeconvNet, in crops",
    "segnet": "DeconvNet without its code",
    "unet-without-skips": "U-Net without skips",
    "unet": "U-Net",
}
SEEDS = 0, 1, 2
PIXELS = [(row, col) for row in (50, 115, 140, 205) for col in (50, 115, 140, 205)]  # to look at
README = DATA.parent / "README.md"
FIGURE = DATA.parent / ".github" / "comparison.png"
BEGIN, END = "<!-- python -m experiments.comparison -->", "<!-- end of the comparison -->"


class Quality(NamedTuple):
    """How well a network labels the test micrographs, once for every seed."""

    classes: torch.Tensor  # (seeds, classes), intersection over union
    mean: torch.Tensor  # (seeds,), their mean over the classes


class Patch(NamedTuple):
    """What decides a pixel, and at which price."""

    weights: int
    macs: float  # multiply-accumulates per pixel
    sides: list[int]  # of the receptive fields, by phase
    effective: float  # side of a square of as many pixels as hold nine tenths of the influence (gradient)
    exact: bool  # whether the patch, cut out around its pixel, gives the scores of the whole image


class Turned(nn.Module):
    """A network asked about all eight turns and flips of images: (N, C, H, W) -> (N, classes, H, W).

    Tissue has no upright direction, so the eight answers differ by chance, and their mean differs less from
    the truth. (Ronneberger, Fischer and Brox, MICCAI 2015, section 4, average over seven rotated versions.)
    The mean is taken of log-probabilities.
    """

    def __init__(self, network):
        super().__init__()
        self.network = for_whole_images(network)

    def forward(self, image):
        total = 0
        for turns in range(4):
            turned = torch.rot90(image, turns, (-2, -1))
            upright = self.network(turned).log_softmax(1)
            flipped = self.network(turned.flip(-1)).log_softmax(1).flip(-1)
            total = total + torch.rot90(upright + flipped, -turns, (-2, -1))
        return total / 8


def quality(name):
    """Quality of a network on the test micrographs: one of NETWORKS, or another with three seeds."""
    test, scores = micrographs("test"), []
    for seed in SEEDS:
        found = labels_of(trained(name, seed), test.images)
        scores.append(iou_per_class(confusion(found, test.labels, len(test.classes))))
    classes = torch.stack(scores)
    return Quality(classes, classes.mean(dim=1))


def patch(name):
    """Patch of a network of NETWORKS, measured on test micrographs."""
    network, image = trained(name), micrographs("test").images[:1]
    whole = for_whole_images(network)
    field = receptive_field(whole, (1, 1, 512, 512))
    boxes = [field.box(at, at) for at in range(240, 272)]  # 32 phases
    assert all(box.top > 0 and box.bottom < 512 for box in boxes), f"{name}: a field reaches the border"
    sides = sorted({box.bottom - box.top for box in boxes})
    near = receptive_field(whole, tuple(image.shape))
    with torch.inference_mode():
        scores = score_map(whole, image)
    effective = [effective_side(whole, near, scores, image, pixel) for pixel in PIXELS]
    exact = not field.whole_image
    if exact:
        _prove(whole, image, sides[-1])
    return Patch(
        weights=sum(weight.numel() for weight in network.parameters()),
        macs=multiply_accumulates(whole, tuple(image.shape)) / image.numel(),
        sides=sides,
        effective=sum(effective) / len(effective),
        exact=exact,
    )


def effective_side(network, field, scores, image, pixel):
    """The side of a square of as many pixels as hold nine tenths of the influence on a pixel's best score."""
    seen = image.clone().requires_grad_()
    if field.whole_image:
        score = score_map(network, seen)[0, :, *pixel].max()
    else:
        proof = prove(network, seen, field, scores, *pixel)
        score, seen = proof.patch_scores.max(), proof.patch
    return effective_pixels(influence(score, seen), 0.9) ** 0.5


def _prove(network, image, side):
    """Check that the patches of a few pixels, of that side, give the scores of an image (1, 1, 256, 256)."""
    size = 96 if side < 128 else 224  # near its corner the patches are clipped, and smaller than the part
    part, exact = image[..., :size, :size].double(), deepcopy(network).double()
    for row, col in [(0, 0), (1, 5), (6, 3)]:
        proof = patch_proof(exact, part, size // 8 + row, size // 8 + col)
        assert proof.patch.numel() < part.numel(), "the whole image would prove nothing"
        assert proof.max_abs_difference < 1e-10, f"off by {proof.max_abs_difference}"


def seconds_per_image(name):
    """The fastest of five passes over one test micrograph, on however many cores there are."""
    network, image = for_whole_images(trained(name)), micrographs("test").images[:1]
    times = []
    with torch.inference_mode():
        for _ in range(5):
            begin = time.perf_counter()
            network(image)
            times.append(time.perf_counter() - begin)
    return min(times)


def spread(values):
    """Mean and half of the range, such as 0.921 ± 0.003."""
    return f"{values.mean():.3f} ± {(values.max() - values.min()) / 2:.3f}"


def table(qualities, patches, seconds=None):
    """A Markdown table, one line for each network, from mappings of name to what was measured."""
    names = micrographs("test").classes
    head = ["network", "mean IoU", *names, "weights", "MACs per pixel", "patch", "effective", "exact patch"]
    head += ["seconds per image"] if seconds else []
    lines = [head, ["---"] * len(head)]
    for name, title in NETWORKS.items():
        found, seen = qualities[name], patches[name]
        line = [title, f"**{spread(found.mean)}**", *map(spread, found.classes.T)]
        line += [f"{seen.weights:,}", f"{seen.macs:,.0f}", " or ".join(map(str, seen.sides))]
        line += [f"{seen.effective:.0f}", "yes" if seen.exact else "whole crop"]
        lines.append(line + ([f"{seconds[name]:.3f}"] if seconds else []))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figure(qualities):
    """A matplotlib Figure: the IoU of every class and their mean, one mark for every seed."""
    names = micrographs("test").classes
    drawing, axis = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
    looks = list(zip((-0.24, -0.08, 0.08), "os^", ("#8a8a8a", *colours(len(names))[1:]), names, strict=True))
    for place, name in enumerate(NETWORKS):
        for (offset, mark, colour, title), values in zip(looks, qualities[name].classes.T, strict=True):
            style = {"color": colour, "mec": "black", "mew": 0.5, "label": None if place else title}
            axis.plot(values, [place + offset] * len(values), mark, ms=6, **style)
        mean = qualities[name].mean
        axis.plot(mean, [place + 0.24] * len(mean), "D", ms=6, color="black", label=None if place else "mean")
        axis.axhline(place + 0.5, color="#dddddd", lw=0.8)
    axis.set(yticks=range(len(NETWORKS)), yticklabels=NETWORKS.values(), xlim=(0.2, 1))
    axis.set(xlabel="intersection over union on eight test micrographs, three seeds each")
    axis.invert_yaxis()
    axis.grid(axis="x", color="#dddddd", lw=0.8)
    drawing.legend(loc="outside upper center", ncols=4, frameon=False)
    return drawing


def main():
    names = progress([*NETWORKS], desc="comparing", unit="network")
    measured = {name: (quality(name), patch(name), seconds_per_image(name)) for name in names}
    qualities, patches, seconds = ({name: each[k] for name, each in measured.items()} for k in range(3))
    text = table(qualities, patches, seconds)
    drawing = figure(qualities)
    drawing.savefig(FIGURE, dpi=110)
    plt.close(drawing)
    readme = README.read_text(encoding="utf-8")
    assert BEGIN in readme and END in readme, f"the README has lost its mark {BEGIN} or {END}"
    new = re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n\n{text}\n\n{END}", readme, flags=re.S)
    write_whole(README, new)
    print(text)


if __name__ == "__main__":
    main()
