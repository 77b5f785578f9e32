"""The literal sliding window against one dense pass with the same weights: time beside multiply-accumulates.

The literal way is timed on a sample of the patches, in batches as large as suit it best, and scaled up; the
dense way is timed whole. Each is the best of several tries: other programs can only slow a try down.
"""

import time

import torch

from utils.networks import PatchNet, a_trous, multiply_accumulates
from utils.windows import windows

NETWORKS = {
    "N4 (window 95)": PatchNet(window=95, classes=2, width=48, hidden=200),
    "chapters 1 and 3 (window 65)": PatchNet(window=65),
    "chapter 3 (window 17)": PatchNet(window=17),
}
SIZES = 64, 128, 256, 512
SAMPLE = 2048  # patches


def best_seconds(work, *inputs, tries=3):
    """The shortest of several runs, after one that warms up."""
    work(*inputs)
    seconds = []
    for _ in range(tries):
        begin = time.perf_counter()
        work(*inputs)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def seconds_per_patch(net):
    """The literal way at its best: over several sizes of batch."""
    side = net.window + 63
    patches = windows(torch.rand(1, 1, side, side), net.window)[0].flatten(0, 1)[:SAMPLE]

    def classify(batch):
        for part in patches.split(batch):
            net(part.contiguous(memory_format=torch.channels_last))

    return min(best_seconds(classify, batch, tries=2) for batch in (32, 128, 512)) / SAMPLE


@torch.inference_mode()
def main():
    print("| network | image | literal (s) | dense (s) | time ratio | MAC ratio | time / MAC ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, net in NETWORKS.items():
        net = net.eval().to(memory_format=torch.channels_last)
        dense = a_trous(net)
        literal_one = seconds_per_patch(net)
        macs_one = multiply_accumulates(net, (1, 1, net.window, net.window))
        for size in SIZES:
            side = size + net.window - 1
            image = torch.rand(1, 1, side, side)
            literal, quick = literal_one * size**2, best_seconds(dense, image)
            macs = macs_one * size**2 / multiply_accumulates(dense, (1, 1, side, side))
            cells = name, f"{size} x {size}", f"{literal:.1f}", f"{quick:.3f}"
            ratios = f"{literal / quick:.0f}", f"{macs:.0f}", f"{literal / quick / macs:.0%}"
            print("|", " | ".join(cells + ratios), "|", flush=True)


if __name__ == "__main__":
    main()
