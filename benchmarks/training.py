"""Equal seconds: two U-Nets and two recipes, each with each, so that it shows which of the two matters.

Networks  ours (`utils.networks.UNet`, as in data/weights), and segmentation-models-pytorch's `Unet` without
          pretrained weights, with the best of three light encoders, chosen on validation pictures
Recipes   ours (`experiments.recipes`: a rate that rises and falls), and what users of the library usually
          write: Adam at 1e-3 throughout, random crops of 128 x 128, flips and turns, cross-entropy

All train for the same number of seconds on the same pictures, from random weights, and are asked about test
pictures plainly. Encoders have at most a minute with each recipe to show what they can. Give it cores of its
own: what else runs on them takes steps away, and not from all alike.

python benchmarks/training.py               60 s, three seeds each: 45 minutes with the real slices
python benchmarks/training.py 300 1         300 s, one seed: an hour
"""

import contextlib
import io
import sys
import time
from functools import partial

import segmentation_models_pytorch as smp
import torch
from torch.nn import functional as F

from experiments.comparison import spread
from experiments.recipes import NETWORKS, RECIPES
from utils.data import isbi2012, isbi2012_folder, micrographs
from utils.metrics import mean_iou, pixel_accuracy
from utils.networks import labels_of
from utils.training import best_device, train
from utils.windows import random_crops

ENCODERS = "resnet18", "mobilenet_v2", "efficientnet-b0"


def with_our_recipe(make, recipe, pictures, budget, seed):
    """A network after as many steps of a recipe as fit into a budget of seconds, judged from a few."""
    rehearse = partial(
        train, draw=recipe.draw(pictures), learning_rate=recipe.learning_rate, loss=recipe.loss, seed=seed
    )
    rehearse(make(), steps=3)  # what is slow only the first time
    times = []
    for _ in range(3):  # the fastest: what else runs on the machine only slows
        begin = time.perf_counter()
        rehearse(make(), steps=20)
        times.append((time.perf_counter() - begin) / 20)
    torch.manual_seed(seed)
    network = make()
    rehearse(network, steps=int(budget / min(times)))
    return network


def as_usual(make, recipe, pictures, budget, seed):
    """A network after a budget of seconds with a constant learning rate; nothing of a recipe of ours."""
    torch.manual_seed(seed)
    network, device = make(), best_device()
    network.train().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    draw, random = random_crops(pictures, 128), torch.Generator().manual_seed(seed)
    begin = time.perf_counter()
    while time.perf_counter() - begin < budget:
        images, labels = (tensor.to(device) for tensor in draw(random))
        network.zero_grad()
        F.cross_entropy(network(images.contiguous(memory_format=torch.channels_last)), labels).backward()
        optimizer.step()
    return network.to("cpu").eval()


WAYS = {"ours": with_our_recipe, "as usual": as_usual}


def peer(encoder, classes):
    return smp.Unet(encoder, encoder_weights=None, in_channels=1, classes=classes)


def judged(network, pictures):
    """Mean IoU and pixel error in %."""
    found, classes = labels_of(network, pictures.images), len(pictures.classes)
    accuracy = pixel_accuracy(found, pictures.labels, classes)
    return mean_iou(found, pictures.labels, classes), 100 * (1 - accuracy)


def quietly(way, *arguments):
    with contextlib.redirect_stdout(io.StringIO()):  # progress bars
        return way(*arguments)


def best_encoder(recipe, train_set, validation, budget):
    """The encoder with the highest mean IoU on validation pictures, whichever the recipe."""
    quality = {}
    for encoder in ENCODERS:
        for way in WAYS.values():
            network = quietly(
                way, partial(peer, encoder, len(train_set.classes)), recipe, train_set, budget, 0
            )
            quality[encoder] = max(quality.get(encoder, 0), judged(network, validation)[0])
        print(f"with {encoder}: at best {quality[encoder]:.3f} on validation pictures", flush=True)
    return max(quality, key=quality.get)


def main():
    budget, seeds = map(int, sys.argv[1:]) if len(sys.argv) > 1 else (60, 3)
    data = {"micrographs": ("unet", micrographs)}
    if folder := isbi2012_folder():
        data["real slices"] = ("real-unet", partial(isbi2012, folder))
    for title, (name, pictures) in data.items():
        train_set, test, recipe = pictures("train"), pictures("test"), RECIPES[name]
        encoder = best_encoder(recipe, train_set, pictures("validation"), min(budget, 60))
        networks = {
            "ours": NETWORKS[name],
            f"smp.Unet {smp.__version__}, {encoder}": partial(peer, encoder, len(test.classes)),
        }
        print(f"\n{title}, {budget} s each\n")
        print("| network | recipe | mean IoU | pixel error, % |\n| --- | --- | --- | --- |")
        for network, make in networks.items():
            for recipe_name, way in WAYS.items():
                found = [
                    judged(quietly(way, make, recipe, train_set, budget, seed), test) for seed in range(seeds)
                ]
                iou, error = torch.tensor(found).T
                print(f"| {network} | {recipe_name} | {spread(iou)} | {spread(error)} |", flush=True)


if __name__ == "__main__":
    main()
