"""What the notebooks share. Each module is one idea; open any of them and read it from top to bottom.

data             the pictures: micrographs that come with the series, and real ones
tissue           how those micrographs are drawn
models           the networks
receptive_field  which input pixels an output pixel can see; `tracing` and `operations` are its workings
patches          the window around every pixel, and the proof that it is all that counts
inspector        point at a pixel, see its patch; `inspector.js` is what the browser does
training         the one training loop, and the weights that come with the series
metrics          how good is a labelling
comparison       all networks on the same pictures: one table, one figure
plots            pictures with a text alternative
"""

import ctypes
import sys

from tqdm import tqdm

# glibc keeps freed blocks of up to 32 MB for later, and they add up. Here those above 8 MB go back at once,
# which saves a notebook some 50 MB: much on a small machine.
if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
    M_MMAP_THRESHOLD = -3
    libc.mallopt(M_MMAP_THRESHOLD, 8 * 2**20)


def progress(*args, **options):
    """A progress bar (tqdm) that looks alike in a terminal and a notebook, and goes when the work is done."""
    return tqdm(*args, file=sys.stdout, leave=False, **options)
