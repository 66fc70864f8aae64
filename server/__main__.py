"""`python -m server`: options, logging, event loop."""

import asyncio
import logging
import sys
from collections.abc import Callable

from mind.errors import ConfigError
from server.settings import load_settings


def main() -> int:
    """Serve; the exit code is 0 after a stop, 1 for options that cannot work, 2 for unknown ones."""
    try:
        settings = load_settings(sys.argv[1:])
        logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        logging.getLogger("faiss").setLevel(logging.CRITICAL)  # it talks while it is imported
        from server.app import serve  # after --help, which should not wait for pymilvus

        for name in list(logging.root.manager.loggerDict):  # after their import, which sets levels of its own
            if name.split(".")[0] in ("pymilvus", "milvus_lite", "faiss"):  # a traceback for every failed call
                logging.getLogger(name).setLevel(logging.CRITICAL)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(serve(settings))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows
        return None
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return loop_factory


if __name__ == "__main__":
    sys.exit(main())
