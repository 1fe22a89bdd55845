"""Report of a run that filled a cache."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from dits_adapter._reprs import shown_repr
from dits_adapter._wording import counted, printable
from dits_adapter.data._cache_index import KINDS, read_index
from dits_adapter.data.cache import EmbeddingCache, FailedVideo

__all__ = ["EmbedReport"]


@dataclass(frozen=True)
class EmbedReport:
    """Contents of a cache, and the part of it that one run added.

    Attributes:
        texts, videos: in the cache.
        new_texts, new_videos: added by this run.
        skipped_texts: texts whose video failed; in one of several shards it is not known, and 0.
        failures: videos without vectors.
        sources: number of texts of each source; empty where all are of people, and in one of several shards.
        text_seconds, video_seconds: duration of this run's texts and videos.
    """

    texts: int
    videos: int
    new_texts: int
    new_videos: int
    skipped_texts: int
    failures: list[FailedVideo]
    sources: dict[str, int]
    text_seconds: float
    video_seconds: float

    __repr__ = shown_repr

    @classmethod
    def of(
        cls,
        folder: str | PathLike[str],
        new_texts: int,
        new_videos: int,
        text_seconds: float,
        video_seconds: float,
    ) -> EmbedReport:
        """Describe a cache, which may be the shards of one machine, and the run that wrote to it last."""
        index = read_index(Path(folder))
        whole = not any(index.section(kind).missing() for kind in KINDS)
        cache = EmbeddingCache(folder) if whole else None
        texts = sum(shard.rows for shard in index.texts.shards.values())
        return cls(
            texts=texts if cache is None else len(cache.text),
            videos=sum(shard.rows for shard in index.videos.shards.values()),
            new_texts=new_texts,
            new_videos=new_videos,
            skipped_texts=0 if cache is None else texts - len(cache.text),
            failures=index.failures,
            sources={} if cache is None or cache.marks is None else cache.marks.counts(),
            text_seconds=text_seconds,
            video_seconds=video_seconds,
        )

    def __str__(self) -> str:
        lines = []
        for name, count, new, seconds in (
            ("texts ", self.texts + self.skipped_texts, self.new_texts, self.text_seconds),
            ("videos", self.videos, self.new_videos, self.video_seconds),
        ):
            rate = f" in {seconds:.1f} s ({new / seconds:,.1f} a second)" if new else ""
            lines.append(f"{name}  {count:,}, {new:,} of them new{rate}")
        if self.sources:
            lines.append(
                f"texts by source  {', '.join(f'{count:,} {name}' for name, count in self.sources.items())}"
            )
        if self.failures:
            texts = f", with {counted(self.skipped_texts, 'text')} left out" if self.skipped_texts else ""
            lines.append(
                f"failed  {counted(len(self.failures), 'video')}{texts}; what is mended, `embed` with "
                "--retry-failed, or the same `import` again, adds"
            )
            lines += [f"  {printable(failed.id)}: {printable(failed.reason)}" for failed in self.failures]
        return "\n".join(lines)
