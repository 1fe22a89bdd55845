"""Adapter and pairs of a measurement, opened by name or given."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike, fspath

from dits_adapter._wording import counted
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.data._named import PairsSource, named_pairs
from dits_adapter.data.pairs import Pairs, held_out
from dits_adapter.errors import InputError
from dits_adapter.training._notes import measuring_notes

__all__ = ["MOST_VIDEOS", "AdapterSource", "Measured"]

MOST_VIDEOS = 10_000
"""Videos to measure on; of more as many are drawn."""

_SEED = 0
"""Seed by which videos are drawn."""

AdapterSource = str | PathLike[str] | Artifact
"""Folder, bundled name or hub id of a trained adapter, or one that is loaded."""


@dataclass(frozen=True)
class Measured:
    """A trained adapter and the pairs to measure it on.

    Attributes:
        artifact: the adapter.
        pairs: those that its training held out, where it was trained with these, and that judge.
        adapter_name, pairs_name: their names for messages and captions.
        notes: sentences about the pairs.
    """

    artifact: Artifact
    pairs: Pairs
    adapter_name: str
    pairs_name: str
    notes: tuple[str, ...]

    @classmethod
    def open(cls, adapter: AdapterSource, pairs: PairsSource, most_videos: int) -> Measured:
        """Load adapter and pairs, and take those to measure on, of `most_videos` videos at most.

        Raises:
            InputError: fewer than 2 videos to measure on are asked for.
            SpaceMismatchError: the pairs are of another space than the adapter's.
        """
        if most_videos < 2:
            raise InputError(
                f"{counted(most_videos, 'video')} to measure on: it takes 2 or more to tell one from another."
            )
        artifact = adapter if isinstance(adapter, Artifact) else Artifact.load(adapter)
        loaded, _ = named_pairs(pairs)
        adapter_name = "the adapter" if isinstance(adapter, Artifact) else fspath(adapter)
        pairs_name = "the pairs" if isinstance(pairs, Pairs) else fspath(pairs)
        mine = adapter_name if isinstance(adapter, Artifact) else f"the adapter {adapter_name}"
        theirs = pairs_name if isinstance(pairs, Pairs) else f"the pairs {pairs_name}"
        artifact.space.require(loaded.space, mine=mine, theirs=theirs)
        measured = held_out(loaded, artifact.training).judging()
        notes = measuring_notes(measured)
        return cls(artifact, measured.at_most(most_videos, _SEED), adapter_name, pairs_name, notes)
