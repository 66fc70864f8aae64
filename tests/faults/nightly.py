"""Seven nights of the night shift on a shop that grows, while callers call: bad nights never go live.

    python -m tests.faults.nightly

In one night half of the data are missing, in another the item ids are shuffled; one is killed with SIGKILL in five of
its steps; in the last one Milvus falls silent after the release, which is rolled back. Every answer is held against the
exact one of the model that it names.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import typer
import yaml

from indexer.nightly.run import Exit
from indexer.nightly.state import STATE
from indexer.nightly.steps import STEPS
from mind.artifact import Artifact, load_artifact, newest_artifact
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from protos.recall.v1 import recall_pb2
from tests.faults.ground import Findings, console, own_milvus, say, serving
from tests.faults.load import Answers, Load
from tests.growing_shop import Row, Shop, write
from tests.milvus_server import QUICK, ROOT, Milvus
from tests.ports import free_port

OPENED, FIRST_NIGHT, NIGHTS = date(2026, 1, 1), date(2026, 1, 21), 7
HALF_MISSING, KILLED, SHUFFLED, SILENT = 3, 4, 5, 7
"""The nights in which something happens, by number."""
KILLS = ("prepare", "train", "build", "publish", "watch")
"""The steps in which that night is killed."""
TIMED, WITHIN = 2, 0.25
"""A night that is like the killed one, and the share of what a step took in it after which the killed one dies."""
CALLERS, PAUSE_S, DEADLINE_S = 4, 0.05, 20.0
SILENT_S = 7.0
"""How long Milvus is silent: longer than a server waits for it by default, 5 s."""
TRAINING = (
    "runner.epochs=2",
    "runner.train_batch_size=128",
    "hyper_parameters.embedding_dim=16",
    "hyper_parameters.hidden_size=16",
)


class Released(Answers):
    """The exact answers of every model that a night brings to the servers, and which of them answered."""

    def __init__(self, artifacts: Path, first: Artifact) -> None:
        """`first`: the model of the first night, whose items all others know."""
        super().__init__([first])
        self._artifacts = artifacts
        self.seen: Counter[str] = Counter()

    def fault(self, user: int, answer: recall_pb2.UserCandidates, model_version: str, collection: str) -> str:
        """As for known models; an unknown one is loaded first."""
        self.seen[model_version] += 1
        if model_version not in self._models and (self._artifacts / model_version).exists():
            self.learn(load_artifact(self._artifacts / model_version))
        return super().fault(user, answer, model_version, collection)


class Nights:
    """Runs the command, night after night."""

    def __init__(self, uri: str, directory: Path) -> None:
        """`directory`: empty, receives everything."""
        self._uri, self._directory = uri, directory
        directory.mkdir(parents=True, exist_ok=True)
        self.artifacts, self.work = directory / "artifacts", directory / "work"
        self._shop, self._config = Shop(OPENED), directory / "nightly.yaml"
        self.server, self.metrics = "", ""
        """Where the server is called, and where its metrics are read; empty before there is one."""
        self.lines: list[dict[str, Any]] = []
        """What the last night printed, in all its runs."""

    def write(self, number: int) -> None:
        """Write the clicks that are there in a night, and the configuration."""
        night = _date(number)
        rows = self._shop.until(night)
        file = self._directory / f"{night}.csv"
        if number == HALF_MISSING:
            write(file, [row for row in rows if row[0] % 2])
        elif number == SHUFFLED:
            write(file, rows, _shuffled(rows).__getitem__)
        else:
            write(file, rows)
        split = ["--split", "time", "--valid-from", "{date-2d}", "--test-from", "{date-1d}"]
        config = {
            "work_dir": str(self.work),
            "artifacts": str(self.artifacts),
            "prepare": {"input": f"{self._directory}/{{date}}.csv", "options": split},
            "train": {"config": str(ROOT / "mind" / "config.yaml"), "overrides": TRAINING, "warm_epochs": 1},
            "gate": {"max_drop": 0.03},
            "build": {"options": ["--index-type", "FLAT"]},
            "publish": {"wait_timeout_s": 60},
            "watch": {
                "metrics": [self.metrics] if self.metrics else [],
                "minutes": (2 if number != SILENT else 2 * SILENT_S + 2) / 60,
                "every_s": 0.25,
                "min_samples": 5,
                "min_calls": 5,
                "max_silence_s": 30,
            },
        }
        self._config.write_text(yaml.safe_dump(json.loads(json.dumps(config))))

    async def run(self, number: int, kill: str = "") -> tuple[int, str]:
        """Run the command for a night.

        Args:
            number: of the night.
            kill: the step in which it is killed; empty lets it end.

        Returns:
            Its exit code, and what it said on standard error.
        """
        words = ["nightly", "--config", str(self._config), "--date", str(_date(number)), "--milvus-uri", self._uri]
        words += ["--server", self.server] if self.server else []
        pipe = asyncio.subprocess.PIPE
        command = [sys.executable, "-m", "indexer", *words]
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=pipe, stderr=pipe)
        assert process.stdout and process.stderr
        killer = asyncio.create_task(self._kill(process, number, kill)) if kill else None
        while text := await process.stdout.readline():
            self.lines.append(json.loads(text))
        errors = (await process.stderr.read()).decode()
        code = await process.wait()
        if killer:
            await killer
        return code, errors

    async def _kill(self, process: asyncio.subprocess.Process, number: int, step: str) -> None:
        """End a running night with SIGKILL within a step, unless it ends before."""
        while process.returncode is None and self.next_step(number) != step:
            await asyncio.sleep(0.01)
        took = self.state(TIMED)["steps"].get(step, {"seconds": 0.0})
        await asyncio.sleep(WITHIN * took["seconds"])
        with suppress(ProcessLookupError):
            process.kill()

    def next_step(self, number: int) -> str:
        """The step that a night is in, or was killed in; empty before it begins and after its last step."""
        if not (self._directory_of(number) / STATE).exists():
            return ""
        done = self.state(number)["steps"]
        return next((step for step in STEPS if step not in done), "")

    def state(self, number: int) -> dict[str, Any]:
        """What a night has kept."""
        found: dict[str, Any] = json.loads((self._directory_of(number) / STATE).read_text())
        return found

    def _directory_of(self, number: int) -> Path:
        return self.work / str(_date(number))

    def live(self) -> str:
        """The version of the model that is live."""
        with Store(Connection(self._uri)) as store:
            return (store.alias() or "").split("_")[1]


def _date(number: int) -> date:
    return FIRST_NIGHT + timedelta(days=number - 1)


def _shuffled(rows: Sequence[Row]) -> dict[int, int]:
    items = sorted({item for _, item, _ in rows})
    return dict(zip(items, random.Random(5).sample(items, len(items)), strict=True))


async def drill(milvus: Milvus, directory: Path) -> tuple[Findings, Load]:
    """Run the nights. `milvus`: without item collections and release alias; `directory`: empty."""
    findings, nights = Findings(), Nights(milvus.uri, directory)
    await _night(findings, nights, 1, Exit.RELEASED)
    first = load_artifact(newest_artifact(nights.artifacts))
    metrics = f"127.0.0.1:{free_port()}"
    options = ["--watch-interval-s", "0.3", "--metrics-listen", metrics, "--recall-sample-rate", "1"]
    answers = Released(nights.artifacts, first)
    async with serving(milvus.uri, nights.artifacts, *options) as (server,):  # noqa: SIM117 - the load needs its address
        async with Load([server.address], answers, CALLERS, DEADLINE_S, PAUSE_S) as load:
            nights.server, nights.metrics = server.address, metrics
            expected = {HALF_MISSING: Exit.REFUSED, SHUFFLED: Exit.REFUSED}
            for number in range(2, SILENT):
                load.phase(f"night {number}")
                await _night(findings, nights, number, expected.get(number, Exit.RELEASED))
            await asyncio.sleep(0.5)
            load.phase(f"night {SILENT}: Milvus is silent for {SILENT_S:g} s")
            await _silent_night(findings, nights, milvus)
    _judge(findings, load, answers, nights)
    return findings, load


async def _night(findings: Findings, nights: Nights, number: int, expected: Exit) -> None:
    """One night, killed or not; it must end as expected, and what is live with it."""
    nights.write(number)
    live = nights.live() if number > 1 else ""
    nights.lines.clear()
    started = time.monotonic()
    for step in KILLS if number == KILLED else ():
        code, _ = await nights.run(number, kill=step)
        found = nights.next_step(number)
        findings.expect(code == -9, f"night {number} was to be killed in {step}, and ended with {code}")
        findings.expect(found == step, f"the kill of night {number} missed {step}: {found or 'no step'} is next")
        if found != step:  # the later kills would wait for steps that are over
            break
    code, errors = await nights.run(number)
    findings.expect(code == expected, f"night {number} ended with {code}, expected {expected!r}: {errors[-600:]}")
    done = Counter(line["step"] for line in nights.lines if line["outcome"] in ("done", "skipped"))
    findings.expect(max(done.values()) == 1, f"night {number}: steps done more than once: {done}")
    findings.seconds(f"night {number}: {expected.name.lower()}", time.monotonic() - started)
    if expected is Exit.RELEASED:
        findings.expect(list(done) == list(STEPS), f"night {number} did {list(done)}")
        findings.expect(nights.live() == nights.lines[-1]["model_version"], f"{nights.live()} is live")
    else:
        findings.expect(nights.live() == live, f"night {number} was refused, and {nights.live()} is live")
        why = next((line["why"] for line in nights.lines if line["outcome"] == "refused" and "why" in line), "nothing")
        say(f"night {number} was refused: {why}")
        findings.measured[f"night {number} was refused"] = why.split(";")[0]


async def _silent_night(findings: Findings, nights: Nights, milvus: Milvus) -> None:
    """A night after whose release Milvus falls silent for a while: the release is rolled back."""
    nights.write(SILENT)
    before = nights.live()
    nights.lines.clear()
    running = asyncio.create_task(nights.run(SILENT))
    while not running.done() and not any(line["step"] == "publish" for line in nights.lines):
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    findings.expect(nights.live() != before, f"night {SILENT} released nothing")
    milvus.pause()
    await asyncio.sleep(SILENT_S)
    milvus.resume()
    code, errors = await running
    findings.expect(code == Exit.ROLLED_BACK, f"night {SILENT} ended with {code}, expected 4: {errors[-600:]}")
    findings.expect(nights.live() == before, f"night {SILENT} was rolled back, and {nights.live()} is live")
    why = nights.state(SILENT)["fell"]
    say(f"night {SILENT} was rolled back: {why}")
    findings.measured[f"night {SILENT} was rolled back"] = why


def _judge(findings: Findings, load: Load, answers: Released, nights: Nights) -> None:
    """Callers noticed nothing but a silent Milvus, and no refused candidate ever answered."""
    for phase in load.phases[1:-1]:
        faults = phase.failed, phase.wrong, phase.late
        findings.expect(not any(faults) and phase.calls > 0, f"{phase.name}: {faults} failed, wrong, late")
    findings.expect(not load.phases[-1].wrong, f"{load.phases[-1].name}: {load.phases[-1].wrong} wrong")
    refused = nights.state(SHUFFLED)["steps"]["train"]["figures"]["model_version"]
    findings.expect(refused not in answers.seen, f"the candidate of night {SHUFFLED} answered")
    findings.expect(len(answers.seen) == 5, f"models that answered: {dict(answers.seen)}")
    warm = [nights.state(number)["steps"]["train"]["figures"]["warm_start"] for number in (2, 4, 6)]
    findings.expect(all(warm), f"nights that began with the weights of the live model: {warm}")


def main() -> None:
    """Seven nights."""
    with own_milvus(QUICK) as (milvus, directory):
        findings, load = asyncio.run(drill(milvus, directory / "nights"))
        for reason, times in load.reasons.most_common(5):
            console.print(f"failed {times} times: {reason}")
        findings.close(load.table("calls"))


if __name__ == "__main__":
    typer.run(main)
