"""The metrics give the numbers that counting by hand gives."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, binary_erosion

from utils.data import isbi2012, isbi2012_folder
from utils.metrics import (
    confusion,
    iou_per_class,
    mean_iou,
    pixel_accuracy,
    rand_score,
    variation_of_information,
)

LABEL = torch.tensor([[0, 0, 1], [1, 1, 2]])
PREDICTION = torch.tensor([[0, 1, 1], [1, 0, 1]])
# by hand: class 0 is in 1 pixel right, in 3 pixels at all; class 1 in 2 and 5; class 2 in 0 and 1


def test_confusion_has_the_truth_in_rows():
    counts = confusion(PREDICTION, LABEL, 3)
    assert counts.tolist() == [[1, 1, 0], [1, 2, 0], [0, 1, 0]]
    assert counts.dtype == torch.int64


def test_scores_by_hand():
    assert iou_per_class(confusion(PREDICTION, LABEL, 3)).tolist() == [1 / 3, 2 / 5, 0]
    assert mean_iou(PREDICTION, LABEL, 3) == pytest.approx((1 / 3 + 2 / 5 + 0) / 3, rel=1e-12)
    assert pixel_accuracy(PREDICTION, LABEL, 3) == pytest.approx(3 / 6, rel=1e-12)


def test_perfect_and_hopeless():
    assert mean_iou(LABEL, LABEL, 3) == pixel_accuracy(LABEL, LABEL, 3) == 1
    assert mean_iou((LABEL + 1) % 3, LABEL, 3) == pixel_accuracy((LABEL + 1) % 3, LABEL, 3) == 0


def test_absent_class_is_left_out_of_the_mean():
    iou = iou_per_class(confusion(PREDICTION, LABEL, 5))
    assert iou[:3].tolist() == [1 / 3, 2 / 5, 0] and iou[3:].isnan().all()
    assert mean_iou(PREDICTION, LABEL, 5) == mean_iou(PREDICTION, LABEL, 3)


def test_class_that_is_only_predicted_counts_as_wrong():
    label = torch.zeros(2, 2, dtype=torch.int64)
    prediction = torch.tensor([[0, 0], [0, 1]])
    assert mean_iou(prediction, label, 2) == pytest.approx((3 / 4 + 0) / 2)


def test_pictures_are_pooled_before_dividing():
    label = torch.zeros(2, 10, 10, dtype=torch.int64)
    label[0, :, :5] = 1  # fifty pixels, all found
    label[1, 0, 0] = 1  # one pixel, missed
    prediction = label.clone()
    prediction[1, 0, 0] = 0
    assert mean_iou(prediction, label, 2) == pytest.approx((50 / 51 + 149 / 150) / 2)
    alone = [mean_iou(p, t, 2) for p, t in zip(prediction, label, strict=True)]
    assert np.mean(alone) < 0.75 < 0.98 < mean_iou(prediction, label, 2)


def test_ignored_pixels_are_not_counted():
    label = torch.tensor([[0, 255], [1, 255]])
    assert confusion(torch.tensor([[0, 0], [1, 1]]), label, 2, ignore_index=255).tolist() == [[1, 0], [0, 1]]
    assert mean_iou(torch.zeros(2, 2, dtype=torch.int64), label, 2, ignore_index=255) == pytest.approx(0.25)
    assert pixel_accuracy(torch.zeros(2, 2, dtype=torch.int64), label, 2, ignore_index=255) == 0.5
    nothing = torch.full((2, 2), 255)
    assert math.isnan(mean_iou(nothing - 255, nothing, 2, ignore_index=255))
    assert math.isnan(pixel_accuracy(nothing - 255, nothing, 2, ignore_index=255))


def test_small_integers_do_not_overflow():
    label = torch.full((4, 4), 20, dtype=torch.uint8)
    assert confusion(label, label, 21)[20, 20] == 16  # 20 * 21 + 20 is more than 255


@pytest.mark.parametrize(
    "prediction, label, error, sentence",
    [
        (torch.zeros(1, 3, 2, 2), LABEL, ValueError, r"differ: .*\(1, 3, 2, 2\), .*\(2, 3\); .*argmax"),
        (
            PREDICTION.float(),
            LABEL,
            TypeError,
            "prediction is torch.float32, expected class numbers; .*argmax",
        ),
        (PREDICTION, LABEL.double(), TypeError, "label is torch.float64, expected class numbers"),
        (PREDICTION, LABEL + 1, ValueError, "label holds 3, expected 0 to 2; check"),
        (PREDICTION - 1, LABEL, ValueError, "prediction holds -1, expected 0 to 2; check"),
    ],
)
def test_bad_input(prediction, label, error, sentence):
    for metric in (confusion, mean_iou, pixel_accuracy):
        with pytest.raises(error, match=sentence):
            metric(prediction, label, 3)


def four_cells():
    """Four cells of 20 x 20 pixels between membranes three pixels wide."""
    membrane = np.zeros((43, 43), dtype=bool)
    membrane[20:23] = membrane[:, 20:23] = True
    return membrane


def test_rand_score_of_the_truth():
    assert rand_score(four_cells(), four_cells()) == 1
    assert rand_score(torch.from_numpy(four_cells()), torch.from_numpy(four_cells())) == 1


def test_gap_of_one_pixel_merges_two_cells():
    thin = np.zeros((43, 43), dtype=bool)
    thin[21] = thin[:, 21] = True
    assert rand_score(thin, four_cells()) == 1
    thin[10, 21] = False
    # of the ordered pairs of n = 400 pixels: 4 n (n - 1) are together in truth, and in the prediction the
    # same and 2 n n more; precision and recall have the harmonic mean 2 * both / (truth + prediction)
    together = 4 * 400 * 399
    assert rand_score(thin, four_cells()) == pytest.approx(2 * together / (together + together + 2 * 400**2))
    assert np.mean(thin != four_cells()) < 0.1


def test_variation_of_information_by_hand():
    """Of four equal cells, two are merged, one bit for half of the pixels; then one is halved."""
    thin = np.zeros((43, 43), dtype=bool)
    thin[21] = thin[:, 21] = True
    assert variation_of_information(thin, four_cells()) == pytest.approx(0, abs=1e-12)
    thin[10, 21] = False
    assert variation_of_information(thin, four_cells()) == pytest.approx(0.5)
    halved = four_cells()
    halved[:20, 9:11] = True  # grown, both halves are 10 columns wide
    assert variation_of_information(halved, four_cells()) == pytest.approx(0.25)


def test_one_line_too_many_splits_a_cell():
    split = four_cells()
    split[:20, 10] = True
    score = rand_score(split, four_cells())
    both = 3 * 400 * 399 + 2 * 200 * 199
    # the line's twenty pixels fall to the cells beside it, all to one or shared: within one line of 200 : 200
    assert score == pytest.approx(2 * both / (4 * 400 * 399 + both), abs=1e-3)


@pytest.mark.parametrize("width", [1, 3, 5, 9, 15])
def test_thickness_of_membranes_does_not_count(width):
    membrane = np.zeros((43, 43), dtype=bool)
    membrane[21] = membrane[:, 21] = True
    if width > 1:
        membrane = binary_dilation(membrane, np.ones((width, width)))
    assert rand_score(membrane, four_cells()) == 1


def test_line_that_is_only_joined_diagonally_still_separates():
    diagonal = np.eye(30, dtype=bool)
    assert rand_score(diagonal, diagonal) == 1
    broken = diagonal.copy()
    broken[15, 15] = False
    assert rand_score(broken, diagonal) < 0.7


def test_no_membrane_and_nothing_but_membrane_are_one_cell():
    nothing, everything = np.zeros((43, 43), dtype=bool), np.ones((43, 43), dtype=bool)
    merged = 2 * 4 * 400 * 399 / (4 * 400 * 399 + 1600 * 1599)
    assert rand_score(nothing, four_cells()) == pytest.approx(merged)
    assert rand_score(everything, four_cells()) == pytest.approx(merged)


def test_true_membranes_are_left_out_of_the_rand_score():
    truth = four_cells()
    prediction = truth.copy()
    prediction[20:23, 20:23] = False  # a cell of its own, inside the true membrane
    assert rand_score(prediction, truth) == 1


@pytest.mark.parametrize(
    "prediction, truth, error, sentence",
    [
        (four_cells() * 0.7, four_cells(), TypeError, "masks are float64 and bool, expected bool"),
        (four_cells(), four_cells().astype(int), TypeError, "masks are bool and int64, expected bool"),
        (four_cells()[1:], four_cells(), ValueError, r"\(42, 43\) and \(43, 43\), expected the same"),
        (four_cells()[None], four_cells()[None], ValueError, "one picture at a time"),
        (four_cells(), np.ones((43, 43), bool), ValueError, "cover every pixel, expected at least one cell"),
    ],
)
def test_bad_masks(prediction, truth, error, sentence):
    with pytest.raises(error, match=sentence):
        rand_score(prediction, truth)


@pytest.mark.skipif(
    isbi2012_folder() is None,
    reason="no ISBI 2012 pictures here: set ISBI2012_DIR, or download them to data/isbi2012",
)
def test_rand_score_of_real_membranes():
    membrane = (isbi2012(isbi2012_folder()).labels[0] == 1).numpy()
    assert rand_score(membrane, membrane) == 1
    thick, thin = binary_dilation(membrane), binary_erosion(membrane)
    assert np.mean(thick != membrane) > 0.05 and np.mean(thin != membrane) > 0.05, "as many pixels differ"
    assert rand_score(thick, membrane) > 0.99, "but thicker membranes still close,"
    assert rand_score(thin, membrane) < 0.5, "and thinner ones leak"
