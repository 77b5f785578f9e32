"""The one training loop of the series, and the weights that come with it.

python -m utils.training             lists the weights in data/weights
python -m utils.training patch-65    makes one of them again
"""

import json
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from utils import progress
from utils.data import DATA, Pictures, isbi2012, isbi2012_folder, micrographs, sixteen_and_four
from utils.models import FCN, DeconvNet, PatchNet, UNet, a_trous
from utils.patches import random_crops

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
    run = json.dumps({"network": str(network), "steps": steps, "learning_rate": learning_rate, "seed": seed})
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


def _patch_recipe(window, classes=3, **others):
    # Trained in its dense form, on all windows of a crop at once; chapter 3 shows that this is the same.
    return Recipe(
        network=lambda: PatchNet(window, classes),
        draw=lambda pictures: random_crops(pictures, 64, batch=4, margin=window // 2),
        form=a_trous,
        **others,
    )


def _crop_recipe(network):
    return Recipe(network=network, draw=lambda pictures: random_crops(pictures, 128))


def _real_slices():
    folder = isbi2012_folder()
    if folder is None:
        raise FileNotFoundError(
            "the real micrographs are not here; fetch them with utils.data.isbi2012('data/isbi2012', "
            "download=True), or name their folder in the environment variable ISBI2012_DIR."
        )
    return sixteen_and_four(isbi2012(folder))[0]


RECIPES = {
    **{f"patch-{window}": _patch_recipe(window) for window in (5, 9, 17, 33, 65)},
    **{f"fcn-{stride}s": _crop_recipe(partial(FCN, stride)) for stride in (32, 16, 8)},
    "deconvnet": _crop_recipe(DeconvNet),
    "segnet": _crop_recipe(partial(DeconvNet, code=None)),
    "unet": _crop_recipe(UNet),
    "unet-without-skips": _crop_recipe(partial(UNet, skips=False)),
    "real-patch-65": _patch_recipe(65, classes=2, steps=3000, pictures=_real_slices),
}


def trained(name):
    """A network with the weights that come with the series, in eval mode.

    Args:
        name: one of RECIPES, such as "patch-65".

    Raises:
        ValueError: there is no such network.
        FileNotFoundError: its weights are missing.
    """
    network, path = _recipe(name).network(), WEIGHTS / f"{name}.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; make it with `python -m utils.training {name}`.")
    network.load_state_dict(load_file(path))
    return network.eval()


def train_and_store(name):
    """Train the network called name by its recipe, and store its weights in data/weights."""
    recipe = _recipe(name)
    torch.manual_seed(0)
    network = recipe.network()
    learner = recipe.form(network)
    WEIGHTS.mkdir(exist_ok=True)
    train(learner, recipe.draw(recipe.pictures()), recipe.steps, checkpoint=WEIGHTS / f"{name}.checkpoint")
    if learner is not network:
        for weight, learned in zip(network.parameters(), learner.parameters(), strict=True):
            weight.data = learned.data.reshape(weight.shape)
    command = f"python -m utils.training {name}"
    _write(WEIGHTS / f"{name}.safetensors", network.state_dict(), {"command": command})


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


if __name__ == "__main__":
    for name in sys.argv[1:]:
        train_and_store(name)
    if not sys.argv[1:]:
        print(*RECIPES, sep="\n")
