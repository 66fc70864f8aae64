"""A port for a server that must be told its port before it starts."""

import random
import socket
from contextlib import suppress

_BELOW_OUTGOING = range(20_000, 32_000)
"""Linux gives ports from 32,768 on to connections, other systems higher ones, so only a listener takes one of these."""


def free_port() -> int:
    """A port on which nobody listens.

    A port that was bound to 0 and closed is free for the whole machine, and the next connection of anybody may get it.
    """
    while True:
        port = random.choice(_BELOW_OUTGOING)
        with suppress(OSError), socket.create_server(("", port)):
            return port
