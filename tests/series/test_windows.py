"""Windows, the literal sliding window, and the sources of training batches."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from utils.data import Pictures
from utils.windows import _bent, mirror, random_crops, random_patches, sliding_window, windows


def numbered(height, width):
    return torch.arange(float(height * width)).view(1, 1, height, width)


class Middle(nn.Module):
    """A classifier that returns the middle pixel and the first one."""

    def forward(self, patches):
        half = patches.shape[-1] // 2
        return torch.stack([patches[:, 0, half, half], patches[:, 0, 0, 0]], dim=1)


def test_mirror_repeats_no_border_pixel():
    assert mirror(numbered(1, 4).expand(1, 1, 4, 4), 5)[0, 0, 2].tolist() == [2, 1, 0, 1, 2, 3, 2, 1]


def test_windows_are_views_in_reading_order():
    image = numbered(6, 7)
    views = windows(image, 3, stride=2)
    assert views.shape == (1, 2, 3, 1, 3, 3)
    assert torch.equal(views[0, 1, 2, 0], image[0, 0, 2:5, 4:7])
    assert views.untyped_storage().data_ptr() == image.untyped_storage().data_ptr()


@pytest.mark.parametrize(("stride", "batch"), [(1, 7), (1, 1000), (3, 4)])
def test_sliding_window_puts_every_score_at_its_pixel(stride, batch):
    image = numbered(9, 12)
    scores = sliding_window(Middle(), image, 5, stride=stride, batch=batch)
    assert torch.equal(scores[0, 0], image[0, 0, ::stride, ::stride])
    assert torch.equal(scores[0, 1], mirror(image, 5)[0, 0, :9:stride, :12:stride])


def test_sliding_window_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"shape \(9, 9\), expected \(1, C, H, W\)"):
        sliding_window(Middle(), torch.zeros(9, 9), 5)
    with pytest.raises(ValueError, match="window is 4, expected an odd number"):
        sliding_window(Middle(), torch.zeros(1, 1, 9, 9), 4)
    with pytest.raises(ValueError, match="image is 3 x 9, expected more than 3 pixels a side"):
        sliding_window(Middle(), torch.zeros(1, 1, 3, 9), 7)


def pictures(count=3, size=12):
    """Pictures in which a pixel's value is its class, so that image and labels can be held together."""
    labels = torch.randint(5, (count, size, size), generator=torch.Generator().manual_seed(0))
    return Pictures(labels[:, None].float(), labels, tuple("abcde"))


def test_random_patches_come_with_the_class_of_their_middle():
    patches, classes = random_patches(pictures(), 5, batch=200)(torch.Generator().manual_seed(1))
    assert patches.shape == (200, 1, 5, 5)
    assert torch.equal(patches[:, 0, 2, 2].long(), classes)
    assert len({tuple(patch.flatten().tolist()) for patch in patches}) > 100


@pytest.mark.parametrize("margin", [0, 3])
def test_random_crops_turn_image_and_labels_together(margin):
    draw = random_crops(pictures(), 6, batch=50, margin=margin)
    for seed in range(16):
        images, labels = draw(torch.Generator().manual_seed(seed))
        assert images.shape == (50, 1, 6 + 2 * margin, 6 + 2 * margin)
        assert torch.equal(images[:, 0, margin : margin + 6, margin : margin + 6].long(), labels)


def test_draws_use_all_eight_turns():
    one = Pictures(numbered(4, 4), torch.zeros(1, 4, 4, dtype=torch.long), ("a",))
    draw = random_crops(one, 4, batch=1)
    seen = {tuple(draw(torch.Generator().manual_seed(seed))[0].flatten().tolist()) for seed in range(100)}
    assert len(seen) == 8


@pytest.mark.parametrize("bend", [0, 2])
def test_the_same_generator_draws_the_same(bend):
    draw = random_crops(pictures(), 6, bend=bend)
    first, second = (draw(torch.Generator().manual_seed(5)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# --- bent crops ------------------------------------------------------------------------------------------


def blobs(count=3, size=40):
    """Two smooth classes, and images that are their labels."""
    noise = torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    labels = (F.interpolate(noise, (size, size), mode="bicubic")[:, 0] > 0).long()
    return Pictures(labels[:, None].float(), labels, ("a", "b"))


@pytest.mark.parametrize("margin", [0, 5])
def test_labels_bend_with_their_images(margin):
    """Near the middle of an edge bicubic interpolation and the nearest pixel may disagree, elsewhere not."""
    draw = random_crops(blobs(), 24, batch=20, margin=margin, bend=3)
    images, labels = draw(torch.Generator().manual_seed(1))
    assert images.shape == (20, 1, 24 + 2 * margin, 24 + 2 * margin) and labels.shape == (20, 24, 24)
    inside = images[:, 0, margin : margin + 24, margin : margin + 24]
    assert (labels[inside > 0.8] == 1).float().mean() > 0.999
    assert (labels[inside < 0.2] == 0).float().mean() > 0.999
    assert ((inside > 0.249) & (inside < 0.751)).float().mean() < 0.2  # only the edges are left open
    assert labels.float().mean().item() == pytest.approx(0.5, abs=0.2)  # so that both were there to be wrong


def test_a_bend_is_as_large_as_it_says_and_each_crop_has_its_own():
    side, bend = 65, 2.0
    rows, cols = torch.meshgrid(torch.arange(65.0), torch.arange(65.0), indexing="ij")
    maps = torch.stack([rows, cols]).expand(2000, 2, side, side)  # every pixel is its own place
    images, labels = _bent(torch.Generator().manual_seed(0), bend, maps, maps)
    moved = images - maps
    chosen = moved.abs().flatten(1).amax(1) > 0.01
    assert chosen.float().mean().item() == pytest.approx(0.5, abs=0.06)  # about half of them, to 5 sd
    moved = moved[chosen]
    # In the middle is one of the 3 x 3 points: 1000 draws give the standard deviation of each axis to 2.2 %.
    for axis in (0, 1):
        assert moved[:, axis, 32, 32].std().item() == pytest.approx(bend, rel=0.08)
    assert abs(torch.corrcoef(moved[:, :, 32, 32].T)[0, 1]) < 0.1
    assert moved[:, :, 8:-8, 8:-8].abs().max() < 6 * bend  # no crop is turned by its grid
    assert (moved[..., 1:, :] - moved[..., :-1, :])[..., 8:-8, 8:-8].abs().max() < 1.0  # nowhere torn
    # The nearest pixel is at most half a pixel away; bicubic places may be off by a tenth.
    assert (labels - images)[..., 8:-8, 8:-8].abs().max() < 0.6


def test_without_a_bend_crops_are_what_they_were_and_with_a_tiny_one_nearly():
    noise = torch.rand(3, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    source = Pictures(noise, (4 * noise[:, 0]).long(), tuple("abcd"))
    for seed in range(8):
        (images, labels), (bent, _) = (
            random_crops(source, 10, batch=4, margin=2, bend=bend)(torch.Generator().manual_seed(seed))
            for bend in (0, 1e-4)
        )
        assert torch.equal((4 * images[:, 0, 2:-2, 2:-2]).long(), labels)
        torch.testing.assert_close(bent, images, rtol=0, atol=0.01)


@pytest.mark.parametrize("bend", [0, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_labels_of_several_channels_keep_their_type_and_their_numbers(dtype, bend):
    one = pictures(size=20)
    both = torch.stack([one.labels, one.labels * 7 + 3], dim=1).to(dtype)
    draw = random_crops(one._replace(labels=both), 12, batch=30, margin=2, bend=bend)
    images, labels = draw(torch.Generator().manual_seed(2))
    assert labels.shape == (30, 2, 12, 12) and labels.dtype == dtype
    assert labels[:, 0].unique().tolist() == [0, 1, 2, 3, 4]  # nothing in between
    assert torch.equal(labels[:, 1], labels[:, 0] * 7 + 3)  # all channels are bent alike
    assert torch.equal(images[:, 0, 2:-2, 2:-2].to(dtype), labels[:, 0]) == (bend == 0)
