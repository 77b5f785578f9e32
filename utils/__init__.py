"""What every chapter uses. Each module is one idea; open any of them and read it from top to bottom.

data       the pictures: micrographs that come with the series, and real ones
networks   the networks, and the weights that come with the series
windows    the window around every pixel; random windows and crops to train on
training   the one training loop
metrics    how good is a labelling
plots      labelled panels, and a network as its maps

The instrument itself (receptive fields, proofs, tiles, audits, the inspector) is the package `pixelpatch`.
"""

import os
import sys
from pathlib import Path

from tqdm import tqdm


def progress(*args, **options):
    """A progress bar (tqdm) that looks alike in a terminal and a notebook, and goes when the work is done."""
    return tqdm(*args, file=sys.stdout, leave=False, **options)


def write_whole(path, text):
    """Write a text file whole or not at all: under another name first, then renamed. Its folder is made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
