"""What SIGTERM and SIGINT do while a server starts; imports alone take a second."""

import os
import signal


def leave_when_told() -> None:
    """End at once and in silence, with exit code 0: nothing has been accepted yet that could be finished."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
