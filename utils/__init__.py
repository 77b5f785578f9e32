"""What the notebooks share. Each module is one idea; open any of them and read it from top to bottom.

data        the pictures: micrographs that come with the series, and real ones
tissue      how those micrographs are drawn
models      the networks
patches     the window around every pixel
training    the one training loop, and the weights that come with the series
metrics     how good is a labelling
plots       pictures with a text alternative
inspector   point at a pixel, see its patch (with inspector.js, what the browser does)
"""

import sys

from tqdm import tqdm


def progress(*args, **options):
    """A progress bar (tqdm) that looks alike in a terminal and a notebook, and goes when the work is done."""
    return tqdm(*args, file=sys.stdout, leave=False, **options)
