"""Tile by tile against one pass over the whole image: time, work and memory for the same scores.

Each row is a process of its own, on one thread. Its time is the best of three tries, the tracing of receptive
fields included; its memory is the peak of the process, torch and the image included, before the first try and
after it; the difference is the largest of any score. Multiply-accumulates (MACs) say how much is computed
twice.

python benchmarks/tiled.py
"""

import contextlib
import io
import multiprocessing
import resource
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import torch

from pixelpatch import receptive_field, tiled
from pixelpatch.scores import score_map
from utils.networks import UNet, multiply_accumulates

NETWORKS = {  # with the side of the image
    "UNet()": ({}, 1024),
    'UNet(depth=4, padding="valid")': ({"depth": 4, "padding": "valid"}, 1196),
}
TILES = None, 512, 256, 128  # None: one pass


def peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def measure(options, side, tile):
    """Seconds, multiply-accumulates, peak megabytes before and after, and scores of one way to score."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network, image, shapes = UNet(**options).eval(), torch.rand(1, 1, side, side), Counter()
    receptive_field(network, tuple(image.shape))  # the first call also imports what torch loads late

    def count(_, images):
        if not torch.is_inference_mode_enabled():  # as it is where fields are traced
            shapes[images[0].shape] += 1

    hook, seconds, before = network.register_forward_pre_hook(count), [], peak_megabytes()
    for _ in range(3):
        begin = time.perf_counter()
        with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):  # no progress bars in the table
            scores = score_map(network, image) if tile is None else tiled(network, image, tile)
        seconds.append(time.perf_counter() - begin)
        if len(seconds) == 1:
            after = peak_megabytes()
            hook.remove()
    macs = sum(times * multiply_accumulates(network, shape) for shape, times in shapes.items())
    return min(seconds), macs, (before, after), scores.numpy()


def main():
    print("| network, image | tile | seconds | time ratio | MAC ratio | MB before | MB after | difference |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, (options, side) in NETWORKS.items():
        for tile in TILES:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
                seconds, macs, memory, scores = alone.submit(measure, options, side, tile).result()
            if tile is None:
                one = seconds, macs, scores
            cells = f"{name}, {side} x {side}", str(tile or "one pass"), f"{seconds:.2f}"
            ratios = f"{seconds / one[0]:.2f}", f"{macs / one[1]:.2f}"
            off = f"{abs(scores - one[2]).max():.0e}"
            print("|", " | ".join((*cells, *ratios, *(f"{peak:.0f}" for peak in memory), off)), "|")


if __name__ == "__main__":
    main()
