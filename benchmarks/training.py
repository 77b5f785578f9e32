"""Equal wall-clock: the series' own U-Net recipe against segmentation-models-pytorch's Unet, plainly trained.

Both train for the same number of seconds on the same pictures, on all cores, from random weights. Ours is the
recipe that made the weights in data/weights (`unet`, `real-unet`), with as many steps as fit. The peer is
`smp.Unet("resnet18", encoder_weights=None)` with what its users usually write: Adam at 1e-3 throughout,
random crops of 128 x 128, flips and turns, cross-entropy. Both are judged on pictures that they never saw,
plainly and as chapter 8 does it, averaged over turns and flips.

python benchmarks/training.py             60 s and 300 s each: half an hour in all with the real slices
python benchmarks/training.py 20          other budgets, in seconds
"""

import contextlib
import io
import sys
import time
from functools import partial

import torch
from torch.nn import functional as F

from experiments.comparison import Turned
from experiments.recipes import NETWORKS, RECIPES
from utils.data import isbi2012, isbi2012_folder, micrographs
from utils.metrics import mean_iou, pixel_accuracy
from utils.networks import labels_of
from utils.training import best_device, train
from utils.windows import random_crops


def ours(name, pictures, budget):
    """A network after as many steps of its recipe as fit into a budget, judged from a few; steps; seconds."""
    with contextlib.redirect_stdout(io.StringIO()):  # progress bars
        make, recipe = NETWORKS[name], RECIPES[name]
        rate, draw = recipe.learning_rate, recipe.draw(pictures)
        rehearse = partial(train, draw=draw, learning_rate=rate, loss=recipe.loss)
        rehearse(make(), steps=3)  # what is slow only the first time
        times = []
        for _ in range(3):  # the fastest: what else runs on the machine only slows
            begin = time.perf_counter()
            rehearse(make(), steps=20)
            times.append((time.perf_counter() - begin) / 20)
        steps = int(budget / min(times))
        torch.manual_seed(0)
        network = make()
        begin = time.perf_counter()
        rehearse(network, steps=steps)
    return network, steps, time.perf_counter() - begin


def theirs(network, pictures, budget):
    """A constant learning rate, until the time is up."""
    device = best_device()
    network.train().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    draw, random = random_crops(pictures, 128), torch.Generator().manual_seed(0)
    begin, step = time.perf_counter(), 0
    while time.perf_counter() - begin < budget:
        images, labels = (tensor.to(device) for tensor in draw(random))
        network.zero_grad()
        F.cross_entropy(network(images.contiguous(memory_format=torch.channels_last)), labels).backward()
        optimizer.step()
        step += 1
    return network.to("cpu").eval(), step, time.perf_counter() - begin


def judge(network, test):
    found = labels_of(network, test.images)
    classes = len(test.classes)
    return mean_iou(found, test.labels, classes), 1 - pixel_accuracy(found, test.labels, classes)


def main():
    budgets = [int(each) for each in sys.argv[1:]] or [60, 300]
    data = {"micrographs": ("unet", micrographs("train"), micrographs("test"))}
    if folder := isbi2012_folder():
        data["real slices"] = ("real-unet", isbi2012(folder, "train"), isbi2012(folder, "test"))
    try:
        import segmentation_models_pytorch as smp
    except ModuleNotFoundError:
        smp = None
        print("segmentation-models-pytorch is not installed: its rows are missing.\n")
    print("| pictures | network | seconds | steps | mean IoU | pixel error |")
    print("| --- | --- | --- | --- | --- | --- |")
    for budget in budgets:
        for pictures, (name, train_set, test) in data.items():
            rows = {"ours": ours(name, train_set, budget)}
            if smp:
                torch.manual_seed(0)
                peer = smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=len(test.classes))
                rows[f"smp.Unet {smp.__version__}"] = theirs(peer, train_set, rows["ours"][2])
            for who, (network, steps, seconds) in rows.items():
                for what, asked in {who: network, f"{who}, turned": Turned(network)}.items():
                    iou, error = judge(asked, test)
                    cells = pictures, what, f"{seconds:.0f}", steps, f"{iou:.3f}", f"{error:.1%}"
                    print("|", " | ".join(map(str, cells)), "|", flush=True)


if __name__ == "__main__":
    main()
