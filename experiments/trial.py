"""Does bending help? A U-Net against a Dense Transformer Network, alike in weights and in training.

python -m experiments.trial    does what is missing in data/trial.json; every training takes some minutes

Two sets of pictures: the micrographs, and the micrographs through a lens (`experiments.lens`), where the
scale changes strongly from place to place, so that bending should help. Both networks learn from the same
whole pictures, because the warp is one of the whole picture, in the same order, and are tested alike.

How much slower the localisation network learns than the rest is chosen first, on validation pictures.
"""

from functools import partial

import torch

from experiments.dense_transformer import DenseTransformerNet, lattice
from experiments.lens import through_lens, through_lenses
from experiments.results import once, stored
from utils.data import DATA, Pictures, micrographs
from utils.metrics import confusion, iou_per_class
from utils.networks import UNet, labels_of
from utils.training import train
from utils.windows import random_crops

RESULTS = DATA / "trial.json"
STEPS = 1500
SEEDS = range(5)
SLOWER = (1, 0.1, 0.01)  # factors of the localisation network's learning rate to choose from
NETWORKS = {
    "U-Net": partial(UNet, depth=4, widest=26),  # with 3.1 % more weights than the others
    "DTN": DenseTransformerNet,
    "DTN, unbounded": partial(DenseTransformerNet, bounded=False),  # ours: points may leave the map
}
CASES = [("micrographs", "U-Net"), ("micrographs", "DTN"), *(("lens", name) for name in NETWORKS)]


def batches(pictures):
    """Two whole pictures at a time, turned and flipped at random, for `train`."""
    return random_crops(pictures, 256, batch=2)


def pictures(kind, split):
    """Pictures to be judged on; through the lens each of a split comes four times."""
    plain, random = micrographs(split), torch.Generator().manual_seed(0)
    if kind == "micrographs":
        return plain
    pairs = [(n, n + 1) for n in range(len(plain.images)) for _ in range(4)]
    seen = [through_lens(random, *(each[slice(*pair)] for each in plain[:2])) for pair in pairs]
    images, labels = (torch.cat(each) for each in zip(*seen, strict=True))
    return Pictures(images, labels, plain.classes)


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


def learned(kind, name, seed, factor, steps=STEPS):
    """A network, trained; its localisation network, where it has one, with that factor of the rate."""
    torch.manual_seed(seed)
    network = NETWORKS[name]()
    slower = {"localisation": factor} if isinstance(network, DenseTransformerNet) else None
    train(network, SETS[kind](micrographs("train")), steps, seed=seed, slower=slower)
    return network


def trial(kind, name, seed, factor, split, steps=STEPS):
    """Train one network; returns what is measured on pictures of its kind, for `results`."""
    network, judged = learned(kind, name, seed, factor, steps), pictures(kind, split)
    return {"iou": quality(network, judged).tolist(), "moved": moved(network, judged)}


def chosen(found):
    """The factor of SLOWER with the best mean IoU on validation pictures through the lens."""
    return max(SLOWER, key=lambda factor: sum(found[f"choose, {factor}"]["iou"]))


def results(what="iou"):
    """The stored measurements: (set, network) -> (seeds, classes) for "iou", (seeds,) for "moved"."""
    found = stored(RESULTS)
    if len(found) < len(SLOWER) + len(CASES) * len(SEEDS):
        raise FileNotFoundError(f"{RESULTS} is not complete; go on with `python -m experiments.trial`.")
    return {
        (kind, name): torch.tensor([found[f"{kind}, {name}, seed {seed}"][what] for seed in SEEDS])
        for kind, name in CASES
    }


def interval(values):
    """Mean of five values (one for each seed), and half of its 95 % interval by Student's t."""
    return values.mean().item(), 2.776 * (values.std() / len(values) ** 0.5).item()


def main():
    for factor in SLOWER:
        once(RESULTS, f"choose, {factor}", partial(trial, "lens", "DTN", 0, factor, "validation"))
    factor = chosen(stored(RESULTS))
    for seed in SEEDS:
        for kind, name in CASES:
            once(RESULTS, f"{kind}, {name}, seed {seed}", partial(trial, kind, name, seed, factor, "test"))
    for (kind, name), classes in results().items():
        print("{}, {}: mean IoU {:.3f} ± {:.3f}".format(kind, name, *interval(classes.mean(dim=1))))


if __name__ == "__main__":
    main()
