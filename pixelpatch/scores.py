"""The contract with a network: what it takes, what it gives, and what rounding costs.

A network takes one image (1, C, H, W) of floats and gives scores (1, classes, h, w), or labels (1, h, w),
or (1, classes) if it classifies the whole image. A dict that has them under "out" will do, and anything else
that holds a single tensor.
"""

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from inspect import signature

import torch
from torch import Tensor, nn
from torch.func import functional_call


def score_map(model: nn.Module, image: Tensor) -> Tensor:
    """The scores (1, classes, h, w) of an image (1, C, H, W); (1, classes, 1, 1) of one that classifies.

    Neither image nor model changes: a model may write to its image, and batch norm does to its buffers.

    >>> score_map(nn.Conv2d(1, 3, 5), torch.rand(1, 1, 32, 40)).shape
    torch.Size([1, 3, 28, 36])

    Raises:
        ValueError, TypeError: the scores have another shape, or are no tensor; image and model are on
            different devices.
    """
    _check_devices(model, image)
    check_forward(model)
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    scores = functional_call(model, buffers, (image.clone(),))
    scores = only_tensor(scores)
    scores = scores[..., None, None] if scores.ndim == 2 else scores
    scores = scores[:, None] if scores.ndim == 3 else scores
    if scores.ndim != 4 or len(scores) != 1:
        raise ValueError(
            f"the network's output has shape {tuple(scores.shape)}, expected (1, classes, h, w)."
        )
    return scores


def rounding(dtype: torch.dtype) -> float:
    """What rounding may cost a score, in standard deviations of all scores; generous, for deep networks."""
    return {torch.float64: 1e-9, torch.float32: 1e-3}.get(dtype, 0.1)


def check_image(model: nn.Module, image: Tensor) -> None:
    """Raise TypeError or ValueError unless `image` is one (1, C, H, W) of the model's type and device."""
    if not isinstance(image, torch.Tensor):
        raise TypeError(f"the image is a {type(image).__name__}, expected a tensor (1, C, H, W).")
    if image.ndim != 4 or len(image) != 1:
        raise ValueError(f"the image has shape {tuple(image.shape)}, expected (1, C, H, W); try image[None].")
    if not image.is_floating_point():
        raise ValueError(f"the image is {image.dtype}, expected floats; make it image.float() / 255.")
    kind = next((weight.dtype for weight in model.parameters()), image.dtype)
    if image.dtype != kind:
        raise ValueError(f"the image is {image.dtype}, the network {kind}; make it image.to({kind}).")
    _check_devices(model, image)


def _check_devices(model: nn.Module, image: Tensor) -> None:
    device = next((weight.device for weight in model.parameters()), image.device)
    if "meta" in (device.type, image.device.type):
        raise ValueError(
            f"the image is on {image.device}, the network on {device}: the meta device holds shapes and no "
            "values, so only receptive_field works there; load image and network to a device with memory."
        )
    if image.device != device:
        raise ValueError(
            f"the image is on {image.device}, the network on {device}; make it image.to({str(device)!r})."
        )


def check_forward(model: nn.Module) -> None:
    """Raise TypeError if the model's forward wants more, or less, than one image."""
    try:
        form = signature(model.forward)
        form.bind(None)
    except TypeError as error:
        raise TypeError(
            f"the model's forward is forward{form}, expected one that takes an image alone ({error}): wrap "
            "the model in a module that fills in the rest"
        ) from error
    except ValueError:  # compiled code may have no signature
        return


def only_tensor(out: object) -> Tensor:
    """What a model returned: a tensor, or that under "out" in a dict, or the only one in what it is.

    Raises TypeError where there is none, or more than one to choose from.
    """
    if isinstance(out, Tensor):
        return out
    if isinstance(out, dict) and isinstance(out.get("out"), Tensor):
        return out["out"]
    inside = [getattr(out, each.name) for each in fields(out)] if is_dataclass(out) else out
    inside = inside.values() if isinstance(inside, dict) else inside
    found = [each for each in inside if isinstance(each, Tensor)] if isinstance(inside, Iterable) else []
    if len(found) == 1:
        return found[0]
    keys = f" with {', '.join(map(repr, out))}" if isinstance(out, dict) else ""
    raise TypeError(
        f"the model returns a {type(out).__name__}{keys}, not one tensor or a dict with one under 'out': "
        "wrap the model in a module that returns the tensor you ask about"
    )
