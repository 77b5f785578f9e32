"""What the students' checks of assignment 5 try, and the hints that go with wrong answers."""

import torch

from grading.checks import check


def rows_to_add_a(rows_to_add):
    # square images
    check(
        rows_to_add,
        251,
        251,
        3,
        gives=(5, 5),
        hints={
            "That is what is left over when you divide. How much is missing to the next size that fits?": (
                3,
                3,
            ),
            "Each pooling halves again: 2 to the number of poolings, not 2 times it.": (1, 1),
            "Give what must be added, not the new size.": (256, 256),
            "A size below 0 would cut rows off. Add rows.": (-3, -3),
        },
    )
    check(
        rows_to_add, 256, 256, 3, gives=(0, 0), hints={"This size fits already, so nothing is added.": (8, 8)}
    )
    check(
        rows_to_add,
        40,
        40,
        5,
        gives=(24, 24),
        hints={"The step depends on the number of poolings, 5 here.": (8, 8)},
    )
    print("1a: right. Grading tries other sizes.")


def rows_to_add_b(rows_to_add):
    # an image that is not square
    check(
        rows_to_add,
        100,
        250,
        4,
        gives=(12, 6),
        hints={
            "The rows come first, then the columns.": (6, 12),
            "The width has a remainder of its own.": (12, 12),
        },
    )
    print("1b: right. Grading tries other sizes.")


def join_a(join):
    # one channel each, a margin of one pixel
    check(
        join,
        torch.arange(16.0).view(1, 4, 4),
        -torch.ones(1, 2, 2),
        gives=torch.tensor([[[5, 6], [9, 10]], [[-1, -1], [-1, -1]]]).float(),
        hints={
            "Crop equally much on all four sides: this keeps the top left corner.": [
                [[0, 1], [4, 5]],
                [[-1, -1], [-1, -1]],
            ],
            "Crop equally much on all four sides: this keeps the bottom right corner.": [
                [[10, 11], [14, 15]],
                [[-1, -1], [-1, -1]],
            ],
            "The skip comes first.": [[[-1, -1], [-1, -1]], [[5, 6], [9, 10]]],
            "That is a sum, as in FCN. A U-Net keeps both maps, not a sum.": [[[4, 5], [8, 9]]],
            "This shrinks the whole skip. Cut its middle out instead, so that pixels keep their places.": [
                [[0, 2], [8, 10]],
                [[-1, -1], [-1, -1]],
            ],
            "Here the map from below grows. Crop the skip instead.": [
                [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]],
                [[-1, -1, -1, -1], [-1, -1, -1, -1], [-1, -1, -1, -1], [-1, -1, -1, -1]],
            ],
            "Do not fill the map from below up with zeros: crop the skip instead.": [
                [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]],
                [[0, 0, 0, 0], [0, -1, -1, 0], [0, -1, -1, 0], [0, 0, 0, 0]],
            ],
            "Lay the maps beside each other as channels, not the rows of one below the other's.": [
                [[5, 6], [9, 10], [-1, -1], [-1, -1]]
            ],
        },
    )
    print("2a: right. Grading tries other maps.")


def join_b(join):
    # maps that are not square
    check(
        join,
        torch.arange(24.0).view(1, 4, 6),
        -torch.ones(2, 2, 2),
        gives=torch.tensor([[[8, 9], [14, 15]], [[-1, -1], [-1, -1]], [[-1, -1], [-1, -1]]]).float(),
        otherwise="If check 2a passes: rows and columns have margins of their own.",
    )
    print("2b: right. Grading tries other maps.")


def field_of_row_a(field_of_row):
    # no pooling, and one
    check(
        field_of_row,
        5,
        0,
        gives=(3, 8),
        hints={
            "The second number is the row behind the last.": (3, 7),
            "There are two convolutions on each level, and each adds a row at both ends.": (4, 7),
            "The lowest level has two convolutions as well.": (5, 6),
        },
    )
    check(
        field_of_row,
        8,
        1,
        gives=(0, 18),
        hints={
            "There are two convolutions on each level, and each adds a row at both ends.": (3, 13),
            "Pooling reads two rows of the map above for each row; this is one of them.": (0, 17),
            "The lowest level has two convolutions as well.": (4, 14),
            "That is the way down alone. The way up has convolutions, too.": (2, 16),
            "On the way up, backwards, the two convolutions come first and then the transposed one: the order matters.": (
                -2,
                20,
            ),
            "The field of a U-Net is not centred on its row. Follow both ends by themselves.": (-1, 17),
        },
    )
    check(
        field_of_row,
        9,
        1,
        gives=(0, 18),
        hints={
            "Output r reads row r // 2: round down at both ends.": (0, 20),
            "The field of a U-Net is not centred on its row. Follow both ends by themselves.": (0, 18),
        },
    )
    check(
        field_of_row,
        1,
        1,
        gives=(-8, 10),
        hints={"Below 0, // still rounds down, and int(…) rounds towards 0.": (-6, 10)},
    )
    print("3a: right. Grading tries other rows.")


def field_of_row_b(field_of_row):
    # the U-Net of chapter 5, three poolings, two neighbouring rows
    check(
        field_of_row,
        129,
        3,
        gives=(82, 174),
        hints={
            "The field of a U-Net is not centred on its row. Follow both ends by themselves.": (83, 175),
        },
    )
    check(
        field_of_row,
        130,
        3,
        gives=(82, 182),
        hints={
            "This row sees more than the one before it. Follow the first and the last row by themselves, for other phases too.": (
                82,
                174,
            )
        },
    )
    print("3b: right. Grading asks the receptive-field engine, for other depths.")


def cuts_a(cuts):
    # a network without stride
    check(
        cuts,
        48,
        16,
        5,
        9,
        1,
        gives=[(0, 16, 0, 25), (16, 32, 11, 41), (32, 48, 27, 48)],
        hints={
            "A tile needs its surroundings, too: the rows that its first and last row see.": [
                (0, 16, 0, 16),
                (16, 32, 16, 32),
                (32, 48, 32, 48),
            ],
            "Rows outside the image cannot be cut out: clip top and bottom.": [
                (0, 16, -5, 25),
                (16, 32, 11, 41),
                (32, 48, 27, 57),
            ],
            "before and after are exchanged.": [(0, 16, 0, 21), (16, 32, 7, 37), (32, 48, 23, 48)],
            "That is more than needed: before and after differ.": [
                (0, 16, 0, 25),
                (16, 32, 7, 41),
                (32, 48, 23, 48),
            ],
            "The last row of the tile, stop - 1, sees one row more.": [
                (0, 16, 0, 24),
                (16, 32, 11, 40),
                (32, 48, 27, 48),
            ],
            "The tiles follow each other without overlap; only what is cut out overlaps.": [
                (0, 16, 0, 25),
                (11, 27, 6, 36),
                (22, 38, 17, 47),
                (33, 48, 28, 48),
                (44, 48, 39, 48),
            ],
        },
    )
    print("4a: right. Grading tries other numbers.")


def cuts_b(cuts):
    # a stride of 8, and a last tile that is shorter
    check(
        cuts,
        48,
        20,
        10,
        5,
        8,
        gives=[(0, 20, 0, 32), (20, 40, 8, 48), (40, 48, 24, 48)],
        hints={
            "The last rows of the output belong to no tile: the last tile may be shorter.": [
                (0, 20, 0, 32),
                (20, 40, 8, 48),
            ],
            "The last tile is shorter: it ends with the image.": [
                (0, 20, 0, 32),
                (20, 40, 8, 48),
                (40, 60, 24, 48),
            ],
            "Poolings count from the first row they are given, so top and bottom must be a multiple of the stride.": [
                (0, 20, 0, 25),
                (20, 40, 10, 45),
                (40, 48, 30, 48),
            ],
            "Moving top up to the next multiple cuts off rows that are needed: move it outwards.": [
                (0, 20, 0, 32),
                (20, 40, 16, 48),
                (40, 48, 32, 48),
            ],
        },
    )
    print("4b: right. Grading tries other numbers.")


def next_in_step_a(next_in_step):
    assert type(next_in_step) is int and next_in_step >= 0, "a whole number, please"
    print("5: a number is committed. Now run the next cell.")
