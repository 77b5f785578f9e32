"""What the notebooks share. Each module is one idea; open any of them and read it from top to bottom.

data             the pictures: micrographs that come with the series, and real ones
tissue           how those micrographs are drawn
models           the networks
receptive_field  which input pixels an output pixel can see; `tracing` and `operations` are its workings
patches          the window around every pixel, and the proof that it is all that counts
warp             bend a map and bend it back; `bender`: do it by hand, with `bender.js` in the browser
inspector        point at a pixel, see its patch; `inspector.js` is what the browser does
training         the one training loop, and the weights that come with the series
audit            is a network a patch classifier? All of the above, asked at once
metrics          how good is a labelling
comparison       all networks on the same pictures: one table, one figure
trial            U-Net against Dense Transformer Network, five seeds each
checks           what the assignments say about an answer: how it is wrong, and why that may be
plots            pictures with a text alternative
"""

import ctypes
import os
import sys
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

from tqdm import tqdm

# glibc keeps freed blocks for later, and they add up: in a notebook to 150 MB, much on a small machine. There
# large blocks go back at once, which makes training a quarter slower, and the rest after each cell.
libc = ctypes.CDLL(None) if sys.platform == "linux" else None
M_MMAP_THRESHOLD = -3


def give_back(*_):
    """Return what glibc keeps of freed memory."""
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


if "IPython" in sys.modules and (shell := sys.modules["IPython"].get_ipython()):
    shell.events.register("post_run_cell", give_back)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 2**18)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")  # 1024 convolutions of other sizes: 40 MB


class StandIn(ModuleType):
    """A module with the little that is asked of it; for more, it makes place for the real one."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        for each in COMPILER:
            if isinstance(sys.modules.get(each), StandIn):
                del sys.modules[each]
        return getattr(import_module(self.__name__), name)


COMPILER = {  # what torch and torchvision ask it where nothing is compiled
    "torch._dynamo": {"disable": lambda function, *_, **__: function},
    "torch._dynamo.utils": {"is_compile_supported": lambda _: False},
}


@contextmanager
def without_compiler():
    """Inside, torch's compiler is not imported where nothing is compiled: 100 MB less.

    Importing torchvision loads it for one question about detection, and tensors on the meta device do so too.
    """
    stand_ins = {name: StandIn(name) for name in COMPILER if name not in sys.modules}
    for name, module in stand_ins.items():
        vars(module).update(COMPILER[name])
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            if isinstance(sys.modules.get(name), StandIn):
                del sys.modules[name]


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
