"""`dits-adapter adopt`: a collection of another program, described once."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from dits_adapter._wording import without_password
from dits_adapter.cli._options import (
    add_device,
    add_encoder,
    add_store,
    chosen_store,
    declaration,
    place_options,
    video_encoder,
)
from dits_adapter.cli._outcome import Outcome

__all__ = ["add_adopt"]

_FIELDS = {
    "video": "whose values are the videos that points belong to (default: each point is a video)",
    "title": "that hits are shown as",
    "path": "of the file or its address (default: path)",
    "start": "of a segment's start, in seconds (default: start)",
    "end": "of its end (default: end)",
}


def add_adopt(commands: Any) -> None:
    """Add `adopt`."""
    adopt = commands.add_parser(
        "adopt",
        help="describe a collection that another program made",
        examples=(
            "--collection clips --encoder openai/clip-vit-large-patch14 --video-field film_id --title-field title",
        ),
        description="Describe a collection, or a table, that another program made, so that search, serve and "
        "embed need nothing but its name from then on. The description is written into the collection's metadata "
        "or beside the table; no segment is changed. Only the vectors' width can be checked: that they are of the "
        "encoder is up to you.",
    )
    add_store(adopt, default="http://localhost:6333")
    add_encoder(adopt, declared=True)
    add_device(adopt)
    adopt.add_argument(
        "--vector",
        default="",
        metavar="NAME",
        help="the pooled vector of a video, or its column (default: the unnamed one, a table's only one)",
    )
    for field, meaning in _FIELDS.items():
        adopt.add_argument(
            f"--{field}-field",
            metavar="FIELD",
            help=f"payload field, or column, {meaning}; of a nested one, a.b",
        )
    adopt.add_argument(
        "--text-field",
        action="append",
        default=[],
        metavar="FIELD",
        help="payload field, or column, whose words the search page's filter looks for (default: title and path); "
        "may be repeated",
    )
    adopt.set_defaults(run=_adopt)


def _adopt(args: argparse.Namespace) -> Outcome:
    from dits_adapter.space import EmbeddingSpace
    from dits_adapter.stores.adopting import adopt_collection, vector_width
    from dits_adapter.stores.metadata import PointLayout

    fields = {field: getattr(args, f"{field}_field") for field in _FIELDS}
    chosen = {field: name for field, name in fields.items() if name is not None}
    layout = PointLayout(vector=args.vector, texts=tuple(args.text_field), **chosen)
    with chosen_store(args) as store:
        store.metadata()  # before the model is loaded: a wrong store is refused at once
        declared = declaration(args.encoder)
        if declared is None:
            space = video_encoder(args).space.with_frames(args.frames)
        else:
            space = EmbeddingSpace.declare(declared, vector_width(store, args.vector), frames=args.frames)
        adopt_collection(store, space, layout)
    encoder = shlex.quote(args.encoder)
    query = f"TEXT --adapter {encoder}" if declared is None else "--vectors FILE.npy --adapter FOLDER"
    figures = {
        "store": without_password(args.store),
        "collection": args.collection,
        "space": space,
        "layout": layout,
    }
    advice = f"Search it: dits-adapter search {query} " + place_options(args)
    if not fields["title"] and not fields["path"]:
        advice += "\nHits are shown by their field path, or by their ids; --title-field names another one."
    return Outcome(figures, f"{args.collection} is described.", advice)
