"""For the tests of the instrument, wherever they lie: in the wheel's check this folder is all there is."""

import torch
from browser import chromium, lab

__all__ = ["chromium", "lab"]

# The notebooks are executed by a second process at the same time, and keep their speed this way.
torch.set_num_threads(1)
