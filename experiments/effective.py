"""Where networks look, before, during and after their training: chapter 5d.

python -m experiments.effective    trains three networks twice each, and measures on the way
"""

from copy import deepcopy
from itertools import count

import torch
from torch import nn

from experiments.comparison import PIXELS, effective_side
from experiments.recipes import NETWORKS as MAKE
from experiments.recipes import RECIPES
from experiments.results import once, stored
from pixelpatch import receptive_field
from pixelpatch.scores import score_map
from utils.data import DATA, micrographs
from utils.metrics import mean_iou
from utils.networks import labels_of
from utils.training import train

RESULTS = DATA / "effective.json"
NETWORKS = {"patch CNN": "patch-65", "FCN-8s": "fcn-8s", "U-Net": "unet"}
STEPS = 0, 25, 50, 100, 200, 400, 800, 1500


def side(network, images):
    """Mean side of the effective field, over sixteen pixels of each image (N, 1, 256, 256)."""
    field, found = receptive_field(network, (1, *images.shape[1:])), []
    for image in images:
        with torch.inference_mode():
            scores = score_map(network, image[None])
        found += [effective_side(network, field, scores, image[None], pixel) for pixel in PIXELS]
    return sum(found) / len(found)


def course(name, seed):
    """Step -> side of the effective field, and mean IoU, both on validation pictures."""
    recipe, pictures = RECIPES[name], micrographs("validation")
    torch.manual_seed(seed)
    learner = recipe.form(MAKE[name]())
    draw, numbers, found = recipe.draw(recipe.pictures()), count(), {}

    def look():
        network = deepcopy(learner).cpu().eval()
        if name.startswith("patch"):  # it learns without a border
            network = nn.Sequential(nn.ReflectionPad2d(65 // 2), network)
        quality = mean_iou(labels_of(network, pictures.images), pictures.labels, len(pictures.classes))
        return side(network, pictures.images[:2]), quality

    def draw_and_look(random):  # a batch is drawn before every step
        if (step := next(numbers)) in STEPS:
            found[step] = look()
        return draw(random)

    train(learner, draw_and_look, recipe.steps, recipe.learning_rate, seed, recipe.loss)
    return found | {recipe.steps: look()}


def courses(title):
    """What was measured: (seeds, steps, 2), side and mean IoU. Raises FileNotFoundError where nothing was."""
    found = stored(RESULTS)
    kept = [found[key] for key in found if key.startswith(f"{title}, seed")]
    if not kept:
        raise FileNotFoundError(f"{RESULTS} says nothing of {title}; run `python -m experiments.effective`.")
    return torch.tensor([[course[str(step)] for step in STEPS] for course in kept])


def main():
    for seed in (0, 1):
        for title, name in NETWORKS.items():
            once(RESULTS, f"{title}, seed {seed}", lambda name=name, seed=seed: course(name, seed))
    for title in NETWORKS:
        print(title, courses(title))


if __name__ == "__main__":
    main()
