"""The instrument asked about the series' own networks: exact, tiled, inspected, and refused by name."""

from functools import partial

import pytest
import torch
from instrument.networks import double, picture

from pixelpatch import Inspector, WholeImageError, audit, patch_proof, tiled
from pixelpatch.scores import score_map
from utils.networks import FCN, DeconvNet, PatchNet, UNet, a_trous, convolutional, trained

EXACT = {  # the network, an image large enough for its patches, and the sizes of images that it takes
    "U-Net": (partial(UNet, depth=2, width=3), (128, 112), (4, 4)),
    "U-Net without skips": (partial(UNet, width=3, skips=False), (152, 168), (8, 8)),
    "unpadded U-Net": (partial(UNet, depth=2, width=3, padding="valid"), (124, 140), (44, 4)),
    "FCN-32s": (partial(FCN, 32, width=2), (320, 352), (32, 32)),
    "FCN-8s": (partial(FCN, 8, width=2), (320, 352), (32, 32)),
    "SegNet": (partial(DeconvNet, width=2, code=None), (384, 352), (32, 32)),
    "patch CNN, strided": (lambda: convolutional(PatchNet(17, width=3, hidden=4)), (120, 151), (17, 1)),
    "patch CNN, dense": (lambda: a_trous(PatchNet(17, width=3, hidden=4)), (40, 45), (17, 1)),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact_networks_are_found(name):
    make, size, sizes = EXACT[name]
    found = audit(double(make), picture(*size))
    assert found.exact and found.agree and found.breakers == [] and found.error < 1e-10
    assert found.sizes == ([sizes[0]], sizes[1])


@pytest.mark.parametrize("tile", [17, 64])
@pytest.mark.parametrize("name", EXACT)
def test_tiles_give_the_scores_of_one_pass(name, tile):
    make, size, _ = EXACT[name]
    network, image = double(make), picture(*size)
    whole = score_map(network, image).detach()
    torch.testing.assert_close(tiled(network, image, tile), whole, rtol=0, atol=1e-10)


def test_the_numbers_of_the_trained_unet():
    found = audit(trained("unet"), (1, 1, 256, 256))
    assert found.patch == ([92, 100], [92, 100]) and found.clipped == (False, False)
    assert found.stride == found.phases == (8, 8) and found.halo == ((48, 48), (48, 48))
    assert found.error is None and found.agree is None and found.exact
    assert "as traced; not measured" in repr(found) and "sizes    8, 16, 24, ..." in repr(found)


def test_the_numbers_of_the_original_unet():
    with torch.device("meta"):
        network = UNet(depth=4, width=64, classes=2, padding="valid")
    found = audit(network, (1, 1, 572, 572))
    assert found.patch == ([188, 204], [188, 204]) and found.stride == (16, 16)
    assert found.halo == ((92, 96), (92, 96)) and found.sizes == ([188], 16)


def test_the_windows_of_a_patch_net_are_its_patches():
    patch_net = double(PatchNet, 17, width=4, hidden=8)
    proof = patch_proof(convolutional(patch_net), picture(50, 61), 2, 3)
    assert proof.cut == proof.box and proof.patch.shape == (1, 1, 17, 17)
    torch.testing.assert_close(proof.full_scores, patch_net(proof.patch)[0])


@pytest.mark.parametrize(
    ("make", "side", "refused"),
    [
        (partial(DeconvNet, 64, width=2), 64, r"layer 'code\.0': a kernel that reaches over all rows"),
        (partial(PatchNet, 17), 17, r"layer 'classifier\.1': a fully connected layer"),
    ],
    ids=["DeconvNet", "patch classifier"],
)
def test_networks_of_one_size_are_refused_by_the_layer_that_sees_all(make, side, refused):
    network, image = double(make), picture(side, side)
    found = audit(network, image)
    assert not found.exact and found.error is None and found.sizes == ([side], None)
    for ask in (lambda: patch_proof(network, image, 0, 0), lambda: tiled(network, image, 16)):
        with pytest.raises(WholeImageError, match=refused):
            ask()


def test_a_deconvnet_that_is_still_in_training_mode_is_refused():
    network = DeconvNet(width=2, code=None).double().train()
    with pytest.raises(WholeImageError, match=r"layer 'down\.0\.1': statistics of the batch"):
        tiled(network, picture(64, 64), 32)


def test_the_inspector_passes_on_what_a_patch_net_advises():
    with pytest.raises(ValueError, match=r"network 'mine' fails .* use utils\.networks\.a_trous"):
        Inspector(torch.rand(64, 80), {"mine": PatchNet(17)})


def test_the_inspector_takes_all_forms_of_a_network():
    net = PatchNet(17, width=4, hidden=8).eval()
    forms = {"dense": a_trous(net), "strided": convolutional(net)}
    inspector = Inspector(torch.rand(64, 80), forms)
    for number, name in enumerate(forms):
        inspector.request = {"number": number, "network": name, "row": 3, "col": 4}
        assert inspector.answer["said"].startswith("Proof")
