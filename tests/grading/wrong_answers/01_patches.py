"""Wrong answers to assignment 1. A class for each exercise, named for what the student defines.

Each function is one plausible misunderstanding; its docstring is a piece of the hint which that must trigger.
"""

import torch
from torch.nn import functional as F


class mirrored:
    def border_repeated(index, size):
        """shown twice"""
        return -index - 1 if index < 0 else 2 * size - 1 - index if index >= size else index

    def border_continued(index, size):
        """continues the border pixel"""
        return min(max(index, 0), size - 1)

    def wrapped(index, size):
        """the other end of the image"""
        return index % size

    def start_only(index, size):
        """beyond the end"""
        return abs(index)

    def end_only(index, size):
        """still lies outside"""
        return 2 * (size - 1) - index if index >= size else index

    def counted_from_size(index, size):
        """The last pixel is number size - 1, not size."""
        return size - abs(size - abs(index))

    def off_by_one_at_the_end(index, size):
        """not size - 2"""
        return 2 * size - 3 - index if index >= size else abs(index)

    def visible_examples_only(index, size):
        """other positions"""
        return {-1: 1, -4: 4, 10: 0}.get(index, index)


class cut:
    def starts_at_the_pixel(image, row, col, height, width):
        """begins at the pixel"""
        padded = F.pad(image[None], (width // 2,) * 2 + (height // 2,) * 2, mode="reflect")[0]
        row, col = row + height // 2, col + width // 2
        padded = F.pad(padded, (0, width, 0, height))
        return padded[row : row + height, col : col + width]

    def row_and_col_exchanged(image, row, col, height, width):
        """(column, row)"""
        padded = F.pad(image[None], (width // 2,) * 2 + (height // 2,) * 2, mode="reflect")[0]
        return padded[col : col + height, row : row + width]

    def height_and_width_exchanged(image, row, col, height, width):
        """height comes first"""
        padded = F.pad(image[None], (height // 2,) * 2 + (width // 2,) * 2, mode="reflect")[0]
        return padded[row : row + width, col : col + height]

    def padded_in_the_order_of_the_axes(image, row, col, height, width):
        """last axis first"""
        padded = F.pad(image[None], (height // 2,) * 2 + (width // 2,) * 2, mode="reflect")[0]
        return padded[row : row + height, col : col + width]

    def square_windows_only(image, row, col, height, width):
        """as wide as it is high"""
        padded = F.pad(image[None], (height // 2,) * 4, mode="reflect")[0]
        return padded[row : row + height, col : col + height]

    def border_continued(image, row, col, height, width):
        """continues the border pixel"""
        padded = F.pad(image[None], (width // 2,) * 2 + (height // 2,) * 2, mode="replicate")[0]
        return padded[row : row + height, col : col + width]

    def zeros_outside(image, row, col, height, width):
        """zeros beyond"""
        padded = F.pad(image, (width // 2,) * 2 + (height // 2,) * 2)
        return padded[row : row + height, col : col + width]

    def clipped_at_the_border(image, row, col, height, width):
        """ends at the border"""
        top, left = max(row - height // 2, 0), max(col - width // 2, 0)
        return image[top : row + height // 2 + 1, left : col + width // 2 + 1]

    def last_row_and_column_missing(image, row, col, height, width):
        """one row and one column"""
        padded = F.pad(image[None], (width // 2,) * 2 + (height // 2,) * 2, mode="reflect")[0]
        return padded[row : row + height - 1, col : col + width - 1]


class dark_majority:
    def bright(image, height, width):
        """bright"""
        return share_of_dark(image, height, width) < 0.5

    def mean_instead_of_majority(image, height, width):
        """mean of the window"""
        return windows(image, height, width).mean((-2, -1)) < 0.5

    def zeros_outside(image, height, width):
        """count as dark"""
        return share_of_dark(image, height, width, "constant") > 0.5

    def border_continued(image, height, width):
        """continues the border pixel"""
        return share_of_dark(image, height, width, "replicate") > 0.5

    def half_itself_is_dark(image, height, width):
        """exactly 0.5"""
        return windows((image <= 0.5).float(), height, width).mean((-2, -1)) > 0.5

    def no_border(image, height, width):
        """smaller than the image"""
        whole = (image < 0.5).float().unfold(0, height, 1).unfold(1, width, 1)
        return whole.mean((-2, -1)) > 0.5

    def height_and_width_exchanged(image, height, width):
        """height comes first"""
        return share_of_dark(image, width, height) > 0.5

    def square_images_only(image, height, width):
        """is not square"""
        side = len(image)
        result = torch.zeros(side, side, dtype=torch.bool)
        share = share_of_dark(image, height, width)
        for row in range(side):
            for col in range(side):
                result[row, col] = share[row, col] > 0.5
        return result

    def share_instead_of_a_class(image, height, width):
        """is a share"""
        return share_of_dark(image, height, width)


def windows(image, height, width, mode="reflect"):
    """For the functions above: all windows of an image (H, W)."""
    padded = F.pad(image[None], (width // 2,) * 2 + (height // 2,) * 2, mode=mode)[0]
    return padded.unfold(0, height, 1).unfold(1, width, 1)


def share_of_dark(image, height, width, mode="reflect"):
    """For the functions above; zeros beyond the border count as dark."""
    return (windows(image, height, width, mode) < 0.5).float().mean((-2, -1))


class mirrored_percent:
    whole_windows = 67, "those whose window lies inside"
    one_axis = 18, "rows and columns"
    corners_twice = 37, "corners are counted twice"
    one_side = 17, "both sides"
    a_whole_window_on_each_side = 60, "half a window"
    one_row_too_many = 34, "94 rows"


class multiply_accumulates:
    def every_input_position(layers, height, width):
        """does not shrink"""
        return counted(layers, height, width, lost=lambda k: 0)

    def one_position_too_few(layers, height, width):
        """one more position"""
        return counted(layers, height, width, lost=lambda k: k)

    def kernel_not_squared(layers, height, width):
        """rows and columns of weights"""
        return counted(layers, height, width, price=lambda k, before, after: k * before * after)

    def input_channels_forgotten(layers, height, width):
        """every input channel"""
        return counted(layers, height, width, price=lambda k, before, after: k**2 * after)

    def output_channels_forgotten(layers, height, width):
        """every output channel"""
        return counted(layers, height, width, price=lambda k, before, after: k**2 * before)

    def pooling_ignored(layers, height, width):
        """pooling leaves"""
        return counted(layers, height, width, pooled=lambda n, size: n)

    def pooling_by_two_only(layers, height, width):
        """pools by 3"""
        return counted(layers, height, width, pooled=lambda n, size: n // 2)

    def rounded_up(layers, height, width):
        """rounds down"""
        return counted(layers, height, width, pooled=lambda n, size: -(-n // size))

    def square_windows_only(layers, height, width):
        """is not square"""
        return counted(layers, height, height)

    def weights_only(layers, height, width):
        """number of weights"""
        return sum(size**2 * channels[0] * channels[1] for kind, size, *channels in layers if kind == "conv")


def counted(
    layers,
    height,
    width,
    lost=lambda k: k - 1,
    price=lambda k, before, after: k**2 * before * after,
    pooled=lambda n, size: n // size,
):
    """For the functions above: right, unless one of the rules is changed."""
    total = 0
    for kind, size, *channels in layers:
        if kind == "conv":
            height, width = height - lost(size), width - lost(size)
            total += height * width * price(size, *channels)
        else:
            height, width = pooled(height, size), pooled(width, size)
    return total
