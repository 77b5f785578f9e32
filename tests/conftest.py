import torch
from instrument.browser import chromium, lab

__all__ = ["chromium", "lab"]

# The notebooks are executed by a second process at the same time, and keep their speed this way.
torch.set_num_threads(1)
