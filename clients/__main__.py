"""`recall-client`, also `python -m clients`."""

import sys


def main() -> None:
    """Runs the command line, or says how to install it."""
    try:
        import clients.users_cli  # adds its commands  # noqa: F401
        from clients.cli import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"rich", "typer"}:
            raise
        sys.exit("error: the command line needs rich and typer: pip install 'mind-recall[cli]'")
    app(prog_name="recall-client")


if __name__ == "__main__":
    main()
