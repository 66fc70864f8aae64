"""Runs the benchmarks one after the other and writes what they print into docs/explanation/figures.md.

    python -m tests.bench.report --only encode_and_merge --only one_call

Without `--only`, all of them run, which takes about two hours on two cores. Leave the machine alone meanwhile. Sections
of benchmarks that do not run, or fail, stay as they are.
"""

import os
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

from tests import ROOT
from tests.bench.machine import describe

PAGE = ROOT / "docs" / "explanation" / "figures.md"
BENCHMARKS = {
    "serving": ("Serving speed", "--rounds 5 --seconds 3"),
    "serving.filters": ("Filters", "--rounds 3 --seconds 1.5"),
    "serving.interests": ("One search for similar interests", ""),
    "serving.attributes": ("Attributes", ""),
    "serving.variety": ("Variety", ""),
    "serving.shadow": ("Shadow channels", ""),
    "serving.text_ids": ("Text ids", "--items 100000 --rounds 15 --seconds 2"),
    "serving.tuned": ("The chosen index", "--seconds 3"),
    "one_call": ("The parts of a call", ""),
    "empty_call": ("A call that does nothing", ""),
    "load_generator": ("The load generator", ""),
    "encode_and_merge": ("Encoding and merging", ""),
    "observability": ("Monitoring", ""),
    "users": ("Remembered users", ""),
    "freshness": ("Time until a change is visible", ""),
    "memory": ("Memory", ""),
    "training_speed": ("Training", ""),
    "reading": ("Reading", ""),
    "preparing": ("Preparing", ""),
}
"""The benchmarks below `tests.bench`: a title and the arguments."""
HEAD = """# Figures of all benchmarks

`make bench-report` runs the benchmarks one after the other and writes this page. Each section shows the command, when
and where it ran, the load of the machine before it began, and what it printed. [Performance](performance.md) explains
the figures. Compare figures within a section: its baseline ran in the same minutes.
"""
WIDTH = 120


def sections(page: str) -> dict[str, str]:
    """The sections of the page, by title."""
    return {part.partition("\n")[0]: part.rstrip() for part in page.split("\n## ")[1:]}


def section(title: str, words: list[str], about: str, printed: str) -> str:
    """A section without its `## `. `about`: when and where it was measured."""
    text = "\n".join(line.rstrip() for line in printed.strip().splitlines())
    return f"{title}\n`python {shlex.join(words[1:])}`, {about}\n\n```text\n{text}\n```"


def _run(title: str, name: str, arguments: str) -> str | None:
    """Run a benchmark; None if it failed, which it has told on standard error."""
    words = [sys.executable, "-m", f"tests.bench.{name}", *shlex.split(arguments)]
    load = os.getloadavg()[0]
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True).strip()
    about = f"{datetime.now(UTC):%Y-%m-%d}, commit {commit}, {describe()}, load before {load:.1f}"
    environment = os.environ | {"COLUMNS": str(WIDTH), "NO_COLOR": "1"}
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    return section(title, words, about, done.stdout) if not done.returncode else None


def main(only: Annotated[list[str] | None, typer.Option(help="Run this benchmark. May be repeated.")] = None) -> None:
    """Run the benchmarks and write the page."""
    unknown = set(only or ()) - BENCHMARKS.keys()
    if unknown:
        raise typer.BadParameter(
            f"{', '.join(sorted(unknown))}: unknown; there are {', '.join(BENCHMARKS)}", param_hint="--only"
        )
    failed = []
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        for name in progress.track(only or list(BENCHMARKS), description="benchmarks"):
            title, arguments = BENCHMARKS[name]
            made = _run(title, name, arguments)
            if made is None:
                failed.append(name)
                continue
            known = sections(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
            known[title] = made
            ordered = [known[one] for one, _ in BENCHMARKS.values() if one in known]
            PAGE.write_text("\n\n## ".join([HEAD.rstrip(), *ordered]) + "\n", encoding="utf-8")
    if failed:
        sys.exit(f"failed, their sections are as they were: {', '.join(failed)}")


if __name__ == "__main__":
    typer.run(main)
