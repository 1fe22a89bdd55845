"""Estimate of an ingestion: what the collection holds, and what the headers of the other files say."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from typing_extensions import Unpack

from dits_adapter._progress import progress_bar
from dits_adapter._reprs import shown_repr
from dits_adapter._user_files import read_json
from dits_adapter._wording import counted, printable
from dits_adapter.artifact._config import CONFIG, read_config
from dits_adapter.artifact._find import find_adapter
from dits_adapter.encoders._families import DUAL_FAMILIES
from dits_adapter.encoders.base import EncoderSource
from dits_adapter.errors import MissingCollectionError, StoreError, VideoError
from dits_adapter.stores._discover import absolute, find_videos, stat_video
from dits_adapter.stores._shard import in_shard
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.ingest import IngestKeywords, IngestOptions, Paths
from dits_adapter.stores.report import IngestReport
from dits_adapter.stores.requests import from_keywords
from dits_adapter.stores.rows import VideoRecord
from dits_adapter.video._frames import count_segments
from dits_adapter.video.decode import stated_duration
from dits_adapter.video.limits import DecodeLimits

if TYPE_CHECKING:
    from dits_adapter.video.encoder import VideoEncoder

__all__ = ["IngestEstimate", "estimate_ingest"]


@dataclass
class IngestEstimate:
    """Estimate of an ingestion.

    Attributes:
        new: number of files that would be read.
        present: number of files whose videos are stored, by name, size and modification time.
        seconds: duration of the new videos, as far as their headers state it.
        segments: number of segments of the new videos; one for each whose header states no duration.
        without_duration: number of the new videos whose headers state no duration.
        failed: files that gave no frames in an earlier run and would not be tried again, and files whose header
            cannot be read, with the reason.
        vector_bytes: bytes of the vectors of the new segments, None where their width is not known.
        note: remark on the collection; empty where nothing is to be said.
    """

    new: int = 0
    present: int = 0
    seconds: float = 0.0
    segments: int = 0
    without_duration: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    vector_bytes: int | None = None
    note: str = ""

    __repr__ = shown_repr

    def __str__(self) -> str:
        size = "" if self.vector_bytes is None else f": about {math.ceil(self.vector_bytes / 1e6):,} MB of vectors"
        without_duration = f" and {self.without_duration} of unknown length" if self.without_duration else ""
        hours = f"{self.seconds / 3600:.1f} hours" if self.seconds > 3600 else f"{self.seconds / 60:.1f} minutes"
        lines = [
            f"to read  {counted(self.new, 'video')}, {hours}{without_duration}, "
            f"{counted(self.segments, 'segment')}{size}",
            f"present  {self.present}",
        ]
        if self.failed:
            lines.append(f"failed   {len(self.failed)}, by an earlier run or by the header")
            lines += [f"  {printable(path)}: {printable(reason)}" for path, reason in self.failed.items()]
        if self.note:
            lines.append(printable(self.note))
        return "\n".join(lines)


def estimate_ingest(
    store: VideoStore,
    paths: Paths,
    encoder: str | PathLike[str] | VideoEncoder,
    options: IngestOptions | None = None,
    *,
    limits: DecodeLimits | None = None,
    frames: int | None = None,
    progress: bool = True,
    **keywords: Unpack[IngestKeywords],
) -> IngestEstimate:
    """Estimate an ingestion: nothing is created, decoded or written, and no model is loaded.

    A file that was moved or copied counts as new here: only its content, which is not read, tells.

    Args:
        store: where the videos would be stored.
        paths: folders and files, or one of them.
        encoder: the encoder of the videos, or its folder, bundled name or hub id, of which its config alone is
            read.
        options: options of the ingestion as one object; or give its fields as keyword arguments.
        limits: what reading a header may cost.
        frames: frames of a segment, where `encoder` is a name; None for those of the adapter, or 12.
        progress: show a progress bar on a terminal.

    Raises:
        ArtifactError: no encoder is at `encoder`.
        InputError: a path that does not exist, or impossible segments.
        StoreError: the collection is cut in other segments, foreign, or keeps tenants otherwise; or it cannot be
            reached.
    """
    options = from_keywords(IngestOptions, options, keywords)
    limits = limits or DecodeLimits()
    if isinstance(encoder, str | PathLike):
        frames, width = _vectors_of(fspath(encoder), frames)
    else:
        frames, width = encoder.space.video.frames or 12, encoder.space.video.width
    result = IngestEstimate()
    records = _records(store, options, result)
    report = IngestReport()
    files = [path for path in find_videos(absolute(paths), report) if in_shard(path, options.shard)]
    result.failed |= report.failed
    seconds, overlap = options.segment_seconds, options.overlap
    count_segments(1.0, seconds, overlap)  # refuses impossible ones
    for path in progress_bar(files, desc="headers", unit="file", progress=progress):
        try:
            file = stat_video(path)
            record = records.get(path)
            if record is not None and record.settles(file, retry_failed=options.retry_failed):
                if record.failure:
                    result.failed[path] = record.failure
                else:
                    result.present += 1
                continue
            duration = stated_duration(path, limits)
        except VideoError as error:
            result.failed[error.path] = error.reason
            continue
        result.new += 1
        result.seconds += duration or 0.0
        result.without_duration += duration is None
        result.segments += count_segments(duration, seconds, overlap) if duration else 1
    if width is not None:
        result.vector_bytes = result.segments * width * 4 * (1 + frames * store.capabilities.frames)
    return result


def _records(store: VideoStore, options: IngestOptions, result: IngestEstimate) -> dict[str, VideoRecord]:
    """Return what the collection holds, by path; refuse one that the ingestion would refuse."""
    try:
        existing = store.metadata()
    except MissingCollectionError:
        result.note = f"nothing is stored yet: the ingestion makes the collection {store.name!r}"
        return {}
    if existing is None:
        raise StoreError(f"the collection {store.name!r} was made by something else than dits_adapter.")
    asked = {
        "segment_seconds": options.segment_seconds,
        "overlap": options.overlap,
        "tenants": store.tenant is not None,
    }
    existing.model_copy(update=asked).require_same(existing, store.name, store.tenant)
    return {record.path: record for record in store.records()}


def _vectors_of(encoder: str, frames: int | None) -> tuple[int, int | None]:
    """Return the frames of a segment and the width of its vectors, where it is known, by the encoder's config."""
    adapter = find_adapter(encoder)
    if adapter is not None:
        space = read_config(adapter).space
        return frames or space.video.frames or 12, space.video.width
    source = EncoderSource.find(encoder)
    family = DUAL_FAMILIES.get(source.model_type)
    if family is None:
        return frames or 12, None
    config = read_json(source.folder / CONFIG)
    return frames or _number(config, family.clip_frames) or 12, _number(config, family.width)


def _number(config: Any, path: str) -> int | None:
    """Return an integer at a path of keys (`vision_config.num_frames`); None where it is left to the default."""
    for key in path.split("."):
        config = config.get(key) if isinstance(config, dict) else None
    return config if isinstance(config, int) else None
