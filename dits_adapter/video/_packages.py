"""The packages that decode video, imported when they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from dits_adapter.errors import DITSError, MissingExtraError

_MODULES = {"pyav": "av", "decord": "decord", "torchcodec": "torchcodec.decoders"}


def load_package(decoder: str) -> Any:
    """Import a decoder's package.

    Raises:
        MissingExtraError: it is not installed.
        DITSError: it is, and does not load.
    """
    try:
        return import_module(_MODULES[decoder])
    except ImportError:
        package = {"pyav": "av", "decord": "decord2"}.get(decoder, decoder)
        extra = "torchcodec" if decoder == "torchcodec" else None
        raise MissingExtraError(package, extra, f"decoding video with {decoder}") from None
    except (OSError, RuntimeError) as error:  # torchcodec without FFmpeg's libraries or with another torch
        raise DITSError(
            f"{decoder} is installed but does not load ({one_line(error)}); choose another decoder."
        ) from error


def one_line(error: BaseException) -> str:
    """Say what a decoder said, without its source locations and line breaks."""
    text = (getattr(error, "strerror", None) or str(error)).strip().splitlines()
    return text[0].rsplit("Check failed:", 1)[-1].strip()[:200] if text else type(error).__name__
