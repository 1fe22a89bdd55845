"""`dits-adapter serve`: a search page in the browser."""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from pathlib import Path
from typing import Any

from dits_adapter.cli._entry import write
from dits_adapter.cli._environment import from_environment
from dits_adapter.cli._listening import TOKEN_PLACES, add_address, address, listen, needed_token, printed_token
from dits_adapter.cli._logs import add_log_format, logging_to_stderr
from dits_adapter.cli._options import add_query, add_store, chosen_store
from dits_adapter.errors import InputError

__all__ = ["add_serve"]


def add_serve(commands: Any) -> None:
    """Add `serve`."""
    serve = commands.add_parser(
        "serve",
        help="open a search page in the browser",
        examples=(
            "--adapter my-adapter",
            "--store http://localhost:6333 --host 0.0.0.0 --no-browser --feedback feedback.jsonl",
        ),
        description="Open a page in the browser that searches a collection with plain CLIP and with an adapter, "
        "side by side. By default only this machine can reach the page. On any other address a token is needed: "
        f"{TOKEN_PLACES}, or a fresh one, which is printed. Nothing is encrypted: across a network that you do "
        "not trust, put the page behind a proxy with TLS or an SSH tunnel. An adapter in a folder that "
        "`dits-adapter train` replaces is taken up without a restart. Every option can come from the environment.",
    )
    add_store(serve)
    add_query(serve)
    add_address(serve)
    serve.add_argument(
        "--feedback",
        type=Path,
        metavar="FILE",
        help='let people say "this is the one" and "none of these", and add that to FILE (.jsonl), with the '
        "query, the hits that were shown, scores and time; `dits-adapter pairs` makes pairs of it; the page "
        "Compare adds which of two rankings people prefer, and `dits-adapter tally` counts that",
    )
    serve.add_argument(
        "--log-queries",
        action="store_true",
        help="add the text of every search to that file too, for `dits-adapter bank`",
    )
    add_log_format(serve, "request")
    serve.add_argument("--no-browser", action="store_true", help="only print the address")
    serve.set_defaults(run=_serve, needs=("fastapi", "prometheus_client", "sklearn", "uvicorn"))
    from_environment(serve, "DITS_SERVE")


def _serve(args: argparse.Namespace) -> int:
    from dits_adapter.encoder import DITSQueryEncoder
    from dits_adapter.serve._app import LOOPBACK, create_app
    from dits_adapter.serve._feedback import FeedbackRecorder
    from dits_adapter.serve._searcher import Searcher
    from dits_adapter.serve._server import run

    if args.log_queries and args.feedback is None:
        raise InputError("--log-queries adds to the file of --feedback; name one.")
    feedback = None
    if args.feedback is not None:
        feedback = FeedbackRecorder(args.feedback, log_queries=args.log_queries)
    listener = listen(args.host, args.port)
    token = needed_token(listener)
    encoder = DITSQueryEncoder.from_pretrained(
        args.adapter,
        backend="torch",  # trajectories, other steps
        device=args.device,
        text_cleaning=args.text_cleaning,
        videos=args.videos,
    )
    encoder.space.require_shared()  # the page shows plain queries beside the adapter's
    with logging_to_stderr(args), listener, chosen_store(args, encoder.space) as store:
        searcher = Searcher(store, encoder)
        searcher.load()
        app = create_app(searcher, token=token, hosts=(*LOOPBACK, args.host), feedback=feedback)
        url, shown = (
            address(listener) + (f"/?token={each}" if each else "/") for each in (token, printed_token(token))
        )
        kept = "" if feedback is None else f"Feedback is added to {feedback.path}.\n"
        write(f"Search page: {shown}\n{kept}Ctrl+C ends it.")
        if not args.no_browser and _has_screen():
            webbrowser.open(url)  # the port is open: the browser waits for the server to start
        run(app, listener)
    return 0


def _has_screen() -> bool:
    return sys.platform != "linux" or any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY"))
