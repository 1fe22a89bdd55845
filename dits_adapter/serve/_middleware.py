"""ASGI middleware of the search page: a token for every request, and security headers on every response."""

from __future__ import annotations

import hmac

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["RequireToken", "SecureHeaders"]

_COOKIE = "dits_adapter_token"
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class RequireToken:
    """Middleware that admits requests with the token alone."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app = app
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or let the application answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        bearer = credentials.strip() if scheme.lower() == "bearer" else None
        in_address = request.query_params.get("token")
        response: Response | None = None
        if not any(map(self._is_right, (bearer, in_address, request.cookies.get(_COOKIE)))):
            needed = "open the address that the server printed, or send `Authorization: Bearer TOKEN`"
            response = JSONResponse(
                {"detail": f"a token is needed: {needed}."}, 401, {"www-authenticate": "Bearer"}
            )
        elif in_address is not None and scope["path"] == "/":  # into a cookie, and out of the address bar
            response = RedirectResponse("./?" + request.url.remove_query_params("token").query, 303)
            response.set_cookie(_COOKIE, self.token, httponly=True, samesite="lax")
        await (response or self.app)(scope, receive, send)

    def _is_right(self, token: str | None) -> bool:
        return hmac.compare_digest((token or "").encode(), self.token.encode())


class SecureHeaders:
    """Middleware that adds security headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the headers to the response of the application."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("cache-control", "no-cache")
            await send(message)

        await self.app(scope, receive, send_with_headers)
