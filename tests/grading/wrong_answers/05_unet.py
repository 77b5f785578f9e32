"""Wrong answers to assignment 5. A class for each exercise, named for what the student defines.

Each function is one plausible misunderstanding; its docstring is a piece of the hint which that must trigger.
"""

import torch
from torch.nn import functional as F


class rows_to_add:
    def a_whole_step_too_many(height, width, depth):
        """fits already"""
        step = 2**depth
        return step - height % step, step - width % step

    def remainder(height, width, depth):
        """is left over"""
        return height % 2**depth, width % 2**depth

    def two_times_the_depth(height, width, depth):
        """halves again"""
        return -height % (2 * depth), -width % (2 * depth)

    def new_size(height, width, depth):
        """not the new size"""
        return height + -height % 2**depth, width + -width % 2**depth

    def cut_instead_of_added(height, width, depth):
        """below 0"""
        return -(height % 2**depth), -(width % 2**depth)

    def exchanged(height, width, depth):
        """rows come first"""
        return -width % 2**depth, -height % 2**depth

    def square_only(height, width, depth):
        """of its own"""
        return -height % 2**depth, -height % 2**depth

    def four_poolings_only(height, width, depth):
        """number of poolings"""
        return -height % 16, -width % 16


class join:
    def cropped_at_the_corner(skip, below):
        """on all four sides"""
        return torch.cat([skip[:, : below.shape[1], : below.shape[2]], below])

    def cropped_at_the_other_corner(skip, below):
        """on all four sides"""
        return torch.cat([skip[:, -below.shape[1] :, -below.shape[2] :], below])

    def below_first(skip, below):
        """skip comes first"""
        return join_right(skip, below).roll(len(below), 0)

    def added(skip, below):
        """not a sum"""
        return join_right(skip, below)[: len(skip)] + below

    def shrunk(skip, below):
        """shrinks"""
        return torch.cat([F.interpolate(skip[None], below.shape[1:])[0], below])

    def below_enlarged(skip, below):
        """grows"""
        return torch.cat([skip, F.interpolate(below[None], skip.shape[1:])[0]])

    def below_padded(skip, below):
        """crop the skip"""
        rows, cols = ((big - small) // 2 for big, small in zip(skip.shape[1:], below.shape[1:], strict=True))
        return torch.cat([skip, F.pad(below, (cols, cols, rows, rows))])

    def along_the_rows(skip, below):
        """channels, not the rows"""
        return torch.cat([join_right(skip, below)[: len(skip)], below], dim=1)

    def one_margin_for_both(skip, below):
        """margins of their own"""
        margin = (skip.shape[1] - below.shape[1]) // 2
        inner = skip[:, margin : margin + below.shape[1], margin : margin + below.shape[1]]
        return torch.cat([inner, below])


def join_right(skip, below):
    """For the functions here: what is right."""
    (_, rows, cols), (_, height, width) = skip.shape, below.shape
    top, left = (rows - height) // 2, (cols - width) // 2
    return torch.cat([skip[:, top : top + height, left : left + width], below])


class field_of_row:
    def one_convolution_a_level(row, depth):
        """two convolutions"""
        return field(row, depth, reach=1)

    def last_rounded_up(row, depth):
        """round down"""
        return field(row, depth, upper=lambda last: -(-last // 2))

    def one_row_of_each_pair(row, depth):
        """two rows of the map"""
        return field(row, depth, pair=lambda last: 2 * last)

    def bottom_forgotten(row, depth):
        """lowest level"""
        return field(row, depth, bottom=0)

    def way_down_only(row, depth):
        """way up"""
        return field(row >> depth, depth, up=False)

    def last_row_included(row, depth):
        """behind the last"""
        first, behind = field(row, depth)
        return first, behind - 1

    def rounded_towards_zero(row, depth):
        """Below 0"""
        return field(row, depth, lower=lambda first: int(first / 2))

    def centred(row, depth):
        """not centred"""
        first, behind = field(row, depth)
        return row - (behind - first) // 2, row + (behind - first) // 2

    def always_the_smaller(row, depth):
        """other phases"""
        first, _ = field(row, depth)
        smallest = min(end - start for start, end in (field(at, depth) for at in range(2**depth)))
        return first, first + smallest

    def doubled_before_the_convolutions(row, depth):
        """order"""
        first, last = row, row
        for _ in range(depth):
            first, last = first // 2 - 2, last // 2 + 2
        first, last = first - 2, last + 2
        for _ in range(depth):
            first, last = 2 * first - 2, 2 * last + 1 + 2
        return first, last + 1


def field(
    row,
    depth,
    reach=2,
    bottom=None,
    up=True,
    lower=lambda first: first // 2,
    upper=lambda last: last // 2,
    pair=lambda last: 2 * last + 1,
):
    """For the functions here: right, unless one of the rules is changed."""
    first, last = row, row
    for _ in range(depth if up else 0):
        first, last = lower(first - reach), upper(last + reach)
    first, last = (
        end + sign * (reach if bottom is None else bottom) for end, sign in ((first, -1), (last, 1))
    )
    for _ in range(depth):
        first, last = 2 * first - reach, pair(last) + reach
    return first, last + 1


class cuts:
    def last_tile_missing(rows, tile, before, after, stride):
        """last rows"""
        return plan(rows // tile * tile, tile, before, after, stride, image=rows)

    def last_tile_too_long(rows, tile, before, after, stride):
        """ends with the image"""
        return plan(rows, tile, before, after, stride, end=lambda stop: stop)

    def not_aligned(rows, tile, before, after, stride):
        """multiple of the stride"""
        return plan(rows, tile, before, after, 1)

    def start_rounded_up(rows, tile, before, after, stride):
        """cuts off"""
        return plan(rows, tile, before, after, stride, align=lambda top: top + -top % stride)

    def not_clipped(rows, tile, before, after, stride):
        """outside the image"""
        return plan(rows, tile, before, after, stride, clip=False)

    def before_and_after_exchanged(rows, tile, before, after, stride):
        """exchanged"""
        return plan(rows, tile, after, before, stride)

    def the_larger_on_both_sides(rows, tile, before, after, stride):
        """more than needed"""
        return plan(rows, tile, max(before, after), max(before, after), stride)

    def no_halo(rows, tile, before, after, stride):
        """surroundings"""
        return plan(rows, tile, 0, 0, stride)

    def one_row_short(rows, tile, before, after, stride):
        """last row of the tile"""
        return [
            (start, stop, top, min(-(-(stop - 1 + after) // stride) * stride, rows))
            for start, stop, top, _ in plan(rows, tile, before, after, stride)
        ]

    def tiles_that_overlap(rows, tile, before, after, stride):
        """without overlap"""
        return plan(rows, tile, before, after, stride, step=tile - before)


def plan(
    rows,
    tile,
    before,
    after,
    stride,
    image=None,
    end=None,
    align=None,
    clip=True,
    step=None,
):
    """For the functions here: right, unless one of the rules is changed."""
    image = image or rows
    found = []
    for start in range(0, rows, step or tile):
        stop = (end or (lambda stop: min(stop, rows)))(start + tile)
        top, bottom = start - before, stop + after
        if clip:
            top, bottom = max(top, 0), min(bottom, image)
        top = (align or (lambda top: top - top % stride))(top)
        found.append((start, stop, top, bottom + -bottom % stride))
    return found


class next_in_step:
    every_tile = 1, "a remainder of 4"
    stride = 16, "tiles, not"
    row = 1552, "number of a tile"
    periods = 97, "tiles, not"
    half_a_period = 2, "half a period"
    never = 0, "add up"
    counted_from_one = 5, "Tile 0"
    blocks = 24, "tiles, not"
