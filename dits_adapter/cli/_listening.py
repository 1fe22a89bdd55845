"""Address that a command listens on, and the token that requests from other machines need."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from typing import Any

from dits_adapter._secrets import secret
from dits_adapter.errors import InputError

__all__ = [
    "HOST",
    "PORT",
    "TOKEN",
    "TOKEN_PLACES",
    "add_address",
    "address",
    "listen",
    "needed_token",
    "printed_token",
]

TOKEN = "DITS_ADAPTER_TOKEN"
"""Environment variable with the token; `secret` reads it."""

TOKEN_PLACES = f"the value of {TOKEN} in the environment, or the file that {TOKEN}_FILE names"
"""Places of a token that is given, for the help."""

HOST, PORT = "127.0.0.1", 8000


def add_address(command: Any) -> None:
    """Add the options that `listen` takes."""
    command.add_argument("--host", default=HOST, metavar="ADDRESS", help="to listen on (default: %(default)s)")
    command.add_argument(
        "--port", type=int, default=PORT, metavar="N", help="0 for a free one (default: %(default)s)"
    )


def listen(host: str, port: int) -> socket.socket:
    """Open the port before the model is loaded, so that a taken port is refused at once.

    Raises:
        InputError: a port that there is not, or that cannot be listened on.
    """
    if not 0 <= port < 65536:
        raise InputError(f"--port is {port}; ports go from 1 to 65535, and 0 chooses a free one.")
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(place[:2], family=family)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}, port {port} ({error}); choose with --host and --port."
        ) from None


def needed_token(listener: socket.socket) -> str | None:
    """Return the token of the environment, or a fresh one where other machines reach the port; else None."""
    local = ipaddress.ip_address(listener.getsockname()[0]).is_loopback
    return secret(TOKEN) or (None if local else secrets.token_urlsafe(24))


def printed_token(token: str | None) -> str | None:
    """Return a token that nobody knows yet; one of the environment is a secret, which no log is to hold."""
    return None if secret(TOKEN) else token


def address(listener: socket.socket) -> str:
    """Return the URL under which the port is reached."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
