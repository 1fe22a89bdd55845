"""Ways of `dits-adapter pairs` that run a model: speech recognition and captions."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dits_adapter.cli._options import DEVICES
from dits_adapter.errors import InputError

if TYPE_CHECKING:
    from dits_adapter.sources.filter import FilterReport
    from dits_adapter.sources.report import PairsReport

__all__ = ["add_filter", "add_machine_options", "run_captions", "run_filter", "run_speech"]

_BATCH = 8
"""Windows of sound, or frames, that a model takes at a time."""


def add_machine_options(command: Any, add: Callable[..., None]) -> None:
    """Add the options of speech and captions; `add` notes which ways an option is for."""
    models = command.add_argument_group("models", "for --from speech and --from captions, and --encoder")
    both, captions = ("speech", "captions"), ("captions",)
    add(
        both,
        models,
        "--model",
        metavar="ID",
        help="folder or hub id: a Whisper or a CTC model for speech, an image-text model for captions",
    )
    add(("text", *both), models, "--device", metavar="DEVICE", help=f"{DEVICES} (default: auto)")
    add(both, models, "--batch-size", type=int, metavar="N", help=f"inputs at a time (default: {_BATCH})")
    add(captions, models, "--frames", type=int, metavar="N", help="frames that the model sees (default: 3)")
    add(captions, models, "--prompt", help="what the model is asked (default: as its kind needs it)")
    add(
        captions,
        models,
        "--rewrite",
        metavar="ID",
        help="chat model that makes queries of captions",
    )


def add_filter(command: Any, add: Callable[..., None]) -> None:
    """Add the option that deletes found texts that do not fit their video."""
    add(
        ("text", "speech", "captions"),
        command,
        "--encoder",
        metavar="ID",
        help="your encoder: delete found texts that, by its vectors, fit other videos as well as their own",
    )


def run_filter(args: argparse.Namespace) -> FilterReport:
    """Filter the pairs file by the encoder."""
    from dits_adapter.sources.filter import filter_pairs
    from dits_adapter.video.encoder import VideoEncoder

    encoder = VideoEncoder.from_pretrained(args.encoder, device=args.device or "auto")
    return filter_pairs(args.out, encoder)


def run_speech(args: argparse.Namespace) -> PairsReport:
    """Recognize speech, and write what is said."""
    from dits_adapter.sources.find import find_pairs
    from dits_adapter.sources.speech import SpeechFinder, load_recognizer

    model = _model(args, "openai/whisper-tiny")
    batch = _batch(args)
    recognizer = load_recognizer(model, language=args.language, device=args.device or "auto")
    finder = SpeechFinder(recognizer, segment_seconds=args.segment_seconds, batch_size=batch)
    return find_pairs(args.sources, args.out, finder, retry_failed=args.retry_failed)


def run_captions(args: argparse.Namespace) -> PairsReport:
    """Describe frames, and write the captions and the queries that are made of them."""
    from dits_adapter.sources.captions import CaptionFinder, load_captioner
    from dits_adapter.sources.find import find_pairs
    from dits_adapter.sources.rewrite import Rewriter

    model = _model(args, "Salesforce/blip-image-captioning-large")
    device, batch = args.device or "auto", _batch(args)
    frames = 3 if args.frames is None else args.frames
    captioner = load_captioner(model, prompt=args.prompt, batch_size=batch, device=device)
    rewriter = None if args.rewrite is None else Rewriter(args.rewrite, batch_size=batch, device=device)
    finder = CaptionFinder(captioner, segment_seconds=args.segment_seconds, frames=frames, rewriter=rewriter)
    return find_pairs(args.sources, args.out, finder, retry_failed=args.retry_failed)


def _model(args: argparse.Namespace, example: str) -> str:
    if args.model is None:
        raise InputError(f"--from {args.way} runs a model; name it: --model {example}, or another one like it.")
    return str(args.model)


def _batch(args: argparse.Namespace) -> int:
    """Return the size of a batch. Raises `InputError`: below 1."""
    size = _BATCH if args.batch_size is None else int(args.batch_size)
    if size < 1:
        raise InputError(f"--batch-size is {size}; expected at least 1.")
    return size
