"""What sorts the networks? Trainings in which one thing differs, and everything else is equal.

python -m experiments.factors          does what is missing in data/factors.json
python -m experiments.factors field    one of the three questions

norm      each network of chapter 5b with and without batch normalisation
field     eight layers with as many weights and products, of which only the holes differ: so does the field
decoder   U-Net's way down; then, with and without its skips, through fewer and fewer channels for each
          position of the coarsest map, and at last with fixed bilinear enlarging instead of a learned way up

Where an arm is one of the networks of data/weights, which were trained alike, that one is measured.
"""

import sys
from functools import partial

import torch
from torch import nn

from experiments.results import once, stored
from utils.data import DATA, micrographs
from utils.metrics import confusion, iou_per_class
from utils.networks import FCN, DeconvNet, UNet, for_whole_images, he_initialise, labels_of, trained
from utils.training import train
from utils.windows import random_crops

RESULTS = DATA / "factors.json"
STEPS = 1500
SEEDS = 0, 1

# Holes between the taps of eight 3 x 3 convolutions, as in Yu and Koltun, "Multi-scale context aggregation by
# dilated convolutions", ICLR 2016. The side of the field is 1 and twice their sum.
HOLES = {
    17: (1, 1, 1, 1, 1, 1, 1, 1),
    33: (1, 1, 2, 4, 4, 2, 1, 1),
    65: (1, 2, 4, 8, 8, 4, 4, 1),
    97: (1, 2, 4, 8, 16, 8, 8, 1),
    129: (1, 2, 4, 8, 16, 16, 16, 1),
}


def with_field(side, width=16, classes=3):
    """Unpadded: (N, 1, H, W) -> scores (N, classes, H - side + 1, W - side + 1)."""
    layers, before = [], 1
    for hole in HOLES[side]:
        layers += [nn.Conv2d(before, width, 3, dilation=hole), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        before = width
    return he_initialised(nn.Sequential(*layers, nn.Conv2d(width, classes, 1)))


def through(channels):
    """A U-Net without skips, whose way up starts from so many numbers for each position."""
    network = UNet(skips=False)
    deepest = network.up[0].in_channels
    narrow = nn.Sequential(nn.Conv2d(deepest, channels, 1), nn.Conv2d(channels, deepest, 1))
    network.down[-1].append(he_initialised(narrow))
    return network


def enlarged():
    """U-Net's way down, scores of its coarsest map, and those enlarged bilinearly."""
    down = UNet().down
    layers = [down[0]]
    for stage in down[1:]:
        layers += [nn.MaxPool2d(2), stage]
    scores = he_initialised(nn.Conv2d(64, 3, 1))
    return nn.Sequential(*layers, scores, nn.Upsample(scale_factor=8, mode="bilinear"))


def he_initialised(network):
    he_initialise(network)
    return network


def crops(pictures):
    return random_crops(pictures, 128)


def crops_with_surroundings(side, pictures):
    return random_crops(pictures, 64, batch=4, margin=side // 2)


def learned(make, draw=crops):
    """A function of a seed: one network, trained as those of chapter 5b are, but for what `make` changes."""

    def train_one(seed):
        torch.manual_seed(seed)
        network = make()
        train(network, draw(micrographs("train")), STEPS, seed=seed)
        return network

    return train_one


def shipped(name):
    """A function of a seed: a network of data/weights, which was trained alike."""
    return partial(trained, name)


# question -> what differs -> a network for every seed
QUESTIONS = {
    "norm": {
        "FCN-8s, without": shipped("fcn-8s"),
        "FCN-8s, with": learned(partial(FCN, batch_norm=True)),
        "DeconvNet, without": learned(partial(DeconvNet, batch_norm=False)),
        "DeconvNet, with": shipped("deconvnet"),
        "DeconvNet without its code, without": learned(partial(DeconvNet, code=None, batch_norm=False)),
        "DeconvNet without its code, with": shipped("segnet"),
        "U-Net without skips, without": shipped("unet-without-skips"),
        "U-Net without skips, with": learned(partial(UNet, skips=False, batch_norm=True)),
        "U-Net, without": shipped("unet"),
        "U-Net, with": learned(partial(UNet, batch_norm=True)),
    },
    "field": {
        f"{side} pixels": learned(partial(with_field, side), partial(crops_with_surroundings, side))
        for side in HOLES
    },
    "decoder": {
        "scores, enlarged": learned(enlarged),
        "3 channels, learned way up": learned(partial(through, 3)),
        "8 channels, learned way up": learned(partial(through, 8)),
        "64 channels, learned way up": shipped("unet-without-skips"),
        "64 channels and skips": shipped("unet"),
    },
}


def measured(network):
    """IoU of each class on the test pictures."""
    whole, test = for_whole_images(network), micrographs("test")
    lost = 256 - labels_of(whole, test.images[:1]).shape[-1]  # an unpadded network needs a mirrored border
    whole = nn.Sequential(nn.ReflectionPad2d(lost // 2), whole)
    return iou_per_class(confusion(labels_of(whole, test.images), test.labels, len(test.classes))).tolist()


def results(question):
    """What was measured: name -> (seeds, classes)."""
    found, names = stored(RESULTS), QUESTIONS[question]
    if any(f"{question}: {name}, seed {seed}" not in found for name in names for seed in SEEDS):
        raise FileNotFoundError(f"{RESULTS} is not complete; go on with `python -m experiments.factors`.")
    return {
        name: torch.tensor([found[f"{question}: {name}, seed {seed}"] for seed in SEEDS]) for name in names
    }


def main():
    for seed in SEEDS:
        for question in sys.argv[1:] or QUESTIONS:
            for name, arm in QUESTIONS[question].items():
                once(
                    RESULTS,
                    f"{question}: {name}, seed {seed}",
                    lambda arm=arm, seed=seed: measured(arm(seed)),
                )
    for question in sys.argv[1:] or QUESTIONS:
        for name, classes in results(question).items():
            print(f"{question}: {name}: mean IoU", *(f"{each:.3f}" for each in classes.mean(dim=1)))


if __name__ == "__main__":
    main()
