"""Wrong answers to assignment 3. A class for each exercise, named for what the student defines.

Each function is one plausible misunderstanding; its docstring is a piece of the hint which that must trigger.
"""

import torch
from torch.nn import functional as F


class as_kernel:
    def channels_first(weight, channels, height, width):
        """the channels come last"""
        return weight.reshape(len(weight), channels, height, width)

    def channels_left_last(weight, channels, height, width):
        """second axis"""
        return weight.reshape(len(weight), height, width, channels)

    def rows_and_columns_exchanged(weight, channels, height, width):
        """rows and columns are exchanged"""
        return weight.reshape(len(weight), height, width, channels).permute(0, 3, 2, 1)

    def turned(weight, channels, height, width):
        """turns no kernel"""
        return as_kernel_right(weight, channels, height, width).flip(-1, -2)

    def inputs_first(weight, channels, height, width):
        """output channels come first"""
        return as_kernel_right(weight, channels, height, width).transpose(0, 1)

    def width_first(weight, channels, height, width):
        """is not square"""
        return weight.reshape(len(weight), width, height, channels).permute(0, 3, 1, 2)

    def square_maps_only(weight, channels, height, width):
        """is not square"""
        side = round((weight.shape[1] / channels) ** 0.5)
        return weight.reshape(len(weight), side, side, channels).permute(0, 3, 1, 2)


def as_kernel_right(weight, channels, height, width):
    """For the functions here: what is right."""
    return weight.reshape(len(weight), height, width, channels).permute(0, 3, 1, 2)


class centres:
    def first_rows(rows, window, stride):
        """middle of its window"""
        return list(range(0, rows - window + 1, stride))

    def as_if_mirrored(rows, window, stride):
        """does not continue the image"""
        return list(range(0, rows, stride))

    def one_score_too_few(rows, window, stride):
        """one more"""
        return centres_right(rows, window, stride)[:-1]

    def rounded_up(rows, window, stride):
        """does not fit"""
        scores = -(-(rows - window) // stride) + 1
        return [number * stride + window // 2 for number in range(scores)]

    def every_row(rows, window, stride):
        """every stride-th"""
        return centres_right(rows, window, 1)

    def one_row_further(rows, window, stride):
        """(window - 1) / 2"""
        return [row + 1 for row in centres_right(rows, window, stride)]

    def middle_of_the_stride(rows, window, stride):
        """not of the stride"""
        return [number * stride + stride // 2 for number in range((rows - window) // stride + 1)]

    def stride_counts_scores(rows, window, stride):
        """As many scores as windows"""
        return [number * stride + window // 2 for number in range(rows // stride)]


def centres_right(rows, window, stride):
    """For the functions here: what is right."""
    return list(range(window // 2, rows - window // 2, stride))


class stitch:
    def exchanged(maps, height, width):
        """down and right are exchanged"""
        return interleave([list(line) for line in zip(*maps, strict=True)], height, width)

    def side_by_side(maps, height, width):
        """side by side"""
        return torch.cat([torch.cat(line, dim=-1) for line in maps], dim=-2)

    def enlarged(maps, height, width):
        """one of the maps"""
        return F.interpolate(maps[0][0][None], (height, width))[0]

    def backwards(maps, height, width):
        """cut off at the top and left"""
        return interleave([line[::-1] for line in maps[::-1]], height, width)

    def averaged(maps, height, width):
        """average"""
        return torch.stack([F.interpolate(m[None], (height, width))[0] for line in maps for m in line]).mean(
            0
        )

    def one_stride_for_both(maps, height, width):
        """strides of their own"""
        stride = len(maps)
        whole = maps[0][0].new_zeros(maps[0][0].shape[0], height, width)
        for down in range(stride):
            for right in range(stride):
                whole[:, down::stride, right::stride] = maps[down][right]
        return whole

    def all_of_one_size(maps, height, width):
        """one row or column more"""
        _, rows, cols = maps[0][0].shape
        whole = interleave(maps, rows * len(maps), cols * len(maps[0]))
        return whole[:, :height, :width].contiguous()

    def two_by_two_only(maps, height, width):
        """strides of their own"""
        return interleave([line[:2] for line in maps[:2]], height, width)


def interleave(maps, height, width):
    """For the functions here: what is right."""
    whole = maps[0][0].new_zeros(maps[0][0].shape[0], height, width)
    for down, line in enumerate(maps):
        for right, scores in enumerate(line):
            whole[:, down :: len(maps), right :: len(line)] = scores
    return whole


class copies:
    square = 144, "4 in columns"
    rows_only = 12, "shifts to the right"
    columns_only = 4, "shifts down"
    sum_of_both = 16, "a product, not a sum"
    strides_added = 35, "multiply"
    halved_only = 64, "pools by 3"
    poolings = 3, "number of poolings"


class with_holes:
    def holes_behind_each_weight(kernel, dilation):
        """between weights"""
        rows, cols = dilation
        o, i, height, width = kernel.shape
        wide = kernel.new_zeros(o, i, height * rows, width * cols)
        wide[..., ::rows, ::cols] = kernel
        return wide

    def as_many_zeros_as_the_dilation(kernel, dilation):
        """one zero fewer"""
        return spread_right(kernel, (dilation[0] + 1, dilation[1] + 1))

    def weights_repeated(kernel, dilation):
        """zeros, not copies"""
        return kernel.repeat_interleave(dilation[0], -2).repeat_interleave(dilation[1], -1)

    def in_one_direction(kernel, dilation):
        """rows as well"""
        return spread_right(kernel, (1, dilation[1]))

    def turned(kernel, dilation):
        """turns no kernel"""
        return spread_right(kernel, dilation).flip(-1, -2)

    def zeros_around(kernel, dilation):
        """around the kernel"""
        rows, cols = ((d - 1) * (k - 1) for d, k in zip(dilation, kernel.shape[2:], strict=True))
        return F.pad(kernel, (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2))

    def exchanged(kernel, dilation):
        """dilation down comes first"""
        return spread_right(kernel, dilation[::-1])

    def square_only(kernel, dilation):
        """of their own"""
        return spread_right(kernel, (dilation[0], dilation[0]))


def spread_right(kernel, dilation):
    """For the functions here: what is right."""
    (o, i, height, width), (rows, cols) = kernel.shape, dilation
    wide = kernel.new_zeros(o, i, (height - 1) * rows + 1, (width - 1) * cols + 1)
    wide[..., ::rows, ::cols] = kernel
    return wide
