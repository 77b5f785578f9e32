"""Tile by tile a large image gets the scores of one pass, or hears why it cannot."""

from functools import partial

import pytest
import torch
from networks import (
    BREAKERS,
    FCN,
    Changing,
    DeconvNet,
    Flipped,
    Margin,
    PatchNet,
    TinyUNet,
    UNet,
    a_trous,
    convolutional,
    double,
    picture,
)
from torch import nn

from pixelpatch import Box, WholeImageError, receptive_field, tiled
from pixelpatch.proofs import cut_out
from pixelpatch.scores import score_map


def same(model, image, tile):
    """Tiles and one pass give the same, and the tiles are cuts, not the whole image over and over."""
    whole, cuts = score_map(model, image).detach(), cuts_seen(model)
    scores = tiled(model, image, tile)
    assert scores.dtype == whole.dtype and scores.shape == whole.shape
    torch.testing.assert_close(scores, whole, rtol=0, atol=1e-10)
    if tile < max(whole.shape[-2:]):
        assert len(cuts) > 1 and min(height * width for height, width in cuts) < image[0, 0].numel() / 2
    return cuts


def cuts_seen(model):
    """A list that grows by the size of every image that the model is given, from now on."""
    cuts = []

    def remember(_, images):
        if not torch.is_inference_mode_enabled():  # as it is where fields are traced
            cuts.append(tuple(images[0].shape[-2:]))

    model.register_forward_pre_hook(remember)
    return cuts


@pytest.mark.parametrize("tile", [24, 32, 17, 50, 200])  # whole strides or not; larger than the image
@pytest.mark.parametrize(
    ("options", "height", "width"),
    [
        ({"depth": 2}, 112, 96),
        ({"depth": 2, "padding": 0}, 124, 140),
        ({"depth": 3, "skips": False}, 152, 168),
    ],
    ids=["same", "valid", "without skips"],
)
def test_unets(options, height, width, tile):
    same(double(UNet, width=3, **options), picture(height, width), tile)


def test_a_tile_of_one_pixel():
    same(double(UNet, depth=1), picture(20, 12), 1)


@pytest.mark.parametrize("tile", [64, 100])
@pytest.mark.parametrize(
    ("make", "height", "width"),
    [
        (partial(FCN, 32), 320, 352),
        (partial(FCN, 8), 320, 352),
        (DeconvNet, 320, 384),  # as SegNet
        (Flipped, 256, 224),  # turns the image over
        (partial(Margin, 8), 160, 201),  # a field beside its own pixel
    ],
    ids=["FCN-32s", "FCN-8s", "SegNet", "flipped", "cropped"],
)
def test_networks_with_other_ways_back_up(make, height, width, tile):
    same(double(make), picture(height, width), tile)


@pytest.mark.parametrize("tile", [1, 5, 8, 30])
@pytest.mark.parametrize("form", [a_trous, convolutional], ids=["dense", "strided"])
def test_patch_nets(form, tile):
    network = double(lambda: form(PatchNet()))
    same(network, picture(*{a_trous: (40, 45), convolutional: (120, 151)}[form]), tile)


def test_batch_norm_in_eval_mode():
    layer = nn.BatchNorm2d(4)
    nn.init.normal_(layer.running_mean)
    same(double(TinyUNet, deep=layer), picture(288, 304), 48)


def test_no_forward_sees_more_than_a_tile_its_halo_and_the_strides():
    unet, image, tile = double(UNet, depth=2), picture(256, 320), 32
    field = receptive_field(unet, image.shape)
    cuts = same(unet, image, tile)
    boxes = [field.box(row, col) for row in range(128, 132) for col in range(128, 132)]  # of every phase
    for size, stride, low, high in zip(zip(*cuts, strict=True), field.stride, (0, 1), (2, 3), strict=True):
        seen = tile - 1 + max(box[high] - box[low] for box in boxes)
        assert tile < sorted(size)[-2] <= seen + 2 * (stride - 1)
        assert max(size) <= seen + 4 * stride  # one tile is scored again, with a stride more around it
    assert len(cuts) == (256 // tile) * (320 // tile) + 1


def test_only_a_cut_shifted_by_whole_strides_is_right():
    unet, image = double(UNet, depth=2, width=4), picture(160, 160)
    full, field = score_map(unet, image).detach(), receptive_field(unet, image.shape)
    tile, stride = Box(64, 64, 96, 96), 4
    cut, (row, col), unchanged = cut_out(partial(receptive_field, unet), field, tile)
    assert field.stride == (stride, stride) and unchanged
    for shift in range(2 * stride + 1):
        more = 2 * stride - shift  # so that each of these cuts is two strides larger, and they fit
        patch = image[..., cut.top - shift : cut.bottom + more, cut.left - shift : cut.right + more]
        alone = score_map(unet, patch)[..., row + shift :, col + shift :][..., :32, :32]
        error = float((alone - full[..., 64:96, 64:96]).detach().abs().max() / full.std())
        assert (error < 1e-10) if shift % stride == 0 else (error > 0.01), shift


# --- what cannot be tiled --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BREAKERS)
def test_global_layers_are_refused_by_name(name):
    unet = double(TinyUNet, deep=BREAKERS[name]())
    unet.deep.train(name == "statistics of the batch")
    with pytest.raises(WholeImageError, match=f"layer 'deep.*{name}"):
        tiled(unet, picture(64, 64), 32)


def test_deconvnet_is_refused_by_the_layer_that_makes_its_code():
    with pytest.raises(WholeImageError, match=r"layer 'code\.0': a kernel that reaches over all rows"):
        tiled(double(DeconvNet, 64), picture(64, 64), 32)


def test_a_network_that_is_still_in_training_mode_is_refused_at_once():
    network = double(DeconvNet).train()
    cuts = cuts_seen(network)
    with pytest.raises(WholeImageError, match=r"layer 'down\.0\.1': statistics of the batch"):
        tiled(network, picture(64, 64), 32)
    assert cuts == []


@pytest.mark.parametrize("tile", [16, 64, 128])
def test_align_corners_is_refused(tile):
    """Its weights go by the size of the image, even where a cut has all the right boxes."""
    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    with pytest.raises(ValueError, match=r"no part of the image gives the tile at .* score the image in one"):
        tiled(double(TinyUNet, up=up), picture(256, 272), tile)


@pytest.mark.parametrize("layer", [nn.AdaptiveAvgPool2d((8, 10)), nn.Upsample((64, 80), mode="bilinear")])
def test_layers_that_go_by_the_size_of_the_image_are_refused(layer):
    network = double(lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), layer))
    with pytest.raises(ValueError, match=r"no part of the image gives the tile at"):
        tiled(network, picture(32, 40), 4)


@pytest.mark.parametrize("tile", [0, -8, 32.0, None])
def test_a_tile_is_a_positive_number(tile):
    with pytest.raises(ValueError, match=rf"tile is {tile}, expected a whole number of output pixels from 1"):
        tiled(double(UNet), picture(64, 64), tile)


@pytest.mark.parametrize("shape", [(64, 64), (1, 64, 64), (2, 1, 64, 64)])
def test_an_image_is_one_image(shape):
    with pytest.raises(ValueError, match=r"expected \(1, C, H, W\); try image\[None\]"):
        tiled(double(UNet), torch.zeros(shape, dtype=torch.float64), 32)


# --- and nothing is changed ------------------------------------------------------------------------------


def test_neither_image_nor_network_changes():
    model = nn.Sequential(double(Changing), nn.BatchNorm2d(2)).double().eval()
    image = picture(40, 40)
    before, state = image.clone(), {name: value.clone() for name, value in model.state_dict().items()}
    scores = tiled(model, image, 16)
    assert torch.equal(image, before) and not scores.requires_grad and not model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


class Placed(nn.Module):
    """Adds something that goes by a pixel's place, or by the image's size."""

    def __init__(self, kind):
        super().__init__()
        self.conv, self.kind = nn.Conv2d(1, 2, 3, padding=1).double(), kind

    def forward(self, x):
        place = torch.arange(x.shape[-1], dtype=x.dtype).expand_as(x) / 100
        added = {
            "from the start": place,
            "from the end": place.flip(-1),
            "size": x.shape[-2] / 100,
            "noise": torch.rand_like(x),
        }
        return self.conv(x + added[self.kind]) + 100


@pytest.mark.parametrize("tile", [32, 65, 100])
@pytest.mark.parametrize("kind", ["from the start", "from the end", "size", "noise"])
def test_what_no_field_shows_is_found_out_by_one_tile(kind, tile):
    image = picture(128, 256)
    for network, pixels in ((Placed(kind), image), (Placed(kind).float(), image.float())):
        if (kind, tile) == ("from the start", 100):
            continue  # of two tiles side by side, the one that is checked starts with the image
        with pytest.raises(ValueError, match=r"a tile gets other scores.*score the image in one pass"):
            tiled(network, pixels, tile)


def test_labels_that_are_true_or_false():
    class Bright(nn.Conv2d):
        def forward(self, image):
            return super().forward(image) > 0

    network, image = double(Bright, 1, 2, 3, padding=1), picture(96, 64)
    assert torch.equal(tiled(network, image, 32), network(image))


def test_a_network_that_takes_fewer_sizes_than_its_stride_suggests():
    class Eights(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.mix, self.up = (
                nn.Conv2d(1, 2, 4, 4),
                nn.Conv2d(2, 2, 3, padding=1),
                nn.Upsample(scale_factor=4),
            )

        def forward(self, image):
            if image.shape[-2] % 8 or image.shape[-1] % 8:
                raise ValueError("multiples of 8 only")
            return self.up(self.mix(self.down(image)))

    network, image = double(Eights), picture(64, 64)
    torch.testing.assert_close(tiled(network, image, 8), network(image), rtol=0, atol=1e-10)


@pytest.mark.parametrize("tile", [32, 40])
def test_a_network_that_turns_the_image_over_is_checked_in_the_right_place(tile):
    same(double(Flipped), picture(128, 160), tile)
