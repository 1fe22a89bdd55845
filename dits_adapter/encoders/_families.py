"""Families of dual encoders of transformers, one record each; those that are refused, with their reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["DUAL_FAMILIES", "OPEN_CLIP_CONFIG", "OPEN_CLIP_EXAMPLES", "OPEN_CLIP_WEIGHTS", "REFUSED", "DualFamily"]


@dataclass(frozen=True)
class DualFamily:
    """Family of models of transformers with `get_text_features`, and `get_image_features` or `get_video_features`.

    Attributes:
        model_type: value of `model_type` in a checkpoint's config.json.
        examples: hub ids of such checkpoints.
        width: path of the dimension d in the config.
        padding: texts are padded to the `longest` of a batch, or always to the `whole` length, where the model
            reads its last position or was trained with padding that it saw.
        max_tokens: tokens of a text that its processor in transformers reads, where the model has more positions.
        mask: padding is masked. False where the model was trained to see it, or reads texts in one direction and
            never comes to their padding.
        clip_frames: path, in the config, of the number of frames of a clip, which the model sees as a whole; empty
            for a model that sees one frame at a time.
        pixels: name of the argument that takes them.
        patches: pixels are patches of a picture of any shape (NaFlex).
        resample: Pillow's number of the filter that squeezes frames to the model's square, without normalization,
            where transformers' own processor needs torchvision; None for the processor of the checkpoint.
        attention: implementation of attention in transformers; empty for its default.
        joint: the model holds a `logit_scale`, the temperature that joint training needs.
        with_safetensors: hub ids that are known to keep safetensors on main, for whom has one that does not.
    """

    model_type: str
    examples: tuple[str, ...]
    width: str = "projection_dim"
    padding: Literal["longest", "whole"] = "longest"
    max_tokens: int | None = None
    mask: bool = True
    clip_frames: str = ""
    pixels: str = "pixel_values"
    patches: bool = False
    resample: int | None = None
    attention: str = ""
    joint: bool = True
    with_safetensors: tuple[str, ...] = ()


DUAL_FAMILIES = {
    family.model_type: family
    for family in (
        DualFamily(
            "clip",
            ("openai/clip-vit-large-patch14", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
            mask=False,
            with_safetensors=(
                "sentence-transformers/clip-ViT-B-32",
                "openai/clip-vit-large-patch14",
                "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
            ),
        ),
        DualFamily("metaclip_2", ("facebook/metaclip-2-worldwide-huge-quickgelu",), mask=False),
        DualFamily("altclip", ("BAAI/AltCLIP",)),
        DualFamily("chinese_clip", ("OFA-Sys/chinese-clip-vit-base-patch16",)),
        DualFamily("align", ("kakaobrain/align-base",), max_tokens=64, joint=False),
        DualFamily("groupvit", ("nvidia/groupvit-gcc-yfcc",), mask=False),
        # By default, transformers 5.23 lets a text look ahead where nothing is padded, and nowhere else.
        DualFamily("aimv2", ("apple/aimv2-large-patch14-224-lit",), attention="eager"),
        DualFamily("vision-text-dual-encoder", ("clip-italian/clip-italian",)),
        DualFamily(
            "siglip",
            ("google/siglip-base-patch16-224", "google/siglip2-base-patch16-224"),
            width="text_config.projection_size",
            padding="whole",
            mask=False,
        ),
        DualFamily(
            "siglip2",
            ("google/siglip2-base-patch16-naflex",),
            width="text_config.projection_size",
            padding="whole",
            mask=False,
            patches=True,
        ),
        DualFamily(
            "tipsv2",
            ("google/tipsv2-b14",),
            width="text_config.hidden_size",
            padding="whole",
            resample=2,
            joint=False,
        ),
        DualFamily(
            "xclip",
            ("microsoft/xclip-base-patch32",),
            mask=False,
            clip_frames="vision_config.num_frames",
            joint=False,
        ),
        DualFamily(
            "videoprism",
            ("google/videoprism-lvt-base-f16r288",),
            width="text_config.hidden_size",
            padding="whole",
            clip_frames="vision_config.num_frames",
            pixels="pixel_values_videos",
            resample=3,
            joint=False,
        ),
    )
}
"""Records by `model_type`."""

OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
"""Files of a repository of open_clip."""

OPEN_CLIP_EXAMPLES = ("timm/ViT-B-16-SigLIP", "timm/PE-Core-B-16")
"""Hub ids of such repositories."""

REFUSED = {
    "blip": "transformers' BlipModel has no projection that a published checkpoint trained",
    "blip-2": "its texts are read by a language model, in another space than its images",
    "clap": "it embeds sound, not pictures",
    "clipseg": "it segments pictures; use the CLIP that it was built on",
    "clvp": "it embeds speech, not pictures",
    "flava": "its features are one vector a token, not one a text",
    "jina_clip": "it runs code of its repository; import the vectors that its own program gives",
    "owlv2": "it finds objects; use the CLIP that it was built on",
    "owlvit": "it finds objects; use the CLIP that it was built on",
    "pe_video": "transformers cannot embed texts with it; open_clip's Perception Encoder sees frames",
    "sam3": "it segments pictures",
    "sam3_lite_text": "it segments pictures",
}
"""Reason by `model_type`, of models that embed texts and something else, and are no encoder for this purpose."""
