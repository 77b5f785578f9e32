"""What the notebooks share. Each module is one idea; open any of them and read it from top to bottom.

data             the pictures: micrographs that come with the series, and real ones
tissue           how those micrographs are drawn
models           the networks
receptive_field  which input pixels an output pixel can see; `tracing` and `operations` are its workings
patches          the window around every pixel, and the proof that it is all that counts
inspector        point at a pixel, see its patch; `inspector.js` is what the browser does
training         the one training loop, and the weights that come with the series
audit            is a network a patch classifier? All of the above, asked at once
metrics          how good is a labelling
comparison       all networks on the same pictures: one table, one figure
plots            pictures with a text alternative
"""

import ctypes
import os
import sys
from contextlib import contextmanager
from types import SimpleNamespace

from tqdm import tqdm

# glibc keeps freed blocks for later, and they add up: in a notebook to 150 MB, much on a small machine. There
# large blocks go back at once, which makes training a tenth slower, and the rest after each cell.
libc = ctypes.CDLL(None) if sys.platform == "linux" else None
M_MMAP_THRESHOLD = -3


def give_back(*_):
    """Return what glibc keeps of freed memory."""
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


if "IPython" in sys.modules and (shell := sys.modules["IPython"].get_ipython()):
    shell.events.register("post_run_cell", give_back)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 2**20)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")  # 1024 convolutions of other sizes: 40 MB


@contextmanager
def without_compiler():
    """Import torchvision inside, and torch's compiler stays out, which it asks one question for: 145 MB.

    (`torchvision.ops.roi_align` imports `is_compile_supported`, and calls it in detection alone.)
    """
    asked = "torch._dynamo.utils"
    if asked in sys.modules:
        yield
        return
    sys.modules[asked] = SimpleNamespace(is_compile_supported=lambda _: False)
    try:
        yield
    finally:
        del sys.modules[asked]


def progress(*args, **options):
    """A progress bar (tqdm) that looks alike in a terminal and a notebook, and goes when the work is done."""
    return tqdm(*args, file=sys.stdout, leave=False, **options)
