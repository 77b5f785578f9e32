"""Read the series' pictures: the micrographs that come with it, and the real ones of the ISBI 2012 challenge.

Both arrive in the same shape: grey images between 0 and 1, and one class number for every pixel.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pooch
import torch
from PIL import Image, ImageSequence
from tqdm.auto import tqdm

DATA = Path(__file__).parent.parent / "data"

# Class name -> its grey value in the label files. A class's number is its place in this order.
MICROGRAPH_GREYS = {"cytoplasm": 0, "membrane": 128, "mitochondrion": 255}
ISBI2012_GREYS = {"cell interior": 255, "membrane": 0}

# A public copy of the challenge's 30 training slices as PNG, at a commit that cannot change.
ISBI2012_URL = (
    "https://raw.githubusercontent.com/zhixuhao/unet/"
    "b45af4d458437d8281cc218a07fd4380818ece4a/data/membrane/train/"
)
ISBI2012_SPLITS = {"train": slice(16), "validation": slice(16, 20), "test": slice(20, 30)}
ISBI2012_HASHES = DATA / "isbi2012.sha256"  # in the format of sha256sum


class Pictures(NamedTuple):
    """Images with a class for every pixel."""

    images: torch.Tensor  # (N, 1, H, W) float32 in [0, 1], 0 is black
    labels: torch.Tensor  # (N, H, W) int64, an index into classes
    classes: tuple[str, ...]


def micrographs(split="train"):
    """The micrographs that come with the series, drawn by `experiments.tissue`.

    The split is "train", "validation" or "test"; no picture is in two of them. Returns Pictures of 256 x 256
    pixels with the classes "cytoplasm", "membrane" and "mitochondrion". Raises ValueError where there is no
    such split or a file is not what it should be, FileNotFoundError where the pictures are missing.
    """
    splits = ("train", "validation", "test")
    if split not in splits:
        raise ValueError(f"There is no split {split!r}; choose one of {', '.join(splits)}.")
    remedy = "write the pictures again with `python -m experiments.tissue data/micrographs`"
    folder = DATA / "micrographs" / split
    return _pictures(*_paired(folder, remedy), MICROGRAPH_GREYS)


def isbi2012(root, split=None, download=False):
    """Real electron micrographs with their membranes, from the ISBI 2012 segmentation challenge.

    A series of slices through the ventral nerve cord of a fruit fly larva, 512 x 512 pixels each, with every
    membrane traced by hand. Source: Arganda-Carreras et al., "Crowdsourcing the creation of image
    segmentation algorithms for connectomics", Frontiers in Neuroanatomy 9:142 (2015). Look up the
    challenge's terms before you use the pictures for anything but learning.

    Args:
        root: folder with `image/0.png`, `image/1.png`, ... and `label/0.png`, `label/1.png`, ... (any number
            of pairs), or else with the challenge's own `train-volume.tif` and `train-labels.tif`.
        split: "train" for the first sixteen slices, "validation" for the next four, on which all choices are
            made, "test" for the last ten, read once for the number that is told; None for all there are.
        download: first fetch the slices as PNG into `root`: those that are missing, or whose SHA-256 is not
            the pinned one. Each appears under its name only when complete and checked.

    Returns Pictures in the order of the slices, with the classes "cell interior" and "membrane".

    Raises:
        FileNotFoundError: there is nothing to read, or one of the two TIFF files is missing.
        ValueError: there is no such split, too few slices for one, or a file is not what it should be.
        ConnectionError: the download stopped. What has arrived stays; call again for the rest.
    """
    if split is not None and split not in ISBI2012_SPLITS:
        raise ValueError(f"There is no split {split!r}; choose one of {', '.join(ISBI2012_SPLITS)}.")
    root = Path(root).expanduser()
    if download:
        _download(root)
    part = ISBI2012_SPLITS.get(split, slice(None))
    remedy = "check the path, or fetch the pictures with `isbi2012(root, download=True)`"
    stacks = root / "train-volume.tif", root / "train-labels.tif"
    if (root / "image").exists() or not any(stack.exists() for stack in stacks):
        images, labels = _paired(root, remedy)
        _check_thirty(root, split, len(images))
        return _pictures(images[part], labels[part], ISBI2012_GREYS)
    for stack in stacks:
        if not stack.exists():
            raise FileNotFoundError(f"{stack} does not exist, expected it beside the other stack; {remedy}.")
    pictures = _pictures(*([stack] for stack in stacks), ISBI2012_GREYS)
    _check_thirty(root, split, len(pictures.images))
    return Pictures(pictures.images[part], pictures.labels[part], pictures.classes)


def _check_thirty(root, split, count):
    if split is not None and count != 30:
        raise ValueError(
            f"{root} holds {count} slices, expected all 30 to take the split {split!r}; fetch the rest with "
            "`isbi2012(root, download=True)`."
        )


def isbi2012_folder():
    """The folder with the ISBI 2012 pictures, or None: what ISBI2012_DIR names, else `data/isbi2012`."""
    if os.environ.get("ISBI2012_DIR"):
        return Path(os.environ["ISBI2012_DIR"])
    folder = DATA / "isbi2012"
    return folder if folder.is_dir() else None


def _download(root):
    hashes = dict(reversed(line.split()) for line in ISBI2012_HASHES.read_text().splitlines())
    source = pooch.create(path=root, base_url=ISBI2012_URL, registry=hashes)
    pooch.get_logger().setLevel("WARNING")  # one progress bar says it all; no line for every file
    for name in tqdm(hashes, desc="ISBI 2012", unit="file"):
        try:
            source.fetch(name)  # to a temporary file, compared with the hash, then renamed
        except ValueError as error:
            raise ValueError(
                f"{ISBI2012_URL}{name} arrived damaged and was thrown away: its SHA-256 is not the expected "
                f"{hashes[name][:12]}...; call again, and if that does not help, try another network."
            ) from error
        except OSError as error:
            if isinstance(error, PermissionError) or error.errno:  # the disk's complaint, not the network's
                raise
            raise ConnectionError(
                f"{ISBI2012_URL}{name} could not be fetched ({type(error).__name__}); check the network and "
                "call again: the files that have arrived are kept, and only the rest will be fetched."
            ) from error


def _paired(folder, remedy):
    """The files of `folder`/image and of `folder`/label, after checking that their names match."""
    images, labels = _numbered(folder / "image", remedy), _numbered(folder / "label", remedy)
    alone = {path.name for path in images} ^ {path.name for path in labels}
    if alone:
        raise ValueError(
            f"{', '.join(sorted(alone))} in {folder} is only in image or only in label, but every image "
            f"needs a label of the same name; {remedy}."
        )
    return images, labels


def _numbered(folder, remedy):
    """The PNG files of a folder, 2.png before 10.png."""
    paths = list(folder.glob("*.png"))
    if not paths:
        problem = "holds no PNG files" if folder.is_dir() else "does not exist"
        raise FileNotFoundError(f"{folder} {problem}, expected 0.png, 1.png and so on; {remedy}.")
    for path in paths:
        if not path.stem.isdecimal():
            raise ValueError(f"{path} is not named by a number, expected 0.png, 1.png and so on; rename it.")
    return sorted(paths, key=lambda path: int(path.stem))


def _pictures(image_files, label_files, greys):
    """Read the files, check that they belong together, and turn grey values into classes."""
    images, labels = _grey(image_files), _grey(label_files)
    if len(images) != len(labels):
        raise ValueError(
            f"{image_files[0]} holds {len(images)} images but {label_files[0]} {len(labels)} labels, "
            "expected one label for each image; get both from the same source."
        )
    first, (height, width) = next((name, array.shape) for name, array in images.items())
    for name, array in (images | labels).items():
        if array.shape != (height, width):
            raise ValueError(
                f"{name} has {array.shape[0]} x {array.shape[1]} pixels, expected {height} x {width} as in "
                f"{first}; images and labels all need one size, so crop or remove the odd one."
            )
    pixels = torch.from_numpy(np.stack(list(images.values()))).unsqueeze(1)
    return Pictures(pixels.float() / 255, _classes(labels, greys), tuple(greys))


def _classes(labels, greys):
    """Grey values of the label files -> class numbers (N, H, W)."""
    values = torch.from_numpy(np.stack(list(labels.values()))).long()
    class_of = torch.full((256,), -1)
    class_of[list(greys.values())] = torch.arange(len(greys))
    classes = class_of[values]
    if (classes < 0).any():
        n, row, column = (classes < 0).nonzero()[0].tolist()
        expected = ", ".join(f"{grey} ({name})" for name, grey in greys.items())
        raise ValueError(
            f"{list(labels)[n]} has the grey value {values[n, row, column]} at row {row}, column {column}, "
            f"expected {expected}; labels must not be smoothed, rescaled or saved with loss."
        )
    return classes


def _grey(files):
    """Every page of the files (a PNG has one, a TIFF stack many): where it is from -> (H, W) uint8."""
    pages = {}
    for path in files:
        try:
            with Image.open(path) as file:
                arrays = [(page.mode, np.array(page)) for page in ImageSequence.Iterator(file)]
        except Exception as error:  # of any type: what a damaged file makes Pillow's parsers stumble over
            raise ValueError(f"{path} cannot be read as an image ({error}); get the file again.") from error
        for number, (mode, array) in enumerate(arrays):
            if mode != "L":
                raise ValueError(f"{path} has the mode {mode}, expected L (8-bit grey); convert it to grey.")
            pages[f"page {number} of {path}" if len(arrays) > 1 else str(path)] = array
    return pages
