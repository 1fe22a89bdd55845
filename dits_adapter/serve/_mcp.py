"""The web application of the MCP server: streamable HTTP, without sessions."""

from __future__ import annotations

from typing import Any

from dits_adapter.errors import MissingExtraError

try:
    from mcp.server import MCPServer
    from mcp.server.transport_security import TransportSecuritySettings
    from starlette.applications import Starlette

    from dits_adapter.serve._middleware import RequireToken
except ImportError:
    raise MissingExtraError("mcp", "mcp", "the MCP server") from None

__all__ = ["PATH", "create_mcp_app"]

PATH = "/mcp"
"""Path of the server's address."""


def create_mcp_app(server: MCPServer[Any], *, token: str | None, host: str) -> Starlette:
    """Make the ASGI application.

    Args:
        server: the server with its tools.
        token: required of every request, as `create_app` says; None admits everybody who reaches the port.
        host: host name that requests without a token may use beside those of this machine, so that no web site
            can reach the server through a browser on this machine under a name of its own (DNS rebinding).
    """
    names = ("127.0.0.1", "localhost", "[::1]", host)
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=token is None,
        allowed_hosts=[form for name in names for form in (name, f"{name}:*")],
        allowed_origins=[f"http://{form}" for name in names for form in (name, f"{name}:*")],
    )
    app = server.streamable_http_app(
        streamable_http_path=PATH, json_response=True, stateless_http=True, transport_security=security
    )
    if token is not None:
        app.add_middleware(RequireToken, token=token)
    return app
