"""DITS and the adapters to compare it with, behind one protocol: `adapt(vectors) -> vectors`."""

from dits_adapter.adapters.affine import AffineAdapter, AffineConfig, mean_shift, procrustes, ridge
from dits_adapter.adapters.base import Adapter
from dits_adapter.adapters.diffusion import DiffusionAdapter, DiffusionConfig, FixedPriorAdapter, FixedPriorConfig
from dits_adapter.adapters.dits import DITSAdapter
from dits_adapter.adapters.low_rank import LowRankAdapter, LowRankConfig
from dits_adapter.adapters.mlp import MLPAdapter, MLPConfig

ADAPTERS: dict[str, type[Adapter]] = {
    cls.kind: cls
    for cls in (DITSAdapter, AffineAdapter, LowRankAdapter, MLPAdapter, FixedPriorAdapter, DiffusionAdapter)
}

__all__ = [
    "ADAPTERS",
    "Adapter",
    "AffineAdapter",
    "AffineConfig",
    "DITSAdapter",
    "DiffusionAdapter",
    "DiffusionConfig",
    "FixedPriorAdapter",
    "FixedPriorConfig",
    "LowRankAdapter",
    "LowRankConfig",
    "MLPAdapter",
    "MLPConfig",
    "mean_shift",
    "procrustes",
    "ridge",
]
