"""Networks and pictures that the tests of the instrument share: plain, small, and of the tests' own."""

import math
from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F


def he_initialise(network):
    """Random weights with which signals keep their size through ReLUs; fixed kernels stay."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.ConvTranspose2d) and layer.weight.requires_grad:
            inputs = layer.in_channels * layer.weight[0, 0].numel() / math.prod(layer.stride)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / inputs))
            nn.init.zeros_(layer.bias)


def double(make, *args, **options):
    """A network in double precision and eval mode, always with the same weights."""
    torch.manual_seed(0)
    return make(*args, **options).double().eval()


def picture(height, width):
    """Noise on every scale, so that every level of a network has something to say."""
    random = torch.Generator().manual_seed(1)
    noise = [torch.randn(1, 1, 12, 12, dtype=torch.float64, generator=random)]
    noise.append(torch.randn(1, 1, height, width, dtype=torch.float64, generator=random))
    return sum(F.interpolate(each, (height, width), mode="bilinear") for each in noise)


def torchvision_models():
    """The networks that people use, where they are installed."""
    return pytest.importorskip(
        "torchvision.models", reason="torchvision, whose networks are asked about, is not here"
    )


# --- what each paper is about ------------------------------------------------------------------------------


def conv(i, o, k=3, p=1, **options):
    return nn.Conv2d(i, o, k, padding=p, **options)


def block(before, after, padding=1):
    """Two 3 x 3 convolutions, each with its norm."""
    layers = []
    for depth in (before, after):
        layers += [conv(depth, after, p=padding), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def even(maps):
    """The same maps, if 2 x 2 pooling drops no row of them."""
    if maps.shape[-2] % 2 or maps.shape[-1] % 2:
        raise ValueError(f"a map of {maps.shape[-2]} x {maps.shape[-1]} cannot be halved")
    return maps


class UNet(nn.Module):
    """The U-Net of Ronneberger et al.; with a padding of 0 as in the paper, where skips are cropped."""

    def __init__(self, depth=4, padding=1, width=2, classes=2, skips=True):
        super().__init__()
        self.down = nn.ModuleList(
            [block(width if level else 1, width, padding) for level in range(depth + 1)]
        )
        self.up = nn.ModuleList([nn.ConvTranspose2d(width, width, 2, 2) for _ in range(depth)])
        self.back = nn.ModuleList([block(2 * width if skips else width, width, padding) for _ in self.up])
        self.pool, self.head, self.skips = nn.MaxPool2d(2), conv(width, classes, 1, 0), skips
        he_initialise(self)

    def forward(self, x):
        seen = []
        for stage in self.down[:-1]:
            seen.append(stage(x))
            x = self.pool(even(seen[-1]))
        x = self.down[-1](x)
        for up, stage in zip(self.up, self.back, strict=True):
            x, skip = up(x), seen.pop()
            top, left = (skip.shape[2] - x.shape[2]) // 2, (skip.shape[3] - x.shape[3]) // 2
            skip = skip[:, :, top : top + x.shape[2], left : left + x.shape[3]]
            x = stage(torch.cat([skip, x], 1) if self.skips else x)
        return self.head(x)


class TinyUNet(nn.Module):
    """Four levels, zero padding, one convolution each; `deep` sits at the bottom, `up` enlarges."""

    def __init__(self, deep=None, up=None, width=4, classes=3):
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(conv(1 if level == 0 else width, width), nn.ReLU()) for level in range(5)
        )
        self.deep = deep or nn.Identity()
        self.ups = nn.ModuleList(up or nn.ConvTranspose2d(width, width, 2, stride=2) for _ in range(4))
        self.joins = nn.ModuleList(nn.Sequential(conv(2 * width, width), nn.ReLU()) for _ in range(4))
        self.head = nn.Conv2d(width, classes, 1)
        he_initialise(self)

    def forward(self, image):
        skips = []
        for stage in self.down:
            image = stage(image if not skips else F.max_pool2d(image, 2))
            skips.append(image)
        image = self.deep(skips.pop())
        for up, join in zip(self.ups, self.joins, strict=True):
            image = join(torch.cat([up(image), skips.pop()], 1))
        return self.head(image)


class FCN(nn.Module):
    """The FCN-32s, FCN-16s or FCN-8s of Long et al., each layer padded by one pixel."""

    def __init__(self, stride, width=2, classes=3):
        super().__init__()
        self.stages = nn.ModuleList(block(before, width) for before in (1, *4 * [width]))
        self.scored = {32: [4], 16: [4, 3], 8: [4, 3, 2]}[stride]  # coarsest first
        self.scores = nn.ModuleList(conv(width, classes, 1, 0) for _ in self.scored)
        self.twice, self.restore = tent(classes, 2), tent(classes, stride)
        he_initialise(self)

    def forward(self, image):
        maps = []
        for stage in self.stages:
            image = F.max_pool2d(even(stage(image)), 2)
            maps.append(image)
        finer = [score(maps[level]) for level, score in zip(self.scored, self.scores, strict=True)]
        total = finer[0]
        for each in finer[1:]:
            total = self.twice(total) + each
        return self.restore(total)


def tent(channels, factor):
    """Bilinear enlargement as a transposed convolution that does not learn."""
    layer = nn.ConvTranspose2d(
        channels, channels, 2 * factor, factor, factor // 2, groups=channels, bias=False
    )
    slope = 1 - (torch.arange(2 * factor) - factor + 0.5).abs() / factor
    layer.weight = nn.Parameter(torch.outer(slope, slope).repeat(channels, 1, 1, 1), requires_grad=False)
    return layer


class DeconvNet(nn.Module):
    """The DeconvNet of Noh et al. for crops of one side; without a side, and so without a code, SegNet."""

    def __init__(self, side=None, width=2, classes=3):
        super().__init__()
        self.side, self.code = side, nn.Sequential()
        self.down = nn.ModuleList(block(before, width) for before in (1, *4 * [width]))
        if side:
            left = side // 32
            self.code = nn.Sequential(nn.Conv2d(width, width, left), nn.ConvTranspose2d(width, width, left))
        self.up = nn.ModuleList(block(width, width) for _ in range(5))
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.scores = conv(width, classes, 1, 0)
        he_initialise(self)

    def forward(self, image):
        if self.side and image.shape[-2:] != (self.side, self.side):
            raise ValueError(f"the code is made of {self.side} x {self.side} pixels")
        switches = []
        for stage in self.down:
            image, indices = self.pool(even(stage(image)))
            switches.append(indices)
        image = self.code(image)
        for stage in self.up:
            image = stage(self.unpool(image, switches.pop()))
        return self.scores(image)


class PatchNet(nn.Module):
    """The patch classifier of Ciresan et al. for windows of 17 x 17: scores (N, 3) of the middle pixel."""

    def __init__(self, width=4, hidden=8):
        super().__init__()
        layers = []
        for depths in pairwise([1, width, width]):
            layers += [nn.Conv2d(*depths, 4), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(4 * width, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, 3)
        )
        he_initialise(self)

    def forward(self, patches):
        if patches.shape[-2:] != (17, 17):
            raise ValueError("the patches are not 17 x 17")
        return self.classifier(self.features(patches))


def convolutional(patch_net):
    """The same weights for images of any size: every fully connected layer becomes a convolution."""
    _, first, relu, last = patch_net.classifier
    layers = [nn.Conv2d(first.in_features // 4, first.out_features, 2), relu]
    layers.append(nn.Conv2d(last.in_features, last.out_features, 1))
    for layer, linear in ((layers[0], first), (layers[2], last)):
        layer.weight.data = linear.weight.data.view_as(layer.weight)
        layer.bias.data = linear.bias.data
    return nn.Sequential(*deepcopy(patch_net.features), *layers)


def a_trous(patch_net):
    """The same weights with a score for every window: strides become holes."""
    network, dilation = convolutional(patch_net), 1
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            layer.dilation = (dilation, dilation)
        elif isinstance(layer, nn.MaxPool2d):
            layer.stride, layer.dilation = 1, dilation
            dilation *= 2
    return network


# --- what lets a pixel see the whole image -----------------------------------------------------------------


class SqueezeExcite(nn.Sequential):
    def __init__(self, depth):
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Conv2d(depth, depth, 1), nn.Sigmoid())

    def forward(self, image):
        return image * super().forward(image)


class GlobalBranch(nn.Module):
    def forward(self, image):
        return image + F.adaptive_avg_pool2d(image, 1)


class SelfAttention(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.attention = nn.MultiheadAttention(depth, 1, batch_first=True)

    def forward(self, image):
        tokens = image.flatten(2).transpose(1, 2)
        mixed = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return image + mixed.transpose(1, 2).reshape(image.shape)


BREAKERS = {
    "instance norm": lambda: nn.InstanceNorm2d(4),
    "statistics of the batch": lambda: nn.BatchNorm2d(4).train(),
    "group norm": lambda: nn.GroupNorm(2, 4),
    "average pooling": GlobalBranch,
    "attention": lambda: SelfAttention(4),
    "pooling": lambda: SqueezeExcite(4),
}


def normalised(layer):
    """The tiny U-Net with a normalisation after every convolution; `layer` makes one for 16 channels."""
    unet = double(TinyUNet, width=16)
    for stage in [*unet.down, *unet.joins]:
        stage.insert(1, layer().double())
    return unet


# --- what else a network may do ----------------------------------------------------------------------------


class Changing(nn.Module):
    """Writes to its image and counts its calls."""

    def __init__(self):
        super().__init__()
        self.layer = conv(1, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, image):
        self.calls += 1
        image -= 0.5
        return self.layer(image)


class Flipped(nn.Module):
    """Turns the image over."""

    def __init__(self):
        super().__init__()
        self.unet = TinyUNet()

    def forward(self, image):
        return self.unet(image.flip(-2))


class Margin(nn.Module):
    """Has no answer near the border, so that a field lies beside its own pixel."""

    def __init__(self, edge):
        super().__init__()
        self.layer, self.edge = conv(1, 2), edge

    def forward(self, image):
        return self.layer(image)[..., self.edge : -self.edge, self.edge : -self.edge]
