"""`python -m server`."""

import sys

from mind.extras import missing

if line := missing("server", "grpc_health", "prometheus_client", "pydantic_settings", "pymilvus", "safetensors"):
    sys.exit(line)

from mind.errors import ConfigError
from server.processes import run, run_together
from server.settings import load_settings


def main() -> int:
    """Serve; the exit code is 0 after a stop, 1 for options that cannot work, 2 for unknown ones."""
    try:
        settings = load_settings(sys.argv[1:])
        return run(settings) if settings.processes == 1 else run_together(settings)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
