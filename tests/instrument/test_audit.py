"""The audit says of any network whether it is a patch classifier, and what it says can be checked by hand."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from networks import (
    BREAKERS,
    FCN,
    Changing,
    DeconvNet,
    Flipped,
    GlobalBranch,
    Margin,
    PatchNet,
    SelfAttention,
    SqueezeExcite,
    TinyUNet,
    UNet,
    a_trous,
    convolutional,
    double,
    normalised,
    picture,
    torchvision_models,
)
from torch import nn

from pixelpatch import audit
from pixelpatch.scores import score_map

# --- exact networks: every number of the audit, checked by hand ------------------------------------------

EXACT = {
    "U-Net": (partial(UNet, depth=2, width=3), 128, 112),
    "U-Net of five levels": (TinyUNet, 256, 288),
    "unpadded U-Net": (partial(UNet, depth=2, width=3, padding=0), 204, 188),
    "FCN-8s": (partial(FCN, 8), 320, 352),
    "SegNet": (DeconvNet, 384, 352),
    "patch CNN, strided": (lambda: convolutional(PatchNet()), 57, 61),
    "patch CNN, dense": (lambda: a_trous(PatchNet()), 40, 45),
    "crossed strips": (lambda: nn.Conv2d(1, 2, (1, 7), padding=(0, 3)), 24, 30),
    "cropped": (partial(Margin, 8), 48, 52),
}


def tile_error(network, image, found, fewer=0):
    """The worst error, in sd, of tiles of one stride cut out with the audit's halo, or some strides fewer."""
    whole = score_map(network, image).detach()

    def places(axis, number):
        """Along one axis: what to cut out of the image, and the tile's place there and in the whole."""
        stride, phases = found.stride[axis], found.phases[axis]
        before, after = (halo - fewer * stride for halo in found.halo[axis])
        margin = (image.shape[2 + axis] - whole.shape[2 + axis] * stride // phases) // 2
        start, at = margin + number * stride, (before - margin) // stride * phases
        cut = slice(start - before, start + stride + after)
        return cut, slice(at, at + phases), slice(number * phases, (number + 1) * phases)

    errors = []
    for number in range(max(whole.shape[2:])):
        (rows, row, tall), (cols, col, wide) = places(0, number), places(1, number)
        if min(rows.start, cols.start) >= 0 and rows.stop <= image.shape[2] and cols.stop <= image.shape[3]:
            part = score_map(network, image[..., rows, cols]).detach()[..., row, col]
            errors.append((part - whole[..., tall, wide]).abs().max())
    assert errors, "the image is too small for a single tile with its halo"
    return float(max(errors) / whole.std())


@pytest.mark.parametrize("name", EXACT)
def test_exact_networks_are_found_and_their_halo_is_exact(name):
    make, height, width = EXACT[name]
    network, image = double(make), picture(height, width)
    found = audit(network, image)
    assert found.exact and found.agree and found.breakers == [] and found.error < 1e-10
    assert "an exact patch classifier; a patch alone is wrong by" in repr(found)
    assert tile_error(network, image, found) < 1e-10


@pytest.mark.parametrize("name", ["U-Net", "U-Net of five levels", "SegNet"])
def test_one_stride_less_of_halo_is_not_exact(name):
    make, height, width = EXACT[name]
    network, image = double(make), picture(height, width)
    assert tile_error(network, image, audit(network, image), fewer=1) > 1e-8


def test_the_numbers_of_a_padded_unet():
    found = audit(UNet(depth=3).eval(), (1, 1, 256, 256))
    assert found.patch == ([92, 100], [92, 100]) and found.clipped == (False, False)
    assert found.stride == found.phases == (8, 8) and found.halo == ((48, 48), (48, 48))
    assert found.error is None and found.agree is None and found.exact
    assert "as traced; not measured" in repr(found) and "sizes    8, 16, 24, ..." in repr(found)


def test_the_numbers_of_the_original_unet():
    with torch.device("meta"):
        network = UNet(depth=4, padding=0).eval()
    found = audit(network, (1, 1, 572, 572))
    assert found.patch == ([188, 204], [188, 204]) and found.stride == (16, 16)
    assert found.halo == ((92, 96), (92, 96)) and found.sizes == ([188], 16)


def test_a_patch_larger_than_the_image_is_a_lower_bound():
    found = audit(double(UNet, depth=3, width=2), picture(128, 64))
    assert found.clipped == (False, True) and found.patch == ([92, 100], [64])
    assert "92 or 100 x at least 64" in repr(found)


def test_a_network_that_turns_the_image_over():
    found = audit(double(Flipped), picture(256, 224))
    assert found.exact and found.halo == ((48, 48), (48, 48))


# --- the sizes it takes, run for real --------------------------------------------------------------------

SIZES = {
    "U-Net": (partial(UNet, depth=2, width=2), 64, (4, 4)),
    "unpadded U-Net": (partial(UNet, depth=2, width=2, padding=0), 52, (44, 4)),
    "FCN-8s": (partial(FCN, 8), 96, (32, 32)),
    "DeconvNet": (partial(DeconvNet, 64), 64, (64, None)),
    "patch classifier": (PatchNet, 17, (17, None)),
    "patch CNN, strided": (lambda: convolutional(PatchNet()), 40, (17, 1)),
    "cropped": (partial(Margin, 8), 40, (17, 1)),
    "instance norm": (lambda: TinyUNet(deep=nn.InstanceNorm2d(4)), 64, (32, 16)),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_those_that_run(name):
    make, side, expected = SIZES[name]
    network = double(make)
    (smallest,), step = audit(network, (1, 1, side, side)).sizes
    assert (smallest, step) == expected

    def runs(side):
        try:
            return score_map(network, torch.rand(1, 1, side, side, dtype=torch.float64)).numel() > 0
        except (ValueError, RuntimeError):
            return False

    assert runs(smallest) and not runs(smallest - (step or 1))
    assert not step or (runs(smallest + step) and all(not runs(smallest + more) for more in range(1, step)))


def test_sizes_that_are_no_multiples_of_one_number():
    """Strides of 2 that round up on the way down, and transposed convolutions that always double."""

    class Rounding(nn.Module):
        def __init__(self):
            super().__init__()
            self.down = nn.ModuleList(nn.Conv2d(1, 1, 3, 2, 1) for _ in range(3))
            self.up = nn.ModuleList(nn.ConvTranspose2d(1, 1, 3, 2, 1, 1) for _ in range(2))

        def forward(self, image):
            first = self.down[0](image)
            second = self.down[1](first)
            return first + self.up[0](second + self.up[1](self.down[2](second)))

    found = audit(Rounding(), (1, 1, 64, 64))
    assert found.sizes == ([7, 8], 8) and "sizes     7, 8, 15, 16, 23, 24, ..." in repr(found)
    for side in range(5, 40):
        runs = side >= 7 and side % 8 in (7, 0)
        with nullcontext() if runs else pytest.raises(RuntimeError):
            Rounding()(torch.rand(1, 1, side, side))


# --- breakers ---------------------------------------------------------------------------------------------

WRONG = {  # median of what is left of a patch, in sd: at least and at most
    "instance norm": (0.1, 2),
    "statistics of the batch": (0.1, 2),
    "group norm": (0.05, 2),
    "average pooling": (0.05, 2),
    "attention": (1e-3, 0.3),
    "pooling": (1e-3, 0.3),
}


@pytest.mark.parametrize("name", BREAKERS)
def test_breakers_are_named_and_measured(name):
    unet = double(TinyUNet, deep=BREAKERS[name]())
    unet.deep.train(name == "statistics of the batch")
    found, (least, most) = audit(unet, picture(384, 384)), WRONG[name]
    assert not found.exact and found.agree and found.halo is None
    assert least < found.error < most
    (breaker,) = found.breakers
    assert breaker.layer.startswith("deep") and name in breaker.reason
    assert 1e-4 < breaker.error < most
    assert found.patch == ([94, 110], [94, 110]), "the patch, were it not for the breaker"
    assert f"  {breaker.layer}" in repr(found) and f"{breaker.error:.1g} sd" in repr(found)


def test_every_layer_at_fault_has_its_own_error():
    found = audit(normalised(lambda: nn.GroupNorm(8, 16)), picture(256, 256))
    assert len(found.breakers) == 9 and all(breaker.error > 1e-6 for breaker in found.breakers)
    assert len({breaker.error for breaker in found.breakers}) == 9


def test_a_layer_alone_is_as_wrong_as_the_network_if_nothing_else_is():
    """One convolution, one norm: what the patch says is what the norm says of the patch."""

    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Conv2d(1, 3, 1), nn.InstanceNorm2d(3)
            self.last = nn.Conv2d(3, 2, 9, padding=4)

        def forward(self, image):
            return self.last(self.norm(self.first(image)))

    found = audit(double(Normed), picture(64, 64))
    assert found.breakers[0].error == pytest.approx(found.error, rel=1e-9)


def test_a_pooling_to_one_position_is_measured_by_itself():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.pool = nn.Conv2d(1, 3, 3, padding=1), nn.AdaptiveAvgPool2d(1)

        def forward(self, image):
            maps = self.first(image)
            return maps * self.pool(maps)

    (breaker,) = audit(double(Gated), picture(64, 64)).breakers
    assert breaker.layer == "pool" and breaker.error > 0.01


@pytest.mark.parametrize(
    ("layer", "op"),
    [
        (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), "upsample_bilinear2d"),
        (nn.AdaptiveAvgPool2d((6, 10)), "adaptive_avg_pool2d"),
        (nn.Upsample((64, 80), mode="bilinear"), "upsample_bilinear2d"),
    ],
    ids=["align_corners", "adaptive pooling", "fixed size"],
)
def test_layers_that_go_by_the_size_of_the_image(layer, op):
    found = audit(double(lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), layer)), picture(48, 60))
    assert [(each.layer, each.reason) for each in found.breakers] == [
        ("1", f"{op}, whose ratio goes by the size of the image")
    ]
    assert not found.exact and (found.error is None or found.error > 1e-3)


def test_align_corners_is_wrong_by_hundredths():
    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    found = audit(double(TinyUNet, up=up), picture(384, 384))
    assert 0.005 < found.error < 0.5 and "nowhere in this image" in repr(found)


class ToTheCorners(nn.Module):
    """A stride of 4, and back to the image's size with corners on corners."""

    def __init__(self):
        super().__init__()
        self.down, self.mix = nn.Conv2d(1, 4, 4, stride=4), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, image):
        maps, size = self.mix(self.down(image).relu()), image.shape[-2:]
        return nn.functional.interpolate(maps, size=size, mode="bilinear", align_corners=True)


@pytest.mark.parametrize("side", range(64, 513, 64))
def test_align_corners_is_found_at_every_size(side):
    found = audit(double(ToTheCorners), picture(side, side))
    assert not found.exact and [each.reason.partition(",")[0] for each in found.breakers] == [
        "upsample_bilinear2d"
    ]


def test_no_halo_is_read_off_patches_that_the_border_cuts_off():
    small, large = (audit(double(partial(FCN, 8)), (1, 1, side, side)) for side in (64, 512))
    assert small.clipped == (True, True) and small.halo == (None, None) and large.halo == ((96, 96), (96, 96))
    assert "unknown, as the border cuts every patch off" in repr(small)


def test_a_list_of_layers_is_no_layer_that_could_be_given_a_part():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.MultiheadAttention(4, 1, batch_first=True)])
            self.back = nn.Conv2d(4, 2, 1)

        def forward(self, image):
            tokens = image.repeat(1, 4, 1, 1).flatten(2).transpose(1, 2)
            mixed, _ = self.blocks[0](tokens, tokens, tokens)
            return self.back((tokens + mixed).transpose(1, 2).reshape(1, 4, *image.shape[2:]))

    found = audit(double(Tokens), picture(24, 24))
    assert found.error > 1e-3 and [each.error for each in found.breakers] == [None]


def test_a_pattern_that_never_repeats_is_named():
    class Mirrored(nn.Module):
        def forward(self, image):
            return image + image.flip(-1)

    found = audit(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), Mirrored()), (1, 1, 32, 32))
    assert [breaker.reason for breaker in found.breakers] == ["patches that repeat nowhere"]


def test_one_code_for_a_crop_cannot_be_measured_and_says_so():
    found = audit(double(DeconvNet, 64), picture(64, 64))
    assert not found.exact and found.error is None and found.breakers[0].layer == "code.0"
    assert "no patch classifier, as traced; not measured" in repr(found) and "64 alone" in repr(found)


# --- where trace and measurement disagree ------------------------------------------------------------------


class Place(nn.Module):
    def forward(self, image):
        return image + torch.linspace(0, 1, image.shape[-1], dtype=image.dtype)


class Size(nn.Module):
    def forward(self, image):
        return image * image.shape[-1] / 100


@pytest.mark.parametrize("layer", [Place(), Size(), nn.Dropout(0.5)], ids=["place", "size", "chance"])
def test_what_no_field_shows_is_reported(layer):
    torch.manual_seed(0)
    unet = double(TinyUNet, deep=layer)
    layer.train()
    found = audit(unet, picture(256, 256))
    assert found.breakers == [] and not found.exact and found.agree is False and found.halo is None
    assert "DISAGREE: all fields are local" in repr(found) and "perhaps  " in repr(found)


def test_a_global_layer_that_hardly_listens_is_reported():
    unet = double(TinyUNet, deep=SqueezeExcite(4))
    nn.init.zeros_(unet.deep[1].weight)
    found = audit(unet, picture(256, 256))
    assert found.exact and found.agree is False and found.breakers[0].error == 0
    assert "DISAGREE: layers read the whole image" in repr(found)


# --- torchvision -------------------------------------------------------------------------------------------


def he_initialised(network, image):
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        elif isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    with torch.inference_mode():
        network.train()(torch.cat(image.chunk(2, dim=-1)))
    return network.eval()


def strip(width):
    return picture(64, width).float().repeat(1, 3, 1, 1)


MEASURED = {  # the patch along the columns; of layers at fault, how many
    "squeezenet1_1": ([207], 0),
    "mobilenet_v2": ([491], 0),
    "resnet18": ([435], 0),
    "mobilenet_v3_small": ([639], 9),
}


@pytest.mark.parametrize("name", MEASURED)
def test_backbones_are_measured(name):
    torch.manual_seed(0)
    network, image = getattr(torchvision_models(), name)(weights=None), strip(1024)
    layers = [part for key, part in network.named_children() if key not in ("avgpool", "classifier", "fc")]
    found, (patch, faults) = audit(he_initialised(nn.Sequential(*layers), image), image), MEASURED[name]
    assert found.patch[1] == patch and len(found.breakers) == faults
    assert found.agree and found.exact == (faults == 0)
    assert all("average pooling" in each.reason and each.error > 1e-3 for each in found.breakers)


def test_a_segmentation_network_that_returns_a_dictionary_is_measured():
    torch.manual_seed(0)
    network = torchvision_models().segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    found = audit(he_initialised(network, strip(1024)), strip(1024))
    assert found.patch[1] == [675, 691] and found.stride == found.phases == (16, 16)
    assert len(found.breakers) == 9 and found.agree and 0.01 < found.error < 2
    assert found.breakers[-1].layer == "classifier.scale.0" and found.sizes == ([1], 1)


@pytest.mark.parametrize(
    ("name", "patch", "faults"),
    [
        ("fcn_resnet50", [451], []),
        ("fcn_resnet101", [995], []),
        ("deeplabv3_resnet50", [1027], ["classifier.0.convs.4.0"]),
        ("deeplabv3_resnet101", [1571], ["classifier.0.convs.4.0"]),
    ],
)
def test_heavy_segmentation_networks_are_traced(name, patch, faults):
    with torch.device("meta"):
        network = getattr(torchvision_models().segmentation, name)(weights=None, weights_backbone=None).eval()
    found = audit(network, (1, 3, 128, 2048))
    assert found.patch[1] == patch and [each.layer for each in found.breakers] == faults
    assert found.stride == (8, 8) and found.error is None


def test_every_size_runs_but_not_every_size_is_exact():
    with torch.device("meta"):
        network = torchvision_models().segmentation.fcn_resnet50(weights=None, weights_backbone=None).eval()
    for side in (512, 520, 500, 501):
        found = audit(network, (1, 3, side, side))
        assert found.exact == (side % 8 == 0) and found.sizes == ([1], 1)


# --- nothing is changed, little is imported ----------------------------------------------------------------


def test_neither_image_nor_network_changes():
    network = nn.Sequential(double(Changing), nn.BatchNorm2d(2), SelfAttention(2), GlobalBranch()).double()
    network.train()
    image = picture(64, 64)
    before, state = image.clone(), {name: value.clone() for name, value in network.state_dict().items()}
    assert len(audit(network, image).breakers) == 3
    assert torch.equal(image, before) and network.training
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert not any("forward" in vars(module) for module in network.modules())


def test_a_forward_that_somebody_set_is_left_alone():
    """As tools do that wrap a layer. Here it is halved, so that the layer's own would give other scores."""
    unet, image = double(TinyUNet, deep=SqueezeExcite(4)), picture(64, 64)
    layers = [unet.deep, *unet.deep]
    given = [partial(lambda layer, maps: type(layer).forward(layer, maps) / 2, layer) for layer in layers]
    for layer, forward in zip(layers, given, strict=True):
        layer.forward = forward
    before = score_map(unet, image)
    (breaker,) = audit(unet, image).breakers
    assert breaker.layer.startswith("deep") and breaker.error is not None
    assert all(vars(layer)["forward"] is forward for layer, forward in zip(layers, given, strict=True))
    assert torch.equal(score_map(unet, image), before)


# --- bad input: test_bad_input.py has what audit shares with the others -----------------------------


def test_scores_that_are_all_the_same_are_no_measure():
    dead = double(TinyUNet)
    nn.init.zeros_(dead.head.weight)
    nn.init.zeros_(dead.head.bias)
    with pytest.raises(ValueError, match="scores have a standard deviation of 0, so no error"):
        audit(dead, picture(64, 64))


def test_scores_that_are_not_finite_are_no_measure():
    broken = double(TinyUNet)
    nn.init.constant_(broken.head.weight, float("nan"))
    with pytest.raises(ValueError, match="scores have a standard deviation of nan"):
        audit(broken, picture(64, 64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_to_be_audited_in_single(dtype):
    network, image = TinyUNet().to(dtype).eval(), picture(64, 64).to(dtype)
    with pytest.raises(ValueError, match=r"rounding hides .*; audit a copy in single precision"):
        audit(network, image)
    assert audit(network, image.shape).exact  # traced, it is like any other
