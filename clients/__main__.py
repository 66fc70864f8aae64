"""`recall-client`, also `python -m clients`."""

import sys


def main() -> None:
    """Runs the command line, or says how to install it. The exit code is 130 after Ctrl-C."""
    try:
        _run()
    except KeyboardInterrupt:  # the imports alone take half a second
        sys.exit(130)


def _run() -> None:
    try:
        from clients.cli import app
        from clients.command import call
        from clients.options import RENAMED
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"pydantic", "rich", "typer"}:
            raise
        sys.exit("error: the command line needs rich and typer: pip install 'mind-recall[cli]'")
    call(app, "recall-client", sys.argv[1:], RENAMED)


if __name__ == "__main__":
    main()
