"""What made the things that are stored: pictures, weights, tables, and the outputs of the notebooks.

tissue             how the micrographs of data/micrographs are drawn
recipes            how each network of data/weights was trained
comparison         all networks on the same pictures: one table, one figure
figures            the drawings in notebooks/figures
dense_transformer  the network of chapters 6 and 6b, its two layers, and `bender`, a widget to bend by hand
factors            what sorts the networks: trainings in which one thing differs
trial              U-Net against Dense Transformer Network, five seeds each, also through a `lens`
blurred            pooling that blurs before it leaves pixels out, for the networks of chapter 5c
transformers       a transformer that looks everywhere and one that looks in windows, for chapter 7e
affinities         a network that is also asked about pairs of pixels, for chapter 8c
effective          where networks look, before, during and after their training
peers              what segmentation-models-pytorch, timm, transformers and MONAI do, for chapters 7c and 7d
results            keeps what was measured, one measurement after the other
notebooks          executes the notebooks, stores their outputs, or compares them
"""

import os
from pathlib import Path


def write_whole(path, text):
    """Write a text file whole or not at all: under another name first, then renamed. Its folder is made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
