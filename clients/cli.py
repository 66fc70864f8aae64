"""The command line `recall-client`: one command for each call, answers as tables or JSON, failures as one line."""

import typer

from clients.command import Version
from clients.commands import admin, bench, bulk, feedback, look, recall, shadow, similar, size, users

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Ask a recall server for candidates.")


@app.callback()
def _options(version: Version = False) -> None:
    """Options before the command."""


app.add_typer(recall.app)
app.add_typer(similar.app)
app.add_typer(bulk.app)
app.add_typer(bench.app)
app.add_typer(look.app)
app.add_typer(shadow.app)
app.add_typer(size.app)
app.add_typer(feedback.app)
app.add_typer(users.app, name="users")
app.add_typer(admin.app, name="admin")
