"""The two transformers of chapter 7e: what they compute, what they see, what they cost."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from experiments.transformers import Attention, Block, Transformer, in_windows, waves
from pixelpatch import patch_proof, receptive_field
from utils.networks import UNet


def seeded(make, *args):
    torch.manual_seed(0)
    return make(*args).double().eval()


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_attention_is_pytorchs():
    layer, tokens = seeded(Attention, 12, 3), noise(2, 5, 12)
    heads = [part(tokens).view(2, 5, 3, 4).transpose(1, 2) for part in (layer.query, layer.key, layer.value)]
    read = F.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(2, 5, 12)
    torch.testing.assert_close(layer(tokens), layer.out(read))
    torch.testing.assert_close(layer.weights(tokens).sum(-1), torch.ones(2, 3, 5, dtype=torch.float64))


def test_a_window_is_an_image_of_its_own():
    whole, windowed = seeded(Block, 8, 2), seeded(Block, 8, 2, 4)
    tokens = noise(1, 8, 12, 8)
    alone = [torch.cat([whole(window) for window in row.split(4, 2)], 2) for row in tokens.split(4, 1)]
    torch.testing.assert_close(windowed(tokens), torch.cat(alone, 1))


def test_shifted_windows_lie_half_a_window_off_and_hold_zeros_at_the_border():
    shifted, plain = seeded(Block, 8, 2, 4, True), seeded(Block, 8, 2, 4)
    tokens = noise(1, 8, 8, 8)
    framed = F.pad(shifted.before(tokens), (0, 0, 2, 2, 2, 2))
    plain.before = torch.nn.Identity()
    asked = tokens + plain._asked(framed)[:, 2:-2, 2:-2]
    torch.testing.assert_close(shifted(tokens), asked + shifted.alone(asked))


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_every_block_adds_a_window_to_the_patch(depth):
    network = seeded(Transformer, 2, 8, depth, 2, 4, 4)
    rf = receptive_field(network, (1, 1, 96, 96))
    for pixel in (40, 40), (47, 44):
        box = rf.box(*pixel)
        assert box.bottom - box.top == box.right - box.left == 8 * depth
    assert not rf.whole_image and rf.stride == (8, 8)


def test_with_windows_a_patch_alone_gives_the_same_scores_and_with_places_of_its_own_it_does_not():
    network, image = seeded(in_windows), noise(1, 1, 256, 256)
    assert patch_proof(network, image, 130, 130).max_abs_difference < 1e-9
    everywhere = seeded(Transformer, 4, 48, 5, 4, 64, 8)
    assert patch_proof(everywhere, image, 130, 130).max_abs_difference > 1e-2


def test_without_windows_every_block_reads_the_whole_image():
    rf = receptive_field(Transformer(width=16, depth=3), (1, 1, 128, 128))
    assert [layer.layer for layer in rf.whole_image] == [f"blocks.{number}.attention" for number in range(3)]


def test_all_three_cost_the_same_for_the_crops_that_they_learn_from():
    costs = []
    for network in (UNet(), Transformer(), in_windows()):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.zeros(1, 1, 128, 128))
        costs.append(counter.get_total_flops())
    assert max(costs) < 1.06 * min(costs)


def test_places_are_resized_without_windows_and_repeated_with_them():
    network = Transformer(width=16, depth=1, places=4)
    assert network.places((4, 4)) is network.position
    assert network.places((8, 6)).shape == (1, 16, 8, 6)
    windowed = Transformer(width=16, depth=1, places=4, window=4)
    torch.testing.assert_close(windowed.places((8, 12))[..., 4:, 8:], windowed.position)


def test_places_next_to_each_other_start_alike():
    places = waves(16, 8)[0].flatten(1)
    assert places.shape == (16, 64)
    distances = torch.cdist(places.T, places.T)
    assert distances[0, 1] < distances[0, 2] < distances[0, 4] and distances[0, 8] == pytest.approx(
        distances[0, 1].item()
    )


@pytest.mark.parametrize(("network", "size"), [(Transformer(width=8, depth=1), 100), (in_windows(), 144)])
def test_images_that_do_not_fit(network, size):
    with pytest.raises(ValueError, match=f"the image is 128 x {size}, expected multiples of {network.step}"):
        network(torch.zeros(1, 1, 128, size))
