"""Is a network a patch classifier? One question to its receptive field, one to the network itself.

    audit(network, image)        # traced, and measured: patches are cut out of the image
    audit(network, image.shape)  # only traced: for networks without weights, or too large to run here

The receptive field says what *can* reach a pixel, whatever the weights. Cutting just that out, and
looking whether the scores stay, says what *does*. The two can disagree, and an `Audit` tells: a network that
knows a pixel's place or the image's size, or that draws at random, has local fields and fails all the same;
and a layer that could read the whole image may have weights that hardly listen to it.
"""

from bisect import bisect_left
from collections.abc import Callable
from math import lcm
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pixelpatch.engine.trace import Trace
from pixelpatch.fields import Box, ReceptiveField, Whole, receptive_field, sides_of
from pixelpatch.proofs import cut_out
from pixelpatch.scores import check_image, rounding, score_map

__all__ = ["Audit", "Breaker", "audit"]


class Breaker(NamedTuple):
    """A layer that keeps the network from being a patch classifier."""

    layer: str
    reason: str
    error: float | None  # of a pixel, if this layer alone is given only the pixel's patch; None: not measured


class Audit(NamedTuple):
    """What `audit` found. Pairs are rows and columns; errors are in standard deviations of the scores."""

    network: str
    shape: tuple[int, int, int, int]  # of the image
    patch: tuple[list[int], list[int]]  # the sides that patches have, were it not for the breakers
    clipped: tuple[bool, bool]  # the image's border cuts all patches off: `patch` is what is left of them
    stride: tuple[int, int]  # input pixels after which the pattern of patches repeats
    phases: tuple[int, int]  # output pixels in one stride
    halo: tuple[tuple[int, int] | None, ...] | None  # as `ReceptiveField.halo`; None: no tile is exact
    breakers: list[Breaker]
    error: float | None  # the worst of some pixels if each is given its patch alone; None: not measured
    tolerance: float  # what rounding may cost
    sizes: tuple[list[int], int | None]  # of square images: the smallest sides that run, and their period

    @property
    def exact(self) -> bool:
        """Does its patch alone decide every pixel? As measured, or as traced where nothing was measured."""
        return not self.breakers if self.error is None else self.error <= self.tolerance

    @property
    def agree(self) -> bool | None:
        """Do trace and measurement say the same? None if nothing was measured."""
        return None if self.error is None else self.exact == (not self.breakers)

    @property
    def wrong(self) -> str:
        """The error of a patch alone, in words."""
        return self.in_words(self.error)

    def in_words(self, error: float | None) -> str:
        """Rounding is told by its bound, as its digits differ between processors."""
        if error is None:
            return "not measured"
        return f"less than {self.tolerance:.0e} sd" if error <= self.tolerance else f"{error:.1g} sd"

    @property
    def verdict(self) -> str:
        """The answer in words."""
        answer = "an exact patch classifier" if self.exact else "no patch classifier"
        if self.error is None:
            return f"{answer}, as traced; not measured"
        wrong = f"a patch alone is wrong by {self.wrong}"
        if self.agree:
            return f"{answer}; {wrong}"
        if self.exact:
            return f"TRACE AND MEASUREMENT DISAGREE: layers read the whole image, but {wrong}"
        return f"TRACE AND MEASUREMENT DISAGREE: all fields are local, but {wrong}"

    def __repr__(self) -> str:
        patch = " x ".join(map(sides_in_words, self.patch, self.clipped))
        pairs = map(pair_in_words, self.halo or ())
        smallest, period = self.sizes
        sides = sorted(side + i * (period or 0) for side in smallest for i in range(3))[: 3 * len(smallest)]
        sides = [*map(str, sides), "..."] if period else [f"{smallest[0]} alone"]
        lines = {
            self.network: self.verdict,
            "patch": patch + (", were it not for the layers below" if self.breakers else ""),
            "repeats": "after {} x {} pixels, {} x {} outputs".format(*self.stride, *self.phases),
            "halo": " x ".join(pairs) or "none makes tiles exact",
            "sizes": ", ".join(sides),
        }
        if self.stride == self.shape[2:]:
            lines["repeats"] = "nowhere in this image"
        if self.agree is False and not self.exact:
            lines["perhaps"] = "it knows a pixel's place or the image's size, or draws at random"
        for layer, reason, error in self.breakers:
            lines[f"  {layer}"] = reason if error is None else f"{reason}: {self.in_words(error)}"
        width = max(map(len, lines))
        return "\n".join(f"{name:{width}}  {text}" for name, text in lines.items())


def audit(model: nn.Module, image: Tensor | tuple[int, int, int, int]) -> Audit:
    """Trace a network, cut patches out of an image, and say whether the network is a patch classifier.

    >>> print(audit(nn.Conv2d(1, 2, 7, stride=2), (1, 1, 64, 64)))
    Conv2d   an exact patch classifier, as traced; not measured
    patch    7 x 7
    repeats  after 2 x 2 pixels, 1 x 1 outputs
    halo     3 x 3
    sizes    7, 8, 9, ...

    Args:
        model: network that gives images (1, C, H, W) scores (1, classes, h, w), or a dict with them as
            "out". It is judged in the mode it is in, and not changed.
        image: (1, C, H, W), larger than a patch, in double precision where small errors matter; or a shape
            (1, C, H, W), and then nothing is measured.

    Returns:
        Audit, which prints readably.

    Raises:
        TypeError, ValueError, UnknownOperation: as `receptive_field` and `patch_proof` do; also ValueError
            for half precision, and for scores that are not finite or all the same.
    """
    measured = isinstance(image, torch.Tensor)
    if measured:
        check_image(model, image)
        if image.dtype in (torch.float16, torch.bfloat16):
            raise ValueError(
                f"image and network are {image.dtype}, whose rounding hides what is measured; audit a copy "
                "in single precision: audit(copy.deepcopy(network).float(), image.float())."
            )
    shape = tuple(image.shape) if measured else image
    field = receptive_field(model, shape)
    reasons = list(dict.fromkeys([*field.whole_image, *irregular(model, field)]))
    error, alone = measure(model, image, field, reasons) if measured else (None, {})
    tolerance = rounding(image.dtype) if measured else 0.0
    tileable = not reasons and (error is None or error <= tolerance)
    local = field.local if field.whole_image else field
    patch, clipped = zip(*(sides_of(local, axis) for axis in (0, 1)), strict=True)
    return Audit(
        network=type(model).__name__,
        shape=field.shape,
        patch=patch,
        clipped=clipped,
        stride=local.stride,
        phases=tuple(map(abs, local.step)),
        halo=field.halo if tileable else None,
        breakers=[Breaker(*reason, alone.get(reason.layer)) for reason in reasons],
        error=error,
        tolerance=tolerance,
        sizes=sizes_of(model, field),
    )


# ------------------------------------------------------------------ traced


def pair_in_words(pair: tuple[int, int] | None) -> str:
    if pair is None:
        return "unknown, as the border cuts every patch off"
    before, after = pair
    return f"{before}" if before == after else f"{before} before and {after} after"


def sides_in_words(sides: list[int], clipped: bool) -> str:
    words = f"{sides[0]} to {sides[-1]}" if len(sides) > 3 else " or ".join(map(str, sides))
    return f"at least {words}" if clipped else words


def irregular(model: nn.Module, field: ReceptiveField) -> list[Whole]:
    """Layers that do something else on a larger image, or at every position: (layer, reason)."""
    sizes = zip(*(layer.shape[2:] for layer in [field, *field.layers]), strict=True)
    grown = [
        size + (stride if stride < size else max(-(-size // n) for n in each if n > 1 or size == 1))
        for size, stride, each in zip(field.shape[2:], field.stride, sizes, strict=True)
    ]
    try:
        larger = receptive_field(model, (*field.shape[:2], *grown))
    except Exception:  # a network for one size only
        return []
    used = {(layer.name, layer.op) for layer in field.layers}
    found = []
    for (name, op, _, here), (*_, there) in zip(field.trace.layers, larger.trace.layers, strict=False):
        steps = [[taps.step for _, *pair in grid.edges for taps in pair if taps] for grid in (here, there)]
        if (name, op) in used and any(a == 0 or (a and b and a != b) for a, b in zip(*steps, strict=False)):
            found.append(Whole(name, f"{op}, whose ratio goes by the size of the image"))
    never = any(all(each.stride[axis] == each.shape[2 + axis] for each in (field, larger)) for axis in (0, 1))
    if never and not found and not field.whole_image:
        found.append(Whole(type(model).__name__, "patches that repeat nowhere"))
    return found


def sizes_of(model: nn.Module, field: ReceptiveField) -> tuple[list[int], int | None]:
    """Of square images: the smallest sides that the network takes, and after how many pixels they repeat.

    ([7, 8], 8) are 7, 8, 15, 16, 23 and so on. Tried from the image's own side upwards, over one stride, or
    up to 64 pixels more where no pattern is known; None if it takes no other.
    """

    def runs(side):
        try:
            return Trace(model, (*field.shape[:2], side, side)).output.numel() > 0
        except Exception:  # whatever the network raises where its maps do not fit each other
            return False

    side, stride = max(field.shape[2:]), lcm(*field.stride)
    if all(runs(side + more) for more in {1, 2, 3, 4, stride // 2, stride // 2 + 1, max(stride - 1, 1)}):
        more, period = [1], 1  # as good as sure: so few of each stride are tried
    else:
        tried = range(1, 65) if stride > 64 else [stride]
        period = next((more for more in (*tried, stride) if runs(side + more)), None)
        more = [more for more in range(1, (period or 0) + 1) if runs(side + more)]
    if not more:
        return [side], None
    sides = [range((side + each - 1) % period + 1, side + each + 1, period) for each in more]
    return sorted(each[bisect_left(each, True, key=runs)] for each in sides), period


# ------------------------------------------------------------------ measured


@torch.no_grad()
def measure(
    model: nn.Module, image: Tensor, field: ReceptiveField, reasons: list[Whole]
) -> tuple[float | None, dict[str, float]]:
    """The worst error of some patches cut out, or None; and a dict, that of each layer given them alone."""
    scores = score_map(model, image)
    spread = float(scores.double().std(correction=0))
    if not 0 < spread < float("inf"):
        raise ValueError(
            f"the scores have a standard deviation of {spread:g}, so no error can be measured in it; give "
            "the network weights, or an image, for which they vary and are finite."
        )

    def wrong(answer, row, col):
        return float((answer - scores[0, :, row, col]).abs().max()) / spread

    def field_of(size):
        return receptive_field(model, size).local

    local, errors, alone = field_of(field.shape), [], {}
    height, width = field.output_shape[2:]
    for i in range(4):  # down the diagonal, from the corner on, in other phases
        row, col = min(height * i // 4 + i, height - 1), min(width * i // 4 + i, width - 1)
        if not any(local.box(row, col)):
            continue
        try:
            cut, at, _ = cut_out(field_of, local, Box(row, col, row + 1, col + 1))
            if cut == (0, 0, *field.shape[2:]):
                continue  # which would prove nothing
            patch = score_map(model, image[..., cut.top : cut.bottom, cut.left : cut.right])
        except Exception:  # a network for one size only
            continue
        errors.append(wrong(patch[0, :, *at], row, col))
        for layer, _ in reasons:
            others = seen_alone(model, layer, image, cut)
            if others is not None:
                alone[layer] = max(alone.get(layer, 0.0), wrong(others[0, :, row, col], row, col))
    return max(errors, default=None), alone


def seen_alone(model: nn.Module, layer: str, image: Tensor, cut: Box) -> Tensor | None:
    """The scores of the image, were one layer given only what lies in `cut`; None if that cannot be done.

    If the layer does not map (1, C, H, W) to the same, as one for tokens, the module around it is taken.
    """
    while layer in dict(model.named_modules()):
        module = model.get_submodule(layer)
        replaced = vars(module).get("forward")  # a forward that somebody set on this instance
        try:
            module.forward = alone = given_only(cut, image.shape, module.forward)
            scores = score_map(model, image)
            if alone.calls:  # a list of layers is no layer, and is never called
                return scores
            layer = layer.rpartition(".")[0] or None
        except Exception:  # whatever a layer raises that cannot be given a part
            layer = layer.rpartition(".")[0] or None
        finally:
            vars(module).pop("forward", None)
            if replaced is not None:
                module.forward = replaced
    return None


def given_only(cut: Box, shape: tuple, forward: Callable) -> Callable:
    """The layer `forward`, but what it says inside `cut`, a part of an image of `shape`, comes from there."""

    def part(maps):
        if maps.ndim != 4:
            raise ValueError("not a map")
        ends = zip(cut[:2], cut[2:], shape[2:], maps.shape[2:], strict=True)
        lines = (slice(a * n // size, b * n // size) if n > 1 else slice(1) for a, b, size, n in ends)
        return maps[..., *lines]

    def instead(maps):
        instead.calls += 1
        inside, out = forward(part(maps).clone()), forward(maps).clone()
        if inside.shape != part(out).shape:
            raise ValueError("a map of a fixed size")
        part(out)[:] = inside
        return out

    instead.calls = 0
    return instead
