"""`FrameDecoder`: single frames of videos as pictures, by workers of its own."""

from __future__ import annotations

import asyncio
import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image
from starlette.exceptions import HTTPException

from dits_adapter.video.decode import Video

__all__ = ["FileVersion", "FrameDecoder"]

_SIZE = (480, 360)

_WORKERS = 2
"""Frames decoded at a time: each may hold a large video's decoder."""

_MOST_REQUESTS = 100
"""Requests for frames that are answered or wait at a time; a browser has six."""

_CACHED_FRAMES = 4_000_000
"""Frames listed in all indexes that are kept, 16 bytes each: 37 hours at 30 frames a second."""


_RETRY = {"retry-after": "1"}


@dataclass(frozen=True)
class FileVersion:
    """File as it was when it was looked at.

    Attributes:
        path: the file.
        size: its bytes.
        mtime_ns: time of its last change, in nanoseconds.
    """

    path: str
    size: int
    mtime_ns: int


class FrameDecoder:
    """Decoder of single frames for many requests at a time; requests of other kinds do not wait for them.

    The packets of a file are listed once and the list is kept, until other files need the room.
    """

    def __init__(self) -> None:
        self._requests = 0
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="frames")
        self._videos: OrderedDict[FileVersion, Video] = OrderedDict()
        self._guard = threading.Lock()

    def close(self) -> None:
        """Drop the frames that wait for a worker."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def jpeg(self, find: Callable[[], FileVersion], at: float) -> bytes:
        """Return the frame on screen at a moment, as a small JPEG.

        Args:
            find: finds the file; a worker calls it, since it may have to wait for the store.
            at: seconds from the first frame.

        Raises:
            HTTPException: 503, too many frames are asked for; and what `find` raises.
            VideoError: the file gives no such frame.
        """
        with self._place():
            return await asyncio.get_running_loop().run_in_executor(self._workers, self._jpeg, find, at)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Count one request, while it is answered."""
        with self._guard:
            if self._requests >= _MOST_REQUESTS:
                raise HTTPException(503, "too many frames are asked for; try again in a second.", _RETRY)
            self._requests += 1
        try:
            yield
        finally:
            with self._guard:
                self._requests -= 1

    def _jpeg(self, find: Callable[[], FileVersion], at: float) -> bytes:
        with self._video(find()) as video:
            image = Image.fromarray(video.frames_at([at]).frames[0])
        image.thumbnail(_SIZE)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        return buffer.getvalue()

    def _video(self, file: FileVersion) -> Video:
        with self._guard:
            if file in self._videos:
                self._videos.move_to_end(file)
                return self._videos[file].another()
        video = Video(file.path)
        with self._guard:
            self._videos[file] = video
            while sum(round(kept.fps * kept.duration) for kept in self._videos.values()) > _CACHED_FRAMES:
                self._videos.popitem(last=False)
        return video.another()
