"""ASGI middleware of the search page: a token for every request, checks of those that write, security headers."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dits_adapter.errors import InputError
from dits_adapter.serve._pages import PAGES

__all__ = ["PICTURES", "CheckWrites", "RequireToken", "SecureHeaders", "check_token"]

_BODY_BYTES, _BODY_SECONDS = 16 << 10, 10.0
"""Largest body of a request in JSON, and the time in which it arrives."""

_PICTURE_SECONDS = 60.0
"""Time in which a picture arrives."""

PICTURES = 22
"""Pictures that arrive, wait or are looked for at a time; more would fill the memory."""

_OPEN_PATHS = ("/healthz", "/livez")
"""Paths that need no token, for what watches over containers; they say more to those who send it."""

_COOKIE = "dits_adapter_token"
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def check_token(token: str | None) -> None:
    """Refuse a token that no HTTP header can carry; None is none.

    Raises:
        InputError: it holds a blank, a line break or a character outside ASCII; it is not shown.
    """
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise InputError("the token holds a blank or a character outside ASCII; an HTTP header carries neither.")


class RequireToken:
    """Middleware that admits requests with the token alone.

    Args:
        app: the application.
        token: the token.
        form: page with a field for the token, which browsers get in the place of a page; None where there are no
            pages.
    """

    def __init__(self, app: ASGIApp, token: str, form: Path | None = None) -> None:
        self.app = app
        self.token = token
        self.form = form

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
        request.state.admitted = any(map(self._is_right, (bearer, in_address, request.cookies.get(_COOKIE))))
        if not request.state.admitted and _path(scope) not in _OPEN_PATHS:
            reads = "text/html" in request.headers.get("accept", "")
            needed = "open the address that the server printed, or send `Authorization: Bearer TOKEN`"
            asks = {"www-authenticate": "Bearer"}
            if self.form is not None and reads and _path(scope) in PAGES:
                response = HTMLResponse(self.form.read_text("utf-8"), 401, asks)
            else:
                response = JSONResponse({"detail": f"a token is needed: {needed}."}, 401, asks)
        elif in_address is not None and _path(scope) in PAGES:  # into a cookie, and out of the address bar
            page = f".{_path(scope)}?{request.url.remove_query_params('token').query}"
            response = RedirectResponse(page, 303)
            response.set_cookie(_COOKIE, self.token, httponly=True, samesite="lax")
        await (response or self.app)(scope, receive, send)

    def _is_right(self, token: str | None) -> bool:
        return hmac.compare_digest((token or "").encode(), self.token.encode())


class CheckWrites:
    """Middleware that admits requests with a body only from this page or from programs, small and soon.

    They are JSON, or a picture where one is searched by: a form of another web site can send neither, and a script
    of one names its origin.

    Args:
        app: the application.
        pictures: paths that take a picture, and its greatest number of bytes.
    """

    def __init__(self, app: ASGIApp, pictures: Mapping[str, int]) -> None:
        self.app = app
        self.pictures = pictures
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403, 408, 413, 415 or 503, or let the application answer."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        picture = _path(scope) in self.pictures
        refusal = _refused_head(scope, picture=picture)
        if refusal is None and picture and self._in_flight >= PICTURES:
            refusal = _refuse(503, "too many pictures are sent; try again in a second.", {"retry-after": "1"})
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        self._in_flight += picture
        try:
            most, seconds = (
                (self.pictures[_path(scope)], _PICTURE_SECONDS) if picture else (_BODY_BYTES, _BODY_SECONDS)
            )
            await self._answer(scope, receive, send, most=most, seconds=seconds)
        finally:
            self._in_flight -= picture

    async def _answer(self, scope: Scope, receive: Receive, send: Send, *, most: int, seconds: float) -> None:
        """Read the body, and have the application answer."""
        try:
            body = await asyncio.wait_for(_body(receive, most), seconds)
        except asyncio.TimeoutError:
            body = None
            refusal = _refuse(408, f"the body did not arrive within {seconds:g} seconds.")
        else:
            refusal = _refuse(413, f"the body is larger than {most:,} bytes.")
        if body is None:
            refusal.headers["connection"] = "close"  # the rest of the body is not read
            await refusal(scope, receive, send)
            return

        async def receive_whole() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            whole, body = body, None
            return {"type": "http.request", "body": whole, "more_body": False}

        await self.app(scope, receive_whole, send)


def _path(scope: Scope) -> str:
    """Return the path of a request inside the application, which may be mounted in another one."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _refused_head(scope: Scope, *, picture: bool) -> Response | None:
    """Return the refusal of a request that writes, by its head; None where it may go on."""
    headers = Request(scope).headers
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if _is_elsewhere(headers):
        return _refuse(403, "a page of another web site may not write here.")
    if picture and not media_type.startswith("image/"):
        return _refuse(415, "the body has to be a picture; send its `Content-Type`, such as image/jpeg.")
    if scope["method"] == "POST" and not picture and media_type != "application/json":
        return _refuse(415, "the body has to be JSON; send `Content-Type: application/json`.")
    return None


def _is_elsewhere(headers: Headers) -> bool:
    """Tell whether a browser says that a page of another site makes the request; other programs say nothing."""
    if site := headers.get("sec-fetch-site"):  # what a proxy that changes the host leaves right
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host")


async def _body(receive: Receive, most: int) -> bytes | None:
    """Return the body of a request; None for one of more bytes."""
    parts, size = list[bytes](), 0
    while size <= most:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if not message.get("more_body"):
            return b"".join(parts) if size <= most else None
    return None


def _refuse(status: int, reason: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": reason}, status, headers)


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
