"""Preprocessing of CLIP's pictures here, by torchvision, by open_clip and by OpenAI: pixels and vectors apart.

    python -m benchmarks.preprocessing       # needs open_clip_torch, and the torchvision of its torch

Pictures are of coarse random colors, the CLIP is ViT-B/32 with random weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPConfig, CLIPModel
from transformers.models.clip.image_processing_clip import CLIPImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from dits_adapter._extras import require_modules
from dits_adapter.cli import guarded
from dits_adapter.encoders._inputs import FrameInputs
from dits_adapter.vectors import FloatArray, unit

SIZES = [(360, 640), (480, 640), (225, 301), (331, 200)]
"""Heights and widths; of the third, CLIP's crop has an odd margin."""


def references() -> dict[str, Callable[[Image.Image], Tensor]]:
    """Return the ways of others from a picture to pixels, (3, 224, 224)."""
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    processor = CLIPImageProcessor()
    mean, std = CLIPImageProcessorPil.image_mean, CLIPImageProcessorPil.image_std
    resize = Resize(224, interpolation=InterpolationMode.BICUBIC)
    return {
        "transformers on torchvision": lambda image: processor(image, return_tensors="pt").pixel_values[0],
        "open_clip": image_transform_v2(PreprocessCfg(size=224), is_train=False),
        "OpenAI": Compose([resize, CenterCrop(224), ToTensor(), Normalize(mean, std)]),
    }


@torch.inference_mode()
@guarded("benchmarks.preprocessing")
def main(argv: Sequence[str] | None = None) -> int:
    """Print the largest difference of pixels and the least cosine of vectors, by size and reference."""
    argparse.ArgumentParser(prog="python -m benchmarks.preprocessing", description=__doc__).parse_args(argv)
    require_modules("benchmarks.preprocessing", "open_clip")
    prepared_elsewhere = references()
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig()).eval()
    for parameter in model.parameters():  # the library's initial weights make all inputs look alike
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)

    def embed(pixels: Tensor) -> FloatArray:
        return unit(model.get_image_features(pixel_values=pixels).pooler_output.numpy())

    ours = FrameInputs(CLIPImageProcessorPil())
    rng = np.random.default_rng(0)
    for height, width in SIZES:
        colors = rng.integers(0, 256, (4, 9, 12, 3), np.uint8)
        images = [Image.fromarray(c).resize((width, height), Image.Resampling.BICUBIC) for c in colors]
        pixels = torch.from_numpy(ours([np.asarray(image) for image in images]))
        vectors = embed(pixels)
        for name, prepare in prepared_elsewhere.items():
            theirs = torch.stack([prepare(image) for image in images])
            cosine = np.sum(vectors * embed(theirs), axis=1).min()
            apart = (pixels - theirs).abs().max()
            print(f"{height} x {width}  {name:<28} pixels {apart:.4f}  cosine {cosine:.6f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
