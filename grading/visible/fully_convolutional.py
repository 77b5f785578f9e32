"""What the students' checks of assignment 3 try, and the hints that go with wrong answers."""

import torch

from grading.checks import check


def as_kernel_a(as_kernel):
    # a map of 2 x 2 pixels with 3 channels
    check(
        as_kernel,
        torch.arange(24.0).view(2, 12),
        3,
        2,
        2,
        gives=torch.tensor(
            [
                [[[0, 3], [6, 9]], [[1, 4], [7, 10]], [[2, 5], [8, 11]]],
                [[[12, 15], [18, 21]], [[13, 16], [19, 22]], [[14, 17], [20, 23]]],
            ]
        ).float(),
        hints={
            "That is right for nn.Flatten. In this row of numbers the channels come last: neighbours are the channels of one "
            "pixel. (A reshape alone never changes the order.)": [
                [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], [10, 11]]],
                [[[12, 13], [14, 15]], [[16, 17], [18, 19]], [[20, 21], [22, 23]]],
            ],
            "The channels must move to the second axis.": [
                [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]],
                [[[12, 13, 14], [15, 16, 17]], [[18, 19, 20], [21, 22, 23]]],
            ],
            "Within each kernel rows and columns are exchanged.": [
                [[[0, 6], [3, 9]], [[1, 7], [4, 10]], [[2, 8], [5, 11]]],
                [[[12, 18], [15, 21]], [[13, 19], [16, 22]], [[14, 20], [17, 23]]],
            ],
            "torch's convolution turns no kernel over, it is a cross-correlation. Leave the order of the weights.": [
                [[[9, 6], [3, 0]], [[10, 7], [4, 1]], [[11, 8], [5, 2]]],
                [[[21, 18], [15, 12]], [[22, 19], [16, 13]], [[23, 20], [17, 14]]],
            ],
            "The output channels come first in the kernel of a Conv2d.": [
                [[[0, 3], [6, 9]], [[12, 15], [18, 21]]],
                [[[1, 4], [7, 10]], [[13, 16], [19, 22]]],
                [[[2, 5], [8, 11]], [[14, 17], [20, 23]]],
            ],
        },
    )
    print("1a: right. Grading tries other square maps.")


def as_kernel_b(as_kernel):
    # a map of 2 rows and 3 columns with 1 channel
    check(
        as_kernel,
        torch.arange(6.0).view(1, 6),
        1,
        2,
        3,
        gives=torch.arange(6.0).view(1, 1, 2, 3),
        otherwise="If check 1a passes: this map is not square, it has 2 rows and 3 columns.",
    )
    print(
        "1b: right. Grading compares the scores of the convolution with those of the fully connected layer."
    )


def centres_a(centres):
    # stride 1
    check(
        centres,
        9,
        5,
        1,
        gives=[2, 3, 4, 5, 6],
        hints={
            "These are the rows where the windows begin. A score belongs to the middle of its window.": [
                0,
                1,
                2,
                3,
                4,
            ],
            "The network does not continue the image: near the border there is no whole window.": [
                0,
                1,
                2,
                3,
                4,
                5,
                6,
                7,
                8,
            ],
            "There is one more: the last window ends with the image.": [2, 3, 4, 5],
            "(window - 1) / 2 rows lie before the middle one.": [3, 4, 5, 6, 7],
            "As many scores as windows fit: the first and the last must lie inside.": [
                2,
                3,
                4,
                5,
                6,
                7,
                8,
                9,
                10,
            ],
        },
    )
    print("2a: right. Grading tries other windows.")


def centres_b(centres):
    # with a stride
    check(
        centres,
        30,
        9,
        4,
        gives=[4, 8, 12, 16, 20, 24],
        hints={
            "These are the rows where the windows begin. A score belongs to the middle of its window.": [
                0,
                4,
                8,
                12,
                16,
                20,
            ],
            "The last window does not fit: it would end outside the image.": [4, 8, 12, 16, 20, 24, 28],
            "Only every stride-th window has a score.": [
                4,
                5,
                6,
                7,
                8,
                9,
                10,
                11,
                12,
                13,
                14,
                15,
                16,
                17,
                18,
                19,
                20,
                21,
                22,
                23,
                24,
                25,
            ],
            "The middle of the window is asked, not of the stride.": [2, 6, 10, 14, 18, 22],
            "As many scores as windows fit, not as often as the stride does.": [4, 8, 12, 16, 20, 24, 28],
        },
    )
    print("2b: right. Grading tries other windows and strides.")


def stitch_a(stitch):
    # a stride of 2 in both directions
    scores = torch.arange(16.0).view(1, 4, 4)
    shifted = [[scores[:, down::2, right::2] for right in range(2)] for down in range(2)]
    check(
        stitch,
        shifted,
        4,
        4,
        gives=scores,
        hints={
            "down and right are exchanged: the first index of maps is down.": [
                [[0, 4, 2, 6], [1, 5, 3, 7], [8, 12, 10, 14], [9, 13, 11, 15]]
            ],
            "The maps lie side by side. Neighbouring pixels come from different maps: interleave them.": [
                [[0, 2, 1, 3], [8, 10, 9, 11], [4, 6, 5, 7], [12, 14, 13, 15]]
            ],
            "This is one of the maps, enlarged. Each pixel has a score of its own in one of the maps.": [
                [[0, 0, 2, 2], [0, 0, 2, 2], [8, 8, 10, 10], [8, 8, 10, 10]]
            ],
            "Copy (down, right) was cut off at the top and left, so its first score belongs to row down.": [
                [[5, 4, 7, 6], [1, 0, 3, 2], [13, 12, 15, 14], [9, 8, 11, 10]]
            ],
            "This is an average. Each pixel has a score in exactly one of the maps.": [
                [
                    [2.5, 2.5, 4.5, 4.5],
                    [2.5, 2.5, 4.5, 4.5],
                    [10.5, 10.5, 12.5, 12.5],
                    [10.5, 10.5, 12.5, 12.5],
                ]
            ],
        },
    )
    print("3a: right. Grading tries other maps.")


def stitch_b(stitch):
    # 2 steps down, 3 to the right, on a map of 5 x 7
    scores = torch.arange(70.0).view(2, 5, 7)
    shifted = [[scores[:, down::2, right::3] for right in range(3)] for down in range(2)]
    check(
        stitch,
        shifted,
        5,
        7,
        gives=scores,
        otherwise="If check 3a passes: rows and columns have strides of their own, and some maps have one row or column more than others.",
    )
    print("3b: right. Grading tries other strides and sizes.")


def copies_a(copies):
    assert type(copies) is int and copies > 0, "a whole number, please"
    print("4: a number is committed. Now run the next cell.")


def with_holes_a(with_holes):
    # a square kernel
    check(
        with_holes,
        torch.arange(1.0, 10).view(1, 1, 3, 3),
        (2, 2),
        gives=torch.tensor(
            [[[[1, 0, 2, 0, 3], [0, 0, 0, 0, 0], [4, 0, 5, 0, 6], [0, 0, 0, 0, 0], [7, 0, 8, 0, 9]]]]
        ).float(),
        hints={
            "Zeros stand between weights; behind the last one there are none.": [
                [
                    [
                        [1, 0, 2, 0, 3, 0],
                        [0, 0, 0, 0, 0, 0],
                        [4, 0, 5, 0, 6, 0],
                        [0, 0, 0, 0, 0, 0],
                        [7, 0, 8, 0, 9, 0],
                        [0, 0, 0, 0, 0, 0],
                    ]
                ]
            ],
            "With dilation 2 a weight lies 2 positions behind the one before: one zero fewer than you have.": [
                [
                    [
                        [1, 0, 0, 2, 0, 0, 3],
                        [0, 0, 0, 0, 0, 0, 0],
                        [0, 0, 0, 0, 0, 0, 0],
                        [4, 0, 0, 5, 0, 0, 6],
                        [0, 0, 0, 0, 0, 0, 0],
                        [0, 0, 0, 0, 0, 0, 0],
                        [7, 0, 0, 8, 0, 0, 9],
                    ]
                ]
            ],
            "In the holes stand zeros, not copies of the weights.": [
                [
                    [
                        [1, 1, 2, 2, 3, 3],
                        [1, 1, 2, 2, 3, 3],
                        [4, 4, 5, 5, 6, 6],
                        [4, 4, 5, 5, 6, 6],
                        [7, 7, 8, 8, 9, 9],
                        [7, 7, 8, 8, 9, 9],
                    ]
                ]
            ],
            "The holes are needed between rows as well.": [
                [[[1, 0, 2, 0, 3], [4, 0, 5, 0, 6], [7, 0, 8, 0, 9]]]
            ],
            "torch's convolution turns no kernel over. Leave the order of the weights.": [
                [[[9, 0, 8, 0, 7], [0, 0, 0, 0, 0], [6, 0, 5, 0, 4], [0, 0, 0, 0, 0], [3, 0, 2, 0, 1]]]
            ],
            "The zeros stand around the kernel. They must stand between its weights.": [
                [[[0, 0, 0, 0, 0], [0, 1, 2, 3, 0], [0, 4, 5, 6, 0], [0, 7, 8, 9, 0], [0, 0, 0, 0, 0]]]
            ],
        },
    )
    print("5a: right. Grading tries other kernels.")


def with_holes_b(with_holes):
    # two rows, three columns, another dilation in each direction
    check(
        with_holes,
        torch.arange(1.0, 7).view(1, 1, 2, 3),
        (3, 2),
        gives=torch.tensor([[[[1, 0, 2, 0, 3], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [4, 0, 5, 0, 6]]]]).float(),
        hints={
            "The dilation down comes first.": [
                [[[1, 0, 0, 2, 0, 0, 3], [0, 0, 0, 0, 0, 0, 0], [4, 0, 0, 5, 0, 0, 6]]]
            ],
            "Rows and columns have dilations of their own.": [
                [[[1, 0, 0, 2, 0, 0, 3], [0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0], [4, 0, 0, 5, 0, 0, 6]]]
            ],
        },
    )
    print("5b: right. Grading compares with torch's own dilation.")
