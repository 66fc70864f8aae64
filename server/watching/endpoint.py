"""The HTTP endpoint for Prometheus, with a limited number of connections that end soon.

The endpoint of prometheus_client gives each connection a thread for as long as the caller likes: 2,000 callers that
each send half a request are 2,000 threads of the server.
"""

import socket
import threading
import time
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

MAX_CONNECTIONS = 32
"""Maximum number of connections. Another connection ends the oldest one."""
TIMEOUT_S = 10.0
"""Time in seconds after which a connection is ended."""


class Endpoint(ThreadingMixIn, WSGIServer):
    """Answers each connection from its own thread."""

    daemon_threads = True

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        """Bind to an address. `serve_forever` answers. Raises OSError."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, *_, address = found[0]
        self._open: dict[Any, float] = {}
        """The connections, oldest first, with the times at which they were opened."""
        super().__init__((str(address[0]), int(address[1])), _Handler)
        self.set_app(make_wsgi_app(registry))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Accept a connection."""
        if len(self._open) >= MAX_CONNECTIONS:
            self._hang_up(next(iter(list(self._open)), None))
        self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that was answered."""
        self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """End connections that are too old. `serve_forever` calls this twice per second."""
        now = time.monotonic()
        for request, since in list(self._open.items()):
            if now - since > TIMEOUT_S:
                self._hang_up(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing about a caller that closed its connection."""

    def _hang_up(self, request: Any) -> None:
        if self._open.pop(request, None):
            with suppress(OSError):  # the caller may have done it
                request.shutdown(socket.SHUT_RDWR)


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the library
        """Log nothing about a request."""


def serve(host: str, port: int, registry: CollectorRegistry) -> Endpoint:
    """Answer from a thread. Return the endpoint. Raises OSError if the address cannot be used."""
    endpoint = Endpoint(host, port, registry)
    threading.Thread(target=endpoint.serve_forever, daemon=True, name="metrics").start()
    return endpoint
