"""What every chapter uses. Each module is one idea; open any of them and read it from top to bottom.

data       the pictures: micrographs that come with the series, and real ones
networks   the networks, and the weights that come with the series
windows    the window around every pixel; random windows and crops to train on
training   the one training loop
metrics    how good is a labelling
plots      labelled panels; `drawings`: how networks work; `knobs`: drawings that follow the reader's hand

The instrument itself (receptive fields, proofs, tiles, audits, the inspector) is the package `pixelpatch`.
"""

import sys

from tqdm import tqdm


def progress(*args, **options):
    """A progress bar (tqdm) that looks alike in a terminal and a notebook, and goes when the work is done."""
    return tqdm(*args, file=sys.stdout, leave=False, **options)
