"""Pooling that blurs before it leaves pixels out: chapter 5c."""

import torch
from torch import nn
from torch.nn import functional as F


class BlurredPool(nn.Module):
    """Max pooling at every pixel, then a blur, of which every second pixel is kept.

    Zhang, "Making convolutional networks shift-invariant again", ICML 2019, with the kernel
    (1, 2, 1) along both axes. (N, C, H, W) -> (N, C, H/2, W/2), for an even H and W. Beyond the border all is
    zero, so maps should not be negative, as behind a ReLU.
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

    Raises ValueError where a max pooling has another size, stride or holes, or also gives its switches.
    """
    pools = [
        (part, name, layer)
        for part in network.modules()
        for name, layer in part.named_children()
        if isinstance(layer, nn.MaxPool2d)
    ]
    for _, name, layer in pools:
        if (layer.kernel_size, layer.stride, layer.dilation) != (2, 2, 1) or layer.return_indices:
            raise ValueError(f"layer {name!r} is {layer}, expected 2 x 2 without switches; take a U-Net.")
    for part, name, _ in pools:
        setattr(part, name, BlurredPool())
    return network
