"""Load a CLIP model from the folder or hub repository it lives in; the two towers as plain functions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError

from dits_adapter.errors import ArtifactError
from dits_adapter.hub import bundled

if TYPE_CHECKING:
    from transformers import CLIPModel, PreTrainedTokenizerBase

LOADING_ERRORS = (OSError, ValueError, RuntimeError, SafetensorError)
"""What transformers raises for a checkpoint that is missing, damaged or of other shapes."""


def is_clip(folder: Path) -> bool:
    """Tell whether a local folder holds a CLIP checkpoint, of transformers' or sentence-transformers' layout."""
    for config in (folder / "config.json", folder / "0_CLIPModel" / "config.json"):
        try:
            if json.loads(config.read_text("utf-8")).get("model_type") == "clip":
                return True
        except (OSError, ValueError, AttributeError):
            continue
    return False


def pick_device(device: str | torch.device) -> torch.device:
    """Return the device that is meant; `"auto"` is the first CUDA device, or the CPU where there is none."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


@dataclass(frozen=True)
class ClipSource:
    """Where a CLIP checkpoint is: `location` is a local folder or a hub id."""

    location: str
    revision: str | None = None
    subfolder: str = ""

    @classmethod
    def find(cls, id_or_path: str | PathLike[str], revision: str | None = None) -> ClipSource:
        """Resolve a bundled name, a local folder or a hub id, in this order.

        A sentence-transformers checkpoint (`clip-ViT-B-32`) keeps its CLIP in the subfolder `0_CLIPModel`.

        Raises:
            ArtifactError: a local folder without a CLIP, or with pickled weights only.
        """
        name = fspath(id_or_path)
        folder = bundled(name) or Path(name)
        if not folder.exists():
            if Path(name).is_absolute() or name.count("/") > 1 or name.startswith((".", "~")):
                raise ArtifactError(f"{name}: no such folder. Give a folder with a CLIP checkpoint or a hub id.")
            from huggingface_hub import hf_hub_download

            try:  # answers from the cache where there is no network
                hf_hub_download(name, "0_CLIPModel/config.json", revision=revision)
            except Exception:  # no such file, or no such repository: loading will say which
                return cls(name, revision)
            return cls(name, revision, "0_CLIPModel")
        nested = (folder / "0_CLIPModel" / "config.json").is_file()
        home = folder / "0_CLIPModel" if nested else folder
        try:
            model_type = json.loads((home / "config.json").read_text("utf-8")).get("model_type")
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{home}: no readable config.json of a CLIP checkpoint ({error}).") from None
        if model_type != "clip":
            raise ArtifactError(f'{home}: a model of type {model_type!r}; only "clip" checkpoints are accepted.')
        if not any(home.glob("*.safetensors")):
            raise ArtifactError(
                f"{home}: holds no safetensors. Pickled weights (.bin, .pt) are refused because loading them "
                "can run code; convert them with transformers' save_pretrained."
            )
        return cls(str(folder), None, "0_CLIPModel" if nested else "")

    @property
    def name(self) -> str:
        """What to call this checkpoint in messages and records: a hub id, or a folder's own name."""
        return Path(self.location).name if Path(self.location).is_dir() else self.location

    def loading(self) -> dict[str, Any]:
        """Keyword arguments for `from_pretrained` of transformers."""
        return {"revision": self.revision or "main", "subfolder": self.subfolder}


@contextmanager
def no_loading_bars() -> Iterator[None]:
    """Keep transformers from drawing a progress bar for every checkpoint that it opens."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def weights_digest(model: torch.nn.Module) -> str:
    """Return a SHA-256 over all weights as float32, independent of their names, order and file layout."""
    digests = sorted(
        hashlib.sha256(
            repr(tuple(w.shape)).encode() + w.detach().float().cpu().contiguous().numpy().tobytes()
        ).digest()
        for w in model.state_dict().values()
        if w.is_floating_point()
    )
    return hashlib.sha256(b"".join(digests)).hexdigest()


def preprocess(image_processor: Any, images: Sequence[np.ndarray]) -> torch.Tensor:
    """Run a CLIP's image processor alone, for processes that have no use for its model; see `Clip.preprocess`."""
    return torch.as_tensor(np.stack(image_processor(list(images), return_tensors="np")["pixel_values"]))


@dataclass(frozen=True)
class Clip:
    """A loaded CLIP: float32, in eval mode, on one device. Its embeddings are not normalized."""

    model: CLIPModel
    tokenizer: PreTrainedTokenizerBase
    image_processor: Any
    source: ClipSource

    @property
    def width(self) -> int:
        """Dimension d of the joint space."""
        return self.model.text_projection.out_features

    @property
    def digest(self) -> str:
        """SHA-256 of all weights, computed anew: joint training changes them."""
        return weights_digest(self.model)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str], batch_size: int = 64) -> torch.Tensor:
        """Embed texts: (n, d) float32 on the model's device, un-normalized, truncated at CLIP's 77 tokens."""
        batches = [self.model.text_projection.weight.new_empty(0, self.width)]
        for start in range(0, len(texts), batch_size):
            tokens = self.tokenizer(
                list(texts[start : start + batch_size]), padding=True, truncation=True, return_tensors="pt"
            ).to(self.model.device)
            batches.append(self.model.get_text_features(**tokens).pooler_output)
        return torch.cat(batches)

    def preprocess(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Resize, crop and normalize (h, w, 3) uint8 RGB images: (n, 3, size, size) float32 on the CPU."""
        return preprocess(self.image_processor, images)

    @torch.inference_mode()
    def embed_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed preprocessed images: (n, d) float32 on the model's device, un-normalized."""
        return self.model.get_image_features(pixel_values=pixels.to(self.model.device)).pooler_output

    def embed_images(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Embed (h, w, 3) uint8 RGB images: (n, d) float32, un-normalized."""
        if not len(images):
            return self.model.visual_projection.weight.new_empty(0, self.width)
        return self.embed_pixels(self.preprocess(images))


def load_clip(
    id_or_path: str | PathLike[str], *, revision: str | None = None, device: str | torch.device = "auto"
) -> Clip:
    """Load a CLIP checkpoint from safetensors, in float32.

    Args:
        id_or_path: a folder, a bundled name (`demo-clip`) or a hub id (`openai/clip-vit-base-patch32`).
        revision: branch, tag or commit of a hub repository.
        device: a torch device, or `"auto"`.

    Raises:
        ArtifactError: nothing loadable is there, or only pickled weights.
    """
    from transformers import AutoTokenizer, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    source = ClipSource.find(id_or_path, revision)
    where = source.loading()
    try:
        with no_loading_bars():
            loaded: Any = CLIPModel.from_pretrained(
                source.location, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **where
            )
        tokenizer = AutoTokenizer.from_pretrained(source.location, **where)
        # The PIL backend is the one that exists with and without torchvision: same pixels on every machine.
        image_processor = CLIPImageProcessorPil.from_pretrained(source.location, **where)
    except LOADING_ERRORS as error:
        raise ArtifactError(f"{source.location}: cannot load a CLIP from here. {error}") from error
    model, report = loaded
    if report["missing_keys"]:  # transformers would leave them at random values
        first = sorted(report["missing_keys"])[0]
        raise ArtifactError(
            f"{source.location}: the weights lack {len(report['missing_keys'])} tensors ({first}, …)."
        )
    positions = model.text_model.embeddings.position_embedding.num_embeddings
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    model.requires_grad_(False).eval()
    return Clip(model.to(pick_device(device)), tokenizer, image_processor, source)
