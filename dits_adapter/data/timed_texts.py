"""Texts of files of pairs, with their times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from os import PathLike

from dits_adapter.data.pairs_file import PairsFile
from dits_adapter.stores.attaching import TimedText

__all__ = ["timed_texts"]


def timed_texts(
    files: str | PathLike[str] | PairsFile | Iterable[str | PathLike[str] | PairsFile],
) -> Iterator[TimedText]:
    """Yield the texts of files of pairs, as `attach_texts` puts them beside the segments of a collection.

    Args:
        files: files as `find_pairs` writes them, one or several; or `PairsFile`s, opened with `files=False`, as
            their videos are looked for in the collection.

    Raises:
        InputError: a file that cannot be read, or a bad line, by its number.
    """
    for given in [files] if isinstance(files, str | PathLike | PairsFile) else files:
        file = given if isinstance(given, PairsFile) else PairsFile(given, files=False)
        videos = {video.number: video for video in file.iter_videos()}
        for text in file.iter_texts():
            start, end = videos[text.video].span or (None, None)
            yield TimedText(videos[text.video].path, text.text, start, end)
