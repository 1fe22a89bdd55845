"""`dits-adapter serve`: a search page in the browser."""

from __future__ import annotations

import argparse
import ipaddress
import os
import secrets
import socket
import sys
import webbrowser
from contextlib import suppress
from typing import Any

from dits_adapter.cli._options import add_query, add_store, chosen_store
from dits_adapter.errors import InputError

__all__ = ["add_serve"]

_TOKEN = "DITS_ADAPTER_TOKEN"


def add_serve(commands: Any) -> None:
    """Add `serve`."""
    serve = commands.add_parser(
        "serve",
        help="open a search page in the browser",
        description="Open a page in the browser that searches a collection with plain CLIP and with an adapter, "
        "side by side. By default only this machine can reach the page. On any other address a token is needed: "
        f"the value of the environment variable {_TOKEN}, or a fresh one, which is printed. Nothing is encrypted: "
        "across a network that you do not trust, put the page behind a proxy with TLS or an SSH tunnel.",
    )
    add_store(serve)
    add_query(serve)
    serve.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (default: %(default)s)"
    )
    serve.add_argument(
        "--port", type=int, default=8000, metavar="N", help="0 for a free one (default: %(default)s)"
    )
    serve.add_argument("--no-browser", action="store_true", help="only print the address")
    serve.set_defaults(run=_serve, needs=("fastapi", "sklearn", "uvicorn"))


def _serve(args: argparse.Namespace) -> int:
    from dits_adapter.encoder import DITSQueryEncoder
    from dits_adapter.serve._app import LOOPBACK, create_app
    from dits_adapter.serve._searcher import Searcher
    from dits_adapter.serve._server import make_server

    listener = _listen(args.host, args.port)
    local = ipaddress.ip_address(listener.getsockname()[0]).is_loopback
    token = os.environ.get(_TOKEN) or (None if local else secrets.token_urlsafe(24))
    encoder = DITSQueryEncoder.from_pretrained(
        args.adapter,
        backend="torch",  # trajectories, other steps
        text_cleaning=args.text_cleaning,
        videos=args.videos,
    )
    encoder.space.require_shared()  # the page shows plain queries beside the adapter's
    with listener, chosen_store(args, encoder.space) as store:
        searcher = Searcher(store, encoder)
        searcher.load()
        app = create_app(searcher, token=token, hosts=(*LOOPBACK, args.host))
        url = _address(listener) + (f"/?token={token}" if token else "/")
        print(f"Search page: {url}\nCtrl+C ends it.", flush=True)
        if not args.no_browser and _has_screen():
            webbrowser.open(url)  # the port is open: the browser waits for the server to start
        with suppress(KeyboardInterrupt):
            make_server(app).run(sockets=[listener])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """Open the port before the model is loaded, so that a taken port is refused at once."""
    if not 0 <= port < 65536:
        raise InputError(f"--port is {port}; ports go from 1 to 65535, and 0 chooses a free one.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}, port {port} ({error}); choose with --host and --port."
        ) from None


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _has_screen() -> bool:
    return sys.platform != "linux" or any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY"))
