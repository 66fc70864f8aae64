"""The disk of Milvus becomes read-only under load, stays so over a restart, and becomes writable again.

    python -m tests.faults.milvus_read_only

Needs the right to mount. A running Milvus keeps the files that it has open, such as its log, and can open no others to
write. It searches on, takes changes into its log, writes nothing to its storage, and ends by itself after a while. It
does not start on such a disk. Every command must end in time with a reason, and what Milvus acknowledged must be there
when the disk is writable again.
"""

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from indexer.build import build, choose_index
from indexer.catalogue import item_collections
from indexer.items.attributes import Attributes
from indexer.items.changes import delete
from indexer.items.journal import Journal
from mind.milvus.connection import Connection
from mind.milvus.errors import NotFlushedError, StoreError, StoreUnavailableError
from mind.milvus.store import Store
from tests.faults.ground import Findings, make_models, own_milvus, release, say, serving, until_health
from tests.faults.load import SETTLE_S, Answers, Load
from tests.milvus_server import Milvus
from tests.releases import rollback

CALLERS, TIMEOUT_S = 4, 1.0
COMMAND_TIMEOUT_S, WAIT_S = 5.0, 10.0
"""The options --timeout-s and --wait-s of the commands."""
LONGEST_S = 3 * COMMAND_TIMEOUT_S + WAIT_S
"""Longest time that a command may take that cannot do its work."""
FAILS_S, BACK_S = 20, 120
"""Longest wait for Milvus to end by itself, before it is ended, and to answer again."""
DELETED = 20


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Make a directory read-only for all files that are opened from now on, whatever the rights of a process."""
    subprocess.run(["mount", "--bind", directory, directory], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", directory], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


class Operator:
    """Gives commands to Milvus, and notes what does not end in time or without a reason."""

    def __init__(self, uri: str, findings: Findings) -> None:
        """`uri`: of Milvus."""
        self._connection = Connection(uri, timeout_s=COMMAND_TIMEOUT_S, wait_s=WAIT_S)
        self._findings = findings

    async def does(self, name: str, command: Callable[[Store], Any]) -> StoreError | None:
        """Run a command; gives its error if it failed."""
        started = time.monotonic()
        error = await asyncio.to_thread(self._run, command)
        self._findings.seconds(f"{name}: {error or 'done'}", time.monotonic() - started, LONGEST_S)
        return error

    def _run(self, command: Callable[[Store], Any]) -> StoreError | None:
        try:
            with Store(self._connection) as store:
                command(store)
        except StoreError as error:
            return error
        return None


async def drill(milvus: Milvus, directory: Path) -> tuple[Findings, Load]:
    """Run it. `milvus`: without item collections and release alias; `directory`: empty."""
    findings = Findings()
    models = make_models(directory / "artifacts", 3)
    _, live = await asyncio.to_thread(release, milvus.uri, *models[:2])
    answers, operator = Answers(models), Operator(milvus.uri, findings)
    gone = models[1].weights.item_id[:DELETED]

    def deletes(store: Store) -> None:
        delete(Journal(store, live), gone, lambda *_: None)

    def builds(store: Store) -> None:
        build(store, models[2], Attributes(), choose_index(False, "FLAT", {}, {}))

    async with (
        serving(milvus.uri, directory / "artifacts") as (server,),
        Load([server.address], answers, CALLERS, TIMEOUT_S) as load,
    ):
        await asyncio.sleep(1)
        with read_only(milvus.uri_file.parent / "data"):
            load.phase("read-only")
            answers.known = False
            deleted = await operator.does("delete", deletes) is None
            failed = await operator.does("build", builds)
            expected = NotFlushedError | StoreUnavailableError
            findings.expect(isinstance(failed, expected), f"build on a read-only disk: {failed!r}")
            findings.seconds("to the first call that fails", await load.until("STORE_UNAVAILABLE", FAILS_S))
            load.phase("started on the read-only disk")
            await asyncio.to_thread(milvus.terminate)
            await asyncio.to_thread(milvus.start)
            findings.expect(await until_health(server.address, False, 5) < 5, "health stays SERVING")
            for name, command in (("status", item_collections), ("delete", deletes), ("rollback", rollback)):
                error = await operator.does(f"{name}, started read-only", command)
                findings.expect(isinstance(error, StoreUnavailableError), f"{name} on a read-only disk: {error!r}")
            await asyncio.to_thread(milvus.terminate)
        say("writable again")
        await asyncio.to_thread(milvus.start)
        findings.seconds("started to SERVING", await until_health(server.address, True, BACK_S), BACK_S)
        if not deleted:
            await operator.does("delete, given again", deletes)
        answers.forget(gone.tolist())
        await asyncio.sleep(SETTLE_S)
        load.phase("writable again")
        answers.known = True
        await asyncio.sleep(1)
        findings.expect(load.phases[-1].failed == 0, f"writable again: {dict(load.phases[-1].outcomes)}")
    with Store(Connection(milvus.uri)) as store:
        found = set(store.vectors(live, gone))
        findings.expect(not found, f"{len(found)} of the deleted items are there")
        findings.expect(store.count(live) == len(models[1].weights.item_id) - DELETED, f"{store.count(live)} items")
        await asyncio.to_thread(builds, store)
    return findings, load


def judge(findings: Findings, load: Load) -> None:
    """Hold what the callers met against what they may meet."""
    for phase in load.phases[1:]:
        findings.expect(phase.wrong == phase.late == 0, f"{phase.name}: {phase.wrong} wrong, {phase.late} late")
        allowed = {"OK", "STORE_UNAVAILABLE", "DEADLINE_EXCEEDED"}
        findings.expect(set(phase.outcomes) <= allowed, f"{phase.name}: {dict(phase.outcomes)}")


def main() -> None:
    """Take the disk of Milvus away for writing, and give it back."""
    with own_milvus() as (milvus, directory):
        findings, load = asyncio.run(drill(milvus, directory))
        judge(findings, load)
        findings.close(load.table("calls"))


if __name__ == "__main__":
    typer.run(main)
