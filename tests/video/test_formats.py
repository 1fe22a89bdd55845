"""The suffixes of video files."""

from pathlib import Path

import av
import numpy as np
import pytest

from dits_adapter.video._formats import VIDEO_SUFFIXES
from dits_adapter.video.decode import decode_frames

CODECS = {
    ".flv": "flv",
    ".ogv": "libtheora",
    ".webm": "libvpx",
    ".wmv": "wmv2",
    **dict.fromkeys((".m2ts", ".mpeg", ".mpg", ".mts", ".mxf", ".ts", ".vob"), "mpeg2video"),
}


@pytest.mark.parametrize("suffix", sorted(VIDEO_SUFFIXES))
def test_a_file_of_every_suffix_can_be_decoded(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    codec = CODECS.get(suffix, "mpeg4")
    try:
        av.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this build of PyAV does not write {codec}")
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 352, 288, "yuv420p"
        for level in range(0, 240, 20):
            picture = av.VideoFrame.from_ndarray(np.full((288, 352, 3), level, np.uint8))
            file.mux(stream.encode(picture))
        file.mux(stream.encode(None))

    decoded = decode_frames(path, n=3)

    assert decoded.frames.shape == (3, 288, 352, 3)
    np.testing.assert_allclose(decoded.frames.mean(axis=(1, 2, 3)), [40, 120, 200], atol=12)


def test_suffixes_are_lower_case_and_keep_their_dot() -> None:
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in VIDEO_SUFFIXES)
