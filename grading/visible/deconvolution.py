"""What the students' checks of assignment 4 try, and the hints that go with wrong answers."""

import torch

from grading.checks import check


def exact_enlargement_a(exact_enlargement):
    # kernel 6 and stride 2; kernel 8 and stride 4
    check(
        exact_enlargement,
        6,
        2,
        gives=(2, 0),
        hints={
            "padding takes rows away on both sides, so half of what is too much.": (4, 0),
            "The padding comes first, then the output_padding.": (0, 2),
            "kernel // 2 keeps the size of a convolution. Here kernel - stride rows are too many.": (3, 0),
        },
    )
    check(
        exact_enlargement,
        8,
        4,
        gives=(2, 0),
        hints={
            "The size is right, but output_padding is not as small as possible.": (3, 2),
            "That is for a stride of 2. It must be right for other strides as well.": (3, 0),
        },
    )
    print("1a: right. Grading tries other numbers.")


def exact_enlargement_b(exact_enlargement):
    # kernel 3 and stride 2
    check(
        exact_enlargement,
        3,
        2,
        gives=(1, 1),
        hints={
            "With this padding the result is one row short. output_padding gives it back.": (1, 0),
            "With this padding the result has one row too many: round up instead.": (0, 0),
            "output_padding adds rows, and there is one too many already: round the padding up.": (0, 1),
        },
    )
    print("1b: right. Grading tries other numbers.")


def stamps_on_a(stamps_on):
    # stride 1, no padding
    check(
        stamps_on,
        4,
        6,
        3,
        1,
        0,
        gives=[(2, 2), (3, 1), (4, 0)],
        hints={
            "The first tap stamps at the input's own position: tap 0 comes from input 4.": [
                (2, 0),
                (3, 1),
                (4, 2),
            ],
            "The taps go from 0 to kernel - 1.": [(1, 3), (2, 2), (3, 1), (4, 0)],
            "A convolution reads like this. Here the inputs stamp.": [(4, 0), (5, 1)],
            "Give pairs (input, tap), not inputs alone.": [2, 3, 4],
            "The right pairs, but give the smallest input first.": [(4, 0), (3, 1), (2, 2)],
        },
    )
    print("2a: right. Grading tries other numbers.")


def stamps_on_b(stamps_on):
    # with stride, padding and border
    check(
        stamps_on,
        6,
        9,
        5,
        2,
        1,
        gives=[(2, 3), (3, 1)],
        hints={
            "A tap belongs to an input only if the stride divides output + padding - tap; do not round.": [
                (1, 4),
                (2, 3),
                (2, 2),
                (3, 1),
                (3, 0),
            ],
            "padding cuts positions off, so output 0 lies further inside the canvas: add it.": [
                (1, 3),
                (2, 1),
            ],
            "padding cuts positions off at both ends: output 0 is position padding of the canvas.": [
                (1, 4),
                (2, 2),
                (3, 0),
            ],
            "The next input begins to stamp stride positions further.": [
                (3, 4),
                (4, 3),
                (5, 2),
                (6, 1),
                (7, 0),
            ],
        },
    )
    check(
        stamps_on,
        0,
        4,
        5,
        2,
        1,
        gives=[(0, 1)],
        hints={"Some of these inputs do not exist: there is none before 0.": [(-1, 3), (0, 1)]},
    )
    print("2b: right. Grading tries other numbers.")


def overlap_mean_a(overlap_mean):
    # one channel, a kernel of 3 x 3, a stride of 2
    x = torch.tensor([[[1.0, 2], [3, 4]]])
    kernel = torch.arange(4.0, 40, 4).view(1, 1, 3, 3)
    check(
        overlap_mean,
        x,
        kernel,
        (2, 2),
        gives=torch.tensor(
            [
                [
                    [4, 8, 10, 16, 24],
                    [16, 20, 28, 40, 48],
                    [20, 28, 36, 48, 60],
                    [48, 60, 68, 80, 96],
                    [84, 96, 110, 128, 144],
                ]
            ]
        ).float(),
        hints={
            "Where stamps overlap, this is their sum. Divide it by how many there are.": [
                [
                    [4, 8, 20, 16, 24],
                    [16, 20, 56, 40, 48],
                    [40, 56, 144, 96, 120],
                    [48, 60, 136, 80, 96],
                    [84, 96, 220, 128, 144],
                ]
            ],
            "Where stamps overlap, only the last stamp is left.": [
                [
                    [4, 8, 8, 16, 24],
                    [16, 20, 32, 40, 48],
                    [12, 24, 16, 32, 48],
                    [48, 60, 64, 80, 96],
                    [84, 96, 112, 128, 144],
                ]
            ],
            "A transposed convolution turns no kernel over: the first weight goes to the first pixel.": [
                [
                    [36, 32, 50, 64, 56],
                    [24, 20, 32, 40, 32],
                    [60, 52, 64, 72, 60],
                    [72, 60, 72, 80, 64],
                    [36, 24, 30, 32, 16],
                ]
            ],
            "Divide by the number of stamps that overlap, not by the size of the kernel.": [
                [
                    [0.444444, 0.888889, 2.222222, 1.777778, 2.666667],
                    [1.777778, 2.222222, 6.222222, 4.444445, 5.333333],
                    [4.444445, 6.222222, 16, 10.666667, 13.333333],
                    [5.333333, 6.666667, 15.111111, 8.888889, 10.666667],
                    [9.333333, 10.666667, 24.444445, 14.222222, 16],
                ]
            ],
            "Pixels are stamped 1, 2 or 4 times: divide each pixel by its own number.": [
                [
                    [1, 2, 5, 4, 6],
                    [4, 5, 14, 10, 12],
                    [10, 14, 36, 24, 30],
                    [12, 15, 34, 20, 24],
                    [21, 24, 55, 32, 36],
                ]
            ],
            "The next input begins to stamp stride rows further.": [
                [[4, 8, 14, 24], [14, 23, 33, 48], [38, 53, 63, 84], [84, 104, 118, 144]]
            ],
        },
    )
    print("3a: right. Grading tries other kernels and strides.")


def overlap_mean_b(overlap_mean):
    # two channels in; and a stride that is larger than the kernel
    x = torch.tensor([[[1, 2]], [[3, 5]]]).float()
    kernel = torch.tensor([[[[1, 2], [3, 4]]], [[[10, 20], [30, 40]]]]).float()
    check(
        overlap_mean,
        x,
        kernel,
        (1, 1),
        gives=torch.tensor([[[31, 57, 104], [93, 140, 208]]]).float(),
        hints={
            "Take the mean over stamps that overlap, not by channels: their contributions add up.": [
                [[15.5, 28.5, 52], [46.5, 70, 104]]
            ],
            "Every input channel stamps with a kernel of its own, and they add up.": [[[1, 2, 4], [3, 5, 8]]],
        },
    )
    check(
        overlap_mean,
        torch.tensor([[[1.0], [2]]]),
        torch.ones(1, 1, 2, 1),
        (3, 1),
        gives=torch.tensor([[[1.0], [1], [0], [2], [2]]]),
        otherwise="The stride is larger than the kernel: the third row is never stamped, so it stays 0. Beware of 0 / 0.",
    )
    print("3b: right. Grading tries other channels.")


def overlap_mean_c(overlap_mean):
    # nothing is square
    x = torch.tensor([[[1, 2, 3], [4, 5, 6]]]).float()
    kernel = torch.tensor([[[[6.0, 12]]]])
    check(
        overlap_mean,
        x,
        kernel,
        (2, 1),
        gives=torch.tensor([[[6, 12, 21, 36], [0, 0, 0, 0], [24, 39, 48, 72]]]).float(),
        hints={
            "The stride in rows comes first.": torch.tensor(
                [[[6, 12, 12, 24, 18, 36], [24, 48, 30, 60, 36, 72]]]
            ).float()
        },
        otherwise="If the checks above pass: rows and columns have sizes and strides of their own.",
    )
    print("3c: right. Grading tries other sizes and strides.")


def even_stamp_a(even_stamp):
    # a kernel of 3 x 3, a stride of 2
    check(
        even_stamp,
        torch.arange(1.0, 10).view(3, 3),
        (2, 2),
        gives=torch.tensor([[0.05, 0.2, 0.15], [0.4, 1, 0.6], [0.35, 0.8, 0.45]]),
        hints={
            "The weights of the whole kernel add up to 1. Those of each phase must.": [
                [0.022222, 0.044444, 0.066667],
                [0.088889, 0.111111, 0.133333],
                [0.155556, 0.177778, 0.2],
            ],
            "That is right on average. The weights of each single phase must add up to 1.": [
                [0.088889, 0.177778, 0.266667],
                [0.355556, 0.444444, 0.533333],
                [0.622222, 0.711111, 0.8],
            ],
            "Divide by the sum of a phase's weights, not their mean.": [
                [0.2, 0.4, 0.6],
                [0.8, 1, 1.2],
                [1.4, 1.6, 1.8],
            ],
            "The sums are right, but the weights must keep their proportions.": [
                [0.25, 0.5, 0.25],
                [0.5, 1, 0.5],
                [0.25, 0.5, 0.25],
            ],
            "Weights next to each other are in different phases. Those of one phase lie a stride apart.": [
                [0.083333, 0.166667, 0.333333],
                [0.333333, 0.416667, 0.666667],
                [0.466667, 0.533333, 1],
            ],
            "The phases go in both directions, rows and columns.": [
                [0.033333, 0.066667, 0.1],
                [0.266667, 0.333333, 0.4],
                [0.233333, 0.266667, 0.3],
            ],
            "The largest weight of each phase is 1. Their sum must be.": [
                [0.111111, 0.25, 0.333333],
                [0.666667, 1, 1],
                [0.777778, 1, 1],
            ],
        },
        tolerance=1e-5,
    )
    print("4a: right. Grading tries other kernels and strides.")


def even_stamp_b(even_stamp):
    # 2 rows, 5 columns, a stride of 1 down and 3 across
    check(
        even_stamp,
        torch.tensor([[1, 2, 3, 4, 2], [5, 6, 7, 8, 4]]).float(),
        (1, 3),
        gives=torch.tensor(
            [[0.055556, 0.142857, 0.3, 0.222222, 0.142857], [0.277778, 0.428571, 0.7, 0.444444, 0.285714]]
        ),
        hints={
            "The stride in rows comes first.": [
                [0.083333, 0.166667, 0.25, 0.333333, 0.166667],
                [0.166667, 0.2, 0.233333, 0.266667, 0.133333],
            ],
            "Rows and columns have strides of their own.": [
                [0.02381, 0.047619, 0.071429, 0.095238, 0.047619],
                [0.119048, 0.142857, 0.166667, 0.190476, 0.095238],
            ],
        },
        tolerance=1e-5,
    )
    print("4b: right. Grading tries other kernels and strides.")


def not_zero_a(not_zero):
    assert type(not_zero) is int and 0 <= not_zero <= 49, "a whole number from 0 to 49, please"
    print("5: a number is committed. Now run the next cell.")
