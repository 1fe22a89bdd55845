"""Pictures as queries: read from bytes that anybody may have sent, and embedded as a frame of a video is."""

from __future__ import annotations

import io
import math
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from dits_adapter.encoders.base import Encoder
from dits_adapter.errors import InputError
from dits_adapter.vectors import FloatArray, unit

__all__ = ["IMAGE_BYTES", "embed_image", "read_image"]

IMAGE_BYTES = 8_000_000
"""Largest file of a picture that is read."""

_PIXELS = 50_000_000
"""Most pixels of a picture, which takes up to 400 MB while it is decoded, and 800 MB as WebP."""

_KEPT_PIXELS = 4_000_000
"""Pixels that a larger picture keeps, at least: encoders see a million at most."""

_LONGEST = 20
"""Most of the longer side of a picture, in shorter ones. Encoders make the shorter side their own size before they
crop: of one pixel by ten thousand, which a file of 100 bytes holds, CLIP would make 5 GB."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
"""Formats that are read, by decoders that many programs lean on; Pillow has others that nobody needs here."""


def read_image(content: bytes) -> NDArray[np.uint8]:
    """Read a picture from the bytes of its file, upright and on white where it is transparent: (h, w, 3) RGB.

    The size is read before anything is decoded. Of more than 16 million pixels, squares become one by their mean.

    Raises:
        InputError: too many bytes or pixels, sides that are too unlike, several pictures in one (an animation),
            another format, or a broken file.
    """
    if len(content) > IMAGE_BYTES:
        raise InputError(
            f"the picture has {len(content):,} bytes; at most {IMAGE_BYTES:,} are read. Make it smaller: encoders "
            "see a few hundred pixels."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, whose limit here is lower, and of odd metadata
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                _require_one_small_picture(image)
                return np.array(_on_white(ImageOps.exif_transpose(_shrunk(_in_channels(image)))))
    except UnidentifiedImageError:
        raise InputError(
            f"the picture is in no format that is read; send one of {', '.join(_FORMATS)} (no SVG)."
        ) from None
    except Image.DecompressionBombError:
        raise _too_many_pixels() from None
    except InputError:
        raise
    except Exception as error:  # decoders raise whatever their readers do
        raise InputError(f"the picture is broken ({type(error).__name__}); save it anew, and send that.") from None


def embed_image(encoder: Encoder, image: NDArray[np.uint8]) -> FloatArray:
    """Embed a picture as a frame of a video: a unit vector, (d,).

    An encoder that sees clips as a whole gets a clip in which it stands still, as that of a video of one frame.

    Args:
        encoder: the encoder.
        image: (h, w, 3) RGB.

    Raises:
        InputError: something else than (h, w, 3) uint8.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError(f"the picture is {image.dtype} of shape {image.shape}; expected uint8, (h, w, 3).")
    embedded = encoder.embed([encoder.preprocess([image] * (encoder.clip_frames or 1))])
    vectors = embedded.pooled if embedded.frames is None else embedded.frames[:, 0]
    assert vectors is not None
    return unit(vectors[0])


def _require_one_small_picture(image: Image.Image) -> None:
    if image.width * image.height > _PIXELS:
        raise _too_many_pixels(image)
    if max(image.size) > _LONGEST * min(image.size):
        raise InputError(
            f"the picture is {image.width:,} by {image.height:,} pixels; its longer side may be {_LONGEST} times "
            "the shorter one at most. Cut out the part that is to be looked for."
        )
    # Telephones keep a second, smaller picture beside the first (MPO).
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise InputError("the picture is an animation; send one picture, such as a frame of it.")


def _too_many_pixels(image: Image.Image | None = None) -> InputError:
    size = "too many pixels" if image is None else f"{image.width:,} by {image.height:,} pixels"
    return InputError(
        f"the picture has {size}; at most {_PIXELS:,} in all are read. Make it smaller: encoders see a "
        "few hundred in each direction."
    )


def _in_channels(image: Image.Image) -> Image.Image:
    """Return a picture in RGB, or RGBA where a part of it is transparent."""
    if image.mode.startswith("I"):  # grays of 16 bits, which Pillow would cut off at 255
        gray = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        gray.info = image.info  # with the side that is up
        image = gray
    transparent = "A" in image.getbands() or "transparency" in image.info
    mode = "RGBA" if transparent else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _shrunk(image: Image.Image) -> Image.Image:
    """Return a picture of not many more pixels than are kept, so that what is done next costs little."""
    factor = math.isqrt(image.width * image.height // _KEPT_PIXELS)
    return image.reduce(factor) if factor > 1 else image


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
