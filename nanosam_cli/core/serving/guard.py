"""Who may ask, and how much: every request passes here before anything reads it.

A web page elsewhere must not drive this server through the browser of who runs it. Its requests carry its own `Origin`,
or say `Sec-Fetch-Site: cross-site`; and where it rebinds its name to this address, `Host` is its name.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanosam_cli.core.serving.limits import RequestLimits

_COOKIE = "nanosam_token"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",  # an address may hold the token
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address to listen on."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


@dataclass(frozen=True)
class Access:
    """Who may ask: under which names, and with which token."""

    host: str = "127.0.0.1"  # that is listened on
    token: str | None = None  # None: none is asked for

    def knows_host(self, header: str) -> bool:
        """Whether a request's `Host` is a name of this server.

        Addresses count as well where it listens to more than this machine: a name can be rebound, an address cannot.
        """
        name = _host_name(header)
        if name is None:
            return False
        if name in _LOOPBACK or name == self.host.lower():
            return True
        return not is_loopback(self.host) and _is_address(name)

    def is_same_origin(self, origin: str, host: str) -> bool:
        """Whether a request's `Origin` is the page of this server."""
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()

    def lets_in(self, given: str | None) -> bool:
        """Whether a token is the right one, in a time that says nothing of how much of it is."""
        return self.token is None or hmac.compare_digest((given or "").encode(), self.token.encode())


class Guard:
    """The ASGI middleware that asks `Access`, bounds bodies, and adds the headers of a careful server."""

    def __init__(self, app: ASGIApp, access: Access, limits: RequestLimits) -> None:
        self.app = app
        self.access = access
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        send = _with_headers(send)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        body = _BoundedBody(receive, send, self.limits)
        try:
            await self.app(scope, body.receive, body.send)
        except _RefusedError as refused:
            if not body.answered:
                await _words(refused.status, str(refused), refused.hint)(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> JSONResponse | RedirectResponse | None:
        """The answer to who may not ask; None where a request may go on."""
        host = headers.get("host", "")
        if not self.access.knows_host(host):
            return _words(421, f"this server is not called {host[:100]!r}", "use the address that it printed")
        origin = headers.get("origin")
        if origin is not None and not self.access.is_same_origin(origin, host):
            return _words(403, f"pages of {origin[:100]} may not ask this server", "open its own page")
        strange = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if strange and not (headers.get("sec-fetch-mode") == "navigate" and scope["method"] == "GET"):
            return _words(403, "other pages may not ask this server", "open its own page")
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if self.access.token is not None and scope["path"] != "/health":
            given = _token_of(headers) or query.get("token") or _cookie(headers)
            if not self.access.lets_in(given):
                return _words(401, "the token is missing or wrong", "use the address that was printed at the start")
            if scope["path"] == "/" and "token" in query:
                return self._without_token(query)
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > self.limits.body_bytes:
            return _too_large(self.limits)
        return None

    def _without_token(self, query: Mapping[str, str]) -> RedirectResponse:
        """The page again, with the token as a cookie instead of in the address, where it would be seen and kept."""
        rest = urlencode({key: value for key, value in query.items() if key != "token"})
        answer = RedirectResponse(f"/?{rest}" if rest else "/", 303)
        answer.set_cookie(_COOKIE, self.access.token or "", httponly=True, samesite="strict", path="/")
        return answer


class _RefusedError(Exception):
    """A body that was too large, or did not come."""

    def __init__(self, status: int, message: str, hint: str) -> None:
        super().__init__(message)
        self.status = status
        self.hint = hint


class _BoundedBody:
    """A request's body, counted as it comes, and whether an answer was begun."""

    def __init__(self, receive: Receive, send: Send, limits: RequestLimits) -> None:
        self._receive = receive
        self._send = send
        self._limits = limits
        self._count = 0
        self._more = True
        self.answered = False

    async def receive(self) -> Message:
        if not self._more:  # only the end of the connection is left to come, which takes as long as it takes
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._limits.body_seconds)
        except asyncio.TimeoutError:
            seconds = f"{self._limits.body_seconds:g} seconds"
            raise _RefusedError(408, f"nothing came of the body for {seconds}", "send it again") from None
        self._count += len(message.get("body", b""))
        self._more = bool(message.get("more_body", False))
        if self._count > self._limits.body_bytes:
            raise _RefusedError(413, *_too_large_words(self._limits))
        return message

    async def send(self, message: Message) -> None:
        self.answered = self.answered or message["type"] == "http.response.start"
        await self._send(message)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            there = {key.lower() for key, _ in message["headers"]}
            added = [(key.encode(), value.encode()) for key, value in _HEADERS.items() if key.encode() not in there]
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return sending


def _words(status: int, message: str, hint: str) -> JSONResponse:
    content: dict[str, Any] = {"error": message, "hint": hint}
    return JSONResponse(content, status, {"connection": "close"} if status in (408, 413) else None)


def _too_large(limits: RequestLimits) -> JSONResponse:
    return _words(413, *_too_large_words(limits))


def _too_large_words(limits: RequestLimits) -> tuple[str, str]:
    return f"a body has at most {limits.body_bytes // 2**20} MiB", "send a smaller photo, or fewer objects at once"


def _host_name(header: str) -> str | None:
    """The name of a `Host` without its port, in lower case; None where it is none."""
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _token_of(headers: Headers) -> str | None:
    """The token of `Authorization`: a bearer's, or a password, which is all that some programs can send."""
    kind, _, given = headers.get("authorization", "").partition(" ")
    if kind.lower() == "basic":
        try:
            return base64.b64decode(given, validate=True).decode().partition(":")[2]
        except ValueError:  # neither base64 nor UTF-8
            return None
    return given if kind.lower() == "bearer" else None


def _cookie(headers: Headers) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
    except CookieError:
        return None
    return found.value if found else None
