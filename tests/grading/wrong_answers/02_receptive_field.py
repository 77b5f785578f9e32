"""Wrong answers to assignment 2. A class for each exercise, named for what the student defines.

Each function is one plausible misunderstanding; its docstring is a piece of the hint which that must trigger.
"""

import torch


class compose:
    def sizes_added(first, second):
        """shares one"""
        return first[0] + second[0], first[1] * second[1], first[2] + second[2] * first[1]

    def sizes_multiplied(first, second):
        """overlap"""
        return first[0] * second[0], first[1] * second[1], first[2] + second[2] * first[1]

    def jump_forgotten(first, second):
        """a jump apart"""
        return first[0] + second[0] - 1, first[1] * second[1], first[2] + second[2] * first[1]

    def as_many_steps_as_outputs(first, second):
        """one step fewer"""
        return first[0] + second[0] * first[1], first[1] * second[1], first[2] + second[2] * first[1]

    def new_jump(first, second):
        """jump of the first network alone"""
        jump = first[1] * second[1]
        return first[0] + (second[0] - 1) * jump, jump, first[2] + second[2] * first[1]

    def jumps_added(first, second):
        """jumps multiply"""
        return first[0] + (second[0] - 1) * first[1], first[1] + second[1], first[2] + second[2] * first[1]

    def exchanged(first, second):
        """other way round"""
        return compose_right(second, first)

    def start_in_outputs(first, second):
        """counts outputs of the first"""
        return first[0] + (second[0] - 1) * first[1], first[1] * second[1], first[2] + second[2]

    def start_of_the_first(first, second):
        """starts earlier still"""
        return first[0] + (second[0] - 1) * first[1], first[1] * second[1], first[2]


def compose_right(first, second):
    """For the functions here: what is right."""
    return first[0] + (second[0] - 1) * first[1], first[1] * second[1], first[2] + second[2] * first[1]


class rows_seen:
    def not_clipped(field, output, height):
        """outside the image"""
        size, jump, start = field
        return start + output * jump, start + output * jump + size

    def clipped_too_early(field, output, height):
        """before you clip"""
        size, jump, start = field
        top = max(start + output * jump, 0)
        return top, min(top + size, height)

    def last_row_included(field, output, height):
        """behind the last row"""
        size, jump, start = field
        return max(start + output * jump, 0), min(start + output * jump + size, height) - 1

    def jump_forgotten(field, output, height):
        """jump rows further"""
        size, _, start = field
        return max(start + output, 0), min(start + output + size, height)

    def start_forgotten(field, output, height):
        """Output 0"""
        size, jump, _ = field
        return output * jump, min(output * jump + size, height)

    def start_subtracted(field, output, height):
        """Output 0"""
        size, jump, start = field
        return max(output * jump - start, 0), min(output * jump - start + size, height)

    def only_the_top_clipped(field, output, height):
        """end of the image"""
        size, jump, start = field
        return max(start + output * jump, 0), start + output * jump + size

    def centred(field, output, height):
        """not its middle"""
        size, jump, start = field
        top = start + output * jump - size // 2
        return max(top, 0), min(top + size, height)

    def top_and_size(field, output, height):
        """not how many"""
        size, jump, start = field
        return max(start + output * jump, 0), size


class seen:
    def whole_box(layers):
        """the box without its holes"""
        return torch.ones(seen_right(layers).shape, dtype=torch.bool)

    def dilation_ignored(layers):
        """taps next to each other"""
        return seen_right([(kernel, (1, 1)) for kernel, _ in layers])

    def dilation_counts_holes(layers):
        """1 means no hole"""
        return seen_right([(kernel, (rows + 1, cols + 1)) for kernel, (rows, cols) in layers])

    def last_layer_only(layers):
        """all layers together"""
        return seen_right(layers[-1:])

    def union_of_the_layers(layers):
        """one after the other"""
        lines = []
        for axis in (0, 1):
            taps = {tap * dilation[axis] for kernel, dilation in layers for tap in range(kernel[axis])}
            lines.append(line(taps))
        return lines[0][:, None] & lines[1]

    def rows_and_columns_exchanged(layers):
        """exchanged"""
        return seen_right(layers).T

    def square_only(layers):
        """kernels and dilations of their own"""
        return seen_right([((kernel[0],) * 2, (dilation[0],) * 2) for kernel, dilation in layers])

    def numbers_instead_of_a_mask(layers):
        """how often"""
        mask = seen_right(layers)
        return mask.long() * len(layers)


def line(positions):
    """For the functions here: a mask of these positions."""
    mask = torch.zeros(max(positions) + 1, dtype=torch.bool)
    mask[list(positions)] = True
    return mask


def seen_right(layers):
    """For the functions here: what is right."""
    lines = []
    for axis in (0, 1):
        positions = {0}
        for kernel, dilation in layers:
            positions = {p + tap * dilation[axis] for p in positions for tap in range(kernel[axis])}
        lines.append(line(positions))
    return lines[0][:, None] & lines[1]


class influenced:
    def rounded(layers, size, position):
        """divides"""
        return follow(layers, size, position, divides=lambda at, stride: True)

    def padding_subtracted(layers, size, position):
        """Padding moves"""
        return follow([(k, s, -p, d) for k, s, p, d in layers], size, position, inside=lambda *_: True)

    def taps_added(layers, size, position):
        """reads forwards"""
        return follow(layers, size, position, direction=1)

    def borders_forgotten(layers, size, position):
        """do not exist"""
        return follow(layers, size, position, inside=lambda *_: True)

    def end_forgotten_between_layers(layers, size, position):
        """Right in the visible check"""
        reached = follow(layers, size, position, inside=lambda at, now, first: at >= 0)
        for kernel, stride, padding, dilation in layers:
            size = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        return [output for output in reached if output < size]

    def size_of_the_input(layers, size, position):
        """fewer outputs than inputs"""
        return follow(layers, size, position, inside=lambda at, now, first: 0 <= at < first)

    def dilation_ignored(layers, size, position):
        """apart, the dilation"""
        return follow([(k, s, p, 1) for k, s, p, d in layers], size, position)

    def holes_filled(layers, size, position):
        """nothing in between"""
        reached = follow(layers, size, position)
        return list(range(min(reached), max(reached) + 1)) if reached else []

    def last_layer_first(layers, size, position):
        """The first layer of the list"""
        return follow(layers[::-1], size, position)

    def stride_ignored(layers, size, position):
        """steps of the stride"""
        return follow([(k, 1, p, d) for k, s, p, d in layers], size, position)

    def not_sorted(layers, size, position):
        """smallest output first"""
        return follow(layers, size, position)[::-1]


def follow(
    layers,
    size,
    position,
    direction=-1,
    divides=lambda at, stride: at % stride == 0,
    inside=lambda at, now, first: 0 <= at < now,
):
    """For the functions here: right, unless one of the rules is changed."""
    reached, first = {position}, size
    for kernel, stride, padding, dilation in layers:
        size = (size + 2 * abs(padding) - dilation * (kernel - 1) - 1) // stride + 1
        taps = {at + padding + direction * tap * dilation for at in reached for tap in range(kernel)}
        reached = {at // stride for at in taps if divides(at, stride)}
        reached = {at for at in reached if inside(at, size, first)}
    return sorted(reached)


class spread:
    variance = 16, "root"
    three_by_three = 2.31, "as far as two pixels"
    field = 33, "theoretical field"
    grows_with_depth = 11.3, "variances that add"
    both_axes = 5.66, "one axis"
    one_layer = 1.41, "one layer"
    continuous_steps = 4.08, "mean square"
