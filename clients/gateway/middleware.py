"""Limits the size of every request body, and adds security headers to every answer."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clients.gateway.problems import problem

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
_CLOSE = {"Connection": "close"}


class SecurityHeaders:
    """Adds security headers to every answer, unless the endpoint set them itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request (ASGI)."""

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)


class BoundedBody:
    """Refuses bodies larger than `max_bytes`, with or without a Content-Length, and those that take too long."""

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        size = int(announced) if announced.isdecimal() else 0
        try:
            async with asyncio.timeout(self._timeout_s):
                body, size = await self._read(receive, size)
        except TimeoutError:
            detail = f"the body was not there after {self._timeout_s:g} s; the option --body-timeout-s sets this limit"
            await problem(408, "The body is too slow", detail, "BODY_TOO_SLOW", headers=_CLOSE)(scope, receive, send)
            return
        except ConnectionError:
            return
        if size > self._max_bytes:
            detail = f"the body has {size} bytes or more; the limit is {self._max_bytes}"
            refusal = problem(413, "The body is too large", detail, "BODY_TOO_LARGE", headers=_CLOSE)
            await refusal(scope, receive, send)
            return
        unread: list[Message] = [{"type": "http.request", "body": body}]

        async def again() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, again, send)

    async def _read(self, receive: Receive, size: int) -> tuple[bytes, int]:
        """The body and its size, which is at least `size`; no more of a body that is too large.

        Raises:
            ConnectionError: the client is gone.
        """
        body = bytearray()
        while size <= self._max_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError
            body += message.get("body", b"")
            size = max(size, len(body))
            if not message.get("more_body"):
                break
        return bytes(body), size
