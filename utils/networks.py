"""The networks of the series, each small enough to train on a laptop, each true to its paper's idea.

PatchNet    classifies the pixel in the middle of a window           (Ciresan et al., NIPS 2012)
FCN         labels a whole image at once, coarsely, then refines it  (Long, Shelhamer and Darrell, CVPR 2015)
DeconvNet   squeezes a crop into one code, and unfolds the code      (Noh, Hong and Han, ICCV 2015)
UNet        comes back up beside what it saw on the way down         (Ronneberger, Fischer, Brox, MICCAI 2015)

`convolutional` and `a_trous` give a PatchNet's weights to networks that take images of any size, and
`for_whole_images` makes any of them score every pixel.
Every network takes images (N, C, H, W) with values in [0, 1], of `channels` channels, and returns scores of
`classes` classes before the softmax. `trained` gives the weights that come with the series.
"""

import math
from copy import deepcopy
from functools import partial
from itertools import chain, pairwise

import torch
from safetensors.torch import load_file
from torch import nn

from utils.data import DATA


class PatchNet(nn.Module):
    """A classifier of windows: (N, channels, window, window) -> scores (N, classes) of the middle pixel.

    The layers follow network N4 of Ciresan et al., "Deep neural networks segment neuronal membranes in
    electron microscopy images", NIPS 2012: convolutions without padding, 4 x 4 where the map is odd and 5 x 5
    where it is even, so that 2 x 2 max pooling never drops a row; then two fully connected layers.
    `PatchNet(window=95, classes=2, width=48, hidden=200)` is N4 itself.

    Args:
        window: side of the window in pixels; odd, so that there is a middle pixel, and at least 5.
        width: channels of every convolution.
        hidden: units of the first fully connected layer.
        batch_norm: True normalises after every convolution, which N4 did not.

    Raises ValueError where the window is even or below 5.
    """

    def __init__(self, window=65, classes=3, width=16, hidden=64, channels=1, batch_norm=False):
        super().__init__()
        if window < 5 or window % 2 == 0:
            raise ValueError(
                f"window is {window}, expected an odd number from 5 up; try {window // 2 * 2 + 5}."
            )
        self.window = window
        layers, size, depth = [], window, channels
        while size > 4:
            kernel = 4 if size % 2 else 5
            layers += [*_layer(nn.Conv2d, depth, width, kernel, 0, batch_norm), nn.MaxPool2d(2)]
            size, depth = (size - kernel + 1) // 2, width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(width * size * size, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, classes),
        )
        he_initialise(self)

    def forward(self, patches):
        if patches.shape[-2:] != (self.window, self.window):
            raise ValueError(
                f"the patches are {_size(patches)}, expected {self.window} x {self.window}; cut "
                "them with utils.windows.sliding_window, or use utils.networks.a_trous for whole images."
            )
        return self.classifier(self.features(patches))


def convolutional(patch_net):
    """The same weights for images of any size: every fully connected layer becomes a convolution.

    The first of them gets a kernel as large as its map, the later ones 1 x 1 (Long et al. 2015, section 3.1).
    Weights are copied, in the same order. (N, C, H, W) -> scores (N, classes, h, w), one for every window
    whose top left corner lies at a multiple of the stride, which is 2 to the number of pooling layers.
    """
    layers = [*deepcopy(patch_net.features)]
    depth = patch_net.features[0].out_channels
    for layer in patch_net.classifier[1:]:
        if isinstance(layer, nn.Linear):
            side = math.isqrt(layer.in_features // depth)
            convolution = nn.Conv2d(depth, layer.out_features, side)
            convolution.weight.data = layer.weight.data.clone().view_as(convolution.weight)
            convolution.bias.data = layer.bias.data.clone()
            layer, depth = convolution, layer.out_features
        layers.append(layer)
    return nn.Sequential(*layers)


def a_trous(patch_net):
    """The same weights, with a score for every window: strides become holes ("a trous", dilation).

    Every pooling layer moves on by one pixel instead of two, and all that follows it reads only every second
    pixel of what it read before (Long et al. 2015, section 3.2, "filter rarefaction"). Weights are copied, in
    the same order. (N, C, H, W) -> scores (N, classes, H - window + 1, W - window + 1).
    """
    network, dilation = convolutional(patch_net), 1
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            layer.dilation = (dilation, dilation)
        elif isinstance(layer, nn.MaxPool2d):
            layer.stride, layer.dilation = 1, dilation
            dilation *= 2
    return network


class FCN(nn.Module):
    """A fully convolutional network with skips: (N, channels, H, W) -> scores (N, classes, H, W).

    Long, Shelhamer and Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015, in
    miniature: five stages that halve the image, a score of every class after the last, and bilinear
    transposed convolutions back to full size, on the way adding the scores of earlier, finer stages
    (section 4.2). Our stages are narrow, start from random weights and pad each layer by one pixel.

    Args:
        stride: 32, 16 or 8, for FCN-32s, FCN-16s or FCN-8s: the stride of the finest stage that is scored.
        width: channels of the first stage; the next ones have 2, 4, 8 and 8 times as many.
        batch_norm: True normalises after every 3 x 3 convolution, which the paper did not.

    Raises ValueError where the stride is none of the three, or the image's height or width is no multiple
    of 32.
    """

    def __init__(self, stride=8, classes=3, width=8, channels=1, batch_norm=False):
        super().__init__()
        if stride not in (32, 16, 8):
            raise ValueError(f"stride is {stride}, expected 32, 16 or 8 as in FCN-32s, FCN-16s and FCN-8s.")
        widths = [channels, *(width * factor for factor in (1, 2, 4, 8, 8))]
        self.stages = nn.ModuleList(
            nn.Sequential(*_two_convolutions(before, after, 1, batch_norm), nn.MaxPool2d(2))
            for before, after in pairwise(widths)
        )
        self.scored = [level for level in (4, 3, 2) if 2 ** (level + 1) >= stride]  # coarsest first
        self.scores = nn.ModuleList(nn.Conv2d(widths[level + 1], classes, 1) for level in self.scored)
        self.twice = BilinearUpsampling(classes, 2)
        self.restore = BilinearUpsampling(classes, stride)
        he_initialise(self)

    def forward(self, image):
        check_divisible(image, 32)
        maps = []
        for stage in self.stages:
            image = stage(image)
            maps.append(image)
        total = None
        for level, score in zip(self.scored, self.scores, strict=True):
            finer = score(maps[level])
            total = finer if total is None else self.twice(total) + finer
        return self.restore(total)


class BilinearUpsampling(nn.ConvTranspose2d):
    """Enlarge (N, channels, H, W) by a factor: a transposed convolution whose fixed kernel is a tent.

    Long et al. 2015, section 3.3. The kernel is 2 x factor wide and every channel is enlarged on its own.
    """

    def __init__(self, channels, factor):
        super().__init__(
            channels, channels, 2 * factor, stride=factor, padding=factor // 2, groups=channels, bias=False
        )
        tent = 1 - (torch.arange(2 * factor) - factor + 0.5).abs() / factor
        kernels = torch.outer(tent, tent).repeat(channels, 1, 1, 1)
        self.weight = nn.Parameter(kernels, requires_grad=False)


class DeconvNet(nn.Module):
    """An encoder and its mirror image: (N, channels, side, side) -> scores (N, classes, side, side).

    Noh, Hong and Han, "Learning deconvolution network for semantic segmentation", ICCV 2015, in miniature:
    five stages that halve the crop; a convolution as large as what is left, which makes one code of the whole
    crop; and back. Max unpooling puts each value where its maximum was, and transposed convolutions fill the
    gaps.

    Args:
        side: height and width of the crops in pixels, a multiple of 32. The network takes no other size.
        width: channels of the first stage; the next ones have 2, 4, 4 and 4 times as many.
        code: channels of the code. None leaves the code out, as SegNet does (Badrinarayanan, Kendall and
            Cipolla, 2015): then patches are local, and any multiple of 32 will do.
        batch_norm: False leaves out what the paper has after every layer.

    Raises ValueError where side, or the image's size, is not as it should be.
    """

    def __init__(self, side=128, classes=3, width=8, channels=1, code=64, batch_norm=True):
        super().__init__()
        if side < 32 or side % 32:
            raise ValueError(f"side is {side}, expected a multiple of 32; try {max(32, side // 32 * 32)}.")
        self.side = side
        layer = partial(_layer, batch_norm=batch_norm)
        widths = [channels, *(width * factor for factor in (1, 2, 4, 4, 4))]
        self.down = nn.ModuleList(
            nn.Sequential(*layer(nn.Conv2d, before, after), *layer(nn.Conv2d, after, after))
            for before, after in pairwise(widths)
        )
        self.code = nn.Sequential()
        if code is not None:
            deepest, left = widths[-1], side // 32
            self.code = nn.Sequential(
                *layer(nn.Conv2d, deepest, code, kernel_size=left, padding=0),
                *layer(nn.Conv2d, code, code, kernel_size=1, padding=0),
                *layer(nn.ConvTranspose2d, code, deepest, kernel_size=left, padding=0),
            )
        backwards = [*widths[:0:-1], width]
        self.up = nn.ModuleList(
            nn.Sequential(*layer(nn.ConvTranspose2d, n, n), *layer(nn.ConvTranspose2d, n, after))
            for n, after in pairwise(backwards)
        )
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.scores = nn.Conv2d(width, classes, 1)
        he_initialise(self)

    def forward(self, image):
        if len(self.code) and image.shape[-2:] != (self.side, self.side):
            raise ValueError(
                f"the image is {_size(image)}, expected {self.side} x {self.side}, because the code is made "
                "of the whole crop; use utils.networks.for_whole_images."
            )
        check_divisible(image, 32)
        switches = []
        for stage in self.down:
            image, indices = self.pool(stage(image))
            switches.append(indices)
        image = self.code(image)
        for stage in self.up:
            image = stage(self.unpool(image, switches.pop()))
        return self.scores(image)


def _layer(kind, before, after, kernel_size=3, padding=1, batch_norm=False):
    norm = [nn.BatchNorm2d(after)] if batch_norm else []
    return kind(before, after, kernel_size, padding=padding), *norm, nn.ReLU(inplace=True)


class UNet(nn.Module):
    """Down, and back up beside what was seen on the way: (N, channels, H, W) -> scores (N, classes, h, w).

    Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image segmentation", MICCAI
    2015. On every level two 3 x 3 convolutions; down by 2 x 2 max pooling, up by 2 x 2 transposed
    convolutions, each followed by the maps of the same level on the way down. `UNet(depth=4, width=64,
    classes=2, padding="valid")` is the paper's.

    Args:
        depth: number of poolings.
        width: channels of the first level, doubled on each level below.
        widest: no level gets more channels than that.
        padding: "same": convolutions pad with zeros, and the output is as large as the image, whose height
            and width must be multiples of 2 to the depth. "valid", as in the paper: no padding; the output
            is smaller, and every map to be pooled must have an even size.
        skips: False leaves the maps of the way down out.
        batch_norm: True normalises after every 3 x 3 convolution, as most do today and the paper did not.

    Raises ValueError where the padding is neither, or the image has a size that does not fit.
    """

    def __init__(
        self, depth=3, width=8, classes=3, channels=1, padding="same", skips=True, batch_norm=False,
        widest=math.inf,
    ):  # fmt: skip
        super().__init__()
        if padding not in ("same", "valid"):
            raise ValueError(f"padding is {padding!r}, expected 'same' or 'valid'.")
        self.padding, self.skips, self.pool = padding, skips, nn.MaxPool2d(2)
        widths = [min(width * 2**level, widest) for level in range(depth + 1)]
        two = partial(_two_convolutions, padding=padding, batch_norm=batch_norm)
        self.down = nn.ModuleList(two(before, after) for before, after in pairwise([channels, *widths]))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(below, n, kernel_size=2, stride=2) for below, n in pairwise(widths[::-1])
        )
        self.join = nn.ModuleList(two(2 * n if skips else n, n) for n in reversed(widths[:-1]))
        self.scores = nn.Conv2d(width, classes, 1)
        he_initialise(self)

    def forward(self, image):
        if self.padding == "same":
            check_divisible(image, 2 ** len(self.up))
        else:
            self._check_even(image)
        seen = []
        for stage in self.down:
            image = stage(self.pool(image) if seen else image)
            seen.append(image)
        image = seen.pop()
        for up, join, skip in zip(self.up, self.join, reversed(seen), strict=True):
            image = up(image)
            if self.skips:
                image = torch.cat([_middle(skip, image), image], dim=1)
            image = join(image)
        return self.scores(image)

    def _check_even(self, image):
        multiple = 2 ** len(self.up)
        lost = 12 * multiple - 8  # rows and columns that do not come out again
        smallest = lost + min(multiple, 4)
        for size in image.shape[-2:]:
            if size < smallest or (size - smallest) % multiple:
                more = (smallest - size) % multiple if size > smallest else smallest - size
                raise ValueError(
                    f"the image is {_size(image)}, expected heights and widths of {smallest}, "
                    f"{smallest + multiple}, {smallest + 2 * multiple} and so on, so that every map to be "
                    f"pooled is even; enlarge {size} by {more}, as with F.pad(..., mode='replicate')."
                )


def _two_convolutions(before, after, padding, batch_norm=False):
    layers = (_layer(nn.Conv2d, n, after, padding=padding, batch_norm=batch_norm) for n in (before, after))
    return nn.Sequential(*chain.from_iterable(layers))


def _middle(larger, smaller):
    """The middle of maps (N, C, H, W), as large as smaller ones."""
    top, left = ((a - b) // 2 for a, b in zip(larger.shape[-2:], smaller.shape[-2:], strict=True))
    return larger[..., top : top + smaller.shape[-2], left : left + smaller.shape[-1]]


def for_whole_images(network):
    """Any network of the series, as one that scores all pixels of images: (N, C, H, W) -> (N, classes, H, W).

    A PatchNet runs a trous on the mirrored image (chapter 3), a DeconvNet with a code on one crop after the
    other; the others do it as they are. Weights are copied for a PatchNet, else shared.
    """
    if isinstance(network, PatchNet):
        return nn.Sequential(nn.ReflectionPad2d(network.window // 2), a_trous(network))
    if isinstance(network, DeconvNet) and len(network.code):
        return InCrops(network)
    return network


class InCrops(nn.Module):
    """A network for crops of one size, applied to images (N, C, H, W) that are whole multiples of it."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image):
        side = self.network.side
        check_divisible(image, side, "the network takes crops of that size")
        rows = ([self.network(crop) for crop in row.split(side, dim=-1)] for row in image.split(side, dim=-2))
        return torch.cat([torch.cat(row, dim=-1) for row in rows], dim=-2)


@torch.inference_mode()
def labels_of(network, images):
    """Class numbers (N, H, W) of images (N, 1, H, W), one after the other."""
    network = for_whole_images(network)
    return torch.cat([network(image[None]).argmax(dim=1) for image in images])


WEIGHTS = DATA / "weights"

# Every network that comes trained with the series, before its training; `experiments.recipes` has the rest.
SHIPPED = {
    **{f"patch-{window}": partial(PatchNet, window) for window in (5, 9, 17, 33, 65)},
    **{f"fcn-{stride}s": partial(FCN, stride) for stride in (32, 16, 8)},
    "deconvnet": DeconvNet,
    "segnet": partial(DeconvNet, code=None),
    "unet": UNet,
    "unet-without-skips": partial(UNet, skips=False),
    "real-patch-65": partial(PatchNet, 65, classes=2, batch_norm=True),
    "real-fcn-8s": partial(FCN, 8, classes=2, batch_norm=True),
    **dict.fromkeys(["real-unet", "real-unet-longer"], partial(UNet, classes=2, batch_norm=True)),
}


def trained(name, seed=0):
    """A network with the weights that come with the series, in eval mode.

    Args:
        name: one of SHIPPED, such as "patch-65".
        seed: of the training; the networks that the series compares come with the seeds 0, 1 and 2.

    Raises ValueError where there is no such network, FileNotFoundError where its weights are missing.
    """
    if name not in SHIPPED:
        raise ValueError(f"there is no network called {name!r}; choose one of {', '.join(SHIPPED)}.")
    return with_weights(SHIPPED[name](), name, seed)


def with_weights(network, name, seed=0):
    """The network with weights of data/weights, in eval mode; arguments and errors as in `trained`."""
    path = weights_file(name, seed)
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; make it with `{command(name, seed)}`.")
    network.load_state_dict(load_file(path))
    return network.eval()


def weights_file(name, seed=0):
    return WEIGHTS / f"{name}{f'-seed-{seed}' if seed else ''}.safetensors"


def command(name, seed=0):
    """What makes those weights."""
    return f"python -m experiments.recipes {name}{f' --seed {seed}' if seed else ''}"


def check_divisible(image, multiple, why=None):
    """Raise ValueError unless height and width of image (N, C, H, W) are multiples of a number."""
    height, width = image.shape[-2:]
    if height % multiple or width % multiple:
        down, right = -height % multiple, -width % multiple
        why = why or f"the network halves it until it is {multiple} times smaller"
        raise ValueError(
            f"the image is {_size(image)}, expected multiples of {multiple}, because {why}; pad it with "
            f"F.pad(image, (0, {right}, 0, {down}), mode='replicate') and crop the scores afterwards."
        )


def _size(maps):
    return " x ".join(map(str, maps.shape[-2:]))


def he_initialise(network):
    """Random weights with which signals keep their size through ReLUs: normal, with sd sqrt(2 / inputs).

    He et al., "Delving deep into rectifiers", ICCV 2015, section 2.2. Fixed (bilinear) kernels stay.
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.ConvTranspose2d) and layer.weight.requires_grad:
            inputs = layer.in_channels * layer.weight[0, 0].numel() / math.prod(layer.stride)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / inputs))
            nn.init.zeros_(layer.bias)


def multiply_accumulates(network, shape):
    """Multiply-accumulates of all convolutions and fully connected layers for one input of that shape.

    Every weight of a layer is used once at each position of its output; of a transposed convolution, once at
    each position of its input. The network runs once, on zeros of shape (N, C, H, W).
    """
    total = 0

    def count(layer, inputs, output):
        nonlocal total
        positions = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        total += layer.weight.numel() * positions[:, 0].numel()

    layers = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    weight = next(network.parameters())
    try:
        with torch.inference_mode():
            network(torch.zeros(shape, dtype=weight.dtype, device=weight.device))
    finally:
        for hook in hooks:
            hook.remove()
    return total
