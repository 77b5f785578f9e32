"""How long do the fields of all pixels of a U-Net take, and who gets them right?

    python benchmarks/receptive_field.py

One Markdown table, all rows from one run on one machine: a U-Net with four levels on a 256x256 image. The
other tools are optional (`pip install --no-deps --ignore-requires-python receptivefield "torchscan<0.2"
rfa-toolbox graphviz`; torchscan 0.2 gives the kernels of single layers only); what is not installed says so.
"Right" means, for us: the box equals that of one backward pass through a linear positive copy of the network,
at every sampled pixel; for the others, who give no boxes: their sizes are the sizes of those boxes, inside
the image.
"""

import contextlib
import io
import time
import warnings

import torch
from torch import nn

from pixelpatch import receptive_field

SIDE = 256
SAMPLE = [(128, 128), (132, 132), (0, 0), (255, 3), (77, 200)]


class UNet(nn.Module):
    """Four levels, two padded 3x3 convolutions each, 2x2 pooling and 2x2 transposed convolutions."""

    def __init__(self, levels: int = 4, width: int = 8):
        super().__init__()
        sizes = [width * 2**level for level in range(levels + 1)]

        def block(i: int, o: int) -> nn.Sequential:
            first = [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU()]
            return nn.Sequential(*first, nn.Conv2d(o, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())

        self.down = nn.ModuleList([block(i, o) for i, o in zip([1, *sizes], sizes, strict=False)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(2 * n, n, 2, 2) for n in sizes[-2::-1]])
        self.merge = nn.ModuleList([block(2 * n, n) for n in sizes[-2::-1]])
        self.pool, self.head = nn.MaxPool2d(2), nn.Conv2d(width, 2, 1)

    def forward(self, x):
        skips = []
        for block in self.down[:-1]:
            skips.append(block(x))
            x = self.pool(skips[-1])
        x = self.down[-1](x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], 1))
        return self.head(x)


def milliseconds(function, repeats: int) -> float:
    """The fastest of several runs, which a busy machine disturbs least."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - start))
    return min(times)


def boxes(layers) -> None:
    for layer in layers:
        for axis in {axis for term in layer.terms for axis in term}:
            _ = axis.hulls


def truth(row: int, col: int) -> tuple[int, int, int, int]:
    model = UNet().double().eval()
    model.pool = nn.AvgPool2d(2)
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU | nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    for parameter in model.parameters():
        parameter.data.abs_()
    x = torch.ones(1, 1, SIDE, SIDE, dtype=torch.float64, requires_grad=True)
    model(x)[0, :, row, col].sum().backward()
    at = x.grad[0, 0].nonzero()
    return (*at.min(0).values.tolist(), *(at.max(0).values + 1).tolist())


def from_receptivefield(model) -> set[float]:
    from receptivefield.pytorch import PytorchReceptiveField

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, x):
            self.feature_maps = [self.net(x[:, :1])]
            return self.feature_maps[0]

    tool = PytorchReceptiveField(Watched)
    size = tool.compute(input_shape=[SIDE, SIDE, 3])[0].rf.size
    return {int(size.h), int(size.w)}


def from_torchscan(model) -> set[float]:
    from torchscan.crawler import crawl_module

    return {crawl_module(model, (1, SIDE, SIDE))["layers"][-1]["rf"]}


def from_rfa_toolbox(model) -> set[float]:
    from rfa_toolbox import create_graph_from_pytorch_model

    graph = create_graph_from_pytorch_model(model, input_res=(1, 1, SIDE, SIDE))
    return {int(rows) for rows, _ in graph.receptive_field_sizes}


def main() -> None:
    torch.set_num_threads(1)  # steadier where other programs run beside it
    model = UNet().eval()
    rf = receptive_field(model, (1, 1, SIDE, SIDE))  # the first call also imports what torch loads late
    right = all(tuple(rf.box(*pixel)) == truth(*pixel) for pixel in SAMPLE)
    sizes = {truth(*pixel)[2] - truth(*pixel)[0] for pixel in SAMPLE[:2]}  # the two phases, inside the image
    rows = [
        ("`pixelpatch.receptive_field`, all boxes", lambda: boxes([receptive_field(model, rf.shape)]), 1, 15)
    ]
    rows += [("`pixelpatch.receptive_field`, in every layer", lambda: boxes(every(model, rf.shape)), 1, 15)]
    x = torch.ones(1, 1, SIDE, SIDE, requires_grad=True)

    def backward() -> None:
        torch.autograd.grad(model(x)[0, :, 128, 128].sum(), x)

    rows += [("one backward pass per pixel (extrapolated)", backward, SIDE**2, 5)]
    results = [(name, scale * milliseconds(run, repeats)) for name, run, scale, repeats in rows]
    ours = results[0][1]
    print(f"U-Net, four levels, {SIDE}x{SIDE}; torch {torch.__version__}, one thread\n")
    print("| tool | ms | times ours | answer | right |\n| --- | --- | --- | --- | --- |")
    for (name, ms), verdict in zip(results, [right, right, True], strict=True):
        found = sizes if verdict else {"?"}
        said = " or ".join(map(str, sorted(found))) + ", by pixel"
        print(f"| {name} | {ms:,.1f} | {ms / ours:,.1f} | {said} | {'yes' if verdict else 'no'} |")
    for name, ask in [
        ("receptivefield", from_receptivefield),
        ("torchscan", from_torchscan),
        ("rfa_toolbox", from_rfa_toolbox),
    ]:
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                said = ask(model)
                ms = milliseconds(lambda ask=ask: ask(model), 3)
        except ModuleNotFoundError as error:
            print(f"| {name} | | | not installed ({error.name}) | |")
        except Exception as error:  # a peer that fails is a result of the comparison
            print(f"| {name} | | | fails: {type(error).__name__}: {str(error)[:60]} | no |")
        else:
            text, verdict = ", ".join(f"{size:g}" for size in sorted(said)), "yes" if said == sizes else "no"
            print(f"| {name} | {ms:,.1f} | {ms / ours:,.1f} | {text} | {verdict} |")


def every(model: nn.Module, shape: tuple[int, int, int, int]) -> list:
    rf = receptive_field(model, shape)
    return [rf, *rf.layers]


if __name__ == "__main__":
    main()
