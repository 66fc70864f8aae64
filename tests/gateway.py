"""A gateway that serves real HTTP from a thread, for tests."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from clients.gateway.app import create_app
from clients.gateway.options import load_settings


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """Serves with these options; the base URL."""
    app = create_app(load_settings(list(options)))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            # Connections wait in the backlog until it accepts them: nothing to poll for.
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
