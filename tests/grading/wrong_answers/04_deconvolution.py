"""Wrong answers to assignment 4. A class for each exercise, named for what the student defines.

Each function is one plausible misunderstanding; its docstring is a piece of the hint which that must trigger.
"""

import torch


class exact_enlargement:
    def output_padding_forgotten(kernel, stride):
        """one row short"""
        return -(-(kernel - stride) // 2), 0

    def rounded_down(kernel, stride):
        """one row too many"""
        return (kernel - stride) // 2, 0

    def rounded_down_and_added(kernel, stride):
        """adds rows"""
        return (kernel - stride) // 2, (kernel - stride) % 2

    def from_one_side(kernel, stride):
        """both sides"""
        return kernel - stride, 0

    def exchanged(kernel, stride):
        """padding comes first"""
        return exact_right(kernel, stride)[::-1]

    def as_for_a_convolution(kernel, stride):
        """keeps the size"""
        return kernel // 2, 0

    def always_stride_minus_one(kernel, stride):
        """as small as possible"""
        padding = (kernel - 1) // 2
        return padding, 2 * padding - kernel + stride

    def stride_of_two_only(kernel, stride):
        """other strides"""
        return exact_right(kernel, 2)

    def floating_point(kernel, stride):
        """stay whole"""
        return (kernel - stride) / 2, 0


def exact_right(kernel, stride):
    """For the functions here: what is right."""
    padding = -(-(kernel - stride) // 2)
    return padding, 2 * padding - kernel + stride


class stamps_on:
    def rounded(output, size, kernel, stride, padding):
        """divides"""
        inputs = [((output + padding - tap) // stride, tap) for tap in reversed(range(kernel))]
        return [(at, tap) for at, tap in inputs if 0 <= at < size]

    def borders_forgotten(output, size, kernel, stride, padding):
        """do not exist"""
        inputs = range(-kernel, size + kernel)
        return [
            (at, output + padding - at * stride)
            for at in inputs
            if 0 <= output + padding - at * stride < kernel
        ]

    def padding_subtracted(output, size, kernel, stride, padding):
        """cuts"""
        return stamps_on_right(output - 2 * padding, size, kernel, stride, padding)

    def padding_ignored(output, size, kernel, stride, padding):
        """cuts"""
        return stamps_on_right(output, size, kernel, stride, 0)

    def turned(output, size, kernel, stride, padding):
        """first tap"""
        return [(at, kernel - 1 - tap) for at, tap in stamps_on_right(output, size, kernel, stride, padding)]

    def one_tap_too_many(output, size, kernel, stride, padding):
        """kernel - 1"""
        return stamps_on_right(output, size, kernel + 1, stride, padding)

    def reads_like_a_convolution(output, size, kernel, stride, padding):
        """reads"""
        inputs = [(output * stride - padding + tap, tap) for tap in range(kernel)]
        return [(at, tap) for at, tap in inputs if 0 <= at < size]

    def stride_of_one_only(output, size, kernel, stride, padding):
        """stride positions further"""
        return stamps_on_right(output, size, kernel, 1, padding)

    def inputs_without_taps(output, size, kernel, stride, padding):
        """pairs"""
        return [at for at, tap in stamps_on_right(output, size, kernel, stride, padding)]

    def in_the_order_of_taps(output, size, kernel, stride, padding):
        """smallest input first"""
        return stamps_on_right(output, size, kernel, stride, padding)[::-1]


def stamps_on_right(output, size, kernel, stride, padding):
    """For the functions here: what is right."""
    taps = [(at, output + padding - at * stride) for at in range(size)]
    return [(at, tap) for at, tap in taps if 0 <= tap < kernel]


class overlap_mean:
    def sum_instead_of_mean(x, kernel, stride):
        """their sum"""
        return stamp(x, kernel, stride)[0]

    def overwritten(x, kernel, stride):
        """last stamp"""
        return stamp(x, kernel, stride, add=False)[0]

    def turned(x, kernel, stride):
        """turns no kernel"""
        return overlap_right(x, kernel.flip(-1, -2), stride)

    def divided_by_taps(x, kernel, stride):
        """size of the kernel"""
        return stamp(x, kernel, stride)[0] / kernel[0, 0].numel()

    def divided_by_the_largest_count(x, kernel, stride):
        """each pixel by its own"""
        canvas, count = stamp(x, kernel, stride)
        return canvas / count.max()

    def mean_over_channels(x, kernel, stride):
        """not by channels"""
        return overlap_right(x, kernel, stride) / len(x)

    def first_channel_only(x, kernel, stride):
        """a kernel of its own"""
        return overlap_right(x[:1], kernel[:1], stride)

    def zero_by_zero(x, kernel, stride):
        """never stamped"""
        canvas, count = stamp(x, kernel, stride)
        return canvas / count

    def stride_ignored(x, kernel, stride):
        """stride rows further"""
        return overlap_right(x, kernel, (1, 1))

    def strides_exchanged(x, kernel, stride):
        """stride in rows comes first"""
        return overlap_right(x, kernel, stride[::-1])

    def square_only(x, kernel, stride):
        """of their own"""
        return overlap_right(x, kernel, (stride[0], stride[0]))


def stamp(x, kernel, stride, add=True):
    """For the functions here: the sum of all stamps, or the last, and how many there were."""
    (_, height, width), (_, outputs, rows, cols) = x.shape, kernel.shape
    canvas = torch.zeros(outputs, (height - 1) * stride[0] + rows, (width - 1) * stride[1] + cols)
    count = torch.zeros_like(canvas)
    for row in range(height):
        for col in range(width):
            top, left = row * stride[0], col * stride[1]
            place = (slice(None), slice(top, top + rows), slice(left, left + cols))
            stamped = torch.einsum("i,iokl->okl", x[:, row, col], kernel)
            canvas[place] = canvas[place] + stamped if add else stamped
            count[place] += 1
    return canvas, count


def overlap_right(x, kernel, stride):
    """For the functions here: what is right."""
    canvas, count = stamp(x, kernel, stride)
    return canvas / count.clamp(min=1)


class even_stamp:
    def whole_kernel(kernel, stride):
        """each phase"""
        return kernel / kernel.sum()

    def whole_kernel_times_phases(kernel, stride):
        """on average"""
        return kernel / kernel.sum() * stride[0] * stride[1]

    def mean_of_each_phase(kernel, stride):
        """not their mean"""
        return by_phase(kernel, stride, lambda weights: weights / weights.mean())

    def all_weights_alike(kernel, stride):
        """keep their proportions"""
        return by_phase(kernel, stride, lambda weights: torch.full_like(weights, 1 / weights.numel()))

    def blocks(kernel, stride):
        """next to each other"""
        even = kernel.clone()
        for top in range(0, kernel.shape[0], stride[0]):
            for left in range(0, kernel.shape[1], stride[1]):
                block = even[top : top + stride[0], left : left + stride[1]]
                block /= block.sum()
        return even

    def rows_only(kernel, stride):
        """both directions"""
        return by_phase(kernel, (stride[0], 1), lambda weights: weights / weights.sum())

    def strides_exchanged(kernel, stride):
        """stride in rows"""
        return by_phase(kernel, stride[::-1], lambda weights: weights / weights.sum())

    def square_only(kernel, stride):
        """of their own"""
        return by_phase(kernel, (stride[0], stride[0]), lambda weights: weights / weights.sum())

    def largest_is_one(kernel, stride):
        """largest weight"""
        return by_phase(kernel, stride, lambda weights: weights / weights.max())


def by_phase(kernel, stride, change):
    """For the functions here: change the weights of each phase."""
    even = kernel.clone()
    for down in range(stride[0]):
        for right in range(stride[1]):
            even[down :: stride[0], right :: stride[1]] = change(
                kernel[down :: stride[0], right :: stride[1]]
            )
    return even


class not_zero:
    one_for_each_window = 9, "same place"
    others_only = 5, "peak itself"
    one_peak = 1, "far from the peak"
    quarter = 12, "windows overlap"
    all_of_them = 49, "zeros"
    two_windows_share = 8, "four windows"
    windows_that_do_not_overlap = 4, "stride is 2"
