"""The one training loop of the series, and the weights that come with it.

python -m utils.training                   lists the networks
python -m utils.training unet              makes one of them again
python -m utils.training unet --seed 1     from another start and with other batches
"""

import argparse
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from scipy import ndimage
from torch import nn
from torch.nn import functional as F

from utils import give_back, progress
from utils.data import DATA, Pictures, isbi2012, isbi2012_folder, micrographs, sixteen_and_four
from utils.models import FCN, DeconvNet, DenseTransformerNet, PatchNet, UNet, a_trous
from utils.patches import random_crops
from utils.warp import through_lenses

WEIGHTS = DATA / "weights"
SAVE_EVERY = 100  # steps between two checkpoints


def train(network, draw, steps, learning_rate=3e-3, seed=0, loss=F.cross_entropy, checkpoint=None):
    """Train a network in place with Adam; the same seed on the same machine gives the same weights.

    The learning rate rises for a tenth of the steps, then falls to zero along half a cosine.

    Args:
        network: any module. It learns on a GPU where there is one, and comes back on the CPU in eval mode.
        draw: function of a torch.Generator that gives a batch: inputs (N, C, H, W) and targets, of any shape
            that loss takes. See `utils.patches.random_patches` and `random_crops`.
        steps: number of batches.
        learning_rate: the highest one.
        seed: decides every batch. (The first weights are decided before, where the network is made.)
        loss: function of scores and targets that gives one number.
        checkpoint: path. Where it holds an interrupted run of the same kind, that run goes on; otherwise a
            new one starts. It is replaced as a whole every 100 steps, and removed at the end.

    Returns:
        list of float, the loss of every step of this call.
    """
    device = best_device()
    network.to(device, memory_format=torch.channels_last).train()
    optimizer = Adam(network.parameters())
    kind = {"network": str(network), "steps": steps, "learning_rate": learning_rate, "seed": seed}
    run = json.dumps(kind | {"loss": getattr(loss, "__name__", str(loss))})
    start = _resume(checkpoint, run, network, optimizer) if checkpoint else 0
    random, losses = torch.Generator(), []
    with progress(initial=start, total=steps, unit="step", desc="training") as bar:
        for step in range(start, steps):
            random.manual_seed(seed * 1_000_003 + step)  # a resumed run draws the same
            inputs, targets = (tensor.to(device) for tensor in draw(random))
            error = loss(network(inputs.contiguous(memory_format=torch.channels_last)), targets)
            network.zero_grad()
            error.backward()
            optimizer.step(step + 1, learning_rate * one_cycle(step / steps))
            losses.append(error.detach())
            bar.update()
            if step % 4 == 0:
                give_back()
            if checkpoint and (step + 1) % SAVE_EVERY == 0:
                _write(checkpoint, _state(network, optimizer), {"run": run, "step": str(step + 1)})
    network.to("cpu").eval()
    if checkpoint:
        Path(checkpoint).unlink(missing_ok=True)
    return [float(error) for error in losses]


class Adam:
    """Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.

    Written out because torch.optim loads PyTorch's compiler: 140 MB, much for a small machine.
    """

    def __init__(self, weights):
        self.weights = [weight for weight in weights if weight.requires_grad]
        self.means = [torch.zeros_like(weight) for weight in self.weights]
        self.squares = [torch.zeros_like(weight) for weight in self.weights]

    @torch.no_grad()
    def step(self, number, learning_rate):
        """Move the weights against their gradients; number counts the steps from 1."""
        for weight, mean, square in zip(self.weights, self.means, self.squares, strict=True):
            mean.lerp_(weight.grad, 1 - 0.9)
            square.lerp_(weight.grad.square(), 1 - 0.999)
            size = (square / (1 - 0.999**number)).sqrt() + 1e-8
            weight -= learning_rate / (1 - 0.9**number) * mean / size


def best_device():
    """A CUDA or Apple GPU where there is one, else the CPU, which is always enough here."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def one_cycle(done, warm_up=0.1):
    """Share of the highest learning rate when a share `done` of the training is over, both from 0 to 1."""
    if done < warm_up:
        return 0.05 + 0.95 * done / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * (done - warm_up) / (1 - warm_up))


class Recipe(NamedTuple):
    """How a network of the series was trained: everything but the seed."""

    network: Callable[[], nn.Module]
    draw: Callable[[Pictures], Callable]
    steps: int = 1500
    form: Callable[[nn.Module], nn.Module] = lambda network: network  # what it is turned into to be trained
    pictures: Callable[[], Pictures] = lambda: micrographs("train")
    loss: Callable = F.cross_entropy
    learning_rate: float = 3e-3


def _patch_recipe(window, classes=3, **others):
    # Trained in its dense form, on all windows of a crop at once; chapter 3 shows that this is the same.
    return Recipe(
        network=lambda: PatchNet(window, classes),
        draw=lambda pictures: random_crops(pictures, 64, batch=4, margin=window // 2),
        form=a_trous,
        **others,
    )


def _crop_recipe(network, bend=0, **others):
    return Recipe(network, lambda pictures: random_crops(pictures, 128, bend=bend), **others)


def _real_slices():
    folder = isbi2012_folder()
    if folder is None:
        raise FileNotFoundError(
            "the real micrographs are not here; fetch them with utils.data.isbi2012('data/isbi2012', "
            "download=True), or name their folder in the environment variable ISBI2012_DIR."
        )
    return sixteen_and_four(isbi2012(folder))[0]


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


RECIPES = {
    **{f"patch-{window}": _patch_recipe(window) for window in (5, 9, 17, 33, 65)},
    **{f"fcn-{stride}s": _crop_recipe(partial(FCN, stride)) for stride in (32, 16, 8)},
    "deconvnet": _crop_recipe(DeconvNet),
    "segnet": _crop_recipe(partial(DeconvNet, code=None)),
    "unet": _crop_recipe(UNet),
    "unet-without-skips": _crop_recipe(partial(UNet, skips=False)),
    "unet-weighted": _crop_recipe(UNet, pictures=_with_border_weights, loss=weighted_cross_entropy),
    "real-patch-65": _patch_recipe(65, classes=2, steps=3000, pictures=_real_slices),
    "real-fcn-8s": _crop_recipe(partial(FCN, classes=2), bend=4, pictures=_real_slices),
    "real-deconvnet": _crop_recipe(partial(DeconvNet, classes=2), bend=4, pictures=_real_slices),
    "real-unet": _crop_recipe(
        partial(UNet, classes=2, batch_norm=True),
        bend=4,
        pictures=_real_slices,
        steps=10_000,
        learning_rate=1e-2,
    ),
    "dtn": Recipe(DenseTransformerNet, lambda pictures: through_lenses(random_crops(pictures, 256, batch=2))),
}


def trained(name, seed=0):
    """A network with the weights that come with the series, in eval mode.

    Args:
        name: one of RECIPES, such as "patch-65".
        seed: of the training; the networks that the series compares come with the seeds 0, 1 and 2.

    Raises:
        ValueError: there is no such network.
        FileNotFoundError: its weights are missing.
    """
    network, path = _recipe(name).network(), _weights(name, seed)
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; make it with `{_command(name, seed)}`.")
    network.load_state_dict(load_file(path))
    return network.eval()


def train_and_store(name, seed=0):
    """Train the network called name by its recipe, and store its weights in data/weights.

    They are stored in half precision, three digits of each weight; classes change at hardly one pixel in a
    thousand, which a test asserts.
    """
    recipe, path = _recipe(name), _weights(name, seed)
    torch.manual_seed(seed)
    network = recipe.network()
    learner = recipe.form(network)
    WEIGHTS.mkdir(exist_ok=True)
    draw, checkpoint = recipe.draw(recipe.pictures()), path.with_suffix(".checkpoint")
    rate = recipe.learning_rate
    train(learner, draw, recipe.steps, rate, seed=seed, loss=recipe.loss, checkpoint=checkpoint)
    if learner is not network:
        for weight, learned in zip(network.parameters(), learner.parameters(), strict=True):
            weight.data = learned.data.reshape(weight.shape)
    _write(path, network.half().state_dict(), {"command": _command(name, seed)})


def _weights(name, seed):
    return WEIGHTS / f"{name}{f'-seed-{seed}' if seed else ''}.safetensors"


def _command(name, seed):
    return f"python -m utils.training {name}{f' --seed {seed}' if seed else ''}"


def _recipe(name):
    if name not in RECIPES:
        raise ValueError(f"there is no network called {name!r}; choose one of {', '.join(RECIPES)}.")
    return RECIPES[name]


def _write(path, tensors, metadata):
    """Write a safetensors file whole or not at all: under another name first, then renamed."""
    part = Path(f"{path}.part")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, metadata)
    part.replace(path)


def _state(network, optimizer):
    """Everything that changes during training, by name: the tensors themselves, not copies."""
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for kind, tensors in (("mean", optimizer.means), ("square", optimizer.squares)):
        state |= {f"{kind}.{number}": tensor for number, tensor in enumerate(tensors)}
    return state


def _resume(path, run, network, optimizer):
    """Load the checkpoint at path if it is of the same run; return the step to go on from, else 0."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        tensors = load_file(path)
    except (FileNotFoundError, SafetensorError):
        return 0
    if metadata["run"] != run:
        return 0
    for name, tensor in _state(network, optimizer).items():
        tensor.copy_(tensors[name])
    return int(metadata["step"])


def main():
    parser = argparse.ArgumentParser(description="Train networks of the series and store their weights.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(RECIPES)}")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name in arguments.names:
        _recipe(name)  # an error before any work
    for name in arguments.names:
        train_and_store(name, arguments.seed)
    if not arguments.names:
        print(*RECIPES, sep="\n")


if __name__ == "__main__":
    main()
