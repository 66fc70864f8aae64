"""Limits the size of every request body, adds security headers to every answer, and refuses other sites' pages."""

import ipaddress
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clients.gateway.problems import ProblemError, problem

# The pages have no inline script or style, and send requests only to this gateway.
_CONTENT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _CONTENT,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class SecurityHeaders:
    """Adds security headers to every answer, unless the endpoint set them itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)


class BoundedBody:
    """Refuses bodies larger than `max_bytes`, with or without a Content-Length, and stops reading at that size."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        size = int(announced) if announced.isdecimal() else 0
        body = b""
        while size <= self._max_bytes:
            message = await receive()
            body += message.get("body", b"")
            size = max(size, len(body))
            if message["type"] == "http.disconnect":
                return
            if not message.get("more_body"):
                break
        if size > self._max_bytes:
            detail = f"the body has {size} bytes or more; the limit is {self._max_bytes}"
            refusal = problem(413, "The body is too large", detail, "BODY_TOO_LARGE", headers={"Connection": "close"})
            await refusal(scope, receive, send)
            return
        unread: list[Message] = [{"type": "http.request", "body": body}]

        async def again() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, again, send)


def refuse_other_sites(request: Request) -> None:
    """Refuse a change that the page of another site requests through a visitor's browser.

    Programs send no Origin header and are accepted. A browser sends one, which must be the gateway itself under an IP
    address or localhost. A host name is not accepted, because DNS rebinding can point it to another machine.

    Raises:
        ProblemError: the request is refused, with status 403.
    """
    origin = request.headers.get("origin")
    if origin is None:
        return
    if not _is_own(origin, request.headers.get("host")):
        detail = (
            f"a page of {origin} may not do this; use the gateway's own pages, opened under an IP address or localhost"
        )
        raise ProblemError(403, "Refused", detail, "OTHER_SITE")


def _is_own(origin: str, host: str | None) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.netloc == host and _is_fixed(parts.hostname or "")


def _is_fixed(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True
