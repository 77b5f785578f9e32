"""The patch alone gives the scores of the whole image, or the proof says why it cannot."""

from functools import partial

import pytest
import torch
from networks import (
    BREAKERS,
    Changing,
    Flipped,
    GlobalBranch,
    Margin,
    PatchNet,
    SelfAttention,
    SqueezeExcite,
    TinyUNet,
    a_trous,
    convolutional,
    double,
    normalised,
    picture,
)
from torch import nn
from torch.nn import functional as F

from pixelpatch import Box, WholeImageError, patch_proof, receptive_field
from pixelpatch.engine import rules
from pixelpatch.engine.taps import Taps, window
from pixelpatch.proofs import cut_out, prove
from pixelpatch.scores import score_map


def holds(model, image, pixels, tolerance=1e-12):
    for row, col in pixels:
        proof = patch_proof(model, image, row, col)
        assert proof.max_abs_difference <= tolerance, (row, col, proof.box, proof.cut)
        assert torch.equal(proof.full_scores, score_map(model, image)[0, :, row, col])
        cut = proof.cut
        assert torch.equal(proof.patch, image[..., cut.top : cut.bottom, cut.left : cut.right])
        assert cut.top <= proof.box.top and proof.box.bottom <= cut.bottom
        assert cut.left <= proof.box.left and proof.box.right <= cut.right


PHASES = [(128 + phase, 140 - phase) for phase in range(16)]
BORDER = [(0, 0), (0, 255), (255, 0), (255, 255), (3, 130), (131, 252)]


@pytest.mark.parametrize(
    "up", [None, nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2, mode="bilinear")]
)
def test_zero_padded_unet_at_every_phase_and_at_the_border(up):
    unet, image = double(TinyUNet, up=up), picture(256, 256)
    field = receptive_field(unet, image.shape)
    assert field.stride == field.step == (16, 16)
    holds(unet, image, PHASES + BORDER)
    inside = patch_proof(unet, image, 128, 128)
    assert inside.patch.numel() < image.numel() / 2  # the proof is not that all is all


def test_a_field_that_is_too_small_is_found_out(monkeypatch):
    """Though the cut, at whole strides, is large enough to hold all that the pixel really sees."""

    def shortened(n, kernel, *others):
        taps = window(n, kernel, *others)
        finest = kernel == 3 and n in (256, 112)  # the sides of image and cut
        return Taps(taps.index[:, :2], n, taps.step) if finest else taps

    unet, image = double(TinyUNet), picture(256, 256)
    true = patch_proof(unet, image, 130, 131)
    monkeypatch.setattr(rules, "window", shortened)
    wrong = patch_proof(unet, image, 130, 131)
    assert true.cut == wrong.cut and wrong.box.bottom < true.box.bottom
    assert true.max_abs_difference < 1e-12 < 1e-6 < wrong.max_abs_difference


def test_patch_is_no_larger_than_the_strides_ask():
    proof = patch_proof(double(TinyUNet), picture(256, 256), 130, 130)
    for start, stop, low, high in zip(
        proof.cut[:2], proof.cut[2:], proof.box[:2], proof.box[2:], strict=True
    ):
        assert start % 16 == stop % 16 == 0 and low - start < 16 and stop - high < 16


@pytest.mark.parametrize("shift", [1, 2, 4, 8])
def test_a_patch_that_starts_elsewhere_is_wrong(shift):
    unet, image = double(TinyUNet), picture(256, 256)
    cut, (row, col), _ = cut_out(
        partial(receptive_field, unet), receptive_field(unet, image.shape), Box(128, 128, 129, 129)
    )
    full, at = score_map(unet, image), 16 - shift
    patch = image[..., cut.top - at : cut.bottom + shift, cut.left - at : cut.right + shift]
    difference = (score_map(unet, patch)[0, :, row + at, col + at] - full[0, :, 128, 128]).abs().max()
    assert difference > 0.01 * full.std()


def test_every_window_of_a_dense_patch_net():
    network, image = double(lambda: a_trous(PatchNet())), picture(30, 34)
    holds(network, image, [(row, col) for row in range(14) for col in range(0, 18, 3)])
    proof = patch_proof(network, image, 5, 7)
    assert proof.box == proof.cut == Box(5, 7, 22, 24)


def test_every_window_of_a_strided_patch_net():
    patch_net = double(PatchNet)
    network, image = convolutional(patch_net), picture(50, 61)
    height, width = network(image).shape[-2:]
    assert height > 8 and width > 10
    holds(network, image, [(row, col) for row in range(height) for col in range(width)])
    proof = patch_proof(network, image, 2, 3)
    assert proof.cut == proof.box and proof.patch.shape == (1, 1, 17, 17)  # the window itself
    torch.testing.assert_close(proof.full_scores, patch_net(proof.patch)[0])


def test_valid_padding_and_sizes_that_are_no_multiple():
    class Valid(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)
            self.up, self.c = nn.ConvTranspose2d(4, 4, 2, stride=2), nn.Conv2d(8, 2, 3)

        def forward(self, x):
            fine = self.a(x)
            coarse = self.up(self.b(F.max_pool2d(fine, 2)))
            return self.c(torch.cat([coarse, fine[..., 2:-2, 2:-2]], 1))

    network, image = double(Valid), picture(42, 50)
    height, width = network(image).shape[-2:]
    holds(network, image, [(row, col) for row in range(0, height, 3) for col in range(0, width, 5)])


def test_a_network_that_turns_the_image_over():
    holds(double(Flipped), picture(256, 256), [(128, 128), (30, 140), (200, 7)])


def test_float32_differs_by_rounding_only():
    unet, image = double(TinyUNet).float(), picture(256, 256).float()
    assert patch_proof(unet, image, 128, 128).max_abs_difference < 1e-4 * score_map(unet, image).std()


# --- where the patch is the whole image ------------------------------------------------------------------


@pytest.mark.parametrize("name", BREAKERS)
def test_global_layers_are_refused_by_name(name):
    unet = double(TinyUNet, deep=BREAKERS[name]())
    if name == "statistics of the batch":
        unet.deep.train()
    with pytest.raises(WholeImageError, match=f"whole image.*layer 'deep.*{name}"):
        patch_proof(unet, picture(256, 256), 128, 128)


def test_a_classifier_of_one_window_is_refused_too():
    with pytest.raises(WholeImageError, match=r"layer 'classifier.1': a fully connected layer"):
        patch_proof(double(PatchNet), picture(17, 17), 0, 0)


def test_batch_norm_in_eval_mode_is_local():
    holds(double(TinyUNet, deep=nn.BatchNorm2d(4)), picture(256, 256), [(128, 128), (0, 9)])


def test_a_refused_network_is_left_as_it_was():
    unet = double(TinyUNet, deep=nn.BatchNorm2d(4)).train()
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    with pytest.raises(WholeImageError):
        patch_proof(unet, picture(64, 64), 3, 3)
    assert unet.training and all(
        torch.equal(before[name], value) for name, value in unet.state_dict().items()
    )


ERRORS = {  # at least this median error, in standard deviations of the scores, if the patch is cut out anyway
    "nothing": (0.0, TinyUNet, {}),
    "instance norm": (0.1, lambda: normalised(lambda: nn.InstanceNorm2d(16)), {"width": 16}),
    "batch norm in training": (0.1, lambda: normalised(lambda: nn.BatchNorm2d(16).train()), {"width": 16}),
    "group norm": (0.1, lambda: normalised(lambda: nn.GroupNorm(8, 16)), {"width": 16}),
    "global pooling": (0.01, lambda: TinyUNet(deep=GlobalBranch()), {}),
    "attention": (0.001, lambda: TinyUNet(deep=SelfAttention(4)), {}),
    "squeeze and excite": (0.001, lambda: TinyUNet(deep=SqueezeExcite(4)), {}),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_breaks_the_proof_breaks_it_by_its_order_of_magnitude(name):
    least, make, options = ERRORS[name]
    torch.manual_seed(0)
    unet, image = make().double(), picture(384, 384)
    unet.train(name == "batch norm in training")
    local = receptive_field(TinyUNet(**options), tuple(image.shape))  # the field, were it not for the breaker
    scores = score_map(unet, image).detach()
    proofs = [prove(unet, image, local, scores, 192 + d, 192 - d) for d in range(0, 16, 3)]
    errors = sorted(proof.max_abs_difference / float(scores.std()) for proof in proofs)
    assert errors[-1] < 1e-12 if name == "nothing" else errors[len(errors) // 2] > least


def test_align_corners_fails_by_hundredths_of_a_standard_deviation():
    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    unet, image = double(TinyUNet, up=up), picture(384, 384)
    spread = float(score_map(unet, image).detach().std())
    errors = [patch_proof(unet, image, 192 + d, 192 - d).max_abs_difference / spread for d in range(0, 16, 3)]
    assert 0.005 < sorted(errors)[len(errors) // 2] < 0.5


def test_neither_image_nor_network_changes():
    model, image = double(Changing), picture(20, 20)
    before = image.clone()
    assert patch_proof(model, image, 5, 5).max_abs_difference < 1e-12
    assert torch.equal(image, before) and model.calls == 0


def test_a_field_beside_its_own_pixel_gets_a_larger_cut():
    holds(double(Margin, 8), picture(48, 52), [(0, 0), (31, 35), (13, 20)])
    with pytest.raises(ValueError, match=r"no part of the image gives output pixel \(0, 0\)"):
        patch_proof(double(Margin, 8), picture(18, 18), 0, 0)


def test_a_pooling_that_goes_by_the_size_of_the_image_fails():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.AdaptiveAvgPool2d((6, 10))).double()
    assert patch_proof(model, picture(24, 40), 3, 4).max_abs_difference > 0.01


# --- bad input -------------------------------------------------------------------------------------------


def test_bad_input_is_named():
    unet = double(TinyUNet)
    with pytest.raises(TypeError, match="the image is a ndarray, expected a tensor"):
        patch_proof(unet, picture(64, 64).numpy(), 0, 0)
    with pytest.raises(ValueError, match=r"the image is torch.float32, the network torch.float64; make it"):
        patch_proof(unet, picture(64, 64).float(), 0, 0)
    with pytest.raises(TypeError, match="the model returns a tuple, not one tensor"):
        score_map(nn.MaxPool2d(2, return_indices=True), picture(64, 64))
    with pytest.raises(ValueError, match=r"\(1, 64, 64\), expected \(1, C, H, W\)"):
        patch_proof(unet, picture(64, 64)[0], 0, 0)
    with pytest.raises(IndexError, match=r"pixel \(64, 0\) lies outside the output, which is 64 x 64"):
        patch_proof(unet, picture(64, 64), 64, 0)
