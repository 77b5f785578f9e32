"""Which patch of the image decides each pixel of a network's output? Exactly, for the network you have.

    from pixelpatch import Inspector, audit, patch_proof, receptive_field, tiled

    rf = receptive_field(model, (1, 1, 256, 256))  # any nn.Module that maps one (N, C, H, W) to scores
    rf.box(row, col)            what one output pixel sees: Box(top, left, bottom, right), half-open
    rf.mask(row, col)           the same as (H, W) bool, exactly, holes included
    rf.influence(row, col)      the output pixels that one input pixel reaches
    rf.halo                     how much image a tile needs around it
    rf.stride, rf.layers        where the pattern of boxes repeats; the field in every layer between
    rf.whole_image              the layers that let a pixel see the whole image, each with its reason
    patch_proof(model, image, row, col)  cut the patch out, run the network on it alone, compare the scores
    influence(score, image)     the effective field: how much each pixel moves a score
    tiled(model, image, tile)   the scores of one pass, tile by tile; the halo comes from the field
    audit(model, image)         is the network a patch classifier? Traced, measured, and what breaks it
    Inspector(image, {"U-Net": model})  in a notebook: point at a pixel, see its patch (pixelpatch[widget])

The network is never changed. What cannot be said exactly is an error that names the operation and the layer.

fields      the receptive field of any output pixel; `engine` is how it is found
scores      the contract with a network: what it takes, what it gives, what rounding costs
proofs      the patch alone gives the scores of the whole image
tiles       tiles that are as good as one pass
audits      all of the above, asked at once
drawing     palette, outlines, and pictures with a text alternative
widget      the inspector: what it does in Python and, in `inspector.js`, in the browser
"""

from typing import TYPE_CHECKING

from pixelpatch.audits import Audit, Breaker, audit
from pixelpatch.fields import Box, Layer, ReceptiveField, UnknownOperation, Whole, receptive_field
from pixelpatch.proofs import PatchProof, WholeImageError, effective_pixels, influence, patch_proof
from pixelpatch.tiles import tiled

if TYPE_CHECKING:
    from pixelpatch.widget.inspector import Inspector

__all__ = [
    "Audit",
    "Box",
    "Breaker",
    "Inspector",
    "Layer",
    "PatchProof",
    "ReceptiveField",
    "UnknownOperation",
    "Whole",
    "WholeImageError",
    "audit",
    "effective_pixels",
    "influence",
    "patch_proof",
    "receptive_field",
    "tiled",
]


def __getattr__(name: str) -> object:
    """Import the widget when it is first asked for: it alone needs anywidget and matplotlib."""
    if name != "Inspector":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from pixelpatch.widget.inspector import Inspector
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the inspector needs {error.name}, which is not installed: pip install 'pixelpatch[widget]'"
        ) from error
    return Inspector
