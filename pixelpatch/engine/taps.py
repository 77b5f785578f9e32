"""Which positions does each output position read, along one axis?

A 3x3 convolution reads rows `r - 1, r, r + 1` of its input, a 2x2 pooling rows `2r, 2r + 1`, a padding row
nothing at all. Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning", has the
pictures; here are their relations, each written as a table of indices.
"""

from fractions import Fraction
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch

NOWHERE = -(2**31)  # a tap that reads nothing: a zero of the padding, a gap of a transposed convolution


class Taps:
    """Along one axis, position `o` of the output reads the positions `index[o]` of the input.

    index  (n_out, k) integers, or (n_out,) for one tap each; those outside 0 .. n_in - 1 read nothing
    step   input positions per output position: 2 for a stride of 2, 1/2 for upsampling by 2
    """

    def __init__(self, index: np.ndarray, n_in: int, step: Fraction | None = None):
        self.index, self.n_in, self._step = index if index.ndim == 2 else index[:, None], n_in, step

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def inside(self) -> np.ndarray:
        """(n_out, k) bool: the taps that do read something."""
        return (self.index >= 0) & (self.index < self.n_in)

    @cached_property
    def inverse(self) -> np.ndarray:
        """(n_in, k) the outputs that read each input position; filled up with n_out, which is none."""
        reader, source = np.nonzero(self.inside)[0], self.index[self.inside]
        order = np.argsort(source, kind="stable")
        reader, source = reader[order], source[order]
        rank = np.arange(len(source)) - np.searchsorted(source, source)  # a count for each source
        table = np.full((self.n_in, rank.max(initial=0) + 1), len(self))
        table[source, rank] = reader
        return table

    @cached_property
    def step(self) -> Fraction | None:
        """The shift of the input over the smallest shift of the output that moves all taps alike.

        0 if no shift does; None if there is nothing to move, every output position reading the same.
        """
        if self.n_in == 1 or self.reads_all:
            return None
        if self._step or len(self) == 1:
            return self._step
        for shift in range(1, len(self) // 2 + 1):  # seen at least twice
            both = self.inside[shift:] & self.inside[:-shift]
            moved = (self.index[shift:] - self.index[:-shift])[both]
            if moved.size and (moved == moved[0]).all():
                return Fraction(int(moved[0]), shift) if moved[0] else None
        return Fraction(0)

    @cached_property
    def reads_all(self) -> bool:
        """One output position that reads every input position, of which there are several."""
        return len(self) == 1 < self.n_in <= len(np.unique(self.index[self.inside]))


class Warp(NamedTuple):
    """Each output position reads a box of its own: first <= (row, column) <= last, (h, w, 2) integers."""

    first: np.ndarray
    last: np.ndarray
    reads_all: bool = False
    step: Fraction = Fraction(0)  # no shift of the output moves all boxes alike


@lru_cache(4096)
def in_blocks(n: int, count: int) -> Taps:
    """`count` positions that read a part of n each, one part after the other; a single one reads all."""
    return Taps(np.arange(n).reshape(count, -1), n, Fraction(n // count))


@lru_cache(4096)
def window(n: int, kernel: int, stride: int, low: int, high: int, dilation: int, ceil: bool = False) -> Taps:
    """Convolution or pooling over n positions, with `low` and `high` of padding before and after them."""
    room = n + low + high - dilation * (kernel - 1) - 1
    count = (-(-room // stride) if ceil else room // stride) + 1
    if ceil and (count - 1) * stride >= n + low:  # the last window has to start before the padding at the end
        count -= 1
    index = stride * np.arange(max(count, 0))[:, None] - low + dilation * np.arange(kernel)
    return Taps(index, n, Fraction(stride))


@lru_cache(4096)
def transposed(n: int, kernel: int, stride: int, padding: int, output_padding: int, dilation: int) -> Taps:
    """Transposed convolution: input i is added to the outputs i * stride - padding + j * dilation."""
    count = (n - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1
    at = np.arange(max(count, 0))[:, None] + padding - dilation * np.arange(kernel)
    return Taps(np.where(at % stride == 0, at // stride, NOWHERE), n, Fraction(1, stride))


@lru_cache(4096)
def adaptive(n: int, count: int) -> Taps:
    """Adaptive pooling: window o is floor(o n / count) .. ceil((o + 1) n / count) - 1."""
    start, stop = np.arange(count) * n // count, -(-(np.arange(count) + 1) * n // count)
    index = start[:, None] + np.arange((stop - start).max(initial=1))
    return Taps(np.where(index < stop[:, None], index, NOWHERE), n, Fraction(n, count))


@lru_cache(256)
def resized(op: str, dtype, n: int, count: int, scale: float | None, align_corners: bool | None) -> Taps:
    """Interpolation: torch itself resizes n unit impulses, and every weight above 1e-9 is a tap."""
    corners = () if align_corners is None else (align_corners,)
    # Impulse c: channel c, column c. (Not rows: torch 2.15 antialiases a map of one column wrongly.)
    impulses = torch.eye(n, dtype=dtype).reshape(1, n, 1, n)
    columns = getattr(torch.ops.aten, op).default(impulses, [1, count], *corners, None, scale)
    weight = columns[0, :, 0].T.abs().numpy() > 1e-9  # (count, n)
    index = np.sort(np.where(weight, np.arange(n), NOWHERE), axis=1)[:, n - weight.sum(1).max(initial=1) :]
    step = Fraction(n, count) if scale is None else 1 / Fraction(scale).limit_denominator(1000)
    if align_corners and n > 1 and count > 1:
        step = Fraction(n - 1, count - 1)
    return Taps(index, n, step)


def sampled(grid: np.ndarray, size: tuple[int, int], mode: int, padding: int, corners: bool):
    """First and last (row, column) that `grid_sample` reads, each (N, h, w, 2); first > last where nothing.

    grid  (N, h, w, 2) of (x, y) in [-1, 1]; mode 0 bilinear, 1 nearest, 2 bicubic; padding 0 zeros, 1 border,
          2 reflection; all as torch has them
    """
    n = np.array(size)
    low, span = (0.0, n - 1.0) if corners else (-0.5, n * 1.0)
    at = low + (grid[..., ::-1] + 1) / 2 * span
    if padding == 2:
        turn = (at - low) % np.maximum(2 * span, 1)
        at = low + np.minimum(turn, 2 * span - turn)
    if padding and mode != 2:
        at = np.clip(at, 0, n - 1)
    reach = 2 if mode == 2 else 1  # what lies nearer than that has a weight
    first, last = np.ceil(at - reach + 1e-9).astype(int), np.floor(at + reach - 1e-9).astype(int)
    if mode == 1:
        first = last = np.rint(at).astype(int)
    if padding:
        return np.clip(first, 0, n - 1), np.clip(last, 0, n - 1)
    first, last = np.maximum(first, 0), np.minimum(last, n - 1)
    nothing = (first > last).any(-1, keepdims=True)
    return np.where(nothing, n, first), np.where(nothing, -1, last)
