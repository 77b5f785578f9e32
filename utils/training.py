"""The one training loop of the series: Adam, a rate that rises and falls, runs that can go on."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from utils import progress

SAVE_EVERY = 100  # steps between two checkpoints


def train(
    network, draw, steps, learning_rate=3e-3, seed=0, loss=F.cross_entropy, checkpoint=None, slower=None
):
    """Train a network in place with Adam; the same seed on the same machine gives the same weights.

    The learning rate rises for a tenth of the steps, then falls towards zero (`OneCycleLR`).

    Args:
        network: any module. It learns on a GPU where there is one, and comes back on the CPU in eval mode.
        draw: function of a torch.Generator that gives a batch: inputs (N, C, H, W) and targets, of any shape
            that loss takes. See `utils.windows.random_patches` and `random_crops`.
        steps: number of batches.
        learning_rate: the highest one.
        seed: decides every batch. (The first weights are decided before, where the network is made.)
        loss: function of scores and targets that gives one number.
        checkpoint: path. Where it holds an interrupted run of the same kind, that run goes on; otherwise a
            new one starts. It is replaced as a whole every 100 steps, and removed at the end.
        slower: name of a part of the network -> what its learning rate is multiplied with.

    Returns the loss of every step of this call, a list of floats.
    """
    device = best_device()
    network.to(device, memory_format=torch.channels_last).train()
    groups = _groups(network, learning_rate, slower or {})
    optimizer, rates = torch.optim.Adam([{"params": each} for each in groups.values()]), [*groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    kind = {"network": str(network), "steps": steps, "learning_rate": rates, "seed": seed}
    run = json.dumps(kind | {"loss": getattr(loss, "__name__", str(loss))})
    start = resume(checkpoint, run, network, optimizer, schedule) if checkpoint else 0
    random, losses = torch.Generator(), []
    with progress(initial=start, total=steps, unit="step", desc="training") as bar:
        for step in range(start, steps):
            random.manual_seed(seed * 1_000_003 + step)  # a resumed run draws the same
            inputs, targets = (tensor.to(device) for tensor in draw(random))
            error = loss(network(inputs.contiguous(memory_format=torch.channels_last)), targets)
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            schedule.step()
            losses.append(error.item())
            bar.update()
            if checkpoint and (step + 1) % SAVE_EVERY == 0:
                state = {"run": run, "schedule": json.dumps(schedule.state_dict())}
                write_weights(checkpoint, tensors_of(network, optimizer), state)
    network.to("cpu").eval()
    if checkpoint:
        Path(checkpoint).unlink(missing_ok=True)
    return losses


def _groups(network, learning_rate, slower):
    """Highest learning rate -> the parameters that learn at it."""
    groups = {}
    for name, weight in network.named_parameters():
        factor = next((each for part, each in slower.items() if name.startswith(f"{part}.")), 1)
        groups.setdefault(learning_rate * factor, []).append(weight)
    return groups


def best_device():
    """A CUDA or Apple GPU where there is one, else the CPU, which is always enough here."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def write_weights(path, tensors, metadata):
    """Write a safetensors file whole or not at all: under another name first, then renamed."""
    part = Path(f"{path}.part")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, metadata)
    part.replace(path)


def tensors_of(network, optimizer):
    """Everything that changes during training, by name: the tensors of the network and Adam's means."""
    found = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        found |= {f"adam.{number}.{name}": tensor for name, tensor in state.items()}
    return found


def resume(path, run, network, optimizer, schedule):
    """Load the checkpoint at path if it is of the same run; return the step to go on from, else 0."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        tensors = load_file(path)
    except (FileNotFoundError, SafetensorError):
        return 0
    if metadata["run"] != run:
        return 0
    states = {}
    for name, tensor in tensors.items():
        if name.startswith("adam."):
            _, number, kind = name.split(".")
            states.setdefault(int(number), {})[kind] = tensor
    network.load_state_dict({name[8:]: t for name, t in tensors.items() if name.startswith("network.")})
    schedule.load_state_dict(json.loads(metadata["schedule"]))
    groups = optimizer.state_dict()["param_groups"]
    for group, rate in zip(groups, schedule.get_last_lr(), strict=True):
        group["lr"] = rate
    optimizer.load_state_dict({"state": states, "param_groups": groups})
    return schedule.last_epoch
