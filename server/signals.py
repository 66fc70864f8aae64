"""Lets SIGTERM and SIGINT end a server while it starts, because its imports alone take a second."""

import os
import signal


def leave_when_told() -> None:
    """End at once on SIGTERM or SIGINT from now on, with exit code 0, because there is no call yet to complete."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
