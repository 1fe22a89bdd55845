"""Report of a run that wrote to a file of pairs."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dits_adapter._reprs import shown_repr
from dits_adapter._wording import counted, failed_files, printable
from dits_adapter.sources._writer import settled

__all__ = ["PairsReport", "PairsSample"]

_OF_A_SOURCE = 3
"""Lines of each source that are shown."""

_SHOWN_TEXTS, _SHOWN_CHARACTERS = 2, 100


@dataclass
class PairsSample:
    """Content of a pairs file: counts by source, and some lines of each, drawn at random.

    Attributes:
        texts, lines: numbers by source; lines without one are `human`.
        shown: the drawn lines by source.
    """

    texts: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    shown: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    __repr__ = shown_repr

    @classmethod
    def of(cls, path: Path, seed: int = 0) -> PairsSample:
        """Read a pairs file through; the same file and seed give the same sample."""
        sample, generator = cls(), random.Random(seed)
        for line in settled(path):
            source = str(line.get("source") or "human")
            texts = line.get("text")
            sample.texts[source] += len(texts) if isinstance(texts, list) else 1
            sample.lines[source] += 1
            kept = sample.shown.setdefault(source, [])
            place = generator.randrange(sample.lines[source])  # a reservoir: each line is as likely as any other
            if len(kept) < _OF_A_SOURCE:
                kept.append(line)
            elif place < _OF_A_SOURCE:
                kept[place] = line
        return sample

    def __str__(self) -> str:
        rows = []
        for source, lines in sorted(self.shown.items()):
            texts, number = counted(self.texts[source], "text"), counted(self.lines[source], "line")
            rows.append(f"{source}: {texts} in {number}, such as")
            rows += [f"  {printable(_shown(line))}" for line in lines]
        return "\n".join(rows)


def _shown(line: dict[str, Any]) -> str:
    """Return a line of pairs as people read it: video, span, texts and confidence."""
    texts = line.get("text")
    texts = texts if isinstance(texts, list) else [texts]
    said = " · ".join(_cut(str(text)) for text in texts[:_SHOWN_TEXTS])
    more = f" (and {len(texts) - _SHOWN_TEXTS} more)" if len(texts) > _SHOWN_TEXTS else ""
    span = f" [{line['start']:g} to {line['end']:g} s]" if "start" in line and "end" in line else ""
    sure = f" (confidence {line['confidence']:g})" if "confidence" in line else ""
    return f"{line.get('video', line.get('id'))}{span}: {said}{more}{sure}"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


@dataclass
class PairsReport:
    """Report of one run, by video.

    Attributes:
        path: the pairs file.
        videos, texts: numbers of videos with new texts, and of those.
        present: number of videos that were done by an earlier run and have not changed since.
        without_texts: number of videos that were gone through without finding a text.
        left_out: number of texts that were not taken, by reason.
        failed: files that could not be read, and why.
        failed_before: number of failed files that failed in an earlier run and were not tried again.
        ignored: files that were not taken for videos, and why.
        seconds: duration of the run.
    """

    path: Path
    videos: int = 0
    texts: int = 0
    present: int = 0
    without_texts: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)
    failed_before: int = 0
    ignored: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    __repr__ = shown_repr

    def __str__(self) -> str:
        lines = [
            f"found    {counted(self.texts, 'text')} of {counted(self.videos, 'video')} in {self.seconds:.1f} s"
        ]
        if self.present:
            lines.append(f"present  {counted(self.present, 'video')}, done by an earlier run")
        if self.without_texts:
            lines.append(
                f"without  {counted(self.without_texts, 'video has', 'videos have')} no text of this kind"
            )
        if self.left_out:
            lines.append(f"left out {counted(self.left_out.total(), 'text')}")
            lines += [f"  {count:,} × {printable(reason)}" for reason, count in self.left_out.most_common()]
        return "\n".join([*lines, *failed_files(self.failed, self.failed_before)])
