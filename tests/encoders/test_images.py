"""Pictures as queries: what anybody may send, and where one comes to lie."""

from __future__ import annotations

import io
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dits_adapter import DITSQueryEncoder, VideoEncoder
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.backends._pytorch import TorchBackend
from dits_adapter.encoders import _images as images
from dits_adapter.encoders._images import read_image
from dits_adapter.errors import InputError, SpaceMismatchError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.vectors import EmbeddedClips
from tests.encoders.random_projection import RandomProjection

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that claims this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 9000)) + chunk(b"IEND", b"")


def test_pictures_come_upright_in_rgb_and_on_white():
    np.testing.assert_array_equal(read_image(saved(Image.fromarray(NOISE))), NOISE)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned right
    np.testing.assert_array_equal(read_image(saved(Image.fromarray(NOISE), exif=turned)), np.rot90(NOISE, -1))
    half = np.dstack([NOISE, np.full(NOISE.shape[:2], 51, np.uint8)])
    expected = (NOISE.astype(float) * 0.2 + 255 * 0.8).round()
    np.testing.assert_allclose(read_image(saved(Image.fromarray(half))), expected, atol=1)
    gray = Image.fromarray(NOISE[..., 0].astype(np.uint16) * 256 + 77)
    np.testing.assert_array_equal(read_image(saved(gray)), np.repeat(NOISE[..., :1], 3, axis=2))
    turned_gray = saved(gray, exif=turned)
    np.testing.assert_array_equal(read_image(turned_gray), np.rot90(np.repeat(NOISE[..., :1], 3, axis=2), -1))
    for kind in ("JPEG", "WEBP", "BMP", "GIF"):
        assert read_image(saved(Image.fromarray(NOISE), kind)).shape == NOISE.shape


def test_a_telephones_second_picture_does_not_matter():
    """MPO keeps a smaller picture, or one of the other eye, behind the first."""
    two = saved(Image.fromarray(NOISE), "MPO", save_all=True, append_images=[Image.fromarray(255 - NOISE)])
    assert read_image(two).shape == NOISE.shape


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_large_pictures_become_smaller_by_their_mean(monkeypatch, mode):
    monkeypatch.setattr(images, "_KEPT_PIXELS", 600)
    whole = Image.fromarray(NOISE).quantize(200) if mode == "P" else Image.fromarray(NOISE).convert(mode)
    expected = np.asarray(whole.convert("RGB"), float).reshape(20, 2, 30, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(read_image(saved(whole)), expected, atol=1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no format that is read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "(no SVG)"),
        (saved(Image.fromarray(NOISE), "TIFF"), "no format that is read"),
        (saved(Image.fromarray(NOISE))[:300], "the picture is broken"),
        (saved(Image.fromarray(NOISE), "JPEG")[:400], "the picture is broken"),
        (bomb(20_000, 4_000), "20,000 by 4,000 pixels; at most 50,000,000"),
        (bomb(60_000, 60_000), "too many pixels; at most 50,000,000"),
        (bomb(5_000, 5_000), "the picture is broken"),
        (saved(Image.new("1", (1, 10_000))), "1 by 10,000 pixels; its longer side may be 20 times"),
        *(
            (
                saved(Image.fromarray(NOISE), kind, save_all=True, append_images=[Image.fromarray(255 - NOISE)]),
                "the picture is an animation",
            )
            for kind in ("GIF", "PNG", "WEBP")
        ),
    ],
)
def test_what_is_no_picture_is_a_sentence(content, reason):
    with pytest.raises(InputError) as refused:
        read_image(content)
    assert reason in str(refused.value)


def test_a_large_file_is_not_opened(monkeypatch):
    monkeypatch.setattr(images.Image, "open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(InputError, match="8,000,001 bytes; at most 8,000,000"):
        read_image(bytes(8_000_001))


class MeanOfFour(RandomProjection):
    def embed(self, clips, batch_size=96):
        assert {len(clip) for clip in clips} == {4}
        return EmbeddedClips(pooled=np.stack(clips).mean(axis=1) @ self.color)


@pytest.mark.parametrize("name", ["demo-dits", "demo-linear"])
def test_a_picture_lies_where_a_frame_does_whatever_the_adapter_does_to_texts(name):
    videos = VideoEncoder.from_pretrained("demo-clip").encoder
    expected = videos.embed([videos.preprocess([NOISE])]).frames[0, 0]
    encoder = DITSQueryEncoder.from_pretrained(name, backend="torch")
    vector = encoder.encode_image(NOISE)
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-6)
    np.testing.assert_allclose(encoder.encode_image(saved(Image.fromarray(NOISE))), vector, atol=1e-6)
    for wrong in (NOISE[..., 0], NOISE.astype(np.float32), NOISE[:0]):
        with pytest.raises(InputError, match="expected uint8, \\(h, w, 3\\)"):
            encoder.encode_image(wrong)


def test_an_encoder_of_clips_sees_a_picture_that_stands_still_and_one_of_texts_alone_says_so():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(n, 8)).astype(np.float32) for n in (256, 3)]
    one = RandomProjection("one", None, *parts)
    clips = MeanOfFour("clips", None, *parts, clip_frames=4)
    other = RandomProjection("other", None, parts[0], parts[1][::-1].copy())

    def encoder(loaded, of=one):
        plain = Artifact.plain(EmbeddingSpace.of(of))
        return DITSQueryEncoder(TorchBackend(plain, None, device="cpu", encoder=loaded))

    expected = NOISE.mean(axis=(0, 1)) @ parts[1]
    np.testing.assert_allclose(encoder(one).encode_image(NOISE), expected / np.linalg.norm(expected), atol=1e-6)
    np.testing.assert_allclose(
        encoder(clips, clips).encode_image(NOISE), encoder(one).encode_image(NOISE), atol=1e-6
    )
    with pytest.raises(SpaceMismatchError, match="the encoder of the picture"):
        encoder(other).encode_image(NOISE)
    texts = SimpleNamespace(**{name: getattr(one, name) for name in ("name", "embed_texts", "text_digest")})
    with pytest.raises(InputError, match="one embeds texts alone"):
        encoder(texts).encode_image(NOISE)
