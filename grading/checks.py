"""Checks that teach: that an answer is wrong, how, and which misunderstanding would give just that answer.

check   call a student's function, and compare what it gives with what is expected
equal   compare a value
"""

import copy
import textwrap
import traceback
from numbers import Integral, Real

import numpy as np
import torch

PLAIN = {bool, int, float, str, *np.sctypeDict.values()}  # types whose == can be trusted
FLOATS = "floating-point numbers"


class Wrong(AssertionError):
    """An answer that is not right yet; the message is for the student."""

    def _render_traceback_(self):
        """What a notebook shows: the message, and where the student's own code stopped, if it did."""
        stopped = traceback.format_exception(self.__cause__) if self.__cause__ else []
        lines = "".join(stopped).splitlines()
        for line in f"Not yet: {self}".splitlines():
            lines += textwrap.wrap(line, 100)
        return lines


def check(function, *arguments, gives, hints=None, otherwise="", tolerance=1e-6):
    """Call a function and compare what it gives with what is expected.

    Args:
        function: a student's. It is called with copies, so that what it does to its arguments harms nobody.
        arguments: what to call it with.
        gives: what is expected, and `hints`, `otherwise`, `tolerance`: see `equal`.

    Raises:
        Wrong: the function gives something else, stops with an error, or is not written yet.
    """
    name = getattr(function, "__name__", "your function")  # a stand-in in grading is no function
    call = f"{name}({', '.join(map(_short, arguments))})"
    call = call if len(call) < 120 else f"{name}(…)"
    try:
        actual = function(*copy.deepcopy(arguments))
    except Exception as error:
        if isinstance(error, NotImplementedError) and not error.args:  # torch raises it too, and says of what
            raise Wrong(f"{name} is not written yet.") from None
        stopped = f"{call} stops with {type(error).__name__}: {error}"
        student = error.with_traceback(error.__traceback__.tb_next)  # without the line above
        raise Wrong(_with_hint(stopped, otherwise)) from student
    equal(actual, gives, hints, otherwise, tolerance, what=f"{call} gives")


def equal(actual, expected, hints=None, otherwise="", tolerance=1e-6, what="your answer is"):
    """Compare an answer with the expected value: kind and shape first, then number by number.

    Nothing is left to the answer's own `==`: it must be of a plain type, and its plain numbers are compared.

    Args:
        actual: the answer.
        expected: number, string, tensor, or a list, tuple or dict of them.
        hints: mapping of a hint to the value that somebody who needs it would have got; where a tensor is
            expected, a list of its numbers will do.
        otherwise: the hint where none of them fits.
        tolerance: of floating-point numbers, relative to the expected one, or to 1 where that is smaller.
        what: how the message begins.

    Raises:
        Wrong: they differ; the message says how, where first, and gives the hint that fits.
    """
    if problem := _difference(actual, expected, tolerance):
        for hint, value in (hints or {}).items():
            if isinstance(expected, torch.Tensor) and isinstance(value, list):
                value = torch.tensor(value, dtype=expected.dtype)
            if not _difference(actual, value, tolerance):
                raise Wrong(_with_hint(f"{what} {problem}", hint))
        raise Wrong(_with_hint(f"{what} {problem}", otherwise))


def _with_hint(problem, hint):
    return f"{problem}\nHint: {hint}" if hint else problem


def _difference(actual, expected, tolerance):
    """How an answer differs from the expected value; an empty string if it does not."""
    if not _same_type(actual, expected):
        return f"{_short(actual)}; expected {_short(expected)}.{_remedy(actual, expected)}"
    if isinstance(expected, torch.Tensor):
        return _difference_of_tensors(actual, expected, tolerance)
    if isinstance(expected, list | tuple):
        return _difference_of_items(actual, expected, tolerance)
    if isinstance(expected, dict):
        if list(map(repr, actual)) != list(map(repr, expected)):
            return f"a dict with the keys {list(actual)}; expected {list(expected)}."
        return _difference_of_items(list(actual.values()), list(expected.values()), tolerance)
    if isinstance(expected, Real) and not isinstance(expected, Integral):
        same = abs(float(actual) - expected) <= tolerance * max(1, abs(expected))
    else:  # plain by now: bool, int or str
        same = actual == expected
    return "" if same else f"{_short(actual)}; expected {_short(expected)}."


def _same_type(actual, expected):
    """Whether an answer is of the expected type, or of one that holds the same."""
    kind = type(actual)
    if isinstance(expected, list | tuple):
        return kind in (list, tuple, torch.Size)
    if isinstance(expected, bool):
        return kind in (bool, np.bool_)
    if isinstance(expected, Real):
        number = Integral if isinstance(expected, Integral) else Real
        return kind in PLAIN and issubclass(kind, number) and kind is not bool
    return kind is type(expected)


def _difference_of_items(actual, expected, tolerance):
    shown = f"{_short(actual)}; expected {_short(expected)}"
    if len(actual) != len(expected):
        return f"{shown}: {len(actual)} items instead of {len(expected)}."
    pairs = zip(actual, expected, strict=True)
    wrong = [(i, what) for i, pair in enumerate(pairs) if (what := _difference(*pair, tolerance))]
    if not wrong:
        return ""
    first, difference = wrong[0]
    if len(expected) <= 4 and _same_type(actual[first], expected[first]):
        return f"{shown}."  # short enough to see it
    return f"{shown}.\n{len(wrong)} of {len(expected)} items are wrong, first item {first}: {difference}"


def _difference_of_tensors(actual, expected, tolerance):
    if actual.shape != expected.shape:
        return f"{_short(actual)}; expected shape {tuple(expected.shape)}."
    kind, right_kind = _kind(actual.dtype), _kind(expected.dtype)
    if kind != right_kind:
        return f"{kind} ({actual.dtype}); expected {right_kind} ({expected.dtype})."
    found, wanted = actual.detach().cpu(), expected.detach().cpu()
    error, allowed = (found.double() - wanted.double()).abs(), tolerance * wanted.double().abs().clamp(min=1)
    wrong = (~(error <= allowed)).nonzero()  # nan is never smaller
    if not len(wrong):
        return ""
    at = tuple(wrong[0].tolist())
    number, right = (str(x[at].item()) if kind != FLOATS else f"{x[at].item():g}" for x in (found, wanted))
    number = "nan (not a number)" if number == "nan" else number
    place = f" at index {at}" if at else ""
    return f"{number}{place} where {right} is expected; {len(wrong)} of {wanted.numel()} values are wrong."


def _kind(dtype):
    if dtype.is_complex:
        return "complex numbers"
    return FLOATS if dtype.is_floating_point else "true or false" if dtype == torch.bool else "whole numbers"


def _remedy(actual, expected):
    """What to do about an answer of the wrong type."""
    if actual is None:
        return " Is a return missing?"
    if isinstance(expected, torch.Tensor) and isinstance(actual, list | tuple):
        return " Make it torch.tensor(…)."
    if isinstance(expected, torch.Tensor) and isinstance(actual, np.ndarray):
        return " Make it torch.from_numpy(…)."
    if isinstance(expected, list | tuple) and isinstance(actual, torch.Tensor | np.ndarray):
        return " Make it a list: .tolist()."
    if isinstance(expected, Real) and isinstance(actual, torch.Tensor) and actual.numel() == 1:
        return " Make it a number: .item()."
    if isinstance(expected, Integral) and isinstance(actual, float):
        return " Whole numbers stay whole with // instead of /."
    return ""


def _short(value):
    """A value as a message shows it: tensors and long lists by their kind."""
    if isinstance(value, torch.Tensor | np.ndarray):
        kind = "a tensor" if isinstance(value, torch.Tensor) else "an array"
        return f"{kind} of shape {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        left, right = "[]" if isinstance(value, list) else "()"
        shown = [_short(item) for item in value[:8]] + ["…"] * (len(value) > 8)
        return f"{left}{', '.join(shown)}{',' * (len(value) == 1 and right == ')')}{right}"
    if value is None or isinstance(value, int | float | str | dict):
        text = repr(value)
        return text if len(text) < 60 else f"{text[:57]}…"
    return f"a {type(value).__name__}"
