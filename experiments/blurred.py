"""Pooling that blurs before it leaves pixels out: chapter 5c."""

import torch
from torch import nn
from torch.nn import functional as F


class BlurredPool(nn.Module):
    """Max pooling at every pixel, then a blur, of which every second pixel is kept.

    Zhang, "Making convolutional networks shift-invariant again", ICML 2019, with the kernel
    (1, 2, 1) along both axes. (N, C, H, W) -> (N, C, H/2, W/2), for an even H and W.
    """

    def __init__(self):
        super().__init__()
        tent = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("kernel", torch.outer(tent, tent)[None, None], persistent=False)

    def forward(self, maps):
        channels = maps.shape[1]
        largest = F.max_pool2d(F.pad(maps, (0, 1, 0, 1)), 2, stride=1)
        return F.conv2d(
            largest, self.kernel.expand(channels, -1, -1, -1), stride=2, padding=1, groups=channels
        )


def blurred(network):
    """The network itself, every max pooling of 2 x 2 replaced by a `BlurredPool`.

    Raises ValueError where a pooling also gives its switches, for an unpooling that needs them.
    """
    for part in list(network.modules()):
        for name, layer in part.named_children():
            if isinstance(layer, nn.MaxPool2d):
                if layer.return_indices:
                    raise ValueError(
                        f"layer {name!r} gives its switches, which a blur has not; take a U-Net."
                    )
                setattr(part, name, BlurredPool())
    return network
