"""Lets SIGTERM and SIGINT end a server while it starts; its imports alone take a second."""

import os
import signal


def leave_when_told() -> None:
    """From now on, end at once on SIGTERM or SIGINT, with exit code 0: there is no call yet that could be finished."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
