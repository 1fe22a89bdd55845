"""`dits-adapter mcp`: search for agents, over the Model Context Protocol."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from contextlib import redirect_stdout, suppress
from typing import TYPE_CHECKING, Any, NoReturn

from dits_adapter.cli._entry import write
from dits_adapter.cli._environment import from_environment
from dits_adapter.cli._listening import (
    HOST,
    PORT,
    TOKEN,
    TOKEN_PLACES,
    add_address,
    address,
    listen,
    needed_token,
    printed_token,
)
from dits_adapter.cli._logs import add_log_format, logging_to_stderr
from dits_adapter.cli._options import add_query, add_store, chosen_store
from dits_adapter.errors import InputError

if TYPE_CHECKING:
    import socket

    from dits_adapter.search import VideoSearch

__all__ = ["add_mcp"]


def add_mcp(commands: Any) -> None:
    """Add `mcp`."""
    mcp = commands.add_parser(
        "mcp",
        help="let agents search, over the Model Context Protocol",
        examples=(
            "--store video-index --adapter my-adapter",
            "--http --port 8001",
        ),
        description="Let agents search a collection over the Model Context Protocol: the tools search_videos, "
        "find_similar and describe_collection, which change nothing. An agent starts the command and speaks to "
        "it through stdin and stdout (docs/agents.md); with --http it listens on a port. By default only this "
        f"machine can reach that; on any other address a token is needed: {TOKEN_PLACES}, or a fresh "
        "one, which is printed. Nothing is encrypted. Every option can come from the environment.",
    )
    add_store(mcp)
    add_query(mcp)
    mcp.add_argument("--http", action="store_true", help="listen on a port instead of stdin (streamable HTTP)")
    add_address(mcp)
    add_log_format(mcp, "call of a tool, and every request over HTTP,")
    mcp.set_defaults(run=_mcp, needs=("mcp",))
    from_environment(mcp, "DITS_MCP")


def _mcp(args: argparse.Namespace) -> int:
    from dits_adapter.encoder import DITSQueryEncoder
    from dits_adapter.search import VideoSearch

    if not args.http and (args.host, args.port) != (HOST, PORT):
        raise InputError("--host and --port are for --http; without it, stdin and stdout are spoken through.")
    listener = listen(args.host, args.port) if args.http else None
    token = None if listener is None else needed_token(listener)
    with redirect_stdout(sys.stderr):  # stdout is for the protocol alone
        encoder = DITSQueryEncoder.from_pretrained(
            args.adapter, device=args.device, text_cleaning=args.text_cleaning, videos=args.videos
        )
        store = chosen_store(args, encoder.space)
        store.open()
    with logging_to_stderr(args), store:
        search = VideoSearch(encoder, store)
        if listener is None:
            _serve_streams(search)
        else:
            _serve_port(search, listener, args.host, token)
    return 0


def _serve_streams(search: VideoSearch) -> None:
    """Serve the agent that started this process, until it closes stdin."""
    from dits_adapter.integrations.mcp import make_mcp_server

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    # Agents wait some seconds for a server that they start: the text encoder is loaded while it answers them.
    threading.Thread(target=_load, args=(search,), daemon=True).start()
    make_mcp_server(search).run()


def _load(search: VideoSearch) -> None:
    with suppress(Exception):  # the first search meets the same error, and says it to its agent
        search.load()


def _leave(*_: object) -> NoReturn:
    """End the process at once: the thread that waits for the next line of stdin would keep it from ending."""
    os.write(2, b"dits-adapter: stopped.\n")
    os._exit(130)


def _serve_port(search: VideoSearch, listener: socket.socket, host: str, token: str | None) -> None:
    """Serve whoever reaches the port, until Ctrl-C."""
    from dits_adapter.serve._mcp import PATH, create_mcp_app
    from dits_adapter.serve._server import run

    app = create_mcp_app(search, token=token, host=host)
    search.load()
    write(f"MCP server: {address(listener)}{PATH}")
    if token is not None:
        shown = printed_token(token) or f"…, the token of {TOKEN}"
        write(f"Header that it needs: Authorization: Bearer {shown}")
    write("Ctrl+C ends it.")
    with listener:
        run(app, listener)
