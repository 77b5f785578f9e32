"""The networks: their papers' numbers, and that a network and its other forms are one function."""

import re
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from pixelpatch import receptive_field
from utils.networks import (
    FCN,
    BilinearUpsampling,
    DeconvNet,
    PatchNet,
    UNet,
    a_trous,
    convolutional,
    he_initialise,
    multiply_accumulates,
)
from utils.windows import mirror, sliding_window


def test_n4_has_the_papers_size():
    n4 = PatchNet(window=95, classes=2, width=48, hidden=200)
    assert sum(weight.numel() for weight in n4.parameters()) == 219_290
    assert multiply_accumulates(n4, (1, 1, 95, 95)) == 121_464_592


@pytest.mark.parametrize(
    "network", [PatchNet(33), a_trous(PatchNet(33)), FCN(8), nn.ConvTranspose2d(1, 6, 3, 2)]
)
def test_multiply_accumulates_are_half_of_pytorchs_operations(network):
    shape = (2, 1, 33, 33) if isinstance(network, PatchNet) else (2, 1, 64, 96)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(shape))
    assert multiply_accumulates(network, shape) == counter.get_total_flops() // 2


@pytest.mark.parametrize("window", range(5, 99, 2))
def test_patch_net_takes_every_odd_window_and_pools_nothing_away(window):
    net = PatchNet(window, width=2, hidden=2).double()
    patch = torch.rand(1, 1, window, window, dtype=torch.float64, requires_grad=True)
    for layer in net.features:
        if isinstance(layer, nn.MaxPool2d):
            assert patch.shape[-1] % 2 == 0
        patch = layer(patch)
    assert net.classifier(patch).shape == (1, 3)


@pytest.mark.parametrize("window", [4, 3, 64])
def test_patch_net_refuses_a_window_without_a_middle(window):
    with pytest.raises(ValueError, match=f"window is {window}, expected an odd number from 5 up"):
        PatchNet(window)


def test_patch_net_refuses_a_patch_of_another_size():
    with pytest.raises(ValueError, match=r"the patches are 33 x 33, expected 17 x 17"):
        PatchNet(17)(torch.zeros(2, 1, 33, 33))


@pytest.mark.parametrize("window, batch_norm", [(5, False), (9, False), (17, True), (23, False)])
def test_one_function_in_three_forms(window, batch_norm):
    torch.manual_seed(window)
    net = PatchNet(window, width=5, hidden=7, channels=2, batch_norm=batch_norm).double()
    net(torch.rand(9, 2, window, window, dtype=torch.float64))  # so that the norm has statistics of its own
    net.eval()
    image = torch.rand(1, 2, 25, 31, dtype=torch.float64)
    literal = sliding_window(net, image, window)
    stride = 2 ** sum(isinstance(layer, nn.MaxPool2d) for layer in net.features)
    with torch.no_grad():
        torch.testing.assert_close(a_trous(net)(mirror(image, window)), literal, rtol=0, atol=1e-12)
        coarse = convolutional(net)(mirror(image, window))
    expected = literal[..., ::stride, ::stride]
    torch.testing.assert_close(coarse, expected, rtol=0, atol=1e-12)


def test_other_forms_leave_the_patch_net_alone():
    net = PatchNet(9)
    before = [weight.clone() for weight in net.parameters()]
    for form in (convolutional, a_trous):
        for weight in form(net).parameters():
            weight.data.zero_()
    for weight, old in zip(net.parameters(), before, strict=True):
        assert torch.equal(weight, old)
    assert [layer.stride for layer in net.features if isinstance(layer, nn.MaxPool2d)] == [2]


@pytest.mark.parametrize("factor", [2, 4, 8, 32])
def test_bilinear_upsampling_interpolates_inside(factor):
    image = torch.rand(2, 3, 5, 6, dtype=torch.float64)
    painted = BilinearUpsampling(3, factor).double()(image)
    wanted = F.interpolate(image, scale_factor=factor, mode="bilinear", align_corners=False)
    inside = (..., slice(factor, -factor), slice(factor, -factor))
    torch.testing.assert_close(painted[inside], wanted[inside], rtol=0, atol=1e-12)


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_fcn_labels_every_pixel_and_learns_everything_but_its_tents(stride):
    net = FCN(stride, classes=4, width=4)
    scores = net(torch.rand(2, 1, 64, 96))
    assert scores.shape == (2, 4, 64, 96)
    scores.square().sum().backward()
    for name, weight in net.named_parameters():
        fixed = name.startswith(("twice", "restore"))
        assert (weight.grad is None) == fixed, name


def test_fcn_says_what_sizes_it_takes():
    with pytest.raises(ValueError, match=r"stride is 4, expected 32, 16 or 8"):
        FCN(stride=4)
    message = r"the image is 60 x 64, expected multiples of 32.*F\.pad\(image, \(0, 0, 0, 4\)"
    with pytest.raises(ValueError, match=message):
        FCN()(torch.zeros(1, 1, 60, 64))


# --- U-Net -----------------------------------------------------------------------------------------------


def test_unet_has_the_papers_layers_and_sizes():
    with torch.device("meta"):  # shapes without numbers
        unet, image = UNet(depth=4, width=64, classes=2, padding="valid"), torch.zeros(1, 1, 572, 572)
    layers = [m for m in unet.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert Counter(layer.kernel_size for layer in layers) == {(3, 3): 18, (2, 2): 4, (1, 1): 1}
    sizes = []
    for stage in [*unet.down, *unet.join]:
        stage[0].register_forward_hook(lambda _, images, out: sizes.append([images[0].shape, out.shape]))
        stage[2].register_forward_hook(lambda _, __, out: sizes[-1].append(out.shape))
    assert unet(image).shape == (1, 2, 388, 388)
    assert [[shape[-1] for shape in stage] for stage in sizes] == [
        *([572, 570, 568], [284, 282, 280], [140, 138, 136], [68, 66, 64], [32, 30, 28]),
        *([56, 54, 52], [104, 102, 100], [200, 198, 196], [392, 390, 388]),
    ]
    assert [stage[-1][1] for stage in sizes] == [64, 128, 256, 512, 1024, 512, 256, 128, 64]
    assert [stage[0][1] for stage in sizes[5:]] == [1024, 512, 256, 128]  # half of them from the way down


def test_the_papers_unet_has_two_windows_by_phase():
    field = receptive_field(UNet(depth=4, width=1, padding="valid"), (1, 1, 572, 572))
    assert field.output_shape[2:] == (388, 388) and field.stride == (16, 16) and not field.whole_image
    for phase in range(16):
        left, right = (92 + phase, 95 - phase) if phase < 4 else (92 + phase, 111 - phase)
        at = 160 + phase + 92  # output pixel o lies over input pixel o + 92
        assert field.box(160 + phase, 0) == (at - left, 0, at + right + 1, 188)
        assert field.box(387, 160 + phase) == (384, at - left, 572, at + right + 1)


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize(("depth", "sides"), [(1, {18}), (2, {44}), (3, {92, 100}), (4, {188, 204})])
def test_fields_of_padded_unets_by_depth_with_skips_or_without(depth, sides, skips):
    field = receptive_field(UNet(depth, width=1, skips=skips), (1, 1, 256, 272))
    boxes = [field.box(112 + phase, 136 - phase) for phase in range(16)]  # far enough from every border
    assert {box.bottom - box.top for box in boxes} == {box.right - box.left for box in boxes} == sides
    assert field.stride == (2**depth, 2**depth) and field.output_shape[2:] == (256, 272)


def test_skips_join_the_maps_of_the_way_down():
    torch.manual_seed(0)
    for skips in (True, False):
        unet, image = UNet(depth=2, width=4, skips=skips), torch.rand(1, 1, 16, 24)
        before = unet(image)
        assert before.shape == (1, 3, 16, 24)
        nn.init.zeros_(unet.up[-1].weight)  # nothing comes from below any more
        unet(image).sum().backward()
        assert bool(unet.down[0][0].weight.grad.any()) == skips
        assert not torch.equal(unet(image), before)


def pooled_maps(unet, height, width):
    """The sizes of all maps that are pooled, if no size is refused; None where a map would be empty."""
    unet._check_even, found = lambda image: None, []
    hooks = [down.register_forward_hook(lambda *args: found.append(args[2].shape)) for down in unet.down[:-1]]
    try:
        unet(torch.zeros(1, 1, height, width))
    except RuntimeError:
        return None
    finally:
        del unet._check_even
        for hook in hooks:
            hook.remove()
    return [shape[-2:] for shape in found]


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_valid_unet_takes_exactly_the_sizes_whose_pooled_maps_are_even(depth, skips):
    unet = UNet(
        depth, width=1, padding="valid", skips=skips
    )  # no meta tensors: torch 2.6 takes some too small
    for size in range(1, 12 * 2**depth + 20):
        maps = pooled_maps(unet, size, size)
        image = torch.zeros(1, 1, size, size)
        if maps is not None and all(side % 2 == 0 for shape in maps for side in shape):
            unet(image)
            continue
        with pytest.raises(ValueError, match=f"the image is {size} x {size}, expected heights") as error:
            unet(image)
        more = int(re.search(rf"enlarge {size} by (\d+)", str(error.value))[1])
        unet(torch.zeros(1, 1, size + more, size + more))
        if more > 1:
            with pytest.raises(ValueError):  # it is the least that helps
                unet(torch.zeros(1, 1, size + more - 1, size + more - 1))


def test_valid_unet_checks_both_sides():
    unet = UNet(depth=2, width=2, padding="valid")
    assert unet(torch.rand(1, 1, 44, 52)).shape == (1, 3, 4, 12)
    for height, width in [(44, 50), (50, 44)]:
        with pytest.raises(ValueError, match=r"widths of 44, 48, 52 and so on.*enlarge 50 by 2"):
            unet(torch.rand(1, 1, height, width))


@pytest.mark.parametrize("size, enough", [((30, 41), (32, 48)), ((3, 1), (8, 8))])
def test_padded_unet_says_how_to_pad(size, enough):
    unet, image = UNet(depth=3, width=2), torch.rand(1, 1, *size)
    message = rf"{size[0]} x {size[1]}, expected multiples of 8.*F\.pad\(image, (\(.*?\)), mode='replicate'\)"
    with pytest.raises(ValueError, match=message) as error:
        unet(image)
    padding = [int(side) for side in re.findall(r"\d+", re.search(message, str(error.value))[1])]
    assert unet(F.pad(image, padding, mode="replicate")).shape == (1, 3, *enough)


def test_unet_refuses_another_padding():
    with pytest.raises(ValueError, match="padding is 'reflect', expected 'same' or 'valid'"):
        UNet(padding="reflect")


# --- DeconvNet -------------------------------------------------------------------------------------------


def random_double(make, *args, **options):
    torch.manual_seed(0)
    return make(*args, **options).double().eval()


def slope(network, image, row, col):
    """Which pixels of the image move the scores of one output pixel."""
    image = image.clone().requires_grad_()
    return torch.autograd.grad(network(image)[0, :, row, col].square().sum(), image)[0][0, 0]


def test_deconvnet_sees_the_whole_crop_through_its_code():
    network = random_double(DeconvNet, side=64)
    field = receptive_field(network, (1, 1, 64, 64))
    assert [whole.layer for whole in field.whole_image] == ["code.0"]
    image = torch.rand(1, 1, 64, 64, dtype=torch.float64)
    for row, col in [(0, 0), (0, 63), (63, 0), (63, 63), (31, 40)]:
        assert field.mask(row, col).all()
        assert slope(network, image, row, col).ne(0).all()


def test_without_its_code_it_sees_a_patch():
    network = random_double(DeconvNet, width=2, code=None)
    field = receptive_field(network, (1, 1, 384, 416))
    assert field.whole_image == [] and field.stride == (32, 32)
    image = torch.rand(1, 1, 384, 416, dtype=torch.float64)
    for row, col in [(192, 208), (201, 199)]:
        moved, box = slope(network, image, row, col), field.box(row, col)
        assert min(box[:2]) > 0 and box.bottom < 384 and box.right < 416
        assert moved[box.top : box.bottom, box.left : box.right].any()
        moved[box.top : box.bottom, box.left : box.right] = 0
        assert not moved.any()


@pytest.mark.parametrize("side", [0, 31, 48, 100])
def test_deconvnet_refuses_a_side_that_cannot_be_halved_five_times(side):
    with pytest.raises(ValueError, match=rf"side is {side}, expected a multiple of 32; try (\d+)") as error:
        DeconvNet(side)
    DeconvNet(int(re.search(r"try (\d+)", str(error.value))[1]))


def test_deconvnet_refuses_other_crops():
    with pytest.raises(ValueError, match="the image is 64 x 32, expected 64 x 64, because the code"):
        DeconvNet(64, width=2)(torch.zeros(1, 1, 64, 32))
    with pytest.raises(ValueError, match=r"the image is 64 x 40, expected multiples of 32"):
        DeconvNet(64, width=2, code=None)(torch.zeros(1, 1, 64, 40))


@pytest.mark.parametrize("code", [16, None])
def test_deconvnet_folds_up_and_unfolds(code):
    network, shapes = DeconvNet(96, classes=5, width=4, channels=2, code=code).eval(), []
    for stage in [*network.down, *network.code, *network.up]:
        stage.register_forward_hook(lambda *args: shapes.append(tuple(args[2].shape[1:])))
    assert network(torch.rand(1, 2, 96, 96)).shape == (1, 5, 96, 96)
    down, middle, up = shapes[:5], shapes[5:-5], shapes[-5:]
    assert down == [(4, 96, 96), (8, 48, 48), (16, 24, 24), (16, 12, 12), (16, 6, 6)]
    assert up == [(16, 6, 6), (16, 12, 12), (8, 24, 24), (4, 48, 48), (4, 96, 96)]
    # each convolution of the code is followed by its norm and its ReLU
    assert middle == ([] if code is None else [(16, 1, 1)] * 6 + [(16, 3, 3)] * 3)


def test_deconvnet_in_eval_mode_scores_each_crop_alone():
    network = random_double(DeconvNet, 32, width=2)
    crops = torch.rand(3, 1, 32, 32, dtype=torch.float64)
    one, all_three = network(crops[:1]), network(crops)[:1]
    torch.testing.assert_close(one, all_three, rtol=0, atol=1e-12)
    network.train()
    assert not torch.allclose(network(crops)[:1], network(crops[[0, 1, 1]])[:1])


# --- first weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 1), (4, 2), (3, 3), (8, 4)])
def test_signals_keep_their_size_through_transposed_convolutions(kernel, stride):
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(32, 256, kernel, stride)
    he_initialise(layer)
    with torch.no_grad():
        signal = layer(torch.randn(4, 32, 20, 20).relu())[..., kernel:-kernel, kernel:-kernel]
    # The mean square of 256 channels, each with its own weights: to 15 %, which is five times its spread.
    assert signal.square().mean() == pytest.approx(1, abs=0.15)
    assert not layer.bias.any()


def test_first_weights_leave_the_tents_alone():
    net = FCN(16, width=2)
    for tent, fresh in [(net.twice, BilinearUpsampling(3, 2)), (net.restore, BilinearUpsampling(3, 16))]:
        assert torch.equal(tent.weight, fresh.weight)
