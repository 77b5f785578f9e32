"""How the weights in data/weights were made.

python -m experiments.recipes                   lists the networks
python -m experiments.recipes unet              makes one of them again
python -m experiments.recipes unet --seed 1     from another start and with other batches
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional as F

from experiments import affinities, trial
from experiments.blurred import blurred
from experiments.transformers import Transformer, in_windows
from utils.data import Pictures, isbi2012, isbi2012_folder, micrographs
from utils.networks import SHIPPED, DeconvNet, UNet, a_trous, command, weights_file
from utils.training import train, write_weights
from utils.windows import random_crops


class Recipe(NamedTuple):
    """How a network of the series was trained: everything but the network and the seed."""

    draw: Callable[[Pictures], Callable]
    steps: int = 1500
    form: Callable[[nn.Module], nn.Module] = lambda network: network  # what it is turned into to be trained
    pictures: Callable[[], Pictures] = lambda: micrographs("train")
    loss: Callable = F.cross_entropy
    learning_rate: float = 3e-3
    slower: dict[str, float] | None = None  # part of the network -> factor of its rate


def _patch_recipe(window, bend=0, **others):
    # Trained in its dense form, on all windows of a crop at once; chapter 3 shows that this is the same.
    return Recipe(
        draw=lambda pictures: random_crops(pictures, 64, batch=4, margin=window // 2, bend=bend),
        form=a_trous,
        **others,
    )


def _crop_recipe(bend=0, **others):
    return Recipe(lambda pictures: random_crops(pictures, 128, bend=bend), **others)


def _real_slices():
    folder = isbi2012_folder()
    if folder is None:
        raise FileNotFoundError(
            "the real micrographs are not here; fetch them with utils.data.isbi2012('data/isbi2012', "
            "download=True), or name their folder in the environment variable ISBI2012_DIR."
        )
    return isbi2012(folder, "train")


def border_weights(labels, membrane=1, w0=10, sigma=5):
    """How much each pixel's mistake counts, so that thin membranes between close cells are learned.

    Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image segmentation", MICCAI
    2015, equation 2: w = w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)), where d1 and d2 are the distances to the
    nearest cell and to the second nearest, and w_c makes membranes and cells weigh alike in all. The second
    term counts on membranes alone: inside a cell there is no border to learn.

    Args:
        labels: (N, H, W) class numbers; cells are the 4-connected components of all but the membrane.
        membrane: the class between the cells.
        w0, sigma: height and width of the extra weight, sigma in pixels; the paper's values.

    Returns:
        (N, H, W) float32.
    """
    weights = []
    for mask in (labels == membrane).numpy():
        cells, count = ndimage.label(~mask)
        distances = [ndimage.distance_transform_edt(cells != n + 1).astype("f4") for n in range(count)]
        distances = np.sort(distances, axis=0)
        apart = distances[0] + distances[1] if len(distances) > 1 else np.full(mask.shape, np.inf)
        extra = w0 * np.exp(-(apart**2) / (2 * sigma**2)) * mask
        share = mask.mean().clip(1e-6, 1 - 1e-6)
        weights.append(np.where(mask, 0.5 / share, 0.5 / (1 - share)) + extra)
    return torch.from_numpy(np.stack(weights)).float()


def _with_border_weights():
    pictures = micrographs("train")
    both = torch.stack([pictures.labels.float(), border_weights(pictures.labels)], dim=1)
    return pictures._replace(labels=both)


def weighted_cross_entropy(scores, targets):
    """Mean cross-entropy, each pixel counting with its weight: targets (N, 2, H, W), class and weight."""
    labels, weights = targets.unbind(1)
    losses = F.cross_entropy(scores, labels.long(), reduction="none")
    return (losses * weights).sum() / weights.sum()


REAL = {"steps": 3000, "bend": 4, "pictures": _real_slices}
RECIPES = {
    **{f"patch-{window}": _patch_recipe(window) for window in (5, 9, 17, 33, 65)},
    **{f"fcn-{stride}s": _crop_recipe() for stride in (32, 16, 8)},
    "deconvnet": _crop_recipe(),
    "segnet": _crop_recipe(),
    "unet": _crop_recipe(),
    "unet-without-skips": _crop_recipe(),
    "unet-blurred": _crop_recipe(),
    "unet-weighted": _crop_recipe(pictures=_with_border_weights, loss=weighted_cross_entropy),
    "transformer": _crop_recipe(steps=6000),
    "transformer-in-windows": _crop_recipe(steps=6000),
    # All four alike: so many steps, batch normalisation, crops turned, flipped and bent.
    "real-patch-65": _patch_recipe(65, **REAL),
    **dict.fromkeys(["real-fcn-8s", "real-deconvnet", "real-unet"], _crop_recipe(**REAL)),
    "real-unet-longer": _crop_recipe(**REAL | {"steps": 10_000, "learning_rate": 1e-2}),
    "real-affinities": _crop_recipe(
        **REAL | {"pictures": lambda: affinities.with_cells(_real_slices())}, loss=affinities.loss
    ),
    "dtn": Recipe(trial.SETS["lens"], slower={"localisation": 0.1}),  # what `experiments.trial` chose
    "dtn-rival": Recipe(trial.SETS["lens"]),
}
# The networks of chapters 5c, 6b (the trial's first pair on pictures through lenses), 7e and 8c. The weights
# of the last two are not in data/weights, for want of room: make them.
NETWORKS = SHIPPED | {
    "unet-blurred": lambda: blurred(UNet()),
    "dtn": trial.NETWORKS["DTN"],
    "dtn-rival": trial.NETWORKS["U-Net"],
    "real-affinities": affinities.network,
    "transformer": Transformer,
    "transformer-in-windows": in_windows,
    "unet-weighted": UNet,
    "real-deconvnet": partial(DeconvNet, classes=2),
}


def recipe_of(name):
    if name not in RECIPES:
        raise ValueError(f"there is no network called {name!r}; choose one of {', '.join(RECIPES)}.")
    return RECIPES[name]


def train_and_store(name, seed=0):
    """Train the network called name by its recipe, and store its weights in data/weights.

    They are stored in half precision, three digits of each weight; classes change at hardly one pixel in a
    thousand, which a test checks.
    """
    recipe, path = recipe_of(name), weights_file(name, seed)
    torch.manual_seed(seed)
    network = NETWORKS[name]()
    learner = recipe.form(network)
    path.parent.mkdir(exist_ok=True)
    draw, checkpoint = recipe.draw(recipe.pictures()), path.with_suffix(".checkpoint")
    options = {"seed": seed, "loss": recipe.loss, "checkpoint": checkpoint, "slower": recipe.slower}
    train(learner, draw, recipe.steps, recipe.learning_rate, **options)
    if learner is not network:
        learned = zip(network.state_dict().items(), learner.state_dict().values(), strict=True)
        network.load_state_dict({name: tensor.reshape(old.shape) for (name, old), tensor in learned})
    write_weights(path, network.half().state_dict(), {"command": command(name, seed)})


def main():
    parser = argparse.ArgumentParser(description="Train networks of the series and store their weights.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(RECIPES)}")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name in arguments.names:
        recipe_of(name)  # an error before any work
    for name in arguments.names:
        train_and_store(name, arguments.seed)
    if not arguments.names:
        print(*RECIPES, sep="\n")


if __name__ == "__main__":
    main()
