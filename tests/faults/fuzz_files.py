"""Damaged files: models, clicks, training and evaluation lines, attributes, features, index.json, bulk input.

    python -m tests.faults.fuzz_files --files 20000

Each must be read as what stands there or refused in one bounded message: no traceback, no crash, no hang, no memory
beyond a limit that the reading process has.
"""

import resource
import shutil
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.progress import Progress

from tests.faults.files import TARGETS, judge
from tests.faults.tally import Tally, console

CHUNK = 100
CHUNK_S = 120.0
"""A hang is what takes longer for `CHUNK` files; it is some seconds."""
MEMORY_BYTES = 3 * 2**30
"""Address space left to the reading process beyond what its libraries take; a lie about a size must not use it up."""


def drill(files: int, seed: int, directory: Path) -> bool:
    """Read `files` damaged files of every kind; whether all went well."""
    tally = Tally()
    with (
        Progress(console=console, transient=True) as progress,
        ProcessPoolExecutor(1, get_context("spawn"), _limit_memory) as pool,
    ):
        for number, target in enumerate(TARGETS):
            for start in progress.track(range(0, files, CHUNK), description=target.name):
                end = min(start + CHUNK, files)
                try:
                    found = pool.submit(_judge_some, number, seed, start, end, directory).result(CHUNK_S)
                except (TimeoutError, BrokenProcessPool) as error:
                    says = f"--seed {seed}, {target.name}, one of {start} to {end - 1}"
                    tally.add(
                        target.name, type(error).__name__, "late" if isinstance(error, TimeoutError) else "failed", says
                    )
                    console.print(tally.table("damaged files, until the reader ended"))
                    pool.shutdown(wait=False, cancel_futures=True)
                    return False
                for outcome, problem, says in found:
                    tally.add(target.name, outcome, problem, says)
    console.print(tally.table(f"damaged files, seed {seed}"))
    return tally.clean


def _limit_memory() -> None:
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = mapped + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _judge_some(number: int, seed: int, start: int, end: int, directory: Path) -> list[tuple[str, str, str]]:
    target = TARGETS[number]
    path = directory / target.name
    found = [judge(target, path, f"{seed}/{target.name}/{case}") for case in range(start, end)]
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return found


def main(
    files: Annotated[int, typer.Option(min=1, help="Of every kind.")] = 2_000,
    seed: Annotated[int, typer.Option(help="The same seed, the same files.")] = 2024,
) -> None:
    """Read damaged files."""
    with TemporaryDirectory() as directory:
        raise typer.Exit(int(not drill(files, seed, Path(directory))))


if __name__ == "__main__":
    typer.run(main)
