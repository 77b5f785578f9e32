"""What the students' checks of assignment 2 try, and the hints that go with wrong answers."""

import torch

from grading.checks import check


def mask(rows, cols):
    """For the checks: a bool tensor that is True where both a row and a column are marked with 1."""
    rows, cols = ([mark == "1" for mark in line] for line in (rows, cols))
    return torch.tensor(rows)[:, None] & torch.tensor(cols)


def compose_a(compose):
    # two convolutions without stride
    check(
        compose,
        (3, 1, 0),
        (5, 1, 0),
        gives=(7, 1, 0),
        hints={
            "The first output of the five sees 3 rows, and the next shares one "
            "row fewer than that with it: five outputs see 3 + 4 rows.": (8, 1, 0),
            "The fields of neighbouring outputs overlap, so sizes do not multiply.": (15, 1, 0),
        },
    )
    print("1a: right. Grading tries other networks.")


def compose_b(compose):
    # with strides and padding
    check(
        compose,
        (4, 2, -1),
        (6, 3, -2),
        gives=(14, 6, -5),
        hints={
            "The second network reads 6 outputs of the first, and these lie a jump apart in the image.": (
                9,
                6,
                -5,
            ),
            "From the first of 6 outputs to the last it is one step fewer, 5.": (16, 6, -5),
            "Outputs of the first network lie a jump apart: the jump of the first network alone.": (
                34,
                6,
                -5,
            ),
            "The jumps multiply, like strides.": (14, 5, -5),
            "That is the chain the other way round. The first network reads the image.": (15, 6, -5),
            "The start of the second network counts outputs of the first, not rows of the image.": (
                14,
                6,
                -3,
            ),
            "The second network may start outside, in its padding; then the chain starts earlier still.": (
                14,
                6,
                -1,
            ),
        },
    )
    print("1b: right. Grading tries VGG-16.")


def rows_seen_a(rows_seen):
    # away from the border
    check(
        rows_seen,
        (44, 4, -6),
        10,
        256,
        gives=(34, 78),
        hints={
            "bottom is the row behind the last row seen, as in a slice.": (34, 77),
            "Each further output looks jump rows further down.": (4, 48),
            "Output 0 looks at row start first, which is negative here.": (40, 84),
            "Output 0 looks at row start first, and start is negative: add it.": (46, 90),
            "start is the first row that output 0 sees, not its middle.": (12, 56),
            "bottom is a row, not how many are seen.": (34, 44),
        },
    )
    print("2a: right. Grading tries other networks.")


def rows_seen_b(rows_seen):
    # at the border
    check(
        rows_seen,
        (44, 4, -6),
        1,
        256,
        gives=(0, 42),
        hints={
            "Rows in the padding lie outside the image, and do not count.": (-2, 42),
            "Compute where the field ends before you clip where it begins: it does not grow because a part is cut off.": (
                0,
                44,
            ),
        },
    )
    check(
        rows_seen,
        (44, 4, -6),
        55,
        256,
        gives=(214, 256),
        hints={
            "The field goes on behind the end of the image, and must be clipped there as well.": (214, 258)
        },
    )
    print("2b: right. Grading tries other networks and borders.")


def seen_a(seen):
    # one layer
    check(
        seen,
        [((3, 3), (2, 2))],
        gives=mask("10101", "10101"),
        hints={
            "This is the box without its holes: its 3 x 3 taps see 9 pixels.": mask("11111", "11111"),
            "These are taps next to each other. With dilation 2 they lie two positions apart.": mask(
                "111", "111"
            ),
            "Dilation 2 means two positions apart, with one hole between them: 1 means no hole.": mask(
                "1001001", "1001001"
            ),
            "These numbers say how often. The mask says whether, True or False.": mask(
                "10101", "10101"
            ).long(),
        },
    )
    print("3a: right. Grading tries other kernels and dilations.")


def seen_b(seen):
    # two layers
    check(
        seen,
        [((3, 3), (3, 3)), ((2, 2), (1, 1))],
        gives=mask("11011011", "11011011"),
        hints={
            "The output sees what all layers together reach; this is one of them alone.": mask("11", "11"),
            "The layers come one after the other: every position that the last layer reads, spreads again in the one before "
            "it. You have put their taps side by side.": mask("1101001", "1101001"),
            "This is the box without its holes.": mask("11111111", "11111111"),
        },
    )
    print("3b: right. Grading tries other layers.")


def seen_c(seen):
    # kernels and dilations that are not square
    check(
        seen,
        [((2, 3), (1, 2)), ((1, 2), (1, 1))],
        gives=mask("11", "111111"),
        hints={"Rows and columns are exchanged: the kernel's rows come first.": mask("111111", "11")},
        otherwise="If the checks above pass: rows and columns have kernels and dilations of their own.",
    )
    print("3c: right. Grading tries other layers.")


def influenced_a(influenced):
    # one layer without a stride
    check(
        influenced,
        [(3, 1, 1, 1)],
        8,
        4,
        gives=[3, 4, 5],
        hints={
            "Padding moves the outputs the other way: add it to the position.": [1, 2, 3],
            "An output reads forwards, so the outputs that see a position lie before it: subtract the taps.": [
                5,
                6,
                7,
            ],
            "The right outputs, but give the smallest output first.": [5, 4, 3],
        },
    )
    check(
        influenced,
        [(3, 1, 1, 1)],
        8,
        0,
        gives=[0, 1],
        hints={"Some of these outputs do not exist: none is below 0.": [-1, 0, 1]},
    )
    print("4a: right. Grading tries other layers.")


def influenced_b(influenced):
    # with a stride
    check(
        influenced,
        [(3, 2, 1, 1)],
        9,
        4,
        gives=[2],
        hints={
            "A tap lands on an output only if the stride divides position + padding - tap; do not round.": [
                1,
                2,
            ],
            "Outputs read in steps of the stride.": [3, 4, 5],
        },
    )
    check(
        influenced,
        [(3, 2, 1, 1)],
        8,
        7,
        gives=[3],
        hints={
            "There are fewer outputs than inputs, because of the stride.": [3, 4],
            "Rounding reaches outputs that do not read this position: the stride must divide.": [3],
        },
    )
    print("4b: right. Grading tries other strides and positions.")


def influenced_c(influenced):
    # with dilation, and with two layers
    check(
        influenced,
        [(3, 1, 0, 3)],
        12,
        6,
        gives=[0, 3],
        hints={
            "The taps lie 3 positions apart, the dilation.": [4, 5, 6],
            "With dilation the pixel reaches single outputs, and nothing in between.": [0, 1, 2, 3],
        },
    )
    check(
        influenced,
        [(3, 1, 0, 2), (4, 2, 1, 1)],
        14,
        6,
        gives=[0, 1, 2, 3],
        hints={"The first layer of the list reads the image: follow it first.": [0, 1, 2]},
    )
    print("4c: right. Grading tries other layers.")


def spread_a(spread):
    assert type(spread) in (int, float) and 0 < spread < 100, "a number of pixels, please"
    print("5: a number is committed. Now run the next cell.")
