"""Sizes that a config may claim: far above any that is of use, and below those that end a process."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

__all__ = ["Depth", "MlpRatio", "Timesteps", "Width"]

Width = Annotated[int, Field(ge=1, le=2**16)]
"""Dimension d of embeddings; those of CLIP have 512 to 1,280."""

Depth = Annotated[int, Field(ge=0, le=256)]
"""Number of blocks or layers; 4 in the paper."""

MlpRatio = Annotated[float, Field(gt=0, le=64)]
"""Hidden width of a layer over d; 4 in the paper."""

Timesteps = Annotated[int, Field(ge=1, le=10_000)]
"""Length T of a schedule; 10 in the paper, 1,000 in image diffusion."""
