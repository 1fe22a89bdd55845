"""Options that several commands share, and the objects that they describe."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from dits_adapter._wording import without_password
from dits_adapter.errors import InputError
from dits_adapter.texts import TextCleaning

if TYPE_CHECKING:
    from dits_adapter._embedders import TextEmbedder
    from dits_adapter.encoders.base import TextEncoder
    from dits_adapter.space import EmbeddingSpace
    from dits_adapter.stores.base import VideoStore
    from dits_adapter.stores.qdrant.store import QdrantStore
    from dits_adapter.training.config import BaseRecipe
    from dits_adapter.video.encoder import VideoEncoder
    from dits_adapter.video.limits import DecodeLimits

__all__ = [
    "DEVICES",
    "add_device",
    "add_encoder",
    "add_held_out",
    "add_id_field",
    "add_pairs",
    "add_query",
    "add_recipe",
    "add_settings",
    "add_shard",
    "add_store",
    "add_text_cleaning",
    "add_text_encoder",
    "add_vectors",
    "assignments",
    "chosen_store",
    "declaration",
    "described_space",
    "place_options",
    "qdrant_store",
    "read_recipe",
    "require_store",
    "seconds_of",
    "text_encoder",
    "video_encoder",
]

DEVICES = "where models run: cpu, cuda, cuda:1, mps, …, or auto, the first GPU that there is"
"""Help of the option that chooses a device."""

_R = TypeVar("_R", bound="BaseRecipe")


def add_store(command: Any, default: str | None = "video-index") -> None:
    """Add the options that name a collection."""
    command.add_argument(
        "--store",
        default=default,
        metavar="STORE",
        help="a folder, a Qdrant server's URL (key: QDRANT_API_KEY in the environment), or the address of another "
        "database: lancedb://FOLDER, postgresql://USER@HOST/DATABASE, milvus://HOST (docs/stores.md)"
        + (" (default: %(default)s)" if default else ""),
    )
    command.add_argument(
        "--collection", default="videos", metavar="NAME", help="in the store, or an alias (default: %(default)s)"
    )
    command.add_argument("--tenant", metavar="NAME", help="whose videos, in a collection that keeps tenants apart")
    command.add_argument(
        "--patience",
        type=float,
        metavar="S",
        help="seconds for which a request to a server that is away, overloaded or silent is repeated "
        "(default: of Qdrant 120, 3 for a search; of PostgreSQL 30)",
    )


def add_vectors(command: Any, encoder: str) -> None:
    """Add the options that choose the vectors of a collection; `encoder` says whose they are, for the help."""
    command.add_argument(
        "--vector",
        metavar="NAME",
        help='the pooled vector in a Qdrant collection that was not adopted; "" is the unnamed one',
    )
    command.add_argument(
        "--trust-foreign",
        action="store_true",
        help=f"read a collection that another program made, whose vectors you know to be of {encoder}",
    )


def add_id_field(command: Any) -> None:
    """Add the option that chooses the values that ids of videos are."""
    command.add_argument(
        "--id-field",
        metavar="FIELD",
        help='payload field or column with the ID; "" is the id of the segment itself (default: the one that has '
        "the most of the ids)",
    )


def require_store(args: argparse.Namespace) -> None:
    """Refuse options of a collection and of the choice among its vectors, where `--store` names none.

    Raises:
        InputError: naming the first.
    """
    chosen = {
        "--id-field": args.id_field,
        "--vector": args.vector,
        "--trust-foreign": args.trust_foreign or None,
        "--tenant": args.tenant,
        "--patience": args.patience,
    }
    unused = [option for option, value in chosen.items() if value is not None]
    if args.store is None and unused:
        raise InputError(f"{unused[0]} is for vectors of a collection; name its --store, or leave it out.")


def add_shard(command: Any, what: str) -> None:
    """Add the option that chooses one machine's part of the work; `what` says where it goes, for the help."""
    command.add_argument("--shard", type=_shard, metavar="I/N", help=f"the I-th of N equal parts alone, {what}")


def _shard(text: str) -> tuple[int, int]:
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text} is not I/N, with I from 1 to N, as in 3/8")
    return int(number), int(of)


def add_query(command: Any) -> None:
    """Add the options that choose the adapter of the queries and the vectors that they are compared with."""
    command.add_argument(
        "--adapter", default="demo-dits", metavar="ID", help="folder or hub id (default: %(default)s, bundled)"
    )
    command.add_argument(
        "--videos",
        metavar="ID",
        help="encoder of the videos, for an --adapter that is an encoder of texts alone, in the space of that one",
    )
    add_text_cleaning(command)
    add_device(command)
    add_vectors(command, "the adapter's CLIP")


def add_text_cleaning(command: Any) -> None:
    """Add the option that chooses the cleaning of texts, for encoders without an adapter that says it."""
    command.add_argument(
        "--text-cleaning",
        choices=get_args(TextCleaning),
        help="clip: clean texts as OpenAI's CLIP and open_clip do (default: as the adapter's space says, or none)",
    )


def chosen_store(args: argparse.Namespace, space: EmbeddingSpace | None = None) -> VideoStore:
    """Open the collection that the options of `add_store` and, where the command has them, `add_vectors` name.

    Args:
        args: the parsed command line. Options that were not given are left to the store.
        space: the embedding space of the queries.
    """
    from dits_adapter.stores.metadata import PointLayout
    from dits_adapter.stores.open import open_store

    vector = getattr(args, "vector", None)
    options = {
        "space": space,
        "tenant": args.tenant,
        "patience": args.patience,
        "layout": None if vector is None else PointLayout(vector=vector),
        "trust_foreign": getattr(args, "trust_foreign", False) or None,
    }
    chosen = {name: value for name, value in options.items() if value is not None}
    return open_store(args.store, args.collection, **chosen)


def place_options(args: argparse.Namespace) -> str:
    """Return options that name the collection of `args` to another command: quoted, and without a password."""
    named = {"store": without_password(args.store), "collection": args.collection, "tenant": args.tenant}
    return " ".join(f"--{name} {shlex.quote(value)}" for name, value in named.items() if value is not None)


def qdrant_store(args: argparse.Namespace, space: EmbeddingSpace | None = None) -> QdrantStore:
    """Open the collection as `chosen_store` does, for a command that only Qdrant can answer.

    Raises:
        InputError: `--store` is of another database.
    """
    return _require_qdrant(args, chosen_store(args, space))


def _require_qdrant(args: argparse.Namespace, store: VideoStore) -> QdrantStore:
    """Return the opened store as one of Qdrant.

    Raises:
        InputError: `--store` is of another database.
    """
    from dits_adapter.stores.qdrant.store import QdrantStore

    if not isinstance(store, QdrantStore):
        raise InputError(
            f"--store {without_password(args.store)}: `dits-adapter {args.command}` works with Qdrant alone."
        )
    return store


def add_encoder(command: Any, *, default: str | None = None, declared: bool = False) -> None:
    """Add the options that choose the encoder of videos; without a default `--encoder` is required.

    With `declared`, its value may be one that `declaration` knows.
    """
    command.add_argument(
        "--encoder",
        default=default,
        required=default is None,
        metavar="ID",
        help="folder or hub id of a CLIP or another encoder, or of an adapter for one "
        + ("(demo-clip is bundled)" if default is None else "(default: %(default)s, bundled)")
        + ("; declared:PROVIDER/MODEL@VERSION for one that cannot be loaded" if declared else ""),
    )
    command.add_argument(
        "--frames", type=int, metavar="N", help="frames of a segment or a video (default: the adapter's, or 12)"
    )


def add_text_encoder(command: Any, *, declared: bool = False) -> None:
    """Add the options that choose another encoder of texts than that of the videos."""
    command.add_argument(
        "--text-encoder",
        metavar="ID",
        help="encoder of the texts, where it is another one than that of the videos, to which an adapter leads"
        + ("; may be declared as well" if declared else ""),
    )
    command.add_argument(
        "--shared-space",
        action="store_true",
        help="the texts of --text-encoder lie in the space of the videos nevertheless, as those of "
        "clip-ViT-B-32-multilingual-v1 in that of clip-ViT-B-32",
    )


def declaration(encoder: str) -> str | None:
    """Return PROVIDER/MODEL@VERSION of declared:PROVIDER/MODEL@VERSION; None for an encoder to be loaded."""
    prefix, declared, name = encoder.partition("declared:")
    return name if declared and not prefix else None


def text_encoder(args: argparse.Namespace) -> TextEncoder | None:
    """Load the encoder that `--text-encoder` names; None where none is to be loaded.

    Raises:
        InputError: `--shared-space` without it.
    """
    from dits_adapter.encoders.base import load_text_encoder

    if args.shared_space and args.text_encoder is None:
        raise InputError("--shared-space: is said of the texts of --text-encoder, which is not given.")
    if args.text_encoder is None or declaration(args.text_encoder) is not None:
        return None
    return load_text_encoder(args.text_encoder, device=args.device, text_cleaning=args.text_cleaning or "none")


def described_space(
    args: argparse.Namespace, widths: tuple[int, int], encoder: VideoEncoder | None = None
) -> tuple[EmbeddingSpace, TextEmbedder | None]:
    """Describe the space that the options of `add_encoder` and `add_text_encoder` name.

    Args:
        args: the parsed command line.
        widths: dimensions of the vectors of texts and of videos, for encoders that are declared.
        encoder: that of `--encoder`, where it was loaded before.

    Returns:
        The space, and the encoder of its texts if it was loaded.

    Raises:
        InputError: `--text-cleaning` of texts whose encoder is declared; and as `text_encoder`.
    """
    from dits_adapter.sides import TextSide, VideoSide
    from dits_adapter.space import EmbeddingSpace

    of_videos = declaration(args.encoder)
    of_texts = of_videos if args.text_encoder is None else declaration(args.text_encoder)
    if of_texts is not None and args.text_cleaning is not None:
        raise InputError(f"--text-cleaning: {of_texts} is declared and embeds nothing here; leave the option out.")
    texts: TextEmbedder | None = text_encoder(args)
    if of_videos is None:
        encoder = encoder or video_encoder(args)
        video = encoder.space.video
        texts = encoder.encoder if args.text_encoder is None else texts
    else:
        video = VideoSide.declare(of_videos, widths[1], pooling="encoder", frames=args.frames)
    text = TextSide.declare(of_texts or "", widths[0]) if texts is None else TextSide.of(texts)
    shared = args.text_encoder is None or args.shared_space
    return EmbeddingSpace.join(text, video, shared=shared), texts


def video_encoder(args: argparse.Namespace, limits: DecodeLimits | None = None) -> VideoEncoder:
    """Load the encoder that the options of `add_encoder` name, with those of other helpers if there are."""
    from dits_adapter.video.encoder import VideoEncoder

    return VideoEncoder.from_pretrained(
        args.encoder,
        frames=args.frames,
        device=args.device,
        limits=limits,
        text_cleaning=getattr(args, "text_cleaning", None),
    )


def add_device(command: Any) -> None:
    """Add the option that chooses where torch computes."""
    command.add_argument("--device", default="auto", metavar="DEVICE", help=f"{DEVICES} (default: %(default)s)")


def add_pairs(command: Any, help: str = "cached pairs: `dits-adapter embed`") -> None:
    """Add the positional argument `pairs`, a cache of text and video vectors."""
    command.add_argument("pairs", type=Path, metavar="CACHE", help=help)


def add_held_out(command: Any) -> None:
    """Add the options of what a training holds out to measure on."""
    command.add_argument("--test", type=Path, metavar="CACHE", help="held-out pairs (default: a part of CACHE)")
    command.add_argument(
        "--test-fraction", type=float, default=0.1, metavar="F", help="of the videos (default: %(default)s)"
    )


def add_recipe(command: Any, preset: str, example: str) -> None:
    """Add the options that `read_recipe` reads."""
    command.add_argument("--preset", default=preset, help="the recipe to start from (default: %(default)s)")
    command.add_argument("--config", type=Path, metavar="FILE.yaml", help="fields that differ from the preset")
    add_settings(command, f"one field that differs: {example}")


def read_recipe(kind: type[_R], args: argparse.Namespace) -> _R:
    """Build the recipe that the options of `add_recipe` describe.

    Raises:
        InputError: a setting without an equals sign, an unknown preset, field or value.
    """
    return kind.read(args.preset, args.config, assignments("--set", args.set))


def add_settings(command: Any, fields: str) -> None:
    """Add `--set`, whose values `assignments` splits; `fields` lists the names that can be set, for the help."""
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help=f"{fields}; may be repeated"
    )


def assignments(option: str, values: Sequence[str]) -> dict[str, str]:
    """Split the NAME=VALUE arguments of an option.

    Raises:
        InputError: one without an equals sign.
    """
    for assignment in values:
        if "=" not in assignment:
            raise InputError(f"{option} {assignment}: write NAME=VALUE.")
    return dict(assignment.split("=", 1) for assignment in values)


def seconds_of(option: str, time: str) -> float:
    """Return the seconds of an option's 90s, 30m or 2h.

    Raises:
        InputError: something else, or no time at all.
    """
    try:
        seconds = float(time[:-1]) * {"s": 1, "m": 60, "h": 3600}[time[-1:]]
    except (ValueError, KeyError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InputError(f"{option} {time}: is no time; write 90s, 30m or 2h.")
    return seconds
