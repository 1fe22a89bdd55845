"""Video files of folders, and the identity of their content."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from os import PathLike
from pathlib import Path

from dits_adapter._files import sha256
from dits_adapter.errors import InputError, VideoError
from dits_adapter.stores.report import IngestReport
from dits_adapter.stores.rows import VideoFile, VideoRecord, video_id_of
from dits_adapter.video._formats import VIDEO_SUFFIXES

__all__ = [
    "absolute",
    "find_videos",
    "identify",
    "is_gone",
    "is_unchanged",
    "lies_in",
    "require_paths",
    "stat_video",
]


def find_videos(paths: Iterable[str | PathLike[str]], report: IngestReport) -> list[str]:
    """List the video files of folders, in the same order every time; what is left out goes into the report.

    A folder is searched all the way down, through links too, by extension; hidden files and folders are left out.
    A file that is named itself is taken whatever it is called. A folder without any is warned of: most often
    another one was meant.

    Raises:
        InputError: a path that does not exist.
    """
    videos: dict[str, None] = {}
    roots = absolute(paths)
    require_paths(roots)
    for path in roots:
        if os.path.isdir(path):
            found = dict.fromkeys(_walk(path, report))
            if not found:
                suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
                warnings.warn(
                    f"{path}: no video lies here; files are taken by their suffixes ({suffixes}).", stacklevel=3
                )
            videos.update(found)
        else:
            videos[path] = None
    return list(videos)


def require_paths(paths: Iterable[str | PathLike[str]]) -> None:
    """Refuse folders and files that are not there; called before the work.

    Raises:
        InputError: a path that does not exist.
    """
    for path in absolute(paths):
        if not os.path.lexists(path):
            raise InputError(f"{path}: no such file or folder.")


def _walk(root: str, report: IngestReport) -> Iterator[str]:
    def unreadable(error: OSError) -> None:
        report.failed[_storable(str(error.filename))] = f"cannot be read, nor what is in it ({error.strerror})"

    entered = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=unreadable):
        identity = os.stat(folder)
        if (identity.st_dev, identity.st_ino) in entered:  # links can lead round in a circle
            subfolders.clear()
            continue
        entered.add((identity.st_dev, identity.st_ino))
        for name in sorted(names):
            path = os.path.join(folder, name)
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                report.ignored[_storable(path)] = "hidden"
            elif suffix not in VIDEO_SUFFIXES:
                report.ignored[_storable(path)] = f"no video extension ({_storable(suffix) or 'none'})"
            else:
                yield path
        hidden = [name for name in subfolders if name.startswith(".")]
        report.ignored.update({_storable(os.path.join(folder, name)): "hidden" for name in hidden})
        subfolders[:] = sorted(set(subfolders) - set(hidden))


def _storable(path: str) -> str:
    """Spell bytes that are no UTF-8, which file names may hold and JSON may not, as escapes."""
    return path.encode("utf-8", "backslashreplace").decode()


def identify(path: str) -> VideoFile:
    """Return a file's size and time, and the id of its content, for which all of it is read.

    Raises:
        VideoError: the path is no readable file, or has a name that cannot be stored.
    """
    file = stat_video(path)
    try:
        digest = sha256(Path(path))
    except OSError as error:
        raise VideoError(path, f"cannot be read ({error.strerror})") from error
    return replace(file, video_id=video_id_of(digest))


def stat_video(path: str) -> VideoFile:
    """Return a file's size and time, not yet its content; raises as `identify`."""
    if _storable(path) != path:
        raise VideoError(_storable(path), "has a name that is not valid UTF-8; rename it")
    try:
        status = os.stat(path)
    except OSError as error:
        raise VideoError(path, f"cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(path, "is no regular file but a pipe, a socket or a device")
    return VideoFile(path, status.st_size, status.st_mtime_ns)


def absolute(paths: str | PathLike[str] | Iterable[str | PathLike[str]]) -> list[str]:
    """Return paths, or one of them, as they lead from anywhere."""
    return [os.path.abspath(path) for path in ([paths] if isinstance(paths, (str, PathLike)) else paths)]


def lies_in(path: str, folders: Iterable[str]) -> bool:
    """Return whether an absolute path leads into one of these folders, however deep."""
    return any(path.startswith(os.path.join(folder, "")) for folder in folders)


def is_gone(path: str) -> bool:
    """Return whether there is certainly no such file: one in a folder that cannot be read may be there."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def is_unchanged(file: VideoFile | VideoRecord) -> bool:
    """Return whether the file on disk is still the one that was described."""
    try:
        status = os.stat(file.path)
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (file.size, file.mtime_ns)
