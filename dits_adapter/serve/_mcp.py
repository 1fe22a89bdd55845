"""The web application of the MCP server: streamable HTTP, without sessions, and what operators ask."""

from __future__ import annotations

from dits_adapter.errors import MissingExtraError
from dits_adapter.search import VideoSearch

try:
    from mcp.server.transport_security import TransportSecuritySettings
    from prometheus_client import Histogram
    from starlette.applications import Starlette
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from dits_adapter.integrations.mcp import ToolCall, make_mcp_server
    from dits_adapter.serve._health import Health
    from dits_adapter.serve._metrics import SECONDS, Metrics
    from dits_adapter.serve._middleware import RequireToken, check_token
    from dits_adapter.serve._operations import add_operations
except ImportError:
    raise MissingExtraError("mcp", "mcp", "the MCP server") from None

__all__ = ["PATH", "create_mcp_app"]

PATH = "/mcp"
"""Path of the server's address."""


class _ToolMetrics(Metrics):
    """Measurements of the MCP server: those of every server, and of its tools."""

    def __init__(self) -> None:
        super().__init__()
        self._tools = Histogram(
            "dits_adapter_tool_seconds",
            "Seconds that a call of a tool takes.",
            ["tool", "outcome"],
            buckets=SECONDS,
            registry=self.registry,
        )

    def called(self, call: ToolCall) -> None:
        """Count a call of a tool."""
        self._tools.labels(call.tool, "answered" if call.error is None else "refused").observe(call.seconds)
        if call.error is not None:
            self.errors.labels(call.error).inc()


def create_mcp_app(search: VideoSearch, *, token: str | None, host: str) -> Starlette:
    """Make the ASGI application, with `/livez`, `/healthz` and `/metrics` as the search page has them.

    Args:
        search: the collection and the encoder of the queries.
        token: required of every request, as `create_app` says; None admits everybody who reaches the port.
        host: host name that requests without a token may use beside those of this machine, so that no web site
            can reach the server through a browser on this machine under a name of its own (DNS rebinding).

    Raises:
        InputError: a token that no HTTP header can carry.
    """
    check_token(token)
    metrics = _ToolMetrics()
    names = ("127.0.0.1", "localhost", "[::1]", host)
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=token is None,
        allowed_hosts=[form for name in names for form in (name, f"{name}:*")],
        allowed_origins=[f"http://{form}" for name in names for form in (name, f"{name}:*")],
    )
    app = make_mcp_server(search, on_call=metrics.called).streamable_http_app(
        streamable_http_path=PATH, json_response=True, stateless_http=True, transport_security=security
    )
    if token is None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(names), www_redirect=False)
    else:
        app.add_middleware(RequireToken, token=token)
    add_operations(app, Health(lambda: search.store), metrics)
    return app
