"""The receptive-field engine against the truth: automatic differentiation, and published sizes."""

import os
import pickle
import threading
import time
import warnings

import einops
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from networks import UNet, conv, torchvision_models
from random_networks import Net, networks, true_fields
from torch import nn
from torch.nn import functional as F

from pixelpatch import Box, UnknownOperation, receptive_field

MANY = int(os.environ.get("RANDOM_NETWORKS", "0"))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@settings(
    max_examples=MANY or 600,
    derandomize=not MANY,  # the usual run draws the same networks each time; a long one draws its own
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(networks)
def test_random_networks_match_autograd_at_every_pixel(network):
    size, program = network
    truth = true_fields(program, size)
    rf = receptive_field(Net(program), (1, 1, *size))
    assert rf.output_shape[2:] == truth.shape[:2]
    rows, cols = np.indices(truth.shape[:2]).reshape(2, -1)
    masks = np.stack([rf.mask(row, col) for row, col in zip(rows, cols, strict=True)])
    np.testing.assert_array_equal(masks.reshape(truth.shape), truth)
    for row, col in zip(rows, cols, strict=True):
        at = np.argwhere(truth[row, col])
        hull = (*at.min(0), *(at.max(0) + 1)) if len(at) else (0, 0, 0, 0)
        assert rf.box(row, col) == hull
    for row, col in np.ndindex(size):
        np.testing.assert_array_equal(rf.influence(row, col), truth[:, :, row, col])


@pytest.mark.parametrize("size", [0.5, 0.7, 1.7, 2.5, (4, 9), (13, 14)])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic"])
def test_every_kind_of_interpolation(mode, size):
    for corners, recompute in [(False, None), (True, None), (False, True)]:
        fields = {"mode": mode, "size": size, "corners": corners, "recompute": recompute}
        program = [("resize", fields), ("conv", CONV)]
        truth, rf = true_fields(program, (7, 6)), receptive_field(Net(program), (1, 1, 7, 6))
        for row, col in np.ndindex(truth.shape[:2]):
            np.testing.assert_array_equal(rf.mask(row, col), truth[row, col])


CONV = {"kernel": (1, 2), "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}


# ------------------------------------------------------------------ published and derived sizes


def size_of(rf, row=None, col=None):
    row = rf.output_shape[2] // 2 if row is None else row
    box = rf.box(row, rf.output_shape[3] // 2 if col is None else col)
    return box.bottom - box.top, box.right - box.left


def backbone(name, **options):
    models = torchvision_models()
    with torch.device("meta"):  # the engine needs no weights
        return getattr(models, name)(weights=None, **options).eval()


def mobilenet_v1():
    strides, layers = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1], [conv(3, 8, stride=2)]
    for stride in strides:
        layers += [conv(8, 8, stride=stride, groups=8), conv(8, 8, 1, 0)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("build", "side", "size", "stride"),
    [
        (lambda: backbone("vgg16").features, 512, 212, 32),
        (lambda: backbone("alexnet").features, 512, 195, 32),
        (mobilenet_v1, 640, 315, 32),
        (lambda: nn.Sequential(*list(backbone("resnet50").children())[:-2]), 1024, 427, 32),
        (lambda: nn.Sequential(*list(backbone("resnet101").children())[:-2]), 1536, 971, 32),
    ],
    ids=["VGG-16 pool5", "AlexNet pool5", "MobileNet", "ResNet-50", "ResNet-101"],
)
def test_published_sizes(build, side, size, stride):
    rf = receptive_field(build(), (1, 3, side, side))
    assert size_of(rf) == (size, size)
    assert rf.stride == (stride, stride)
    assert rf.mask(*(n // 2 for n in rf.output_shape[2:])).sum() == size**2
    assert rf.whole_image == []


def test_inception_needs_a_union_of_three_products():
    model = backbone("inception_v3", init_weights=False, aux_logits=False)
    rf = receptive_field(nn.Sequential(*list(model.children())[:-3]), (1, 3, 1600, 1600))
    assert size_of(rf) == (1311, 1311)
    assert rf.mask(24, 24).sum() == 1_706_433
    assert len(rf.terms) == 3


def test_original_unet_has_two_windows_by_phase():
    rf = receptive_field(UNet(padding=0).eval(), (1, 1, 572, 572))
    assert rf.output_shape == (1, 2, 388, 388)
    assert rf.stride == (16, 16)
    for phase in range(16):
        at = 160 + phase  # output pixel o lies over input pixel o + 92
        left, right = (92 + phase, 95 - phase) if phase < 4 else (92 + phase, 111 - phase)
        assert rf.box(at, 0) == (at + 92 - left, 0, at + 92 + right + 1, 188)
    assert rf.box(0, 0) == (0, 0, 188, 188)
    assert rf.box(387, 387)[2:] == (572, 572)


@pytest.mark.parametrize(("depth", "sizes"), [(1, {18}), (2, {44}), (3, {92, 100}), (4, {188, 204})])
def test_padded_unet_by_depth(depth, sizes):
    rf = receptive_field(UNet(depth).eval(), (1, 1, 384, 512))
    assert {size_of(rf, 192 + phase)[0] for phase in range(16)} == sizes
    assert {size_of(rf, col=256 + phase)[1] for phase in range(16)} == sizes
    assert rf.stride == (2**depth, 2**depth)


@pytest.mark.parametrize(("dilations", "hull", "real"), [((2, 2, 2), 13, 49), ((6, 12, 18), 73, 169)])
def test_dilation_leaves_holes(dilations, hull, real):
    rf = receptive_field(nn.Sequential(*[conv(1, 1, p=d, dilation=d) for d in dilations]), (1, 1, 101, 99))
    assert size_of(rf) == (hull, hull)
    assert rf.mask(50, 50).sum() == real


class OriginalFCN(nn.Module):
    """The sizes of Long et al. 2015: VGG-16 with 100 pixels of padding, fixed upsampling, crops."""

    def __init__(self, stride):
        super().__init__()
        self.stages, self.stride = nn.ModuleList(), stride
        for stage, count in enumerate([2, 2, 3, 3, 3]):
            layers = [conv(1, 1, p=100 if stage == i == 0 else 1) for i in range(count)]
            self.stages.append(nn.Sequential(*layers, nn.MaxPool2d(2, ceil_mode=True)))
        self.fc6 = conv(1, 1, 7, 0)
        self.twice = nn.ConvTranspose2d(1, 1, 4, 2)
        self.up = nn.ConvTranspose2d(1, 1, 2 * stride, stride)

    def forward(self, x):
        pools, height = [x], x.shape[2]
        for stage in self.stages:
            pools.append(stage(pools[-1]))
        y = self.fc6(pools[5])
        for level, crop in [(4, 5), (3, 9)][: {32: 0, 16: 1, 8: 2}[self.stride]]:
            y = self.twice(y)
            y = y + pools[level][:, :, crop : crop + y.shape[2], crop : crop + y.shape[3]]
        edge = {32: 19, 16: 27, 8: 31}[self.stride]
        return self.up(y)[:, :, edge : edge + height, edge : edge + height]


@pytest.mark.parametrize(("stride", "narrow"), [(32, 32), (16, 16), (8, 8)])
def test_fcn_widths_by_phase(stride, narrow):
    rf = receptive_field(OriginalFCN(stride), (1, 1, 756, 756))
    sizes = [size_of(rf, row)[0] for row in range(362, 394)]
    assert (sizes.count(436), sizes.count(468)) == (narrow, 32 - narrow)
    assert rf.output_shape == (1, 1, 756, 756)
    assert rf.stride == (32, 32)


class SegNet(nn.Module):
    def __init__(self):
        super().__init__()
        counts = [2, 2, 3, 3, 3]
        self.down = nn.ModuleList([nn.Sequential(*[conv(1, 1) for _ in range(n)]) for n in counts])
        self.up = nn.ModuleList([nn.Sequential(*[conv(1, 1) for _ in range(n)]) for n in counts[::-1]])
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x):
        switches = []
        for block in self.down:
            x, indices = self.pool(block(x))
            switches.append(indices)
        for block in self.up:
            x = block(self.unpool(x, switches.pop()))
        return x


def test_segnet_with_switches():
    rf = receptive_field(SegNet(), (1, 1, 640, 640))
    sizes = [size_of(rf, row)[0] for row in range(320, 352)]
    assert (sizes.count(404), sizes.count(372)) == (20, 12)


@pytest.mark.parametrize(
    ("function", "stride"),
    [
        (lambda x: nn.functional.avg_pool2d(x, (2, 3)), (2, 3)),
        (lambda x: nn.functional.interpolate(nn.functional.avg_pool2d(x, 4), scale_factor=2.0), (4, 4)),
        (lambda x: x + nn.functional.interpolate(nn.functional.avg_pool2d(x, 6), scale_factor=6), (6, 6)),
        (lambda x: x[:, :, ::2] + x[:, :, ::3, :][:, :, :8].repeat_interleave(2, 2)[:, :, :12], (24, 1)),
        (lambda x: nn.functional.interpolate(x, size=(36, 16)), (2, 3)),
        (lambda x: torch.cat([x, nn.functional.interpolate(x[..., 1:], size=(24, 24))], 1), (1, 24)),
        (lambda x: x * x.mean((2, 3), keepdim=True), (1, 1)),
        (lambda x: torch.roll(x, (5, 2), (2, 3)).flip(3), (1, 1)),
        (lambda x: x + x.flip(3), (1, 24)),
        (lambda x: x[:, :, torch.tensor([3, 1, 2, 9])], (24, 1)),
        (lambda x: x[:, :, torch.arange(24) % 4 == 0], (4, 1)),
        (lambda x: nn.PixelShuffle(2)(nn.PixelUnshuffle(4)(x).mean(1, True).repeat(1, 4, 1, 1)), (4, 4)),
    ],
)  # fmt: skip
def test_stride_is_where_the_pattern_repeats(function, stride):
    assert receptive_field(Calls(function), (1, 1, 24, 24)).stride == stride


def test_an_output_that_sees_nothing_but_padding():
    rf = receptive_field(Calls(lambda x: nn.functional.pad(x, (8, 0))[..., :8]), (1, 1, 8, 8))
    assert rf.box(3, 3) == (0, 0, 0, 0) and not rf.mask(3, 3).any()
    assert rf.tables()["layers"][0]["terms"] == []


def test_crossed_strips_make_a_plus():
    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.flat, self.tall = conv(1, 1, (1, 7), (0, 3)), conv(1, 1, (7, 1), (3, 0))

        def forward(self, x):
            return self.flat(x) + self.tall(x)

    rf = receptive_field(Cross(), (1, 1, 20, 20))
    assert size_of(rf) == (7, 7)
    assert rf.mask(10, 10).sum() == 13
    assert len(rf.terms) == 2


# ------------------------------------------------------------------ the whole image


class Attention(nn.Module):
    def __init__(self, windows=None):
        super().__init__()
        self.heads, self.windows = nn.MultiheadAttention(4, 2, batch_first=True), windows

    def forward(self, x):
        n, c, h, w = x.shape
        if self.windows is None:
            tokens = x.flatten(2).transpose(1, 2)
            return (tokens + self.heads(tokens, tokens, tokens)[0]).transpose(1, 2).view(n, c, h, w)
        k = self.windows
        tokens = x.view(n, c, h // k, k, w // k, k).permute(0, 2, 4, 3, 5, 1).reshape(-1, k * k, c)
        tokens = self.heads(tokens, tokens, tokens, need_weights=False)[0]
        return tokens.view(n, h // k, w // k, k, k, c).permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)


class Excite(nn.Module):
    def __init__(self):
        super().__init__()
        self.squeeze, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 4)

    def forward(self, x):
        return x * torch.sigmoid(self.fc(self.squeeze(x).flatten(1)))[:, :, None, None]


class Code(nn.Module):
    """A bottleneck of one position, as in DeconvNet."""

    def __init__(self):
        super().__init__()
        self.fc6, self.back = conv(4, 4, 16, 0), nn.ConvTranspose2d(4, 4, 16)

    def forward(self, x):
        return self.back(self.fc6(x))


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4 * 256, 4 * 256)

    def forward(self, x):
        return self.fc(x.flatten(1)).view_as(x)


class Warp(nn.Module):
    def forward(self, x):
        grid = x.mean((2, 3))[:, None, None, :2].expand(len(x), 16, 16, 2)
        return nn.functional.grid_sample(x, grid, align_corners=False)


GLOBAL = {
    "layer": (nn.BatchNorm2d(4), "norm", "training mode"),
    "instance": (nn.InstanceNorm2d(4), "norm", "instance norm"),
    "group": (nn.GroupNorm(2, 4), "norm", "group norm"),
    "layer norm over positions": (nn.LayerNorm([4, 16, 16]), "norm", "layer norm"),
    "squeeze and excite": (
        Excite(),
        "norm.squeeze",
        "average pooling over all rows and columns of a 16 x 16 map",
    ),
    "attention": (Attention(), "norm.heads", "attention"),
    "one code": (Code(), "norm.fc6", "a kernel that reaches over all rows and columns of a 16 x 16 map"),
    "fully connected": (Flat(), "norm.fc", "fully connected"),
    "predicted sampling": (Warp(), "norm", "sampling at free positions"),
}


@pytest.mark.parametrize("kind", GLOBAL)
def test_whole_image_names_the_layer_and_the_reason(kind):
    layer, name, reason = GLOBAL[kind]
    model = nn.Sequential()
    model.add_module("first", conv(1, 4))
    model.add_module("norm", layer)
    model.add_module("last", conv(4, 1))
    rf = receptive_field(model.train(), (1, 1, 16, 16))
    assert name in [whole.layer for whole in rf.whole_image]
    assert any(reason in whole.reason for whole in rf.whole_image)
    assert all(rf.mask(row, col).all() for row, col in np.ndindex(16, 16))


class GivenWarp(nn.Module):
    """3 x 3, a warp by a grid that does not depend on the image, and 3 x 3 (or 1 x 1) again."""

    def __init__(self, kernel, **how):
        super().__init__()
        layers = conv(1, 1), conv(1, 1, kernel, kernel // 2)
        self.layers, self.how = nn.ModuleList(layers).double(), how
        for weight in self.parameters():
            nn.init.ones_(weight)

    def forward(self, x):
        random = torch.Generator().manual_seed(len(str(self.how)))
        grid = 3.6 * torch.rand(1, 6, 7, 2, generator=random, dtype=torch.float64).to(x.device) - 1.8
        grid = grid + 0.1 * torch.linspace(-1, 1, 7, device=x.device, dtype=x.dtype)[:, None]
        warped = nn.functional.grid_sample(self.layers[0](x), grid.expand(len(x), -1, -1, -1), **self.how)
        return self.layers[1](warped)


def fields_by_autograd(model, height, width):
    x = torch.ones(1, 1, height, width, dtype=torch.float64, requires_grad=True)
    y = model(x)[0, 0]
    slopes = [torch.autograd.grad(each, x, retain_graph=True)[0][0, 0] for each in y.flatten()]
    return (torch.stack(slopes).abs() > 1e-9).reshape(*y.shape, height, width).numpy()


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_given_grid_has_a_box_for_each_pixel(kernel, mode, padding, corners):
    model = GivenWarp(kernel, mode=mode, padding_mode=padding, align_corners=corners)
    rf, truth = receptive_field(model, (1, 1, 9, 11)), fields_by_autograd(model, 9, 11)
    assert rf.whole_image == [] and rf.stride == (9, 11)
    for row, col in np.ndindex(6, 7):
        at = np.argwhere(truth[row, col])
        assert rf.box(row, col) == ((*at.min(0), *(at.max(0) + 1)) if len(at) else (0, 0, 0, 0))
        assert not (truth[row, col] & ~rf.mask(row, col)).any()
    seen = np.array([[rf.mask(row, col) for col in range(7)] for row in range(6)])
    for row, col in np.ndindex(9, 11):
        np.testing.assert_array_equal(rf.influence(row, col), seen[:, :, row, col])


class Rotation(nn.Module):
    def forward(self, x):
        slightly = torch.tensor([[[0.95, -0.2, 0.0], [0.2, 0.95, 0.1]]], device=x.device, dtype=x.dtype)
        grid = nn.functional.affine_grid(slightly, x.shape, align_corners=False)
        return nn.functional.grid_sample(x, grid, align_corners=False)


def test_what_sees_nothing_of_a_warped_map_sees_nothing():
    rf = receptive_field(nn.Sequential(Rotation(), nn.ZeroPad2d(2)), (1, 1, 9, 11))
    assert rf.box(1, 5) == rf.box(5, 0) == (0, 0, 0, 0) and rf.mask(5, 5).any()


def test_warps_one_after_another_miss_nothing():
    model = nn.Sequential(Rotation(), Rotation(), conv(1, 1)).double()
    nn.init.ones_(model[2].weight)
    rf, truth = receptive_field(model, (1, 1, 20, 18)), fields_by_autograd(model, 20, 18)
    for row, col in np.ndindex(20, 18):
        mask = rf.mask(row, col)
        assert not (truth[row, col] & ~mask).any()
        assert mask.sum() <= 9 * 9  # the 3 x 3 pixels come from little more than 5 x 5


class ChannelNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


LOCAL = [
    nn.BatchNorm2d(4).eval(), nn.InstanceNorm2d(4, track_running_stats=True).eval(), nn.Dropout2d().train(),
    nn.Dropout().train(), nn.Dropout(inplace=True).train(), nn.AlphaDropout().train(), nn.LogSigmoid(),
    nn.Softmax(1), nn.PReLU(), nn.GELU(), nn.Hardswish(inplace=True), nn.ChannelShuffle(2), ChannelNorm(4),
]  # fmt: skip


@pytest.mark.parametrize("layer", LOCAL, ids=lambda layer: type(layer).__name__)
def test_pointwise_layers_keep_the_patch(layer):
    rf = receptive_field(nn.Sequential(conv(1, 4), layer), (1, 1, 12, 12))
    assert size_of(rf, 6, 6) == (3, 3)
    assert rf.whole_image == []


def space_to_depth(x):
    n, c, h, w = x.shape
    return x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(n, c * 4, h // 2, w // 2)


def some_tokens(x):
    return x.flatten(2)[..., 1:][..., None]


def quadrants_as_a_batch(x):
    n, c, h, w = x.shape
    quadrants = x.view(n, c, 2, h // 2, 2, w // 2).permute(0, 2, 4, 1, 3, 5).reshape(-1, c, h // 2, w // 2)
    blurred = F.avg_pool2d(quadrants, 3, 1, 1).view(n, 2, 2, c, h // 2, w // 2)
    return blurred.permute(0, 3, 1, 4, 2, 5).reshape(n, c, h, w)


@pytest.mark.parametrize("layer", [some_tokens, quadrants_as_a_batch])
def test_rearranged_positions_are_the_whole_image_and_say_so(layer):
    rf = receptive_field(nn.Sequential(conv(1, 4, 1, 0), Calls(layer)), (1, 1, 16, 12))
    assert rf.whole_image == [("1", "positions rearranged over all rows and columns of a 16 x 12 map")]
    assert all(rf.mask(row, col).all() for row, col in np.ndindex(*rf.output_shape[2:]))


# ------------------------------------------------------------------ windows


def rolled(x):
    return torch.roll(x, (2, -1), (2, 3))


def block_means(x):
    n, c, h, w = x.shape
    return x.view(n, c, h // 4, 4, w // 2, 2).mean((3, 5))


def by_einops(x):
    tokens = einops.rearrange(x, "b c (h p) (w q) -> (b h w) (p q) c", p=4, q=2)
    weights = torch.softmax(tokens @ tokens.mT, dim=-1)
    return einops.rearrange(weights @ tokens, "(b h w) (p q) c -> b c (h p) (w q)", h=4, w=6, p=4)


def patches_to_channels_by_einops(x):
    return einops.rearrange(x, "b c (h p) (w q) -> b (c p q) h w", p=2, q=3)


def one_row_of_every_window(x):
    n, c, h, w = x.shape
    return x.view(n, c, h // 4, 4, w)[:, :, :, 1].reshape(n, c, h // 4, w)


class PaddedWindows(nn.Module):
    """Windows of 5 on a map padded up to whole windows, with relative positions apart for rows and columns,
    as in the encoder of Kirillov et al., "Segment anything", ICCV 2023."""

    def __init__(self, side=5):
        super().__init__()
        self.side, self.relative = side, nn.Parameter(torch.randn(2, side, side, 4))

    def forward(self, x):
        n, c, h, w = x.shape
        k, tall, wide = self.side, -h % self.side, -w % self.side
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, wide, 0, tall))
        x = x.view(n, (h + tall) // k, k, (w + wide) // k, k, c).permute(0, 1, 3, 2, 4, 5).contiguous()
        q = x.view(-1, k * k, c)
        scores = (q @ q.transpose(-2, -1)).view(-1, k, k, k, k)
        grid = q.view(-1, k, k, c)
        scores = scores + torch.einsum("bhwc,hkc->bhwk", grid, self.relative[0])[..., None]
        scores = scores + torch.einsum("bhwc,wkc->bhwk", grid, self.relative[1])[..., None, :]
        q = scores.view(-1, k * k, k * k).softmax(-1) @ q
        x = q.view(n, (h + tall) // k, (w + wide) // k, k, k, c).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(n, h + tall, w + wide, c)[:, :h, :w].permute(0, 3, 1, 2)


class SwinBlocks(nn.Module):
    """Four blocks of torchvision's Swin, every second one shifted, and one merging of patches."""

    def __init__(self):
        super().__init__()
        swin_transformer = torchvision_models().swin_transformer
        made = swin_transformer.SwinTransformer([1, 1], 4, [2, 2], [2, 2], [4, 4], stochastic_depth_prob=0.0)
        self.blocks = nn.Sequential(*made.features[1:])

    def forward(self, x):
        return self.blocks(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


WINDOWS = {
    "attention": lambda: Attention(4),
    "two sizes of windows": lambda: nn.Sequential(Attention(2), Attention(4)),
    "shifted": lambda: nn.Sequential(Attention(4), Calls(rolled), Attention(4)),
    "einops": lambda: Calls(by_einops),
    "padded": PaddedWindows,
    "swin": SwinBlocks,
    "space to depth": lambda: Calls(space_to_depth),
    "space to depth, einops": lambda: Calls(patches_to_channels_by_einops),
    "block means": lambda: Calls(block_means),
    "a row of every window": lambda: Calls(one_row_of_every_window),
    "channels": lambda: Calls(lambda x: x.unflatten(2, (4, 4)).flatten(2, 3)),
}


@pytest.mark.parametrize("kind", WINDOWS)
def test_positions_in_a_window_see_each_other_and_only_each_other(kind):
    torch.manual_seed(0)
    model = nn.Sequential(conv(1, 4), WINDOWS[kind]()).double().eval()
    rf, image = receptive_field(model, (1, 1, 16, 12)), torch.rand(1, 1, 16, 12, dtype=torch.float64)
    assert rf.whole_image == []
    scores = model(image.requires_grad_()).square().sum(1)[0]
    for row, col in np.ndindex(*scores.shape):
        (slope,) = torch.autograd.grad(scores[row, col], image, retain_graph=True)
        np.testing.assert_array_equal(rf.mask(row, col), (slope[0, 0] != 0).numpy())


def test_swin_repeats_after_its_windows():
    """Patches of 4, windows of 7 of them, three mergings: 4 x 7 x 8 pixels."""
    with torch.device("meta"):
        swin = torchvision_models().swin_t(weights=None)
        model = nn.Sequential(swin.features, swin.permute).eval()
    rf = receptive_field(model, (1, 3, 448, 1344))
    assert rf.stride == (224, 224) and rf.step == (7, 7) and rf.whole_image == []


def test_the_channels_of_a_layer_share_one_field():
    """So what was put into channels, each with its own place, comes back as one block."""
    rf = receptive_field(nn.Sequential(nn.PixelUnshuffle(2), nn.PixelShuffle(2)), (1, 1, 12, 12))
    assert rf.box(7, 6) == (6, 6, 8, 8)
    assert rf.whole_image == []


def test_tokens_and_channels_last_are_followed():
    """A block of a transformer without attention, and one that attends along rows alone."""

    def forward(x):
        n, c, h, w = x.shape
        tokens = nn.functional.layer_norm(x.flatten(2).transpose(1, 2), (c,)).repeat(1, 1, 2).chunk(2, -1)[0]
        x = tokens.reshape(n, h, w, c).permute(0, 3, 1, 2)
        lines = x.permute(0, 2, 3, 1).reshape(n * h, w, c)
        lines = (lines @ lines.transpose(1, 2)).softmax(-1) @ lines
        return lines.view(n, h, w, c).permute(0, 3, 1, 2)

    rf = receptive_field(nn.Sequential(conv(1, 4), Calls(forward)), (1, 1, 8, 9))
    assert rf.box(4, 5) == (3, 0, 6, 9)
    assert {reason for _, reason in rf.whole_image} == {
        "a matrix product (attention) over all columns of a 8 x 9 map"
    }


@pytest.mark.parametrize(
    ("name", "stride", "whole"),
    [
        ("fcn_resnet50", 8, []),
        ("deeplabv3_resnet50", 8, ["classifier.0.convs.4.0"]),
        ("lraspp_mobilenet_v3_large", 16, ["classifier.scale.0"]),
    ],
)
def test_torchvision_segmentation_networks(name, stride, whole):
    segmentation = torchvision_models().segmentation
    with torch.device("meta"):
        model = getattr(segmentation, name)(weights=None, weights_backbone=None).eval()
    rf = receptive_field(model, (1, 3, 520, 520))
    assert rf.output_shape == (1, 21, 520, 520)
    found = [each.layer for each in rf.whole_image if not each.layer.startswith("backbone")]
    assert found == whole
    assert rf.mask(260, 260).all() == bool(whole)


# ------------------------------------------------------------------ any module, and none is changed


def test_the_module_is_left_as_it_was():
    class Caching(nn.Module):
        table, calls = None, ()

        def forward(self, x):
            self.table = torch.arange(x.shape[-1], device=x.device)
            self.count = nn.Parameter(torch.zeros(1))
            return x + self.table

    torch.manual_seed(0)
    model = nn.Sequential(UNet(2), Caching()).train()
    model[0].head.weight.grad = torch.ones_like(model[0].head.weight)
    seen = []
    model[0].head.register_forward_hook(lambda *_: seen.append(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hooks, random = dict(model[0].head._forward_hooks), torch.get_rng_state()
    receptive_field(model, (1, 1, 32, 32))
    assert model.training and model[0].training and vars(model[1]).keys() == vars(Caching()).keys()
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[0].head.weight.grad.sum() == 4 and model[0].head._forward_hooks == hooks and seen == [1]
    assert all(p.requires_grad and p.device.type == "cpu" for p in model.parameters())
    assert torch.equal(random, torch.get_rng_state())
    assert not torch.nn.modules.module._global_forward_hooks
    model(torch.rand(1, 1, 32, 32)).sum().backward()


def test_the_module_is_left_as_it_was_after_an_error():
    model = nn.Sequential(nn.BatchNorm2d(1), Raising()).train()
    with pytest.raises(RuntimeError, match="on purpose"):
        receptive_field(model, (1, 1, 8, 8))
    assert model[0].num_batches_tracked == 0
    assert not torch.nn.modules.module._global_forward_hooks


class Raising(nn.Module):
    def forward(self, x):
        raise RuntimeError("on purpose")


def test_scripted_and_wrapped_modules():
    model = nn.Sequential(
        conv(1, 2, p=2, dilation=2), nn.ReLU(), nn.MaxPool2d(2), conv(2, 1, padding_mode="reflect")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions advise against scripting
        scripted = torch.jit.script(model)
    rf, same = receptive_field(model, (1, 1, 20, 21)), receptive_field(scripted, (1, 1, 20, 21))
    for row, col in np.ndindex(10, 10):
        np.testing.assert_array_equal(rf.mask(row, col), same.mask(row, col))


def test_writing_through_views_is_followed():
    class Halves(nn.Module):
        def forward(self, x):
            canvas = torch.zeros(1, 1, 8, 8)
            top, bottom = canvas.chunk(2, 2)
            early = top[:, :, 0]
            assert (early + 1).shape == (1, 1, 8)  # looked at before it is written
            top.copy_(x[:, :, 4:])
            bottom[..., ::2] = x[:, :, :4, 1::2]
            bottom.transpose(2, 3)[:, :, 1] += x[:, :, 4:, 0]
            canvas.view(-1)[0:0] = 0
            return canvas + early[:, :, None] * 0

    rf = receptive_field(Halves(), (1, 1, 8, 8))
    seen = {at: set(map(tuple, np.argwhere(rf.mask(*at)).tolist())) for at in np.ndindex(8, 8)}
    for row, col in np.ndindex(8, 8):
        expected = {(4, col)}  # the first row of the canvas, seen through a view taken before it was written
        if row < 4:
            expected |= {(row + 4, col)}
        elif col % 2 == 0:
            expected |= {(row - 4, col + 1)}
        elif col == 1:
            expected |= {(row, 0)}
        assert seen[row, col] == expected


def test_a_copy_is_written_to_alone():
    def forward(x):
        canvas = torch.zeros(1, 1, 8, 8)
        canvas[:] = x
        canvas.clone().zero_()
        rows = torch.tensor(list(range(8)))
        rows += 1
        return canvas[:, :, rows % 8]

    rf = receptive_field(Calls(forward), (1, 1, 8, 8))
    assert [rf.box(row, 3) for row in (0, 7)] == [(1, 3, 2, 4), (0, 3, 1, 4)]
    assert rf.mask(0, 3).sum() == 1


def test_filling_with_what_depends_on_the_image_is_followed():
    rf = receptive_field(Calls(lambda x: x.new_zeros(1, 1, 8, 8).fill_(x.mean())), (1, 1, 8, 8))
    assert rf.mask(0, 0).all()
    assert rf.whole_image[0].reason == "mean over all rows and columns of a 8 x 8 map"


def test_writing_through_detached_and_flattened_views_is_followed():
    def forward(x):
        y = x * 1
        y.detach().contiguous()[:, :, 1:] += x[:, :, :-1]
        y.flatten(2)[..., :8] += x[:, :, 7]
        return y

    rf = receptive_field(Calls(forward), (1, 1, 8, 8))
    for row, col in np.ndindex(8, 8):
        expected = {(row, col), (max(row - 1, 0), col)} | ({(7, col)} if row == 0 else set())
        assert set(map(tuple, np.argwhere(rf.mask(row, col)).tolist())) >= expected
        if row > 0:
            assert rf.mask(row, col).sum() == 2 or rf.whole_image


def test_fields_in_every_layer_match_autograd():
    torch.manual_seed(0)
    model = UNet(2).double().eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.abs() + 0.1
    truth = UNet(2).double().eval()
    truth.load_state_dict(model.state_dict())
    truth.pool = nn.AvgPool2d(2)
    for layer in truth.modules():
        for name, child in layer.named_children():
            if isinstance(child, nn.ReLU):
                setattr(layer, name, nn.Identity())
    outputs = {}
    for name, layer in truth.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(lambda _, __, out, name=name: outputs.update({name: out}))
    out = truth(torch.ones(1, 1, 24, 32, dtype=torch.float64))
    rf = receptive_field(model, (1, 1, 24, 32))
    layers = {layer.name: layer for layer in rf.layers if layer.op in ("conv2d", "conv_transpose2d")}
    assert layers.keys() == outputs.keys()
    for row, col in [(0, 0), (11, 17), (23, 30)]:
        gradients = torch.autograd.grad(out[0, :, row, col].sum(), outputs.values(), retain_graph=True)
        for name, gradient in zip(outputs, gradients, strict=True):
            assert layers[name].shape == tuple(gradient.shape)
            np.testing.assert_array_equal(
                layers[name].mask(row, col), (gradient != 0).any(1)[0].numpy(), name
            )


def test_tables_hold_everything_and_are_small():
    rf = receptive_field(UNet().eval(), (1, 1, 256, 256))
    tables = rf.tables()
    assert sum(axis["offset"].nbytes + axis["runs"].nbytes for axis in tables["axes"]) < 100_000
    assert [layer["name"] for layer in tables["layers"]] == ["input"] + [layer.name for layer in rf.layers]

    def line(axis, at, n):
        offset, runs = tables["axes"][axis]["offset"], tables["axes"][axis]["runs"]
        seen = np.zeros(n, bool)
        for start, stop in runs[offset[at] : offset[at + 1]]:
            seen[start:stop] = True
        return seen

    for stored, layer in zip(tables["layers"], [rf, *rf.layers], strict=True):
        height, width = stored["shape"][2:]
        products = [np.outer(line(r, 40, height), line(c, 133, width)) for r, c in stored["terms"]]
        np.testing.assert_array_equal(np.logical_or.reduce(products), layer.mask(40, 133))


# ------------------------------------------------------------------ errors that help


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: nn.functional.avg_pool2d(x, 3, 1, 1) if (x > 0).dtype == torch.bool else x,
        lambda x: nn.functional.avg_pool2d(torch.where(x > 0, 2.0**x, 0.0), 3, 1, 1),
        lambda x: nn.functional.avg_pool2d(x[:, :, [2, 0, 1]], 3, 1, 1),
        lambda x: nn.functional.avg_pool2d(x, 3, 1, 1)[:, torch.arange(1, device=x.device)],
        lambda x: nn.functional.avg_pool2d(x, int(torch.tensor(3, device=x.device)), 1, 1),
    ],
)
def test_plain_python_around_the_network(function):
    assert receptive_field(Calls(function), (1, 1, 9, 9)).mask(1, 5).sum() in (6, 9)


def test_writing_to_what_is_no_copy():
    """`contiguous` copies a tensor or not, as its order in memory has it, and a trace must do alike."""

    def function(x):
        y = torch.relu(x.transpose(2, 3))
        y.contiguous()[:, :, :5] = 0  # a copy, which nobody reads
        return y.transpose(2, 3)

    assert receptive_field(Calls(function), (1, 1, 9, 9)).mask(3, 3).sum() == 1


def test_the_nearest_pixel_is_the_one_that_float32_finds():
    up, image = nn.Upsample(scale_factor=2.3), torch.arange(56.0).reshape(1, 1, 56, 1).expand(1, 1, 56, 3)
    rf, rows = receptive_field(up, image.shape), up(image)[0, 0, :, 0]
    assert [rf.box(row, 0).top for row in range(len(rows))] == rows.tolist()


def test_tables_that_a_module_keeps_are_put_back():
    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.tables, self.seen = {}, []

        def forward(self, x):
            self.seen.append(x)
            self.tables[x.shape] = torch.zeros(x.shape[-1], device=x.device)
            return x + self.tables[x.shape]

    model = Cached()
    receptive_field(model, (1, 1, 8, 8))
    assert model.tables == {} and model.seen == []


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: torch.fft.fft2(x).real, r"part of 'fft_fft2' \(in layer '1'\): write that layer"),
        (lambda x: x if x.sum() > 0 else -x, "looks at values"),
        (lambda x: nn.functional.conv2d(x, x.mean((2, 3), keepdim=True)), "weights or other arguments"),
        (lambda x: torch.cdist(x, x), "cdist"),
        (lambda x: x[x > 0], "no rule"),
        (lambda x: x + x.as_subclass(torch.Tensor), "out of torch's sight"),
        (lambda x: torch.bincount(x.argmax(1).flatten()), "no rule|fails on tensors"),
        (lambda x: x.view(torch.int32), "another type of number"),
        (lambda x: torch.tensor(x.tolist()), r"layer '1' fails on tensors that have a shape and no data"),
        (lambda x: (x * 1).unsqueeze_(0)[0], "changes the shape of a tensor in place"),
        (lambda x: x.mean((2, 3), keepdim=True).expand(1, 1, 8, 8).add_(x), "in place"),
        (lambda x: x.new_zeros(8, 8).diagonal().copy_(x[0, 0, 0]), "the view 'diagonal'"),
        (lambda x: x.roll(1), "end of a row"),
    ],
)  # fmt: skip
def test_an_unknown_operation_is_named(function, message):
    with pytest.raises(UnknownOperation, match=message):
        receptive_field(nn.Sequential(conv(1, 1), Calls(function)), (1, 1, 8, 8))


@pytest.mark.parametrize(
    ("model", "shape", "error", "message"),
    [
        (torch.relu, (1, 1, 8, 8), TypeError, "give a torch.nn.Module"),
        (nn.Identity(), (1, 8, 8), ValueError, "four positive integers"),
        (nn.Identity(), (1, 1, 8, 0.5), ValueError, "four positive integers"),
        (nn.Identity(), None, ValueError, "four positive integers"),
        (
            nn.Identity(),
            torch.zeros(1, 1, 8, 8),
            TypeError,
            r"shape is a Tensor: give its shape, \(1, 1, 8, 8\)",
        ),
        (nn.LazyConv2d(3, 3), (1, 1, 8, 8), ValueError, "run it once"),
        (Calls(lambda x: (x, x)), (1, 1, 8, 8), TypeError, "returns a tuple"),
        (Calls(lambda x: torch.zeros(1, 1, 8, 8)), (1, 1, 8, 8), ValueError, "does not depend"),
        (Calls(lambda x: x.transpose(2, 3)), (1, 1, 8, 8), ValueError, "rows are the input's columns"),
        (conv(3, 1), (1, 1, 8, 8), ValueError, "expects 3 channels but gets 1"),
        (conv(1, 1, 9, 0), (1, 1, 8, 8), ValueError, "8 x 8 map to nothing"),
        (nn.ReflectionPad2d(8), (1, 1, 8, 8), ValueError, "side of 8 by 8 in reflect mode, which takes 7"),
        (nn.CircularPad2d(9), (1, 1, 8, 8), ValueError, "side of 8 by 9 in circular mode, which takes 8"),
    ],
)
def test_wrong_arguments_get_one_clear_sentence(model, shape, error, message):
    with pytest.raises(error, match=message):
        receptive_field(model, shape)


def test_a_pixel_outside_is_an_error():
    rf = receptive_field(conv(1, 1), (1, 1, 8, 9))
    for ask in (rf.box, rf.mask, rf.influence, rf.layers[0].box):
        with pytest.raises(IndexError, match=r"8 x 9: take a row from 0 to 7 and a column from 0 to 8"):
            ask(8, 0)
        with pytest.raises(IndexError):
            ask(0, -1)
        with pytest.raises(TypeError, match=r"pixel \(1.5, 0\) is no place: give whole numbers"):
            ask(1.5, 0)


# ------------------------------------------------------------------ the field of a tile

POOL = nn.functional.avg_pool2d

TILED = {
    "strided": Calls(lambda x: POOL(POOL(x, 3, 1, 1), (2, 1))),
    "enlarged again": nn.Sequential(conv(1, 1), nn.MaxPool2d(2), nn.ConvTranspose2d(1, 1, 2, 2)),
    "a plus": Calls(lambda x: POOL(x, (1, 7), 1, (0, 3)) + POOL(x, (7, 1), 1, (3, 0))),
    "a given grid": GivenWarp(3, mode="bilinear", align_corners=False),
    "a given grid before a border": nn.Sequential(Rotation(), nn.ZeroPad2d(2)),
    "nothing in some columns": Calls(lambda x: nn.functional.pad(x, (5, 0))[..., :10]),
    "turned over": Calls(lambda x: POOL(x.flip(2), 3, 1, 1)),
}


@pytest.mark.parametrize("name", TILED)
def test_the_box_of_a_tile_is_round_the_fields_of_all_its_pixels(name):
    rf = receptive_field(TILED[name], (1, 1, 8, 8))
    for layer in (rf, rf.layers[0]):
        height, width = layer.output_shape[2:]
        masks = np.array([[layer.mask(row, col) for col in range(width)] for row in range(height)])
        assert masks.any()
        for top, left in np.ndindex(height, width):
            for bottom in range(top + 1, height + 1, 2):
                for right in range(left + 1, width + 1):
                    at = np.argwhere(masks[top:bottom, left:right].any((0, 1)))
                    hull = (*at.min(0), *(at.max(0) + 1)) if len(at) else (0, 0, 0, 0)
                    assert layer.box_of(Box(top, left, bottom, right)) == hull


@pytest.mark.parametrize("part", [(-1, 0, 2, 2), (0, -1, 2, 2), (0, 0, 9, 2), (0, 0, 2, 10), (8, 0, 9, 2)])
def test_a_tile_outside_is_an_error(part):
    rf = receptive_field(conv(1, 1), (1, 1, 8, 9))
    assert rf.box_of(Box(0, 0, 8, 9)) == (0, 0, 8, 9)
    with pytest.raises(IndexError, match=r"lies outside the output, which is 8 x 9: take a row from 0 to 7"):
        rf.box_of(Box(*part))


# ------------------------------------------------------------------ other threads, and other processes


def test_other_threads_run_and_trace_meanwhile():
    model, image = UNet().eval(), torch.rand(1, 1, 64, 64)
    names = [layer.name for layer in receptive_field(model, image.shape).layers]
    errors, end = [], time.monotonic() + 3

    def forever(work):
        while time.monotonic() < end:
            try:
                work()
            except Exception as error:
                errors.append(error)

    def traces():
        assert [layer.name for layer in receptive_field(model, image.shape).layers] == names

    def runs():
        with torch.no_grad():
            model(image)

    threads = [threading.Thread(target=forever, args=(work,)) for work in (traces, runs) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_field_can_be_sent_to_another_process():
    rf = receptive_field(UNet().eval(), (1, 1, 64, 64))
    sent = pickle.loads(pickle.dumps(rf))
    assert sent.box(20, 30) == rf.box(20, 30) and sent.halo == rf.halo and sent.local.stride == rf.stride
    assert [layer.box(5, 6) for layer in sent.layers] == [layer.box(5, 6) for layer in rf.layers]


# ------------------------------------------------------------------ operations that networks seldom use


def by_gradients(function, shape):
    """(h, w, H, W) bool: which pixels have a gradient, with positive weights, so that nothing cancels."""
    image = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    scores = function(image).sum(1)[0]
    slopes = [torch.autograd.grad(score, image, retain_graph=True)[0][0].sum(0) for score in scores.flatten()]
    return (torch.stack(slopes) != 0).view(*scores.shape, *shape[2:]).numpy()


SELDOM = {
    "unfold": lambda x: F.unfold(x, 3, padding=1, stride=2).view(1, 9, 6, 5),
    "unfold with holes": lambda x: F.unfold(x, (2, 3), dilation=2).view(1, 6, 10, 6),
    "fold": lambda x: F.fold(F.unfold(x, 3, padding=1).mean(1, True).repeat(1, 4, 1), (13, 11), 2),
    "fold with gaps": lambda x: F.fold(x.flatten(2).repeat(1, 4, 1), (24, 20), 2, stride=2),
    "fold that crops": lambda x: F.fold(x.flatten(2).repeat(1, 9, 1), (23, 19), 3, stride=2, padding=1),
    "half a turn": lambda x: F.avg_pool2d(torch.rot90(x, 2, (2, 3)), 3, 1, 1),
    "a quarter turn and back": lambda x: F.avg_pool2d(x.rot90(1, (2, 3)), (3, 1), 1, (1, 0)).rot90(3, (2, 3)),
    "antialiased": lambda x: F.interpolate(x, size=(5, 4), mode="bilinear", antialias=True),
    "antialiased bicubic": lambda x: F.interpolate(x, scale_factor=0.5, mode="bicubic", antialias=True),
    "gated channels": lambda x: F.glu(F.avg_pool2d(x, 3, 1, 1).repeat(1, 2, 1, 1), 1),
    "gated lines": lambda x: F.glu(x, 2),
}  # fmt: skip


MASKED = {  # no gradient flows through what decides, three columns to the left
    "masked fill": lambda x, mask: (x * 1).masked_fill_(mask, 0.0),
    "filled where it is true": lambda x, mask: filled(x * 1, mask),
    "gathered channels": lambda x, mask: x.repeat(1, 2, 1, 1).gather(1, mask.long()),
}


def filled(x, mask):
    x[mask] = 0
    return x


@pytest.mark.parametrize("name", MASKED)
def test_what_decides_without_a_gradient_is_seen(name):
    rf = receptive_field(Calls(lambda x: MASKED[name](x, F.pad(x, (3, 0))[..., :10] > 0.5)), (1, 1, 12, 10))
    assert np.argwhere(rf.mask(6, 6)).tolist() == [[6, 3], [6, 6]]


def test_an_index_that_leaves_places_out_has_no_rule():
    index = torch.zeros(1, 1, 1, 1, dtype=torch.int64)
    with pytest.raises(UnknownOperation, match="an index that leaves places out"):
        receptive_field(Calls(lambda x: x.repeat(1, 3, 1, 1).gather(1, index)), (1, 1, 8, 8))


@pytest.mark.parametrize("size", [480, 500, 512])
def test_a_halo_where_the_size_is_no_multiple_of_the_stride(size):
    rf = receptive_field(nn.Sequential(*(conv(1, 1, stride=2) for _ in range(5))), (1, 1, size, size))
    (before, _), _ = rf.halo
    assert before == 32 and rf.box(8, 8).top >= 8 * 32 - before


def test_a_halo_does_not_count_pixels_that_see_nothing():
    assert receptive_field(conv(1, 1, 3, 5), (1, 1, 256, 256)).halo[0][0] < 16


@pytest.mark.parametrize("name", SELDOM)
def test_operations_that_networks_seldom_use(name):
    function, shape = SELDOM[name], (1, 1, 12, 10)
    rf, truth = receptive_field(Calls(function), shape), by_gradients(function, shape)
    assert rf.output_shape[2:] == truth.shape[:2] and not rf.whole_image
    for row, col in np.ndindex(truth.shape[:2]):
        np.testing.assert_array_equal(rf.mask(row, col), truth[row, col])


def test_gathering_along_lines_reads_anything():
    index = torch.zeros(1, 1, 8, 8, dtype=torch.int64)
    rf = receptive_field(Calls(lambda x: x.gather(2, index)), (1, 1, 8, 8))
    assert rf.mask(3, 3).all() and "free positions" in rf.whole_image[0].reason


def test_learned_queries_meet_the_image():
    class Queries(nn.Module):
        def __init__(self):
            super().__init__()
            self.queries = nn.Parameter(torch.rand(1, 16, 4))

        def forward(self, x):
            tokens = x.repeat(1, 4, 1, 1).flatten(2).transpose(1, 2)
            return F.scaled_dot_product_attention(self.queries, tokens, tokens).view(1, 4, 4, 4)

    assert "attention" in receptive_field(Queries(), (1, 1, 8, 8)).whole_image[-1].reason


# ------------------------------------------------------------------ the halo


@pytest.mark.parametrize(
    ("model", "halo"),
    [
        (UNet(), (96, 96)),
        (nn.Conv2d(1, 1, 7, padding=3), (3, 3)),
        (nn.Conv2d(1, 1, 7), (3, 3)),
        (nn.ZeroPad2d((4, 0, 4, 0)), (4, 0)),
    ],
    ids=["U-Net", "padded", "not padded", "shifted"],
)
def test_halo(model, halo):
    if isinstance(model, nn.ZeroPad2d):
        model = nn.Sequential(model, conv(1, 1, 5, 0))
    assert receptive_field(model.eval(), (1, 1, 256, 256)).halo == (halo, halo)


def test_no_halo_where_none_is_enough_or_none_can_be_told():
    assert receptive_field(nn.InstanceNorm2d(1), (1, 1, 32, 32)).halo is None
    assert receptive_field(UNet().eval(), (1, 1, 64, 64)).halo == (None, None), "all patches are cut off"
    assert receptive_field(UNet().eval(), (1, 1, 64, 256)).halo == (None, (96, 96))
    assert receptive_field(UNet().eval(), (1, 1, 256, 256)).halo == ((96, 96), (96, 96))
