"""Does bending help? A U-Net against a Dense Transformer Network, alike in weights and in training.

python -m experiments.trial    does what is missing in data/trial.json; all 25 trainings take about an hour

Two sets of pictures: the micrographs, and the micrographs through a lens (`experiments.lens`), where the
scale changes strongly from place to place, so that bending should help. Both networks learn from the same
whole pictures, because the warp is one of the whole picture, in the same order, and are tested alike.
"""

import json
from functools import partial

import torch

from experiments import write_whole
from experiments.dense_transformer import DenseTransformerNet, lattice
from experiments.lens import through_lens, through_lenses
from utils.data import DATA, Pictures, micrographs
from utils.metrics import confusion, iou_per_class
from utils.networks import UNet, labels_of
from utils.training import train
from utils.windows import random_crops

RESULTS = DATA / "trial.json"
STEPS = 1500
SEEDS = range(5)
NETWORKS = {
    "U-Net": partial(UNet, depth=4, widest=26),  # with 3.1 % more weights than the others
    "DTN": DenseTransformerNet,
    "DTN, bounded": partial(DenseTransformerNet, reach=1 / 3),  # no control point goes half way to the next
}
CASES = [("micrographs", "U-Net"), ("micrographs", "DTN"), *(("lens", name) for name in NETWORKS)]


def batches(pictures):
    """Two whole pictures at a time, turned and flipped at random, for `train`."""
    return random_crops(pictures, 256, batch=2)


def tests():
    """The pictures to be tested on: set -> Pictures; through the lens each of the eight comes four times."""
    plain, random = micrographs("test"), torch.Generator().manual_seed(0)
    pairs = [(n, n + 1) for n in range(len(plain.images)) for _ in range(4)]
    seen = [through_lens(random, *(each[slice(*pair)] for each in plain[:2])) for pair in pairs]
    images, labels = (torch.cat(each) for each in zip(*seen, strict=True))
    return {"micrographs": plain, "lens": Pictures(images, labels, plain.classes)}


SETS = {"micrographs": batches, "lens": lambda pictures: through_lenses(batches(pictures))}


def quality(network, pictures):
    """Intersection over union of each class: (classes,)."""
    found = labels_of(network, pictures.images)
    return iou_per_class(confusion(found, pictures.labels, len(pictures.classes)))


@torch.no_grad()
def moved(network, pictures):
    """How far a DTN moves the nodes of its map, on average, in nodes; 0 for a U-Net."""
    if not isinstance(network, DenseTransformerNet):
        return 0.0
    positions = torch.cat([network.positions(image[None]) for image in pictures.images])
    height, width = positions.shape[1:3]
    away = positions - lattice(height, width).to(positions).view(height, width, 2)
    return (away * torch.tensor([width - 1, height - 1]) / 2).norm(dim=-1).mean().item()


def trial(kind, name, seed, steps=STEPS):
    """Train one network; returns what is measured on the test pictures of its kind, for `results`."""
    torch.manual_seed(seed)
    network, pictures = NETWORKS[name](), tests()[kind]
    train(network, SETS[kind](micrographs("train")), steps, seed=seed)
    return {"iou": quality(network, pictures).tolist(), "moved": moved(network, pictures)}


def results(what="iou"):
    """The stored measurements: (set, network) -> (seeds, classes) for "iou", (seeds,) for "moved"."""
    stored = _stored()
    if len(stored) < len(CASES) * len(SEEDS):
        raise FileNotFoundError(f"{RESULTS} is not complete; go on with `python -m experiments.trial`.")
    return {
        (kind, name): torch.tensor([stored[f"{kind}, {name}, seed {seed}"][what] for seed in SEEDS])
        for kind, name in CASES
    }


def interval(values):
    """Mean of five values (one for each seed), and half of its 95 % interval by Student's t."""
    return values.mean().item(), 2.776 * (values.std() / len(values) ** 0.5).item()


def _stored():
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def main():
    for seed in SEEDS:
        for kind, name in CASES:
            done, key = _stored(), f"{kind}, {name}, seed {seed}"
            if key in done:
                continue
            print(key, flush=True)
            done[key] = trial(kind, name, seed)
            write_whole(RESULTS, json.dumps(done, indent=1) + "\n")
    for (kind, name), classes in results().items():
        print("{}, {}: mean IoU {:.3f} ± {:.3f}".format(kind, name, *interval(classes.mean(dim=1))))


if __name__ == "__main__":
    main()
