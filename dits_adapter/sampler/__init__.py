"""The paper: noise schedule, alignment network, truncated sampler, and the sampler's exact folded form."""

from dits_adapter.sampler.folded import FoldedSampler
from dits_adapter.sampler.network import AlignmentNetwork
from dits_adapter.sampler.sampler import SamplerConfig, TruncatedSampler
from dits_adapter.sampler.schedule import NoiseSchedule

__all__ = ["AlignmentNetwork", "FoldedSampler", "NoiseSchedule", "SamplerConfig", "TruncatedSampler"]
