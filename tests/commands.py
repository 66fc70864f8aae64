"""Runs a command of ours in this process: as `python -m MODULE` does, without the seconds that its imports take.

For what a command answers. What depends on a process of its own (signals, exit, what is loaded) starts one.
"""

import io
import logging
import os
import runpy
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from subprocess import CompletedProcess
from unittest import mock

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_here(module: str, *arguments: object, env: Mapping[str, str] | None = None) -> CompletedProcess[str]:
    """What `python -m MODULE ARGUMENTS` prints and its exit code; `env` is added to the environment."""
    words = [module, *map(str, arguments)]
    with _undone(), mock.patch.object(sys, "argv", words), mock.patch.dict(os.environ, env or {}):
        output, errors = _text(), _text()
        with redirect_stdout(output), redirect_stderr(errors):
            code = _exit_code(module)
    return CompletedProcess(words, code, *(_read(stream) for stream in (output, errors)))


def _exit_code(module: str) -> int:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=f".*{module}.* found in sys.modules", category=RuntimeWarning)
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        except Exception:
            traceback.print_exc()
            return 1
    return 0


@contextmanager
def _undone() -> Iterator[None]:
    """Put back the signal handlers and the logging that a command sets for its process."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("", "pymilvus", "milvus_lite")}
    logs = root.handlers[:]
    root.handlers.clear()  # as in a new process, or the command's basicConfig would do nothing
    try:
        yield
    finally:
        root.handlers[:] = logs
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _text() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _read(stream: io.TextIOWrapper) -> str:
    stream.flush()
    stream.seek(0)
    return stream.read()
