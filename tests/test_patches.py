"""Windows, the literal sliding window, and the sources of training batches."""

import pytest
import torch
from torch import nn

from utils.data import Pictures
from utils.patches import mirror, random_crops, random_patches, sliding_window, windows


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


def test_the_same_generator_draws_the_same():
    draw = random_crops(pictures(), 6)
    first, second = (draw(torch.Generator().manual_seed(5)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
