"""Compare a segmentation with the truth: pixel by pixel, class by class, and cell by cell.

Shapes are (N, H, W) or (H, W), one class number for every pixel, as in `network(images).argmax(dim=1)`.
"""

import numpy as np
import torch
from scipy import ndimage
from skimage.metrics import adapted_rand_error
from skimage.metrics import variation_of_information as skimage_variation
from skimage.segmentation import expand_labels


def confusion(prediction, label, classes, ignore_index=None):
    """Count the pixels of every true class (row) that were given every class (column).

    Args:
        prediction, label: class numbers found and true, of one shape.
        classes: how many classes there are.
        ignore_index: value of `label` that means "no truth here"; such pixels are not counted.

    Returns (classes, classes) int64, in pixels. Raises TypeError where a tensor holds floating-point numbers,
    such as scores; ValueError where the shapes differ, or a value is not a class number.
    """
    if prediction.shape != label.shape:
        shapes = f"the prediction {tuple(prediction.shape)}, the label {tuple(label.shape)}"
        raise ValueError(f"The shapes differ: {shapes}; compare `scores.argmax(dim=1)` with the label.")
    if ignore_index is not None:
        counted = label != ignore_index
        prediction, label = prediction[counted], label[counted]
    truth = _class_numbers("label", label, classes).flatten()
    guess = _class_numbers("prediction", prediction, classes).flatten()
    return torch.bincount(truth * classes + guess, minlength=classes**2).reshape(classes, classes)


def iou_per_class(counts):
    """Intersection over union: of the pixels that are a class or are called it, the share that are both.

    Takes the (C, C) counts of `confusion`, returns (C,) float64 between 0 and 1. A class that neither truth
    nor prediction holds has an empty union, with nothing to be right or wrong about: it gets NaN.
    """
    both = counts.diagonal().double()
    return both / (counts.sum(dim=0) + counts.sum(dim=1) - both)


def mean_iou(prediction, label, classes, ignore_index=None):
    """Mean of `iou_per_class`, every class weighing the same however few its pixels ("mean IU" in Long,
    Shelhamer and Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015, section 5).

    The pixels of all N pictures are counted together before dividing, as in PASCAL VOC's segmentation
    challenge. A class absent from both truth and prediction is left out of the mean.

    Arguments and errors as in `confusion`. Returns a float; NaN where no pixel is counted.
    """
    return iou_per_class(confusion(prediction, label, classes, ignore_index)).nanmean().item()


def pixel_accuracy(prediction, label, classes, ignore_index=None):
    """Share of the pixels that were given their true class. High wherever one class covers nearly everything.

    Arguments and errors as in `confusion`. Returns a float; NaN where no pixel is counted.
    """
    counts = confusion(prediction, label, classes, ignore_index).double()
    return (counts.trace() / counts.sum()).item()


def rand_score(predicted_membrane, true_membrane):
    """Do the predicted membranes separate the right cells? 1 is perfect.

    Cells are the 4-connected components of all pixels but membranes; predicted cells are grown until they
    meet, so that the thickness of a membrane does not count. Of all pairs of pixels inside true cells,
    precision is the share of those in one predicted cell that are in one true cell, recall the share of those
    in one true cell that are in one predicted cell, and the score their harmonic mean.

    This is the foreground-restricted Rand score of Arganda-Carreras et al., "Crowdsourcing the creation of
    image segmentation algorithms for connectomics", Frontiers in Neuroanatomy 9:142 (2015). Its program takes
    the best of many thresholds, here the caller's part, and thins membranes: compare with each other only.

    Masks are (H, W) bool, True on membranes. Raises TypeError where one is not bool, ValueError where the
    shapes differ or are not (H, W), or no pixel is inside a true cell.
    """
    error, _precision, _recall = adapted_rand_error(*_cells(predicted_membrane, true_membrane))
    return float(1 - error)


def variation_of_information(predicted_membrane, true_membrane):
    """How many bits predicted and true cells leave open about each other; 0 is perfect.

    The entropy of predicted cells given the true ones (what was split), plus that of true cells given the
    predicted ones (what was merged): Meila, "Comparing clusterings by the variation of information", COLT
    2003. Cells, masks and errors as in `rand_score`.
    """
    return float(sum(skimage_variation(*_cells(predicted_membrane, true_membrane), ignore_labels=[0])))


def _cells(predicted_membrane, true_membrane):
    """True cells (H, W), 0 on membranes, which are left out of the scores; and predicted cells, grown."""
    predicted, true = np.asarray(predicted_membrane), np.asarray(true_membrane)
    if predicted.dtype != bool or true.dtype != bool:
        raise TypeError(f"The masks are {predicted.dtype} and {true.dtype}, expected bool: `labels == 1`.")
    if predicted.shape != true.shape or true.ndim != 2:
        shapes = f"{predicted.shape} and {true.shape}"
        raise ValueError(f"The masks are {shapes}, expected the same (H, W); score one picture at a time.")
    if true.all():
        raise ValueError("The true membranes cover every pixel, expected at least one cell between them.")
    return ndimage.label(~true)[0], expand_labels(ndimage.label(~predicted)[0], distance=np.inf)


def _class_numbers(name, values, classes):
    if values.is_floating_point():
        raise TypeError(f"The {name} is {values.dtype}, expected class numbers; take `scores.argmax(dim=1)`.")
    outside = values[(values < 0) | (values >= classes)]
    if len(outside):
        raise ValueError(
            f"The {name} holds {outside[0]}, expected 0 to {classes - 1}; check `classes` or `ignore_index`."
        )
    return values.long()
