"""A gateway that serves real HTTP from a thread, for tests."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from clients.gateway.app import create_app
from clients.gateway.connections import config_of
from clients.gateway.options import load_settings


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """Serves with these options; the base URL."""
    settings = load_settings([*options, "--log-level", "WARNING"])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(config_of(create_app(settings), settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            # Connections wait in the backlog until it accepts them: nothing to poll for.
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
