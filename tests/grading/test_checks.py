"""Checks say how an answer is wrong, give the hint that fits, and believe numbers only."""

from functools import partial

import numpy as np
import pytest
import torch

from grading.checks import Wrong, check, equal

GRID = torch.tensor([[1.0, 2], [3, 4]])


class Liar:
    """Says that it is equal to everything."""

    __hash__ = None

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False


class LyingInt(Liar, int):
    __hash__ = int.__hash__


class LyingText(Liar, str):
    __hash__ = str.__hash__


class LyingList(Liar, list):
    pass


class LyingTensor(torch.Tensor):
    def __eq__(self, other):
        return torch.ones(self.shape, dtype=torch.bool)


SAME = [
    (3, 3),
    (np.int64(3), 3),
    (0.5, 0.5),
    (np.float32(0.5), 0.5),
    (1, 1.0),
    (1e9 + 1, 1e9),
    (True, True),
    ("above", "above"),
    ([1, 2], (1, 2)),
    (torch.Size([1, 2]), (1, 2)),
    ({"a": [1, (2, 3)]}, {"a": (1, [2, 3])}),
    (GRID.double(), GRID),
    (GRID.clone().requires_grad_(), GRID),
    (GRID + 1e-7, GRID),
    (GRID.bfloat16(), GRID),
    (torch.tensor([], dtype=torch.long), torch.tensor([], dtype=torch.long)),
    (None, None),
    (0.9e-6, 0.0),
    (1000.0009, 1000.0),
    (torch.tensor([0.9e-6, 1000.0009]).double(), torch.tensor([0, 1000.0]).double()),
]

DIFFERENT = [
    (None, 3, "None; expected 3. Is a return missing?"),
    (4, 3, "4; expected 3."),
    (3.0, 3, "Whole numbers stay whole with // instead of /."),
    (True, 1, "True; expected 1."),
    (1, True, "1; expected True."),
    (float("nan"), 1.0, "nan; expected 1.0."),
    (1.1e-6, 0.0, "1.1e-06; expected 0.0."),
    (1000.0011, 1000.0, "1000.0011; expected 1000.0."),
    (torch.tensor([1.1e-6]), torch.tensor([0.0]), "1 of 1 values are wrong."),
    (torch.tensor([1000.0011]).double(), torch.tensor([1000.0]).double(), "1 of 1 values are wrong."),
    ((1,), (2,), "(1,); expected (2,)."),
    ([1], [2], "[1]; expected [2]."),
    ("below", "above", "'below'; expected 'above'."),
    (torch.tensor(3), 3, "Make it a number: .item()."),
    ([1, 2], GRID, "expected a tensor of shape (2, 2). Make it torch.tensor(…)."),
    (GRID.numpy(), GRID, "Make it torch.from_numpy(…)."),
    (torch.tensor([1, 2]), [1, 2], "Make it a list: .tolist()."),
    (GRID[0], GRID, "a tensor of shape (2,); expected shape (2, 2)."),
    (GRID.long(), GRID, "whole numbers (torch.int64); expected floating-point numbers (torch.float32)."),
    (GRID.T, GRID, "3 at index (0, 1) where 2 is expected; 2 of 4 values are wrong."),
    (GRID * torch.nan, GRID, "nan (not a number) at index (0, 0) where 1 is expected; 4 of 4"),
    (GRID / 0, GRID, "inf at index (0, 0)"),
    (GRID + 1j, GRID, "complex numbers"),
    (GRID > 1, GRID > 0, "False at index (0, 0) where True is expected; 1 of 4 values are wrong."),
    (torch.tensor(2.0), torch.tensor(1.0), "2 where 1 is expected; 1 of 1 values are wrong."),
    ([1], [1, 2], "[1]; expected [1, 2]: 1 items instead of 2."),
    ([1, 3], [1, 2], "[1, 3]; expected [1, 2]."),
    ([1, 2.0], [1, 2], "first item 1: 2.0; expected 2. Whole numbers stay whole"),
    ([1, 2, 3, 4, 9, 9], [1, 2, 3, 4, 5, 6], "2 of 6 items are wrong, first item 4: 9; expected 5."),
    ({"a": 1}, {"b": 1}, "a dict with the keys ['a']; expected ['b']."),
    ({"a": 1}, {"a": 2}, "expected [2]."),
    (lambda: 3, 3, "a function; expected 3."),
]

LIES = [
    (Liar(), 3),
    (LyingInt(4), 3),
    (LyingInt(4), 3.0),
    (LyingText("below"), "above"),
    (LyingList([4]), [3]),
    ([LyingInt(4)], [3]),
    (Liar(), GRID),
    (torch.zeros(2, 2).as_subclass(LyingTensor), GRID),
]


@pytest.mark.parametrize("actual, expected", SAME)
def test_accepts(actual, expected):
    equal(actual, expected)


@pytest.mark.parametrize("actual, expected, message", DIFFERENT)
def test_says_what_is_wrong(actual, expected, message):
    with pytest.raises(Wrong) as wrong:
        equal(actual, expected)
    assert message in str(wrong.value)
    assert str(wrong.value).startswith("your answer is ") and "Hint" not in str(wrong.value)


@pytest.mark.parametrize("actual, expected", LIES, ids=lambda value: type(value).__name__)
def test_believes_no_equality_but_its_own(actual, expected):
    assert type(actual) in (list, torch.Tensor) or bool(torch.as_tensor(actual == expected).all())
    with pytest.raises(Wrong):
        equal(actual, expected)


def test_gives_the_hint_that_fits():
    hints = {"transposed": GRID.T, "counted": [[0, 1], [2, 3]], "summed": 10.0}
    for actual, hint in [
        (GRID.T, "transposed"),
        (GRID - 1, "counted"),
        (10.0, "summed"),
        (GRID * 3, "other"),
    ]:
        with pytest.raises(Wrong) as wrong:
            equal(actual, GRID, hints, otherwise="other")
        assert str(wrong.value).endswith(f"\nHint: {hint}")


def test_a_right_answer_needs_no_hint():
    equal(GRID, GRID, {"a misunderstanding that gives the same here": GRID}, otherwise="other")


def test_calls_with_copies():
    def spoils(picture, numbers):
        picture.zero_()
        numbers.append(picture.sum().item())
        return numbers

    picture, numbers = GRID.clone(), [1]
    check(spoils, picture, numbers, gives=[1, 0.0])
    assert torch.equal(picture, GRID) and numbers == [1]


def test_what_torch_has_not_implemented_is_no_unwritten_function():
    def cut(image):
        return torch.nn.functional.pad(image[None] > 0, (1, 1, 1, 1), mode="reflect")

    with pytest.raises(Wrong, match=r"stops with NotImplementedError: .* not implemented for 'Bool'"):
        check(cut, GRID, gives=GRID)


def test_an_unwritten_function_is_said_to_be_one():
    def cut(image):
        raise NotImplementedError

    with pytest.raises(Wrong, match=r"^cut is not written yet\.$"):
        check(cut, GRID, gives=GRID)


def test_an_error_in_the_function_is_shown_with_its_line_and_the_hint():
    def cut(image):
        return image[5]

    with pytest.raises(Wrong, match=r"cut\(a tensor of shape \(2, 2\)\) stops with IndexError") as wrong:
        check(cut, GRID, gives=GRID, otherwise="count from 0")
    assert str(wrong.value).endswith("Hint: count from 0")
    shown = "\n".join(wrong.value._render_traceback_())
    assert "return image[5]" in shown and shown.endswith("Hint: count from 0")
    assert "grading/checks.py" not in shown, "the student's lines, not ours"


def test_a_notebook_shows_the_message_alone():
    with pytest.raises(Wrong) as wrong:
        equal(4, 3)
    assert wrong.value._render_traceback_() == ["Not yet: your answer is 4; expected 3."]
    shown = Wrong("gives 4.\nHint: " + "word " * 30)._render_traceback_()
    assert shown[0] == "Not yet: gives 4." and len(shown) == 3 and max(map(len, shown)) <= 100


def test_long_calls_are_cut_short():
    def stitch(maps):
        return 6

    with pytest.raises(Wrong, match=r"^stitch\(…\) gives 6"):
        check(stitch, [[GRID] * 3] * 3, gives=7)


def test_a_callable_without_a_name_will_do():
    nameless = partial(max, 3)
    check(nameless, 2, gives=3)
    with pytest.raises(Wrong, match=r"^your function\(2\) gives 3; expected 4\.$"):
        check(nameless, 2, gives=4)
