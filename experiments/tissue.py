"""Draw pictures that look like brain tissue under an electron microscope, with labels that are exact.

One pen draws every dark line: cell membranes and the outlines of mitochondria alike, and a little paler the
folds inside them (cristae), and the strands and vesicles that float in the cytoplasm. Seen through a small
window a mitochondrion's outline is therefore a membrane, and its inside is cytoplasm. Only the surroundings
tell them apart: a closed outline of the right size, folds inside it, and the same cell all round. Stacks of
the same folds that nothing encloses (as in a Golgi apparatus) belong to the cytoplasm: in the middle of a
large one, the outline that is missing is twenty pixels away. That is what makes a patch's size matter.

A real section is some tens of nanometres thick, and where a membrane passes through it at a slant, its
shadow is wide and pale. So are all lines here, in places.

    python -m experiments.tissue data/micrographs      writes the shipped pictures again, bit for bit
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter
from tqdm import tqdm

from utils.data import MICROGRAPH_GREYS

SPLITS = {"train": range(0, 24), "validation": range(100, 104), "test": range(200, 208)}  # seeds
CYTOPLASM, MEMBRANE, MITOCHONDRION = MICROGRAPH_GREYS.values()
FINE = 2  # shapes are drawn on a grid twice as fine and then averaged, so that lines have soft edges
LINE = 1.9  # half width of a line, in pixels of the finished picture


def tissue(seed, size=256):
    """One picture of tissue and its labels.

    Args:
        seed: integer; the same seed gives the same bits. (`RandomState`, because NumPy promises that its
            stream never changes, which it does not promise of its newer generators.)
        size: height and width in pixels.

    Returns:
        image, label: two (size, size) uint8 arrays; label holds CYTOPLASM, MEMBRANE or MITOCHONDRION.
    """
    rng = np.random.RandomState(seed)
    fine = size * FINE
    cell, gap = _cells(rng, fine)
    to_membrane = _distance_to_edge(cell)
    to_membrane[gap] = 0.0  # what lies between the cells is as dark as their membranes
    mitochondrion, stack, to_crista = _folded(rng, to_membrane)
    to_outline = _distance_to_edge(mitochondrion)
    room = np.where(mitochondrion | stack, 0.0, np.minimum(to_membrane, to_outline))

    cytoplasm = rng.normal(0.0, 9.0, cell.max() + 1)[cell] + 6.0 * _smooth_noise(rng, fine, 9.0)
    # The ground between folds is drawn from the same range of greys as the cells': its own, a little darker.
    ground = np.where(mitochondrion | stack, cytoplasm - 9.0, cytoplasm)
    slant = 1.0 + 2.0 * np.clip(_smooth_noise(rng, fine, 16.0) - 0.7, 0.0, 1.0)
    ink = np.maximum.reduce(
        [
            _pen(to_membrane, slant),
            _pen(to_outline, slant),
            0.75 * _pen(to_crista),
            0.85 * _pen(_strands(rng, room)),
            0.75 * _pen(_vesicles(rng, room)),
        ]
    )
    ink[gap] = 1.0
    clean = 158.0 + ground - 100.0 * ink * (1.0 + 0.12 * _smooth_noise(rng, fine, 6.0))
    image = _shrink(clean) + 7.0 * _smooth_noise(rng, size, size / 6)  # uneven staining
    image += 17.0 * _smooth_noise(rng, size, 0.7)  # grain

    in_mitochondrion = mitochondrion | (to_outline < LINE)
    membrane = (to_membrane < LINE) & ~in_mitochondrion
    # A pixel has the class of most of its block, as its grey is the mean of the block.
    shares = [_shrink(region) for region in (~membrane & ~in_mitochondrion, membrane, in_mitochondrion)]
    label = np.array([CYTOPLASM, MEMBRANE, MITOCHONDRION], np.uint8)[np.argmax(shares, axis=0)]
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), label


def _cells(rng, fine):
    """Cell number of every point, big cells with small ones between, and the gaps that belong to none."""
    bend = [fine / 46 * _smooth_noise(rng, fine, fine / 14) for _ in range(2)]
    points = np.indices((fine, fine), dtype=float) + bend
    first = second = None
    cell = np.zeros((fine, fine), int)
    for number in range(54):
        centre = rng.uniform(-0.05 * fine, 1.05 * fine, 2)
        radius = fine * rng.choice([0.01, 0.03, 0.13, 0.17], p=[0.3, 0.35, 0.22, 0.13])
        angle, stretch = rng.uniform(0, np.pi), rng.uniform(0.65, 1.0)
        along, across = _turn(points, centre, angle)
        distance = np.hypot(along * stretch, across / stretch) - radius
        if first is None:
            first, second = distance, np.full_like(distance, np.inf)
            continue
        nearer = distance < first
        second = np.where(nearer, first, np.minimum(second, distance))
        first = np.where(nearer, distance, first)
        cell[nearer] = number
    # Where a point is far from both of its nearest cells, and about equally, a gap of stain opens.
    gap = gaussian_filter(((second - first < 6.0) & (first > 0.045 * fine)).astype(float), 3.0) > 0.5
    return _round_corners(cell, scale=4.0), gap


def _round_corners(regions, scale):
    """Give every point to the region that fills most of its neighbourhood: corners round, slivers vanish."""
    best, rounded = np.zeros(regions.shape), regions
    for region in np.unique(regions):
        share = gaussian_filter((regions == region).astype(float), scale, truncate=3.0)
        rounded = np.where(share > best, region, rounded)
        best = np.maximum(best, share)
    return rounded


def _folded(rng, to_membrane):
    """Masks of mitochondria and of stacks without an outline; distance in pixels to the nearest fold."""
    fine = len(to_membrane)
    points = np.indices((fine, fine), dtype=float)
    mitochondrion, stack = np.zeros((2, fine, fine), bool)
    to_crista = np.full((fine, fine), np.inf)
    wave = _smooth_noise(rng, fine, 10.0)
    for number in range(18):
        short = rng.uniform(8.0, 20.0) * FINE
        long = short * rng.uniform(1.1, 1.7)
        clear = np.minimum(to_membrane * FINE, distance_transform_edt(~(mitochondrion | stack)))
        clear = np.minimum(clear, _distance_to_frame(fine, reach=short))
        seats = np.flatnonzero(clear > short + 5.0 * FINE)
        if not len(seats):
            continue
        centre = np.array(np.unravel_index(seats[rng.randint(len(seats))], (fine, fine)))
        along, across = _turn(points, centre, rng.uniform(0, np.pi))
        body = np.hypot(along / long, across / short) + 0.09 * wave < 1.0
        body &= clear > 3.2 * FINE
        kind = stack if number % 3 == 2 else mitochondrion
        kind |= body
        spacing = rng.uniform(4.6, 6.2)
        fold = np.abs((along / FINE + 1.1 * wave) % spacing - spacing / 2)
        # Folds stop short of the outline, and one in a few is broken.
        deep = distance_transform_edt(body) > 2.2 * FINE
        to_crista = np.where(deep & (_smooth_noise(rng, fine, 8.0) > -0.9), fold, to_crista)
    return mitochondrion, stack, to_crista


def _strands(rng, room):
    """Distance to loose strands (of endoplasmic reticulum, say): pieces of a contour line of smooth noise."""
    fine = len(room)
    distance = _distance_to_edge(_smooth_noise(rng, fine, 11.0) > 0.4)
    here = (_smooth_noise(rng, fine, 14.0) > 0.55) & (room > 3.6)
    return np.where(here, distance, np.inf)


def _vesicles(rng, room):
    """Distance to the walls of vesicles: many small rings, a few as large as a small mitochondrion."""
    fine = len(room)
    points = np.indices((fine, fine), dtype=float)
    nearest = np.full((fine, fine), np.inf)
    free = room.copy()
    for radius in [rng.uniform(6.0, 9.0) for _ in range(7)] + [rng.uniform(1.2, 3.0) for _ in range(70)]:
        seats = np.flatnonzero(free > radius + 3.6)
        if not len(seats):
            continue
        centre = np.array(np.unravel_index(seats[rng.randint(len(seats))], (fine, fine)))
        reach = np.hypot(*(points - centre[:, None, None])) / FINE
        nearest = np.minimum(nearest, np.abs(reach - radius))
        free = np.minimum(free, np.maximum(reach - radius, 0.0))
    return nearest


def _pen(distance, slant=1.0):
    """Darkness, from 0 to 1, of a line at a distance in pixels from its middle: one pen for all.

    What is cut at a slant is as many times wider and as many times paler.
    """
    return np.exp(-((distance / 1.45 / slant) ** 2)) / slant


def _distance_to_edge(regions):
    """Distance, in pixels of the finished picture, to the nearest place where the region changes."""
    edge = np.zeros(regions.shape, bool)
    edge[:-1] |= regions[:-1] != regions[1:]
    edge[:, :-1] |= regions[:, :-1] != regions[:, 1:]
    return distance_transform_edt(~edge) / FINE


def _distance_to_frame(fine, reach):
    """Distance to the picture's frame, so counted that half of a shape of that reach may be cut off by it."""
    line = np.minimum(np.arange(fine), np.arange(fine)[::-1])
    return np.minimum.outer(line, line) + reach


def _turn(points, centre, angle):
    """Coordinates of points (2, H, W) along and across an axis at that angle through centre."""
    down, right = points - np.asarray(centre)[:, None, None]
    return (
        np.cos(angle) * right + np.sin(angle) * down,
        np.cos(angle) * down - np.sin(angle) * right,
    )


def _smooth_noise(rng, size, scale):
    """A (size, size) field with mean 0 and standard deviation 1 that varies over about scale points."""
    field = gaussian_filter(rng.normal(size=(size, size)), scale, mode="wrap")
    return (field - field.mean()) / field.std()


def _shrink(fine):
    """The mean of each FINE x FINE block."""
    size = len(fine) // FINE
    return fine.reshape(size, FINE, size, FINE).mean(axis=(1, 3))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for split, seeds in SPLITS.items():
        for number, seed in enumerate(tqdm(seeds, desc=split)):
            for kind, array in zip(("image", "label"), tissue(seed), strict=True):
                path = folder / split / kind / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path, optimize=True)
