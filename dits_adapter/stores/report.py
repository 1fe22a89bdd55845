"""The report of an ingestion."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from dits_adapter._reprs import shown_repr
from dits_adapter._wording import counted, failed_files, printable

__all__ = ["IngestReport"]


@dataclass
class IngestReport:
    """Report of one ingestion, by file.

    Attributes:
        videos: number of videos that were embedded and stored, in `segments` segments.
        present: number of videos that were stored before.
        moved: number of videos that were stored before under a path where they no longer are.
        removed: files that are gone, of which all was deleted (`sync`).
        duplicates: files with the content of another one, which they are mapped to.
        mended: stored files with times that cannot be believed, and how that was made up for.
        failed: files that gave no frames, and why.
        failed_before: number of failed files that failed in an earlier run and were not tried again.
        ignored: files that were not taken for videos, and why.
        without_bias: number of segments that were stored without a score bias, in a collection that has one.
        without_texts: number of segments that were stored without texts, in a collection that has some.
        seconds: duration of the run.
    """

    videos: int = 0
    segments: int = 0
    present: int = 0
    moved: int = 0
    removed: list[str] = field(default_factory=list)
    duplicates: dict[str, str] = field(default_factory=dict)
    mended: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    failed_before: int = 0
    ignored: dict[str, str] = field(default_factory=dict)
    without_bias: int = 0
    without_texts: int = 0
    seconds: float = 0.0

    __repr__ = shown_repr

    def __str__(self) -> str:
        rate = self.videos / self.seconds if self.seconds else 0.0
        lines = [
            f"stored   {counted(self.videos, 'video')}, {counted(self.segments, 'segment')}, {self.seconds:.1f} s "
            f"({rate:.1f} videos/s)",
            f"present  {self.present}",
        ]
        if self.without_bias:
            lines.append(
                f"no bias  {counted(self.without_bias, 'segment')}: searched with the mean bias of the "
                "collection until `dits-adapter bias` is given its bank again"
            )
        if self.without_texts:
            lines.append(
                f"no texts {counted(self.without_texts, 'segment')}: searches of what is said do not find them "
                "until `dits-adapter texts` is given texts of their videos"
            )
        if self.moved:
            lines.append(f"moved    {self.moved}")
        if self.removed:
            lines.append(f"removed  {len(self.removed)}")
            lines += [f"  {printable(path)}: is gone" for path in self.removed]
        if self.duplicates:
            lines.append(f"copies   {len(self.duplicates)}")
            lines += [
                f"  {printable(path)}: same content as {printable(other)}"
                for path, other in self.duplicates.items()
            ]
        if self.ignored:
            kinds = ", ".join(f"{n} × {reason}" for reason, n in Counter(self.ignored.values()).most_common())
            lines.append(f"ignored  {len(self.ignored)} ({kinds})")
        if self.mended:
            lines.append(f"mended   {len(self.mended)}")
            lines += [f"  {printable(path)}: {printable(remark)}" for path, remark in self.mended.items()]
        return "\n".join([*lines, *failed_files(self.failed, self.failed_before)])
