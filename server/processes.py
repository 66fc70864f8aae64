"""Runs one server in this process, or several servers behind one port, each in its own process.

The kernel distributes the callers' connections among the processes (SO_REUSEPORT). Each process is a whole server with
its own queue and release. When one of them ends, all end.
"""

import asyncio
import ctypes
import faulthandler
import logging
import multiprocessing
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait

from mind.errors import ConfigError
from server.settings import Settings
from server.signals import leave_when_told
from server.watching.logs import formatter

logger = logging.getLogger(__name__)

LARGE_BYTES = 6 * 2**20
"""Size in bytes from which an array gets new memory from the system, which takes time. Batches of 64 users have none.
"""
KEPT_BYTES = 4 * LARGE_BYTES
"""Maximum size in bytes of the freed memory that a heap keeps. A search in memory for 64 users takes and frees 10 MB.
If the system gave these pages each time, this would take a fifth of the processor time of the search."""
ARENAS = 2
"""Number of heaps that threads share. By default glibc has eight per core, and freed memory stays in its heap."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Parameters of `mallopt` in glibc."""

_NOISY = ("pymilvus", "milvus_lite", "faiss")
"""Libraries that log a traceback for every failed call; their log lines are dropped."""


def run(settings: Settings) -> int:
    """Serve in this process until SIGTERM or SIGINT. Return the exit code: 0, or 1 for options that cannot work."""
    _log(settings)
    faulthandler.enable(2)  # reports the end of a process whose model file was overwritten while it was mapped
    _admit_many_connections()
    keep_little_memory()
    from server.app import serve  # here, because --help must not wait for pymilvus

    for name in (*_NOISY, *logging.root.manager.loggerDict):  # after the import of these libraries, which set levels
        if name.split(".")[0] in _NOISY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(serve(settings))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run_together(settings: Settings) -> int:
    """Serve in `settings.processes` processes until SIGTERM or SIGINT, or until one of them ends by itself.

    Returns:
        The exit code: 0 if all stopped at the signal, otherwise 1.

    Raises:
        ConfigError: another process uses the address.
    """
    _log(settings)
    context = multiprocessing.get_context("spawn")  # a fork would inherit threads of gRPC
    with _reserved(settings.listen) as listen:
        every = [_settings_of(number, settings, listen) for number in range(settings.processes)]
        servers = [context.Process(target=_run, args=(own,), daemon=True) for own in every]
        told = False

        def stop(*_: object) -> None:
            nonlocal told
            told = True
            for server in servers:
                server.terminate()

        signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: only this process handles Ctrl-C until they can
        for server in servers:
            server.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        wait([server.sentinel for server in servers])
        if not told:
            logger.error("a server process ended by itself; the others are stopped")
            stop()
        for server in servers:
            server.join()
    return int(any(server.exitcode not in (0, -signal.SIGTERM if told else 0) for server in servers))


def _settings_of(number: int, settings: Settings, listen: str) -> Settings:
    """Return the settings of one process: the common address, and its own port for metrics. They can be pickled."""
    host, _, port = settings.metrics_listen.rpartition(":")
    metrics_listen = f"{host}:{int(port) + number}" if port not in ("", "0") else settings.metrics_listen
    return Settings.model_construct(**settings.model_dump() | {"listen": listen, "metrics_listen": metrics_listen})


def _run(settings: Settings) -> None:
    leave_when_told()
    raise SystemExit(run(settings))


def _admit_many_connections() -> None:
    """Allow as many open files as the system permits. With the usual 1,024, further connections would fail silently."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def keep_little_memory() -> None:
    """Use few heaps, and return the memory of large arrays to the system once they are deleted.

    Otherwise glibc keeps it after the first such array: 100 MB after the first filter that half of 3.7 million items
    match.
    """
    with suppress(AttributeError, TypeError):  # other C libraries; Windows
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_ARENA_MAX, ARENAS)


def _log(settings: Settings) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(settings.log_format, several=settings.processes > 1))
    logging.basicConfig(level=settings.log_level, handlers=[handler])
    logging.getLogger("faiss").setLevel(logging.CRITICAL)  # it logs while it is imported


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows
        return None
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return loop_factory


@contextmanager
def _reserved(listen: str) -> Iterator[str]:
    """Reserve the port of an address, so that no other server gets a part of the callers. Yield host and port."""
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as alone:  # fails if any process listens, whatever its options
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind((host.strip("[]"), int(port)))
            port = str(alone.getsockname()[1])
        with socket.socket(family, socket.SOCK_STREAM) as shared:  # never listens, so it gets no connection
            shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            shared.bind((host.strip("[]"), int(port)))
            yield f"{host}:{port}"
    except OSError as error:
        raise ConfigError(f"--listen {listen}: the address cannot be used, or is taken") from error
