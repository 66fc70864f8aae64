"""`make demo`: the whole path on real data, by the same commands a user types. `python -m tests.demo --help`.

It lives with the tests because it may use every package, and because a test runs it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clients import RecallClient
from clients.ids import ids_of
from mind.artifact import newest_artifact, read_manifest
from mind.command import print_anywhere
from mind.errors import DataError
from mind.milvus.errors import FileInUseError
from mind.milvus.lite import lite_failure
from protos.recall.v1 import recall_pb2
from tests import ROOT
from tests.demo_data import Case, DemoData, Items, cases_of, own_items, write_titles
from tests.ports import free_port

MOVIELENS = DemoData("movielens-100k", Path("data/movielens-100k"))
MOVIES = Items(MOVIELENS.prepared / "items.parquet", filter='year >= 1995 and array_contains(genres, "Drama")')
STEPS = (
    ("Prepare the clicks: check them, and split the users 8:1:1", 5),
    ("Train MIND on the CPU; a tenth of the users chooses the best epoch", 40),
    ("Evaluate it with the users that it never saw, beside four baselines", 5),
    ("Train its settings and epochs again on everybody: the model to release", 55),
    ("Index: build, verify and publish the item collection in Milvus Lite", 5),
    ("Serve, wait for the health check, and compare what is served with exact search", 5),
    ("Call Recall for three test users, whose lists draw on the most interests, and stop", 5),
)
"""Each step, and about how many seconds it takes with MovieLens-100K on two cores."""
COLOURS = ("cyan", "magenta", "yellow", "green")
SHOWN_USERS, SHOWN_CANDIDATES, SHOWN_HISTORY = 3, 8, 8

console = Console(highlight=False)


@dataclass(frozen=True)
class Paths:
    """What the demo makes."""

    directory: Path

    @property
    def chosen(self) -> Path:
        """The model that is evaluated."""
        return self.directory / "chosen"

    @property
    def artifacts(self) -> Path:
        """The model that is served: the same settings, trained on all data."""
        return self.directory / "artifacts"

    @property
    def milvus(self) -> Path:
        """Milvus Lite."""
        return self.directory / "milvus.db"

    @property
    def report(self) -> Path:
        """The evaluation as a page."""
        return self.directory / "report.html"

    @property
    def titles(self) -> Path:
        """Titles of the items, for the explorer."""
        return self.directory / "titles.csv"

    @property
    def map(self) -> Path:
        """Map of the items, for the explorer."""
        return self.directory / "map.json"

    @property
    def served(self) -> Path:
        """What the service answered for all test users; the name stands in the comparison with exact search."""
        return self.directory / "MIND, served.jsonl"


class StepError(Exception):
    """A step failed; what it printed says why."""


def main(
    directory: Annotated[
        Path | None,
        typer.Option(help="Where models and Milvus Lite go: build/demo, or build/own with --data.", show_default=False),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Your own clicks instead of MovieLens: CSV or Parquet with users, items and times."),
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option(help="Your own items: CSV or Parquet with their ids, perhaps titles, and what filters ask for."),
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(
            metavar="USER,ITEM,TIME", help="The columns of users, items and times; else those with usual names."
        ),
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("-o", metavar="KEY=VALUE", help="Passed to mind.train, such as runner.epochs=1.")
    ] = None,
) -> None:
    """Train, index, serve, evaluate, call: MIND on MovieLens-100K, or on your own clicks, in a few minutes."""
    print_anywhere()
    columns = tuple(names.split(",")) if names else ()
    if columns and len(columns) != 3:
        raise typer.BadParameter(f"{names!r}: expected three names, separated by commas", param_hint="--names")
    if data is None and (items or names):
        raise typer.BadParameter("--items and --names need --data, the clicks that they are about")
    clicks, catalogue = (_from_root(path) if path else None for path in (data, items))
    os.chdir(ROOT)
    directory = directory or Path("build/own" if data else "build/demo")
    directory.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if clicks:
            own = DemoData(str(clicks), directory / "data", columns)
            _demo(Paths(directory), override or [], own, own_items(catalogue) if catalogue else None)
        else:
            _demo(Paths(directory), override or [], MOVIELENS, MOVIES)
    except (StepError, DataError) as error:
        console.print(f"[red]the demo stopped:[/] {error}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("interrupted; everything the demo started has been stopped")
        raise typer.Exit(130) from None


def _from_root(path: Path) -> Path:
    """A path that means the same in the root of the checkout, where the demo runs."""
    absolute = path.absolute()
    return absolute.relative_to(ROOT) if absolute.is_relative_to(ROOT) else absolute


def _demo(paths: Paths, override: list[str], data: DemoData, items: Items | None) -> None:
    started = time.monotonic()
    _check_not_held(paths.milvus)
    _announce(data)
    _heading(1)
    _prepare(data)
    titles = items.titles() if items else {}
    _heading(2)
    _forget_models(paths.chosen)
    _train(data, paths.chosen, override)
    _heading(3)
    write_titles(titles, paths.titles)
    _run(
        "-m", "mind.infer", "-m", "mind/config.yaml", "--data", str(data.prepared), "--artifact", str(paths.chosen),
        "--html", str(paths.report), "--titles", str(paths.titles),
    )  # fmt: skip
    _heading(4)
    _forget_models(paths.artifacts)
    _train(data, paths.artifacts, override, "--final", str(paths.chosen))
    _heading(5)
    place = ["--milvus-uri", str(paths.milvus), "--artifact", str(paths.artifacts)]
    _run("-m", "indexer", "build", *place, *(_attributes(items) if items else []), "--publish")
    _heading(6)
    with _server(paths) as address:
        _run(
            "-m", "clients", "recall", "--server", address, "--input", str(data.users),
            "--top-k", "50", "--timeout-ms", "60000", "--output", str(paths.served), *_as_evaluated(paths.artifacts),
        )  # fmt: skip
        _run(
            "-m", "mind.infer", "-m", "mind/config.yaml", "--data", str(data.prepared),
            "--artifact", str(paths.artifacts), "--candidates", str(paths.served),
        )  # fmt: skip
        _heading(7)
        shown = cases_of(data, _several_interests(paths.served))
        _show_users(address, shown, titles, items.filter if items else "")
        _run("-m", "mind.item_map", "--artifact", str(paths.artifacts), "--output", str(paths.map))
    console.print(f"everything the demo started has been stopped; it took {time.monotonic() - started:.0f} s")
    _next_steps(paths, data, shown[0].history)


def _train(data: DemoData, where: Path, override: list[str], *more: str) -> None:
    given = [key for key in override if not (more and key.startswith("hyper_parameters."))]  # --final has its own
    keys = [word for key in [f"runner.model_save_path={where}", *given] for word in ("-o", key)]
    _run("-m", "mind.train", "-m", "mind/config.yaml", "--data", str(data.prepared), *keys, *more)


def _forget_models(directory: Path) -> None:
    """Delete the models of an earlier demo, so that the newest model is that of this one; a checkpoint stays."""
    for manifest in directory.glob("*/manifest.json"):
        shutil.rmtree(manifest.parent)


def _prepare(data: DemoData) -> None:
    columns = [word for pair in zip(("--user", "--item", "--time"), data.columns, strict=False) for word in pair]
    try:
        _run("-m", "mind.prepare", data.clicks, "--output", str(data.prepared), *columns)
    except StepError as error:
        if data is MOVIELENS:
            raise
        raise StepError(
            f"{error}; name the columns of users, items and times with `make demo DATA={data.clicks} "
            "NAMES=user,item,time` if they were not found"
        ) from error


def _as_evaluated(artifacts: Path) -> list[str]:
    """Ask for lists without items of the history if validation users decided so in training."""
    data = read_manifest(newest_artifact(artifacts)).get("data", {})
    return ["--exclude-history"] if data.get("exclude_history") else []


def _attributes(items: Items) -> list[str]:
    several = [word for name in items.multi_valued for word in ("--multi-valued", name)]
    return ["--attributes", str(items.file), *several]


def _check_not_held(file: Path) -> None:
    """Find out before anything is trained whether the index can be written: one process at a time holds such a file."""
    if file.exists() and isinstance(lite_failure(str(file)), FileInUseError):
        raise StepError(
            f"{file}: another process holds this Milvus Lite file, perhaps the server of an earlier demo; stop it, or "
            "run `.venv/bin/python -m tests.demo --directory build/other`"
        )


def _announce(data: DemoData) -> None:
    """Print what the demo is going to do, and how long each step takes."""
    known = data is MOVIELENS
    total = f", about {sum(seconds for _, seconds in STEPS) / 60:.0f} minutes on two cores" if known else ""
    console.print(f"[bold]The demo takes {len(STEPS)} steps with {data.clicks}{total}:[/]")
    for number, (text, seconds) in enumerate(STEPS, 1):
        console.print(f"  {number}  {text}" + (f"  [dim]{seconds} s[/]" if known else ""), soft_wrap=True)


def _heading(number: int) -> None:
    console.print()
    console.rule(f"[bold]{number}  {STEPS[number - 1][0]}", align="left", style="dim")


def _run(*arguments: str) -> None:
    """Run one of our own commands where the user sees it."""
    shown = " ".join(f"'{word}'" if " " in word else word for word in arguments)
    console.print(f"[dim]$ python {shown}", soft_wrap=True)
    with _started(arguments) as process:
        if process.wait():
            raise StepError(f"`python {shown}` failed, see above")


@contextmanager
def _started(arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is gone, with SIGTERM, when this is left. Ctrl-C reaches the demo alone, which then leaves."""
    process = subprocess.Popen([sys.executable, *arguments], start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _server(paths: Paths) -> Iterator[str]:
    """A server on a free port, healthy when this yields its address, stopped with SIGTERM."""
    address = f"127.0.0.1:{free_port()}"
    options = ["--listen", address, "--artifacts", str(paths.artifacts), "--milvus-uri", str(paths.milvus)]
    command = ["-m", "server", *options]
    console.print(f"[dim]$ python {' '.join(command)} &", soft_wrap=True)
    with _started(command):
        _run("-m", "clients", "health", "--server", address, "--wait", "60")
        yield address


def _show_users(address: str, cases: list[Case], titles: dict[str, str], filter_: str) -> None:
    with RecallClient(address, timeout_s=10) as client:
        answer = client.recall([case.history for case in cases], top_k=SHOWN_CANDIDATES)
        for case, result in zip(cases, answer.results, strict=True):
            console.print(_table(f"user {case.name}", case.history, result, titles))
        first = cases[0].history
        if filter_:
            filtered = client.recall([first], top_k=SHOWN_CANDIDATES, filter=filter_).results[0]
            console.print(_table(f"the first user again, filter {filter_}", first, filtered, titles))
        fresh = client.recall([first], top_k=SHOWN_CANDIDATES, exclude_history=True).results[0]
        console.print(_table("the first user again, exclude_history", first, fresh, titles))
    console.print("[bold]●[/] the interest that found it")


def _several_interests(served: Path) -> list[int]:
    """Positions of the test users whose first candidates come from the most interests."""
    lines = [json.loads(line) for line in served.read_text(encoding="utf-8").splitlines()]
    spread = [len(set(line["interest"][:SHOWN_CANDIDATES])) for line in lines]
    return sorted(range(len(lines)), key=lambda user: -spread[user])[:SHOWN_USERS]


def _table(
    title: str,
    history: list[int] | list[str],
    result: recall_pb2.UserCandidates,
    titles: dict[str, str],
) -> Table:
    table = Table(title=escape(title), title_justify="left", title_style="bold", min_width=100)
    table.add_column(f"history, newest first ({len(history)} in all)", style="dim", ratio=4)
    table.add_column("candidate", ratio=5)
    table.add_column("score", justify="right")
    table.add_column("interest")
    newest = [str(item) for item in history[::-1][:SHOWN_HISTORY]]
    found = [str(item) for item in ids_of(result, "item_ids")]
    for row in range(max(len(newest), len(found))):
        left = escape(titles.get(newest[row], newest[row])) if row < len(newest) else ""
        if row < len(found):
            item, interest = found[row], result.interest[row]
            colour = COLOURS[interest % len(COLOURS)]
            score = f"{result.scores[row]:.3f}"
            table.add_row(left, escape(titles.get(item, item)), score, f"[{colour}]● {interest}[/]")
        else:
            table.add_row(left)
    return table


def _next_steps(paths: Paths, data: DemoData, history: list[int] | list[str]) -> None:
    console.print("\n[bold]Go on with[/]")
    for what, command in (
        ("serve", f".venv/bin/python -m server --artifacts {paths.artifacts} --milvus-uri {paths.milvus}"),
        ("call", f".venv/bin/recall-client recall --hist-item {','.join(map(str, history[-3:]))} --top-k 10"),
        (
            "explore",
            f".venv/bin/recall-gateway --titles {paths.titles} --map {paths.map} --users {data.users}"
            "  # and http://127.0.0.1:8000",
        ),
        ("look", f"{paths.report} in a browser: curves, groups of users and items, interests, examples"),
        ("your own data", "make demo DATA=clicks.csv ITEMS=items.csv"),
    ):
        console.print(f"  {what:<14} {command}", soft_wrap=True)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    app()
