"""DITS and the adapters to compare it with: one base class, one registry."""

# First, because rows of a comparison stand in the order of registration.
from dits_adapter.adapters.low_rank import LowRankAdapter, LowRankConfig  # isort: skip

from dits_adapter.adapters._fit import GentleFit
from dits_adapter.adapters._gentle import LEAST_VIDEOS, gentle_dits, gentle_linear, gentle_mlp
from dits_adapter.adapters.across import reduced_rank
from dits_adapter.adapters.affine import AffineAdapter, AffineConfig, mean_shift, procrustes, ridge
from dits_adapter.adapters.bank import QueryBankAdapter, QueryBankConfig, fit_query_bank
from dits_adapter.adapters.base import Adapter, Family, Initializer
from dits_adapter.adapters.diffusion import DiffusionAdapter, DiffusionConfig, FixedPriorAdapter, FixedPriorConfig
from dits_adapter.adapters.dits import DITSAdapter, VideoSideDITSAdapter
from dits_adapter.adapters.mlp import MLPAdapter, MLPConfig
from dits_adapter.adapters.moments import Matches, Rows
from dits_adapter.adapters.registry import (
    AdapterEntry,
    adapter_class,
    adapter_entries,
    adapter_entry,
    fresh_adapter,
    register_adapter,
    register_entry,
)

__all__ = [
    "LEAST_VIDEOS",
    "Adapter",
    "AdapterEntry",
    "AffineAdapter",
    "AffineConfig",
    "DITSAdapter",
    "DiffusionAdapter",
    "DiffusionConfig",
    "Family",
    "FixedPriorAdapter",
    "FixedPriorConfig",
    "GentleFit",
    "Initializer",
    "LowRankAdapter",
    "LowRankConfig",
    "MLPAdapter",
    "MLPConfig",
    "Matches",
    "QueryBankAdapter",
    "QueryBankConfig",
    "Rows",
    "VideoSideDITSAdapter",
    "adapter_class",
    "adapter_entries",
    "adapter_entry",
    "fit_query_bank",
    "fresh_adapter",
    "gentle_dits",
    "gentle_linear",
    "gentle_mlp",
    "mean_shift",
    "procrustes",
    "reduced_rank",
    "register_adapter",
    "register_entry",
    "ridge",
]
