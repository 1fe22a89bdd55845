"""Retrieval datasets: origin, annotation files and the reading of queries."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, StringConstraints, model_validator

from dits_adapter._files import file_identity, sha256
from dits_adapter.data._ids import match_id, without_suffix
from dits_adapter.errors import DITSError, InputError
from dits_adapter.video._formats import VIDEO_SUFFIXES

__all__ = ["Dataset", "File", "Layout", "Query", "RetrievalSplit", "Split", "find_videos"]

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


class Query(NamedTuple):
    """Text with the video that it describes."""

    text: str
    video_id: str


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class File(_Frozen):
    """Annotation file.

    Attributes:
        source: source of the file: title, owner and address of the page.
        sha256: digest of the file behind published figures, where known. A file with another digest is read all
            the same, and the difference is reported: a wrong list of test clips looks like a right one.
    """

    source: Text
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None


class Layout(_Frozen):
    """Layout of a split: its files and their numbers of queries and videos.

    Attributes:
        files: names of files, all of which must be present.
        queries: number of texts.
        videos: number of videos that they describe; None where no source states it.
    """

    files: tuple[Text, ...] = Field(min_length=1)
    queries: PositiveInt
    videos: PositiveInt | None


class Split(_Frozen):
    """Split of a dataset.

    Attributes:
        layouts: layouts in use; the first whose files are all present is read.
        note: caution about the figures of this split.
    """

    layouts: tuple[Layout, ...] = Field(min_length=1)
    note: str = ""


class Dataset(_Frozen):
    """Text-video retrieval dataset.

    Attributes:
        name: on the command line.
        title, owner, url: full name, owner, and official page if there is one.
        license: license of annotations and of videos.
        citation: BibTeX; empty where there is nothing to cite.
        text: field of the annotation that is the query.
        captions: number of texts of a video, and their scoring.
        span: (start, end) in seconds of the part of each video that counts; None for the whole video.
        videos: source of the videos and names of their files.
        files: annotation files by name.
        splits: splits by name; `train` and `test` always exist, `val` where the dataset has one.
        read: function from a split's name and its files (by name) to queries.
        make: function that writes the files of a split, annotation and videos, into a root; existing files stay.
            None for a dataset that has to be downloaded.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z]+$")]
    title: Text
    owner: Text
    url: Annotated[str, StringConstraints(pattern=r"^https?://\S+$")] | None = None
    license: Text
    citation: Annotated[str, StringConstraints(pattern=r"^$|^@\w+\{", strip_whitespace=True)] = ""
    text: Text
    captions: Text
    span: tuple[float, PositiveFloat] | None = None
    videos: Text
    files: dict[str, File]
    splits: dict[str, Split]
    read: Callable[[str, Mapping[str, Path]], Iterator[Query]]
    make: Callable[[str, Path], object] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Dataset:
        named = {name for split in self.splits.values() for layout in split.layouts for name in layout.files}
        if named != set(self.files):
            raise ValueError(f"files and the splits' layouts differ in {sorted(named ^ set(self.files))}")
        if self.make is None and not (self.url and self.citation):
            raise ValueError("a dataset that has to be downloaded needs url and citation")
        if not {"train", "test"} <= set(self.splits):
            raise ValueError("train and test are splits of every dataset")
        if self.span is not None and not 0 <= self.span[0] < self.span[1]:
            raise ValueError(f"span {self.span} is no interval")
        return self

    def load(self, root: Path, split: str, videos: Path | None = None) -> RetrievalSplit:
        """Read a split.

        Args:
            root: folder of the annotation files; they may lie one folder deeper.
            split: a key of `splits`.
            videos: folder under which the videos lie, however deep; by default `root`.

        Raises:
            InputError: no such split, or `root` is no folder.
            DITSError: files of the split are missing (the message says where to get them).
            UserFileError: a file is malformed.
        """
        if split not in self.splits:
            raise InputError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}")
        layout, paths = self._complete_layout(root, split)
        queries = list(self.read(split, paths))
        names = dict.fromkeys(query.video_id for query in queries)
        paths_by_id = find_videos(videos or root, {*names, *filter(None, map(without_suffix, names))})
        id_of = _one_id_each(names, paths_by_id)
        ids = list(dict.fromkeys(id_of.values()))
        place = {video_id: index for index, video_id in enumerate(ids)}
        deviations = [
            f"{name} is another file than the published one (sha256 {digest[:12]}… instead of {known[:12]}…)"
            for name, path in paths.items()
            if (known := self.files[name].sha256) and (digest := sha256(path)) != known
        ]
        if (len(queries), len(ids)) != (layout.queries, layout.videos or len(ids)):
            published = f"{layout.queries:,}" + (f" over {layout.videos:,}" if layout.videos else "")
            deviations.append(f"{len(queries):,} queries over {len(ids):,} videos instead of {published}")
        return RetrievalSplit(
            name=f"{self.name} {split}",
            texts=tuple(query.text for query in queries),
            labels=np.array([place[id_of[query.video_id]] for query in queries], dtype=np.int64),
            video_ids=tuple(ids),
            paths=tuple(paths_by_id.get(video_id) for video_id in ids),
            deviations=tuple(deviations),
        )

    def check(self, root: Path, videos: Path | None = None) -> str:
        """Report which files are present, which are missing and where to get them, split by split. Opens no video.

        Raises:
            InputError: `root` is no folder.
        """
        self._demand_folder(root)
        report = [
            f"{self.title}, {self.owner}" + (f": {self.url}" if self.url else ""),
            f"  license: {self.license}",
            f"  videos: {self.videos}",
        ]
        for name, split in self.splits.items():
            try:
                loaded = self.load(root, name, videos)
            except DITSError as error:
                report.append(f"  {name}: NOT READY. {error}")
                continue
            missing = [i for i, path in zip(loaded.video_ids, loaded.paths, strict=True) if path is None]
            present = len(loaded.video_ids) - len(missing)
            report.append(
                f"  {name}: {len(loaded.texts):,} queries over {len(loaded.video_ids):,} videos, {present:,} found"
            )
            if missing:
                more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
                report.append(f"    not found: {', '.join(missing[:3])}{more}")
            report += [f"    {deviation}" for deviation in loaded.deviations]
            if split.note:
                report.append(f"    {split.note}")
        return "\n".join(report)

    def _demand_folder(self, root: Path) -> None:
        if not root.is_dir():
            raise InputError(f"{root} is no folder; give the one that holds the annotation files of {self.title}")

    def _complete_layout(self, root: Path, split: str) -> tuple[Layout, dict[str, Path]]:
        """Return the split's first layout whose files are all present, and their paths by name."""
        self._demand_folder(root)
        layouts = self.splits[split].layouts
        located = {name: _locate(root, name) for layout in layouts for name in layout.files}
        for layout in layouts:
            paths = {name: path for name in layout.files if (path := located[name])}
            if len(paths) == len(layout.files):
                return layout, paths
        nearest = min(layouts, key=lambda layout: sum(located[name] is None for name in layout.files))
        missing = [f"{name} ({self.files[name].source})" for name in nearest.files if not located[name]]
        others = [" + ".join(layout.files) for layout in layouts if layout is not nearest]
        raise DITSError(
            f"missing from {root}: {'; '.join(missing)}"
            + (f". Instead also: {', or '.join(others)}" if others else "")
        )


@dataclass(frozen=True)
class RetrievalSplit:
    """Texts and videos of a split.

    Attributes:
        name: dataset and split.
        texts: the n queries.
        labels: (n,) int64, the place in `video_ids` of each text's video. Scorers never get to see it.
        video_ids: the m videos, each once, in the order of their first text.
        paths: (m,) the videos' files; None for one that was not found.
        deviations: differences from the published split; figures compare with the papers only where there are
            none.
    """

    name: str
    texts: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    video_ids: tuple[str, ...]
    paths: tuple[Path | None, ...]
    deviations: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[tuple[str, str, Path | None]]:
        """Yield (text, video id, path or None) query by query."""
        for text, column in zip(self.texts, self.labels, strict=True):
            yield text, self.video_ids[column], self.paths[column]


def find_videos(folder: Path, video_ids: Collection[str]) -> dict[str, Path]:
    """Find the files named `<video id>.<suffix>` anywhere under a folder, through links too.

    Raises:
        DITSError: two files have the id of one video.
    """
    known = set(video_ids)
    paths: dict[str, Path] = {}
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        if (place := os.path.realpath(parent)) in seen:  # a link back up, or the same folder linked twice
            folders.clear()
            continue
        seen.add(place)
        for name in names:
            stem, dot, suffix = name.rpartition(".")
            # A few files of DiDeMo end in a bare dot.
            if not dot or stem not in known or (suffix and f".{suffix.lower()}" not in VIDEO_SUFFIXES):
                continue
            path = Path(parent, name)
            if stem in paths and file_identity(paths[stem]) != file_identity(path):
                raise DITSError(
                    f"video {stem} is there twice, {paths[stem]} and {path}; give one folder of videos"
                )
            paths.setdefault(stem, path)
    return paths


def _one_id_each(names: Iterable[str], paths: Mapping[str, Path]) -> dict[str, str]:
    """Return the id of each name: that of its file, however the name or the file's other names are written."""
    ids: dict[str, str] = {}
    of_file: dict[tuple[int, int], str] = {}
    for name in names:
        video_id = match_id(name, paths) or name
        file = file_identity(paths[video_id]) if video_id in paths else None
        ids[name] = video_id if file is None else of_file.setdefault(file, video_id)
    return ids


def _locate(root: Path, name: str) -> Path | None:
    """Find a file in a folder or one folder deeper."""
    if (root / name).is_file():
        return root / name
    deeper = [path for path in root.glob(f"*/{name}") if path.is_file()]
    if len(deeper) > 1:
        raise DITSError(f"{name} is there twice, {deeper[0]} and {deeper[1]}; give one folder of annotation")
    return deeper[0] if deeper else None
