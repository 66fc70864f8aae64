"""Milvus restarted between and during the commands of a release, by SIGTERM and by SIGKILL in turn.

    python -m tests.faults.milvus_restarts --restarts 30

After each restart every command must do what it would have done without. A command that was cut short may fail; given
again, it must end right. Users are remembered, so publishing encodes them. Milvus 2.3.5 forgets the last change of a
collection's properties when it restarts (its issue 30144), which release records must outlive.
"""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from tenacity import RetryError, Retrying, retry_if_exception_type, retry_if_result, stop_after_delay, wait_fixed

from indexer.catalogue import item_collections, with_changes
from mind.artifact import Artifact
from mind.milvus import schemas
from mind.milvus.collection import is_item_collection
from mind.milvus.connection import Connection
from mind.milvus.errors import StoreError
from mind.milvus.journal import Changes
from mind.milvus.store import Store
from mind.milvus.user_store import UserStore
from mind.milvus.users import HIST_ITEM, UNUSED, UPDATED_AT, USER_KEY, USERS
from mind.sequences import Int64
from tests.faults.ground import Findings, make_models, own_milvus, say
from tests.milvus_server import ROOT, Milvus

COMMANDS = ("upsert", "delete", "build", "publish", "rollback", "prune")
REMEMBERED = 20
BACK_S, COMMAND_S, SETTLE_S = 180, 300, 60
"""Longest wait for Milvus to answer again, for a command, and for rows that Milvus finds late after a restart."""
Released = tuple[dict[str, str], Changes, int]
"""State of every collection, what the journal of the live one counts, number of users with vectors of its model."""


@dataclass(frozen=True)
class Step:
    """A command, and what must be there afterwards."""

    words: Sequence[str]
    expected: Released


@dataclass
class Drill:
    """Three models: the first two are released, the third comes and goes."""

    milvus: Milvus
    directory: Path
    models: Sequence[Artifact]
    findings: Findings
    names: list[str] = field(default_factory=list)
    """Collections of the models."""
    took_s: dict[str, float] = field(default_factory=dict)
    """How long each command took when it last ended well."""
    how: Counter[str] = field(default_factory=Counter)

    def prepare(self) -> None:
        """Release the first two models, remember users, and change items of the live one."""
        item_id = self.models[0].weights.item_id
        self.file("items.csv", "item_id,year", (f"{item},{1990 + row}" for row, item in enumerate(item_id.tolist())))
        self.file("changed.csv", "item_id,year", (f"{item},1900" for item in item_id[:3].tolist()))
        self._remember(item_id)
        for number in (0, 1, 2):
            assert self.run(self._build(number)) == 0, "a build failed"
            with Store(Connection(self.milvus.uri)) as store:
                self.names += [one.name for one in item_collections(store) if one.name not in self.names]
            if number < 2:
                assert self.run(self._publish(number)) == 0, "a publish failed"
        assert self.run(["prune", "--keep", "1"]) == 0

    def steps(self) -> list[Step]:
        """One round, which ends as it began."""
        first, live, third = self.names
        changed = str(self.directory / "changed.csv")
        deleted = str(int(self.models[0].weights.item_id[-1]))
        without = {first: "published", live: "live"}
        before, after = {**without, third: "built"}, {first: "published", live: "published", third: "live"}
        artifacts = str(self.directory / "models")
        changes = Changes(changed=3, deleted=1)
        # The items are changed in the first round; changing them again changes nothing.
        return [
            Step(
                ["upsert", "--attributes", changed, "--artifact", artifacts],
                (without, Changes(changed=3), REMEMBERED),
            ),
            Step(["delete", "--ids", deleted], (without, changes, REMEMBERED)),
            Step(self._build(2), (before, changes, REMEMBERED)),
            Step([*self._publish(2), "--carry-over"], (after, changes, REMEMBERED)),
            Step(["rollback", "--artifact", artifacts], (before, changes, REMEMBERED)),
            Step(["prune", "--keep", "1"], (without, changes, REMEMBERED)),
        ]

    def round(self, at: Collection[str], rng: random.Random, most: int) -> int:
        """Run the steps, with a restart before or during those of these names; gives the number of restarts."""
        restarts = 0
        for number, step in enumerate(self.steps()):
            name = step.words[0]
            if name not in at or restarts >= most:
                self.findings.expect(self.run(step.words) == 0, f"{name} failed without a restart")
            else:
                end = rng.choice((self.milvus.terminate, self.milvus.kill))
                during = rng.random() < 0.5
                how = f"{'during' if during else 'before'} {name}, by {end.__name__}"
                self.how[how] += 1
                restarts += 1
                say(f"restart {how}")
                self._with_restart(step, end, rng.uniform(0.3, 1) * self.took_s[name] if during else None)
            right = [step.expected]
            if not number:  # the deletion of the round before
                right.append((step.expected[0], Changes(changed=3, deleted=1), REMEMBERED))
            found = self._settled(right)
            self.findings.expect(found in right, f"after {name}: {found}, expected {right[-1]}")
        return restarts

    def _with_restart(self, step: Step, end: Callable[[], None], after_s: float | None) -> None:
        command = None
        if after_s is not None:
            command = self._begin(step.words)
            time.sleep(after_s)
        end()
        self.milvus.start()
        if command:
            _ended(command)
        self._until_back()
        if after_s is None or self._released() != step.expected:
            self.findings.expect(self.run(step.words) == 0, f"{step.words[0]} failed after a restart")

    def run(self, words: Sequence[str]) -> int:
        """Run a command of the indexer; gives its exit code."""
        started = time.monotonic()
        command = self._begin(words)
        output = _ended(command)
        if command.returncode:
            say(output.strip())
        else:
            self.took_s[words[0]] = time.monotonic() - started
        return command.returncode

    def file(self, name: str, header: str, lines: Iterable[str]) -> None:
        """Write a CSV file."""
        (self.directory / name).write_text("\n".join([header, *lines]))

    def _begin(self, words: Sequence[str]) -> "subprocess.Popen[str]":
        command = [sys.executable, "-X", "faulthandler", "-m", "indexer", *words, "--milvus-uri", self.milvus.uri]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def _build(self, number: int) -> list[str]:
        model = str(self.directory / "models" / self.models[number].model_version)
        return ["build", "--artifact", model, "--attributes", str(self.directory / "items.csv")]

    def _publish(self, number: int) -> list[str]:
        return ["publish", self.names[number], "--artifact", str(self.directory / "models")]

    def _remember(self, item_id: Int64) -> None:
        with Store(Connection(self.milvus.uri)) as store:
            store.drop(USERS)
            store.create_collection(USERS, schemas.users())
            store.open(USERS, UNUSED)
            history = item_id[:5].tolist()
            users = [
                {USER_KEY: f"u{number}", HIST_ITEM: history, UPDATED_AT: number + 1, UNUSED: [0.0, 0.0]}
                for number in range(REMEMBERED)
            ]
            store.upsert(USERS, users)

    def _released(self) -> Released:
        with Store(Connection(self.milvus.uri)) as store:
            finished = [one for one in item_collections(store) if is_item_collection(one.name)]
            collections = with_changes(store, finished)
            live = next(one for one in collections if one.live)
            users = UserStore(store)
            assert live.fingerprint is not None
            complete = any(
                one.complete for one in users.vectors() if one.model_version == live.fingerprint.model_version
            )
            states = {
                one.name: str(one.state) for one in sorted(collections, key=lambda one: self.names.index(one.name))
            }
            return states, live.changes, users.count() if complete else 0

    def _settled(self, right: Sequence[Released]) -> Released:
        """Read what is released, again for up to SETTLE_S while it is not right: Milvus may find some rows late."""
        started = time.monotonic()
        wrong = retry_if_result(lambda found: found not in right)
        retrying = Retrying(retry=wrong, wait=wait_fixed(1), stop=stop_after_delay(SETTLE_S))
        retrying.retry_error_callback = lambda state: state.outcome and state.outcome.result()
        found: Released = retrying(self._released)
        if retrying.statistics["attempt_number"] > 1:
            say(f"Milvus found the rest {time.monotonic() - started:.0f} s late, or not at all")
        return found

    def _until_back(self) -> None:
        """Wait until Milvus answers and finds the users, whom no command changes. Raises if it takes too long."""
        started = time.monotonic()
        refused = retry_if_exception_type((StoreError, StopIteration))
        fewer = retry_if_result(lambda users: users != REMEMBERED)
        try:
            Retrying(retry=refused | fewer, wait=wait_fixed(1), stop=stop_after_delay(BACK_S))(self._remembered)
        except RetryError as error:
            last = error.last_attempt.exception() or f"{error.last_attempt.result()} of {REMEMBERED} users"
            raise AssertionError(f"Milvus is not back after {BACK_S} s: {last}") from error
        say(f"Milvus answers {time.monotonic() - started:.0f} s later")

    def _remembered(self) -> int:
        self._released()
        with Store(Connection(self.milvus.uri)) as store:
            return UserStore(store).count()


def _ended(command: "subprocess.Popen[str]") -> str:
    """Wait for a command; gives what it printed. Raises AssertionError, which tells where it hangs, after COMMAND_S."""
    try:
        return command.communicate(timeout=COMMAND_S)[0]
    except subprocess.TimeoutExpired:
        command.send_signal(signal.SIGABRT)
        output = command.communicate()[0]
        raise AssertionError(f"{command.args} has not ended after {COMMAND_S} s:\n{output}") from None


def drill(milvus: Milvus, directory: Path, restarts: int, seed: int = 0, at: Collection[str] = COMMANDS) -> Findings:
    """Rounds with a restart for each of these commands, after one without if some have not been timed by then."""
    findings, rng = Findings(), random.Random(seed)
    models = make_models(directory / "models", 3, items=300)
    run = Drill(milvus, directory, models, findings)
    run.prepare()
    if not run.took_s.keys() >= set(at):
        run.round((), rng, most=0)
    done = 0
    while done < restarts:
        done += run.round(at, rng, most=restarts - done)
    findings.measured = {how: str(count) for how, count in sorted(run.how.items())}
    findings.expect(sum(run.how.values()) == restarts, f"{sum(run.how.values())} restarts instead of {restarts}")
    return findings


def main(
    restarts: Annotated[int, typer.Option(min=1)] = 30,
    seed: int = 0,
    at: Annotated[
        list[str] | None, typer.Option(help="Restart at this command; may be repeated. Without it at all of them.")
    ] = None,
) -> None:
    """Restart Milvus between and during commands."""
    if unknown := set(at or ()) - set(COMMANDS):
        raise typer.BadParameter(f"--at {', '.join(unknown)}: no such command; they are {', '.join(COMMANDS)}")
    with own_milvus() as (milvus, directory):
        drill(milvus, directory, restarts, seed, at or COMMANDS).close()


if __name__ == "__main__":
    typer.run(main)
