"""Which requests the gateway admits: those for its own names, and none that a page of another site sends.

Such a page can make its visitor's browser send requests to the gateway. By DNS rebinding it can even send them under a
name of its own, which makes it the same site for the browser, and then read the answers.
"""

import ipaddress
from collections.abc import Sequence
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from clients.gateway.problems import problem

_LONGEST = 100
"""Characters of a name in a message."""


class OwnSite:
    """Refuses requests for foreign names, and requests of other sites' pages. Programs send no headers that matter."""

    def __init__(self, app: ASGIApp, names: Sequence[str]) -> None:
        """`names`: host names of the gateway, as `Settings.names` gives them. IP addresses are always its own."""
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request (ASGI)."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            for detail, reason in (
                (self._foreign_name(headers), "HOST_NOT_ALLOWED"),
                (self._other_site(headers, scope["method"]), "OTHER_SITE"),
            ):
                if detail:
                    await problem(403, "Refused", detail, reason)(scope, receive, send)
                    return
        await self._app(scope, receive, send)

    def _foreign_name(self, headers: Headers) -> str:
        for host in headers.getlist("host"):
            name = _name_of(f"//{host}")
            if not (_is_address(name) or self._is_ours(name)):
                return f"host {host[:_LONGEST]!r} is no name of this gateway; its option --allow-host admits it"
        return ""

    def _other_site(self, headers: Headers, method: str) -> str:
        """What a browser tells of the page that sends a request; older ones tell the origin alone."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if site in ("cross-site", "same-site") and not link:
            return f"a page of another site ({site}) may not send this request; use the gateway's own pages"
        if origin is not None and not (_address_of(origin) == headers.get("host") or self._is_ours(_name_of(origin))):
            return f"a page of {origin[:_LONGEST]} may not send this request; use the gateway's own pages"
        return ""

    def _is_ours(self, name: str) -> bool:
        return any(fnmatchcase(name, own) for own in self._names)


def _address_of(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _name_of(url: str) -> str:
    """The host of a URL in small letters; empty if there is none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    """Whether it is an IP address, which nobody can point to another machine."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
