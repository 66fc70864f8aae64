"""The program `python -m server`: reads the options and starts one server or several."""

import os
import sys

from mind.extras import missing
from server.signals import leave_when_told

_NEEDED = ("grpc_health", "prometheus_client", "pymilvus", "safetensors", "typer")


def main() -> int:
    """Serve until a signal stops the server.

    Return the exit code: 0 then, 1 for unusable options, 2 for unknown options.
    """
    leave_when_told()
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
    ):  # threads of a product would spin while others need the core
        os.environ.setdefault(name, "1")
    if line := missing("server", *_NEEDED):
        print(line, file=sys.stderr)
        return 1
    from mind.errors import ConfigError  # slow imports come after the signal handlers
    from server.options import load_settings
    from server.processes import run, run_together

    try:
        settings = load_settings(sys.argv[1:])
        return run(settings) if settings.processes == 1 else run_together(settings)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
