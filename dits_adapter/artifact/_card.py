"""The model card of an artifact."""

from __future__ import annotations

from dits_adapter.artifact._config import ArtifactConfig

__all__ = ["model_card"]


def model_card(config: ArtifactConfig, name: str) -> str:
    """Return the README.md of an artifact: description, use, training and measurements."""
    from huggingface_hub import ModelCard, ModelCardData

    base = str(config.training.get("base_model", config.space.video.encoder))
    data = ModelCardData(
        library_name="dits_adapter",
        tags=["video-retrieval", "text-to-video", "modality-gap", "clip", config.adapter],
        base_model=base if "/" in base else None,
    )
    facts = "\n".join(f"- {key}: {value}" for key, value in config.training.items()) or "- not recorded"
    rows = "\n".join(f"- {key}: {value}" for key, value in config.metrics.items()) or "- none recorded"
    weights = "stays as it is" if config.kind == "frozen" else "must be built with the bundled encoder"
    content = f"""---
{data.to_yaml()}
---
# {name}

Moves text queries of the encoder `{config.space.text.encoder}` to the video side of the embedding space before
they search video vectors of `{config.space.video.encoder}`. Adapter `{config.adapter}`, kind `{config.kind}`: the
index of videos {weights}.

```python
from dits_adapter import DITSQueryEncoder

encoder = DITSQueryEncoder.from_pretrained("{name}")
vectors = encoder.encode_query(["a dog chases a ball"])
```

Texts: {config.space.text}, weights {config.space.text.weights_sha256 or "not known"}.
Videos: {config.space.video}, weights {config.space.video.weights_sha256 or "not known"}; frames were prepared by
{config.space.video.preprocessing or "not known"}.

## Training
{facts}

## Held-out figures
{rows}

## Probabilities of scores
{config.calibration or "not calibrated: `dits-adapter calibrate`"}
"""
    return str(ModelCard(content))
