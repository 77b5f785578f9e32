"""The networks: their papers' numbers, and that a network and its other forms are one function."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from utils.models import FCN, BilinearUpsampling, PatchNet, a_trous, convolutional, multiply_accumulates
from utils.patches import mirror, sliding_window


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
    with pytest.raises(ValueError, match=r"the patches are \(33, 33\), expected 17 x 17"):
        PatchNet(17)(torch.zeros(2, 1, 33, 33))


@pytest.mark.parametrize("window", [5, 9, 17, 23])
def test_one_function_in_three_forms(window):
    torch.manual_seed(window)
    net = PatchNet(window, width=5, hidden=7, channels=2).double().eval()
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
