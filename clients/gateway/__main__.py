"""Starts the gateway: `recall-gateway` or `python -m clients.gateway`."""

import signal
import socket
import sys


def main() -> None:
    """Run the gateway until SIGTERM or Ctrl-C.

    The exit code is 0 after a stop, 1 for options that cannot work, and 2 for unknown options.
    """
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        _run()
    except KeyboardInterrupt:  # uvicorn sends the signal again, once it has answered the requests in progress
        return


def _run() -> None:
    try:
        import uvicorn

        from clients.gateway.app import create_app
        from clients.gateway.connections import config_of
        from clients.gateway.options import load_settings
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"fastapi", "pydantic", "rich", "starlette", "typer", "uvicorn"}:
            raise
        sys.exit("error: the gateway needs fastapi and uvicorn: pip install 'mind-recall[gateway]'")
    try:
        settings = load_settings(sys.argv[1:])
        app = create_app(settings)
        listening = _listen(settings.listen)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    config = config_of(app, settings)
    host, port = settings.listen.rpartition(":")[0], listening.getsockname()[1]
    print(f"explorer: http://{host}:{port}/  HTTP API: http://{host}:{port}/docs", file=sys.stderr, flush=True)
    with listening:
        uvicorn.Server(config).run(sockets=[listening])


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise OSError(f"--listen {address}: {error}") from error


if __name__ == "__main__":
    main()
