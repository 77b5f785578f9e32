"""What cannot be done is said in one sentence that names the remedy, by whichever function is asked."""

from dataclasses import dataclass

import pytest
import torch
from networks import UNet
from torch import nn

from pixelpatch import audit, patch_proof, receptive_field, tiled
from pixelpatch.scores import rounding


def inspector(network, image):
    for needed in ("anywidget", "matplotlib", "IPython"):
        pytest.importorskip(needed, reason="the widget needs pixelpatch[widget]")
    from pixelpatch import Inspector

    return Inspector(image, {"mine": network})


ASKED = {
    "receptive_field": lambda network, image: receptive_field(network, tuple(image.shape)),
    "patch_proof": lambda network, image: patch_proof(network, image, 9, 9),
    "tiled": lambda network, image: tiled(network, image, 16),
    "audit": audit,
    "Inspector": inspector,
}
each_function = pytest.mark.parametrize("name", ASKED)
all_but_the_field = pytest.mark.parametrize("name", [name for name in ASKED if name != "receptive_field"])
IMAGE = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two classes by one convolution, in the form that `answer` gives them."""

    def __init__(self, answer=lambda scores: scores):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.answer = nn.Conv2d(1, 2, 3, padding=1), answer

    def forward(self, image):
        return self.answer(self.layer(image))


class Masked(Net):
    def forward(self, image, mask):
        return self.layer(image) * mask


class WithOptions(Net):
    def forward(self, image, scale=1, *others, **options):
        return self.layer(image) * scale


def unet():
    torch.manual_seed(0)
    return UNet(depth=1, width=2).eval()


# --- several inputs ---------------------------------------------------------------------------------------


@each_function
def test_several_inputs_are_named_with_the_remedy(name):
    said = r"forward\(image, mask\), expected one that takes an image.*'mask'.*wrap"
    with pytest.raises((TypeError, ValueError), match=said):
        ASKED[name](Masked(), IMAGE)


@each_function
def test_inputs_that_have_defaults_are_fine(name):
    assert ASKED[name](WithOptions(), IMAGE) is not None


# --- what the network returns -----------------------------------------------------------------------------


@each_function
def test_a_dictionary_with_out_is_taken_for_its_scores(name):
    network = Net(lambda scores: {"out": scores, "aux": scores * 2})
    found = ASKED[name](network, IMAGE)
    if name == "tiled":
        torch.testing.assert_close(found, network(IMAGE)["out"])
    if name == "patch_proof":
        assert found.max_abs_difference < 1e-6


@dataclass
class Answer:
    logits: torch.Tensor
    note: str = "nothing else"


@each_function
@pytest.mark.parametrize("wrap", [lambda x: (x,), lambda x: [None, x], lambda x: {"logits": x}, Answer])
def test_what_holds_a_single_tensor_is_taken_for_it(name, wrap):
    found, plain = ASKED[name](Net(wrap), IMAGE), ASKED[name](Net(lambda scores: scores), IMAGE)
    if name == "tiled":
        torch.testing.assert_close(found, plain)
    elif name != "Inspector":  # which has a number of its own in its name
        assert repr(found) == repr(plain)


def test_labels_are_one_channel():
    labels = Net(lambda scores: scores.argmax(1))
    assert receptive_field(labels, IMAGE.shape).box(20, 30) == (19, 29, 22, 32)
    torch.testing.assert_close(tiled(labels, IMAGE, 32)[:, 0], labels(IMAGE))


@each_function
def test_another_dictionary_is_named_by_its_keys(name):
    network = Net(lambda scores: {"logits": scores, "aux": scores})
    with pytest.raises((TypeError, ValueError), match=r"dict with 'logits', 'aux', not one tensor .*: wrap"):
        ASKED[name](network, IMAGE)


@each_function
def test_a_tuple_is_named(name):
    with pytest.raises((TypeError, ValueError), match=r"returns a tuple, not one tensor .*: wrap the model"):
        ASKED[name](Net(lambda scores: (scores, scores)), IMAGE)


@each_function
def test_tokens_are_not_an_image(name):
    network = Net(lambda scores: scores.flatten(2).transpose(1, 2))
    with pytest.raises(ValueError, match=r"shape \(1, 4096, 2\), expected \(., classes, h, w\)"):
        ASKED[name](network, IMAGE)


# --- what is no image -------------------------------------------------------------------------------------


@all_but_the_field
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_whole_numbers_are_to_be_made_floats(name, dtype):
    with pytest.raises(ValueError, match=r"floats.*255"):
        ASKED[name](unet(), (IMAGE * 255).to(dtype))


@pytest.mark.parametrize("name", ["receptive_field", "patch_proof", "tiled", "audit"])
@pytest.mark.parametrize("shape", [(1, 1, 64), (64, 64), (1, 1, 8, 8, 8)], ids=["signal", "matrix", "volume"])
def test_signals_and_volumes_are_refused(name, shape):
    with pytest.raises(ValueError, match=r"four positive integers|expected \(1, C, H, W\)"):
        ASKED[name](unet(), torch.rand(shape))


# --- precision and devices --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["receptive_field", "patch_proof", "tiled", "Inspector"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_works_on_the_cpu(name, dtype):
    network, image = unet().to(dtype), IMAGE.to(dtype)
    found = ASKED[name](network, image)
    if name == "tiled":
        assert found.dtype == dtype
        torch.testing.assert_close(found, network(image), rtol=0.05, atol=0.05)
    if name == "patch_proof":
        assert found.max_abs_difference < 0.05 * network(image).std()


def test_the_inspector_allows_for_the_rounding_of_half_precision():
    widget = inspector(unet().half(), IMAGE)
    widget.request = {"number": 1, "network": "mine", "row": 30, "col": 33}
    assert widget.answer["said"].startswith("Proof")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_each_precision_has_room_for_its_rounding(dtype):
    assert 4 * torch.finfo(dtype).eps < rounding(dtype) <= 0.1


@pytest.mark.parametrize("name", ["patch_proof", "tiled", "audit"])
def test_image_and_network_of_other_precision_are_named(name):
    with pytest.raises(ValueError, match=r"is torch.float32, the network torch.float16; make it image.to"):
        ASKED[name](unet().half(), IMAGE)


@pytest.mark.parametrize("where", ["network", "image", "both"])
@all_but_the_field
def test_the_meta_device_has_no_values(name, where):
    """It stands for any other device, which not every machine has."""
    network = unet().to("meta") if where != "image" else unet()
    image = IMAGE.to("meta") if where != "network" else IMAGE
    with pytest.raises(ValueError, match=r"meta device,? (which )?holds (shapes and )?no values"):
        ASKED[name](network, image)


def test_on_the_meta_device_fields_are_traced():
    assert receptive_field(unet().to("meta"), (1, 1, 64, 64)).box(30, 30) == receptive_field(
        unet(), (1, 1, 64, 64)
    ).box(30, 30)
    assert audit(unet().to("meta"), (1, 1, 64, 64)).exact
