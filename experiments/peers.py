"""What other libraries do, stored from a run: chapters 7c and 7d read it, and need none of them.

pip install monai segmentation-models-pytorch timm transformers
python -m experiments.peers    measures what is missing in data/peers.json

networks  of segmentation-models-pytorch, timm and Hugging Face's transformers, without pretrained weights:
          audited as traced, since what a network can see does not depend on its weights
blend     the scores of MONAI's inferer, which blends tiles, at a few pixels
"""

from importlib.metadata import version

import torch
from torch import nn

from experiments.results import once, stored
from pixelpatch import audit
from utils.data import DATA, micrographs
from utils.networks import trained

RESULTS = DATA / "peers.json"
SHAPE = 1, 3, 256, 4096  # a strip: one axis is enough
TILE, OVERLAP = 128, 0.5


class Scores(nn.Module):
    """A network of transformers, as one that returns its scores."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image):
        return self.network(pixel_values=image).logits


def from_smp(name):
    import segmentation_models_pytorch as smp

    return getattr(smp, name)("resnet34", encoder_weights=None, classes=2)


def from_timm(name):
    import timm

    return timm.create_model(name, num_classes=0, global_pool="")  # the maps before the classifier


def from_transformers(name):
    import transformers

    config = getattr(transformers, f"{name}Config")()
    return Scores(getattr(transformers, f"{name}ForSemanticSegmentation")(config))


LIBRARIES = {
    "segmentation-models-pytorch": (
        from_smp,
        "Unet UnetPlusPlus MAnet Linknet FPN PSPNet PAN DeepLabV3 DeepLabV3Plus UPerNet",
    ),
    "timm": (
        from_timm,
        "resnet50 resnext50_32x4d densenet121 dla34 hrnet_w18 res2net50_26w_4s convnext_tiny "
        "convnextv2_tiny mobilenetv4_conv_small regnety_016 seresnet50 efficientnetv2_s",
    ),
    "transformers": (from_transformers, "Segformer MobileViT MobileNetV2"),
}


def audited(build, name):
    """One row of chapter 7c's table."""
    found = audit(build(name).eval(), SHAPE)
    return {
        "exact": found.exact,
        "patch": found.patch[1],
        "stride": found.stride[1],
        "halo": list(found.halo[1]) if found.halo else None,
        "breakers": [[each.layer, each.reason] for each in found.breakers],
    }


def wide_micrograph():
    """A validation micrograph and its mirror image side by side, (1, 1, 256, 512)."""
    image = micrographs("validation").images[:1]
    return torch.cat([image, image.flip(-1)], dim=-1)


@torch.inference_mode()
def blended_by_monai():
    """Scores (3, 8, 8) of our U-Net, at every 32nd row and every 64th column."""
    from monai.inferers import sliding_window_inference

    scores = sliding_window_inference(
        wide_micrograph(), (TILE, TILE), 1, trained("unet"), overlap=OVERLAP, mode="gaussian"
    )
    return scores[0, :, ::32, ::64].tolist()


def networks():
    """Library and its version -> network -> what was found of it, as `audited` gives it."""
    found = {}
    for key, each in stored(RESULTS).items():
        library, _, name = key.partition(": ")
        if name != "blend":
            found.setdefault(library, {})[name] = each
    return found


def blend():
    """MONAI's name and version, and its scores (3, 8, 8), as `blended_by_monai` gives them.

    Raises FileNotFoundError where there is no record of it.
    """
    for key, scores in stored(RESULTS).items():
        if key.endswith("blend"):
            return key.partition(":")[0], torch.tensor(scores)
    raise FileNotFoundError(f"{RESULTS} says nothing of MONAI; run `python -m experiments.peers`.")


def main():
    for library, (build, names) in LIBRARIES.items():
        for name in names.split():
            key = f"{library} {version(library)}: {name}"
            once(RESULTS, key, lambda build=build, name=name: audited(build, name))
    once(RESULTS, f"monai {version('monai')}: blend", blended_by_monai)
    print(len(stored(RESULTS)), "measurements in", RESULTS.name)


if __name__ == "__main__":
    main()
