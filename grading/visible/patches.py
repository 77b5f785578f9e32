"""What the students' checks of assignment 1 try, and the hints that go with wrong answers."""

import torch

from grading.checks import check


def mirrored_a(mirrored):
    # inside the image, and before its start
    check(mirrored, 3, 6, gives=3)
    check(
        mirrored,
        -1,
        6,
        gives=1,
        hints={
            "Pixel 0 is shown twice, or goes on: position -1 already shows pixel 1.": 0,
            "That goes on at the other end of the image. A mirror turns round at this end.": 5,
            "The pixel still lies outside the image: the start of the image needs a mirror as well.": -1,
        },
    )
    check(
        mirrored,
        -4,
        6,
        gives=4,
        hints={
            "The border pixel is shown twice. Count from pixel 0, which stays where it is: -1 shows 1, -2 shows 2.": 3,
            "That continues the border pixel. A mirror walks back into the image.": 0,
            "That goes on at the other end of the image. A mirror turns round at this end.": 2,
            "The pixel still lies outside the image: the start of the image needs a mirror as well.": -4,
        },
    )
    print("1a: right. Grading tries other positions and sizes.")


def mirrored_b(mirrored):
    # beyond the end of the image
    check(
        mirrored,
        5,
        6,
        gives=5,
        hints={"The last pixel is number size - 1, so nothing is mirrored yet at position 5.": 4},
    )
    check(
        mirrored,
        10,
        6,
        gives=0,
        hints={
            "The border pixel is shown twice. Count from the last pixel, 5, which stays where it is: 6 shows 4.": 1,
            "That continues the border pixel. A mirror walks back into the image.": 5,
            "That goes on at the other end of the image. A mirror turns round at this end.": 4,
            "A position beyond the end of the image is still outside: it needs a mirror as well.": 10,
            "Where does the mirror lie? The last pixel is number size - 1, not size.": 2,
            "One too few: where does the mirror lie?": -1,
        },
    )
    print("1b: right. Grading tries other positions and sizes.")


def cut_a(cut):
    # a window inside the image
    picture = torch.arange(48.0).view(6, 8)  # pixel (row, col) has the value 8 row + col
    check(
        cut,
        picture,
        2,
        4,
        3,
        3,
        gives=torch.tensor([[11, 12, 13], [19, 20, 21], [27, 28, 29]]).float(),
        hints={
            "The window begins at the pixel. The pixel must be in its middle.": [
                [20, 21, 22],
                [28, 29, 30],
                [36, 37, 38],
            ],
            "This is the window around (column, row). The row comes first.": [
                [25, 26, 27],
                [33, 34, 35],
                [41, 42, 43],
            ],
            "The last row and column are missing: one row and one column more, since a slice ends before its end.": [
                [11, 12],
                [19, 20],
            ],
        },
    )
    print("2a: right. Grading tries other images and pixels.")


def cut_b(cut):
    # a window that leaves the image
    picture = torch.arange(48.0).view(6, 8)
    check(
        cut,
        picture,
        0,
        7,
        3,
        3,
        gives=torch.tensor([[14, 15, 14], [6, 7, 6], [14, 15, 14]]).float(),
        hints={
            "That continues the border pixel. The image must go on mirrored.": [
                [6, 7, 7],
                [6, 7, 7],
                [14, 15, 15],
            ],
            "There are zeros beyond the border. The image must go on mirrored.": [
                [0, 0, 0],
                [6, 7, 0],
                [14, 15, 0],
            ],
            "The border pixel is shown twice. Mirror at it: the row above row 0 is row 1.": [
                [6, 7, 7],
                [6, 7, 7],
                [14, 15, 15],
            ],
            "The window ends at the border. It must have its full size everywhere.": [[6, 7], [14, 15]],
        },
    )
    print("2b: right. Grading tries other corners and borders.")


def cut_c(cut):
    # a window that is wider than it is high
    picture = torch.arange(48.0).view(6, 8)
    check(
        cut,
        picture,
        4,
        2,
        3,
        5,
        gives=torch.tensor([[24, 25, 26, 27, 28], [32, 33, 34, 35, 36], [40, 41, 42, 43, 44]]).float(),
        hints={
            "Height and width are exchanged: the height comes first.": [
                [17, 18, 19],
                [25, 26, 27],
                [33, 34, 35],
                [41, 42, 43],
                [33, 34, 35],
            ],
            "The window is as wide as it is high. It has a width of its own.": [
                [25, 26, 27],
                [33, 34, 35],
                [41, 42, 43],
            ],
            "F.pad takes its numbers for the last axis first: left, right, top, bottom.": [
                [17, 18, 19, 20, 21],
                [25, 26, 27, 28, 29],
                [33, 34, 35, 36, 37],
            ],
        },
    )
    print("2c: right. Grading tries other windows.")


def dark_majority_a(dark_majority):
    # a square image, a square window
    picture = torch.tensor(
        [[0.5, 0.8, 0.6, 0.1], [0.4, 0.4, 0.4, 0.8], [0.2, 0.4, 0.6, 0.3], [0.5, 0.8, 0.7, 0.1]]
    )
    check(
        dark_majority,
        picture,
        3,
        3,
        gives=torch.tensor(
            [
                [True, True, True, True],
                [True, True, True, False],
                [True, True, True, False],
                [True, False, True, False],
            ]
        ),
        hints={
            "That is True where most pixels are bright.": [
                [False, False, False, False],
                [False, False, False, True],
                [False, False, False, True],
                [False, True, False, True],
            ],
            "That is True where the mean of the window is below 0.5. Count the dark pixels instead: one very bright "
            "pixel can lift the mean, but it has one vote.": [
                [False, True, False, False],
                [True, True, True, True],
                [True, True, False, False],
                [True, True, True, False],
            ],
            "Zeros beyond the border count as dark. The image must go on mirrored.": [
                [True, True, True, True],
                [True, True, True, True],
                [True, True, True, True],
                [True, True, True, True],
            ],
            "That continues the border pixel. The image must go on mirrored.": [
                [False, False, False, True],
                [True, True, True, True],
                [True, True, True, True],
                [False, False, False, True],
            ],
            "A pixel of exactly 0.5 is not below 0.5, so it is not dark.": [
                [True, True, True, True],
                [True, True, True, False],
                [True, True, True, False],
                [True, True, True, False],
            ],
            "The answer is smaller than the image. Every pixel has a window, those at the border too.": [
                [True, True],
                [True, True],
            ],
            "This is a share of dark pixels. Compare it with one half.": torch.tensor(
                [
                    [0.666667, 0.666667, 0.555556, 0.555556],
                    [0.666667, 0.555556, 0.555556, 0.444444],
                    [0.666667, 0.555556, 0.555556, 0.444444],
                    [0.666667, 0.444444, 0.555556, 0.333333],
                ]
            ),
        },
        tolerance=1e-5,
    )
    print("3a: right. Grading tries other images.")


def dark_majority_b(dark_majority):
    # an image that is not square, a window that is not square
    picture = torch.tensor(
        [
            [0.5, 0.8, 0.6, 0.1, 0.4, 0.4, 0.4],
            [0.8, 0.2, 0.4, 0.6, 0.3, 0.5, 0.8],
            [0.7, 0.1, 0.1, 0.5, 0.3, 0.2, 0.7],
            [0.8, 0.8, 0.7, 0.1, 0.2, 0.6, 0.2],
            [0.6, 0.1, 0.2, 0.5, 0.4, 0.1, 0.4],
        ]
    )
    check(
        dark_majority,
        picture,
        3,
        5,
        gives=torch.tensor(
            [
                [True, False, True, True, True, False, True],
                [True, False, True, True, True, True, True],
                [True, False, True, True, True, False, True],
                [True, False, True, True, True, True, True],
                [False, False, False, True, True, True, True],
            ]
        ),
        hints={
            "Height and width of the window are exchanged: the height comes first.": [
                [True, True, True, True, True, True, False],
                [False, False, True, True, True, True, False],
                [False, False, True, True, True, True, True],
                [False, False, True, True, True, True, False],
                [False, False, True, True, True, True, True],
            ]
        },
        otherwise="If check 3a passes: this image is not square, so rows and columns have numbers and sizes of their own.",
    )
    print("3b: right. Grading tries other images and windows.")


def mirrored_percent_a(mirrored_percent):
    assert type(mirrored_percent) is int and 0 <= mirrored_percent <= 100, (
        "a whole number from 0 to 100, please"
    )
    print("4: a number is committed. Now run the next cell.")


def multiply_accumulates_a(multiply_accumulates):
    # one convolution
    check(
        multiply_accumulates,
        [("conv", 3, 2, 5)],
        10,
        10,
        gives=5760,
        hints={
            "A convolution without padding gives a smaller map; yours does not shrink.": 9000,
            "A k x k kernel fits in n - k + 1 places along an axis: one more position.": 4410,
            "A kernel has k rows and columns of weights, k x k in all.": 1920,
            "Every output reads every input channel.": 2880,
            "There is one output number for every output channel.": 1152,
            "That is the number of weights. Each is used at every position.": 90,
        },
    )
    print("5a: right. Grading tries other layers.")


def multiply_accumulates_b(multiply_accumulates):
    # with pooling in between
    check(
        multiply_accumulates,
        [("conv", 4, 1, 4), ("pool", 2), ("conv", 2, 4, 5)],
        12,
        12,
        gives=5904,
        hints={
            "After it, pooling leaves fewer positions, and the next convolution costs less.": 10304,
            "A map of 9 x 9 is pooled to 4 x 4: pooling rounds down.": 6464,
        },
    )
    print("5b: right. Grading tries other networks, N4 among them.")


def multiply_accumulates_c(multiply_accumulates):
    # a patch that is not square
    check(
        multiply_accumulates,
        [("conv", 3, 2, 5)],
        6,
        9,
        gives=2520,
        otherwise="If the checks above pass: this patch is not square, so rows and columns shrink apart.",
    )
    print("5c: right. Grading tries other patches.")
