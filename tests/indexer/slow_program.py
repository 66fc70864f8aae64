"""A command that says its process id, and runs until it is told to end."""

import os
import signal
import sys


def _end(*_: object) -> None:
    print("ended by SIGTERM", flush=True)
    sys.exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    print(f"pid {os.getpid()}", flush=True)
    while True:
        signal.pause()
