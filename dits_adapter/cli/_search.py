"""`dits-adapter search`: videos that a text describes."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dits_adapter.cli._options import add_query, add_store, chosen_store, declaration
from dits_adapter.cli._outcome import Outcome
from dits_adapter.errors import InputError

if TYPE_CHECKING:
    from dits_adapter.answers import Answer
    from dits_adapter.encoder import DITSQueryEncoder
    from dits_adapter.evaluation.calibration import Calibration
    from dits_adapter.stores.base import VideoStore
    from dits_adapter.stores.requests import Hit, SearchRequest
    from dits_adapter.vectors import FloatArray

__all__ = ["add_search"]


def add_search(commands: Any) -> None:
    """Add `search`."""
    search = commands.add_parser(
        "search",
        help="find the videos that a text describes",
        examples=(
            '"a dog catches a ball"',
            '"a dog catches a ball" --adapter my-adapter --min-probability 0.5 --json',
            "--vectors queries.npy --adapter my-adapter",
        ),
        description="Find the videos that a text describes, with an adapter or with plain CLIP.",
    )
    search.add_argument("query", nargs="?", metavar="TEXT", help="what is to be seen, or said, in the video")
    search.add_argument(
        "--vectors",
        type=Path,
        metavar="FILE.npy",
        help="in the place of TEXT: vectors of queries, (n, d), by the adapter's text encoder (not loaded); "
        "without an adapter: --adapter declared:PROVIDER/MODEL@VERSION",
    )
    search.add_argument(
        "--queries", type=Path, metavar="FILE.txt", help="names of the vectors, one a line: their texts, or ids"
    )
    add_store(search)
    add_query(search)
    search.add_argument("--plain", action="store_true", help="the adapter's CLIP without the adapter")
    search.add_argument("--limit", type=int, default=10, metavar="N", help="videos (default: %(default)s)")
    search.add_argument(
        "--per-video", type=int, default=1, metavar="N", help="segments of each (default: %(default)s)"
    )
    search.add_argument("--offset", type=int, default=0, metavar="N", help="best videos to skip: a later page")
    search.add_argument(
        "--rerank",
        choices=("maxsim", "xpool"),
        help="order the best segments by their frames: by the nearest one, or by the X-Pool head of an adapter "
        "that was trained jointly",
    )
    search.add_argument(
        "--candidates", type=int, metavar="N", help="segments to re-rank, of many videos (default: a hundred)"
    )
    search.add_argument(
        "--min-probability",
        type=_probability,
        metavar="P",
        help="least probability that a video is the right one (see `dits-adapter calibrate`)",
    )
    search.add_argument(
        "--answerable",
        type=_probability,
        default=0.5,
        metavar="SHARE",
        help="share of all queries that have their video here, for the probability that any hit is right "
        "(default: %(default)s)",
    )
    search.add_argument(
        "--bias",
        type=float,
        metavar="W",
        help="weight of the collection's score bias, 0 for none (default: as the collection says, for queries of "
        "the adapter that the bias is for)",
    )
    search.add_argument(
        "--lanes",
        nargs="+",
        choices=("seen", "said"),
        default=["seen"],
        metavar="LANE",
        help="what to search: seen, said (the texts that `dits-adapter texts` put beside the videos), or both, "
        "fused by rank (default: seen)",
    )
    search.add_argument("--exact", action="store_true", help="compare with every segment, without the index")
    search.set_defaults(run=_search)


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} does not lie between 0 and 1")
    return value


def _search(args: argparse.Namespace) -> Outcome:
    from dits_adapter.answers import Answer, Judge
    from dits_adapter.encoder import check_queries

    if args.candidates is not None and args.rerank is None:
        raise InputError("--candidates: nothing is re-ranked; choose how to, with --rerank.")
    if (args.query is None) == (args.vectors is None):
        raise InputError("search: give a TEXT, or --vectors FILE.npy; one of them.")
    if args.queries is not None and args.vectors is None:
        raise InputError("--queries: names the rows of --vectors, which is not given.")
    _require_probabilities(args)
    if args.vectors is None:
        names, vectors = [args.query], None
        check_queries(args.query)
    else:
        names, vectors = _read_queries(args.vectors, args.queries)
    request = _request(args, _texts(args, names))
    encoder = _encoder(args, vectors)
    with chosen_store(args, encoder.space) as store:
        store.open()  # before the model is loaded: a wrong store is refused at once
        if args.bias is None:
            encoder, bias = _beside_bias(args, store, encoder)
            request = replace(request, bias=bias)
        calibration = _calibration(args, store, encoder, request)
        queries = _encode(encoder, args.query, vectors, plain=args.plain)
        if args.rerank == "xpool":
            request = replace(request, rerank=encoder.xpool_reranker(args.query, queries[0]))
        judge = None
        if calibration is not None:
            judge = Judge(
                calibration,
                store.count_videos(),
                min_probability=args.min_probability,
                answerable=args.answerable,
            )
        metadata = store.metadata() if request.texts is not None else None
        language = metadata.texts.language if metadata is not None and metadata.texts is not None else None
        first = not args.offset
        answers = [Answer.of(hits, judge, first=first) for hits in store.search_batch(queries, request)]
    named = list(zip(names, answers, strict=True))
    described = [_described(name, answer) for name, answer in named]
    lines = [line for name, answer in named for line in _lines(name, answer, args, language)]
    return Outcome(described[0] if vectors is None else {"answers": described}, "\n".join(lines))


def _require_probabilities(args: argparse.Namespace) -> None:
    """Refuse a least probability of a search that has none, whatever the adapter."""
    for option, given in (("--plain", args.plain), ("--rerank", args.rerank), ("--lanes", "said" in args.lanes)):
        if given and args.min_probability is not None:
            raise InputError(
                "--min-probability: probabilities are of adapted queries, by what is seen, before any re-ranking; "
                f"leave out {option}."
            )


def _encoder(args: argparse.Namespace, vectors: FloatArray | None) -> DITSQueryEncoder:
    """Return the encoder of the queries.

    Raises:
        InputError: X-Pool without its head, or for vectors.
    """
    from dits_adapter.encoder import DITSQueryEncoder

    xpool = args.rerank == "xpool"
    if (declared := declaration(args.adapter)) is not None and vectors is not None:
        encoder = _declared(declared, vectors)
    else:
        encoder = DITSQueryEncoder.from_pretrained(
            args.adapter,
            backend="torch" if xpool else "auto",
            device=args.device,
            text_cleaning=args.text_cleaning,
            videos=args.videos,
        )
    if xpool and encoder.artifact.xpool is None:
        raise InputError(
            f"--rerank xpool: the adapter {args.adapter} has no X-Pool head, which comes with joint training "
            "(dits-adapter train-joint); --rerank maxsim needs none."
        )
    if xpool and vectors is not None:
        raise InputError("--rerank xpool: reads the text of the query, not its vector.")
    return encoder


def _request(args: argparse.Namespace, texts: list[str] | None) -> SearchRequest:
    """Check the options of the search, before anything is loaded; what re-ranks by X-Pool comes with the query.

    Raises:
        InputError: an option outside its range.
    """
    from dits_adapter.stores.requests import SearchRequest

    return SearchRequest(
        limit=args.limit,
        per_video=args.per_video,
        offset=args.offset,
        exact=args.exact,
        rerank=args.rerank and "maxsim",
        candidates=SearchRequest.candidates if args.candidates is None else args.candidates,
        bias=args.bias,
        lanes=tuple(args.lanes),
        texts=texts,
    )


def _lines(name: str, answer: Answer, args: argparse.Namespace, language: str | None) -> Iterator[str]:
    """Yield the lines of an answer as people read it."""
    if args.vectors is not None:
        yield f"{name}:"
    for match in answer.matches:
        yield str(match)
        if line := _line(match.hit, name, language):
            yield f"       “{line}”"
    if not answer.matches:
        yield str(answer)
    if answer.probability_of_any is not None:
        yield _of_any(answer.probability_of_any, args.answerable)


def _texts(args: argparse.Namespace, names: list[str]) -> list[str] | None:
    """Return the texts of the queries, where what is said is searched.

    Raises:
        InputError: vectors without their texts, or the lane beside a re-ranking.
    """
    if "said" not in args.lanes:
        return None
    if args.vectors is not None and args.queries is None:
        raise InputError(
            "--lanes said: looks for words; give the texts of --vectors as well, with --queries FILE.txt."
        )
    if args.rerank is not None:
        raise InputError("--rerank: orders by what is seen alone; leave it out, or --lanes.")
    return names


def _line(hit: Hit, query: str, language: str | None) -> str:
    """Return the line of what is said that a query found; "" where it did not."""
    from dits_adapter.stores.text_lane import SAID, best_line

    return best_line(hit.payload.get(SAID) or "", query, language) if SAID in hit.lanes else ""


def _declared(name: str, vectors: FloatArray) -> DITSQueryEncoder:
    """Return the encoder of vectors that were declared, and have no adapter."""
    from dits_adapter.artifact.artifact import Artifact
    from dits_adapter.encoder import DITSQueryEncoder
    from dits_adapter.space import EmbeddingSpace

    return DITSQueryEncoder.of(Artifact.plain(EmbeddingSpace.declare(name, vectors.shape[1])), device="cpu")


def _described(query: str, answer: Answer) -> dict[str, Any]:
    hits = [{**asdict(match.hit), "probability": match.probability} for match in answer.matches]
    for hit in hits:
        if not hit["lanes"]:
            del hit["lanes"]
    return {"query": query, "probability_of_any": answer.probability_of_any, "hits": hits}


def _read_queries(path: Path, names: Path | None) -> tuple[list[str], FloatArray]:
    """Read vectors of queries, and their names, by default their rows.

    Raises:
        InputError: a file that cannot be read, no vectors, a row that is not finite or zero, or other names.
    """
    import numpy as np

    from dits_adapter._user_files import entries
    from dits_adapter.tasks.queries import read_vectors

    vectors = read_vectors(path)
    rows = (f"row {row}" for row in range(len(vectors)))
    lines = list(rows if names is None else (name for _, name in entries(names)))
    if len(lines) != len(vectors):
        raise InputError(f"{names}: has {len(lines)} lines; {path} has {len(vectors)} vectors.")
    return lines, np.array(vectors, np.float32)


def _encode(encoder: DITSQueryEncoder, text: str, vectors: FloatArray | None, *, plain: bool) -> FloatArray:
    """Return the queries to search with, unit vectors (n, d)."""
    from dits_adapter.vectors import unit

    if vectors is None:
        encoded = encoder.encode_document([text]) if plain else encoder.encode_query([text])
        return encoded
    if plain:
        encoder.space.require_shared()
    return unit(vectors if plain else encoder.adapt(vectors))


def _of_any(probability: float, share: float) -> str:
    from dits_adapter.evaluation.reliability import HITS

    doubt = "probably nothing here fits: " if probability < 0.5 else ""
    return (
        f"{doubt}{probability:.1%} that any of the {HITS} best hits is right, if {share:.0%} of all queries have "
        "their video here"
    )


def _calibration(
    args: argparse.Namespace, store: VideoStore, encoder: DITSQueryEncoder, request: SearchRequest
) -> Calibration | None:
    """Return the calibration of the scores of a search; None, with a remark, where the collection takes it away.

    Raises:
        InputError: probabilities are asked for, and there are none.
    """
    from dits_adapter.answers import calibration_of

    if args.plain:
        return None
    metadata = store.metadata()
    bias = None if metadata is None else metadata.bias_in_use
    known = calibration_of(encoder.calibration, store, bias, request, adapter=args.adapter)
    if not isinstance(known, str):
        return known
    if args.min_probability is not None:
        raise InputError(f"--min-probability: {_without_adapter(args, encoder) or known}")
    if not (encoder.calibration is None or args.rerank or request.beyond_seen):
        print(f"no probabilities: {known}", file=sys.stderr)
    return None


def _without_adapter(args: argparse.Namespace, encoder: DITSQueryEncoder) -> str:
    """Return the reason why queries of a bare encoder have no probabilities; "" for an adapter's."""
    from dits_adapter.artifact._find import find_adapter

    if encoder.calibration is not None or find_adapter(args.adapter) is not None:
        return ""
    return (
        f"{args.adapter} is a CLIP without an adapter, and probabilities are of trained adapters; `dits-adapter "
        "train` makes one, with its probabilities."
    )


def _beside_bias(
    args: argparse.Namespace, store: VideoStore, encoder: DITSQueryEncoder
) -> tuple[DITSQueryEncoder, float | None]:
    """Return the encoder to search with, and the weight of the score bias: 0, with a remark, for other queries.

    Raises:
        InputError: probabilities are asked for, and the encoder loses them beside the bias.
    """
    metadata = store.metadata()
    bias = None if metadata is None else metadata.bias_in_use
    if bias is None:
        return encoder, None
    if args.plain and bias.fits(encoder.space.text.probes):
        return encoder, None
    beside, weight = (encoder, 0.0) if args.plain else encoder.beside(bias)
    if not weight and bias.weight:
        print(
            f"the score bias of the collection {store.name!r} is for queries of another adapter, and is left out; "
            "--bias W takes it nevertheless.",
            file=sys.stderr,
        )
    if beside is not encoder and encoder.calibration is not None:
        why = (
            "beside the score bias the bank has half of its weight, and probabilities are of the whole; --bias 0 "
            "searches with the bank alone."
        )
        if args.min_probability is not None:
            raise InputError(f"--min-probability: {why}")
        print(f"no probabilities: {why}", file=sys.stderr)
    return beside, weight
