"""Two operators and three servers against whatever may come: random commands, clocks, cuts, restarts, full disks.

    python -m tests.faults.adversary --steps 2000
    python -m tests.faults.adversary --steps 2000 --lite

The operators' clocks are an hour behind, right, or an hour ahead, anew for each command. Commands run alone or two at
once, and are cut off from Milvus half way; Milvus, its connections and the servers end and come back; models in their
place are damaged, caches run out of room, tokens are replaced. Releases are in two channels; the servers serve `live`.
After each step a plain model (`tests.faults.expected`) says what must be there in each channel: no answer mixes two
releases, nothing that was acknowledged is lost, a rollback has somewhere to go, and all counts are right. The first
fault ends the drill.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from indexer.catalogue import after_live, channels_in, in_channel, item_collections
from indexer.errors import IndexerError
from indexer.rollout.choice import check_publish, check_rollback
from mind.errors import MindError
from mind.milvus.collection import ITEM_ID, is_item_collection
from mind.milvus.connection import Connection
from mind.milvus.records import NAME, RECORDS
from mind.milvus.store import Store
from mind.transfer import Models
from tests.conftest import release_lite
from tests.faults.expected import Expected, Fault
from tests.faults.fleet import Fleet
from tests.faults.ground import console, make_models, own_milvus, say
from tests.faults.operators import YEAR, Operator, skewed_clocks
from tests.faults.proxy import Proxy
from tests.faults.random_commands import Command, RandomCommands
from tests.milvus_server import QUICK, Milvus

MODELS, ITEMS = 4, 60
EVERYTHING = 0.15
"""Share of steps after which everything is compared: the contents of all collections, and where a rollback leads."""
HOUR_S = 3600
BACK_S = 120
"""Longest wait for Milvus after a restart."""
SETTLE_S = 30
"""How long a state that is wrong is looked at again, to say whether it stays wrong."""
OURS = (IndexerError, MindError)
"""Errors that a command may end with, in one line."""


@dataclass
class Adversary:
    """The drill in progress."""

    uri: str
    commands: RandomCommands
    operators: Sequence[Operator]
    rng: random.Random
    milvus: Milvus | None = None
    proxies: Sequence[Proxy] = ()
    """Of the operators, between them and Milvus; none on Milvus Lite."""
    fleet: Fleet | None = None
    expected: Expected = field(default_factory=Expected)
    tally: Counter[str] = field(default_factory=Counter)

    async def start(self) -> None:
        """Release two collections."""
        for number in range(2):
            await self._do(self.commands.build(self.expected, number))
            await self._do(self.commands.publish(self.expected, self.expected.newest()))
        if self.fleet:
            await self.fleet.start()

    async def step(self) -> None:
        """Do something at random, and check everything. Raises Fault."""
        kinds = {"command": 60.0, "restart Milvus": 0.4 if self.milvus or not self.proxies else 0}
        if self.proxies:
            kinds |= {"cut": 8, "two at once": 14}
        if self.fleet:
            kinds |= {"servers": 14}
        kind = self.rng.choices(list(kinds), list(kinds.values()))[0]
        self.tally[kind] += 1
        if kind == "command":
            await self._do(self.commands.one(self.expected))
        elif kind == "cut":
            await self._cut(self.commands.one(self.expected))
        elif kind == "two at once":
            await self._both()
        elif kind == "restart Milvus":
            await self._restart()
        elif self.fleet:
            await self.fleet.trouble(self._publish_another)
        await self.check()

    # How it is done.

    async def _do(self, command: Command) -> None:
        """Run it alone. Raises Fault if it fails."""
        operator = self._operator()
        say(f"{command.text}  [dim]({operator.ahead_s / HOUR_S:+.0f} h)[/]")
        try:
            result = await asyncio.to_thread(command.run, operator)
        except OURS as error:
            raise Fault(f"{command.text} failed: {error}") from error
        command.expect(self.expected, result)

    async def _cut(self, command: Command) -> None:
        """Cut it off from Milvus on its way; if it failed, give it again, as operators do."""
        number = self.rng.randrange(2)
        operator = replace(self._operator(number), timeout_s=5)
        after_s = self.rng.uniform(0, 0.6)
        say(f"{command.text}  [dim]({operator.ahead_s / HOUR_S:+.0f} h)[/], cut after {after_s:.1f} s")
        running = asyncio.create_task(asyncio.to_thread(command.run, operator))
        await asyncio.sleep(after_s)
        self.proxies[number].refuses = True
        self.proxies[number].reset()
        try:
            result = await running
            self.tally["cut too late"] += 1
        except OURS:
            result = None
        self.proxies[number].refuses = False
        await self._until_answers(self.operators[number].uri)
        if result is None and not self._rolled_back(command):
            await self._do(command)
        else:
            command.expect(self.expected, result)

    def _rolled_back(self, command: Command) -> bool:
        """Whether it is a rollback that did all before it failed: given again, it would go back further. Or a close."""
        if not command.text.startswith(("rollback", "close")):
            return False
        trial = self.expected.copy()
        command.expect(trial, None)
        return self._as_expected(trial)

    async def _both(self) -> None:
        """Two commands at once; whatever order they took, one of the orders explains what they left."""
        one, other = self.commands.two(self.expected)
        operators = [self._operator(number) for number in (0, 1)]
        ahead = ", ".join(f"{operator.ahead_s / HOUR_S:+.0f} h" for operator in operators)
        say(f"{one.text}  beside  {other.text}  [dim]({ahead})[/]")
        runs = [
            asyncio.to_thread(command.run, operator) for command, operator in zip((one, other), operators, strict=True)
        ]
        results = await asyncio.gather(*runs, return_exceptions=True)
        ended = dict(zip((one, other), results, strict=True))
        for command, result in ended.items():
            if isinstance(result, BaseException) and not isinstance(result, OURS):
                raise Fault(f"{command.text} ended with {result!r}") from result
            if isinstance(result, BaseException):
                self.tally["one of two failed"] += 1
                say(f"  {command.text}: {result}")
        for trial in self._explanations(ended):
            if self._as_expected(trial):
                self.expected = trial
                for command in ended:
                    if command.change and isinstance(ended[command], BaseException):
                        await self._do(command)
                return
        raise Fault(f"no order of the two explains {self._found()}; before them {self.expected.states()}")

    def _explanations(self, ended: dict[Command, Any]) -> Iterator[Expected]:
        """What two commands may leave, one after the other or overtaken by the other.

        One that failed did all, or nothing, or changed what was live before.
        """
        well = [command for command, result in ended.items() if not isinstance(result, BaseException)]
        failed = [command for command in ended if command not in well]
        subsets = [[*well, *also] for also in ([], *([one] for one in failed), failed)]
        for subset in subsets:
            for order in permutations(subset):
                trial = self.expected.copy()
                try:
                    for command in order:
                        command.expect(trial, ended[command] if command in well else None)
                except (Fault, ValueError, KeyError, IndexError):
                    continue
                yield trial
                for command in failed:
                    if command.change and command not in subset:
                        before, behind = self.expected.live_in(command.channel), trial.copy()
                        if before in behind.there:
                            command.change(behind, before)
                            yield behind
        if len(well) == 2 and all(command.releases for command in well) and well[0].channel == well[1].channel:
            yield from self._overtaken(well, ended)

    def _overtaken(self, releases: Sequence[Command], ended: dict[Command, Any]) -> Iterator[Expected]:
        """What two releases leave of which one was live for a moment: it is no release to return to any more."""
        channel = releases[0].channel
        for last, other in (releases, releases[::-1]):
            trial, overtaken = self.expected.copy(), self.expected.copy()
            last.expect(trial, ended[last])
            other.expect(overtaken, ended[other])
            yield trial.copy()
            now, then = (state.channels.get(channel, [""]) for state in (trial, overtaken))
            if then[-1] != now[-1] and then[-1] in now:
                now.remove(then[-1])
                yield trial

    async def _restart(self) -> None:
        """Restart Milvus; on Milvus Lite, let go of the file."""
        say("restart Milvus")
        if not self.milvus:
            release_lite(self.uri)
            return
        await asyncio.to_thread(self.milvus.terminate)
        await asyncio.to_thread(self.milvus.start)
        await self._until_answers(self.uri)
        await asyncio.to_thread(self._repair)

    def _repair(self) -> None:
        """Do what docs/how-to/milvus.md says after a restart of Milvus 2.3, which may show deleted rows again."""
        with Store(Connection(self.uri)) as store:
            for name, built in self.expected.there.items():
                self.tally["collections after a restart"] += 1
                if self._years(name) != built.items:
                    self.tally["of them repaired"] += 1
                check_publish(store, name)

    async def _until_answers(self, uri: str) -> None:
        """Wait until Milvus answers there and finds the live collection's items. Raises Fault if it takes too long."""
        deadline = time.monotonic() + BACK_S
        while True:
            try:
                await asyncio.to_thread(self._years, self.expected.live, uri)
                return
            except OURS as error:
                if time.monotonic() > deadline:
                    raise Fault(f"{uri} does not answer {BACK_S} s after an interruption: {error}") from error
                await asyncio.sleep(0.2)

    async def _publish_another(self) -> str:
        """Publish anything that is not live, for trouble with servers; gives its name."""
        others = [name for name in self.expected.there if name != self.expected.live]
        name = self.rng.choice(others or [self.expected.live])
        await self._do(self.commands.publish(self.expected, name))
        return name

    def _operator(self, number: int | None = None) -> Operator:
        operator = self.operators[self.rng.randrange(2) if number is None else number]
        operator.ahead_s = self.rng.choice((-HOUR_S, 0, HOUR_S))
        return operator

    # What must hold.

    async def check(self) -> None:
        """Compare with what is expected: always what can be seen at once, now and then everything. Raises Fault."""
        found = await asyncio.to_thread(self._found)
        if found != self.expected.states():
            rows = await asyncio.to_thread(self._record_rows)
            later = await asyncio.to_thread(self._found_later)
            raise Fault(f"there are {found}, expected {self.expected.states()}, {later}; records: {rows}")
        all_ = self.rng.random() < EVERYTHING
        for name in list(self.expected.there) if all_ else sorted(self.expected.lives):
            await asyncio.to_thread(self._check_contents, name)
        if all_:
            await asyncio.to_thread(self._check_way_back)
        if self.fleet:
            self.commands.in_use = await self.fleet.check(self.expected)

    def _found(self) -> dict[str, dict[str, str]]:
        """The states of all finished collections in each channel. Raises Fault if one has no record."""
        with Store(Connection(self.uri)) as store:
            found = [one for one in item_collections(store) if is_item_collection(one.name)]
        if lost := [one.name for one in found if one.record is None]:
            raise Fault(f"{lost} have no release record")
        states = {}
        for channel in channels_in(found):
            seen = in_channel(found, channel)
            if unmarked := [one.name for one in seen if one.live and not one.published_at]:
                raise Fault(f"{unmarked} is live in {channel}, and its record says that it is not published")
            overtaken = after_live(seen)  # the next release takes their marks back
            states[channel] = {one.name: "built" if one in overtaken else str(one.state) for one in seen}
        return states

    def _found_later(self) -> str:
        """Whether what is expected is there after a while: Milvus may have shown an earlier row."""
        started = time.monotonic()
        while time.monotonic() - started < SETTLE_S:
            if self._found() == self.expected.states():
                return f"which was there {time.monotonic() - started:.1f} s later"
            time.sleep(0.5)
        return f"which was not there {SETTLE_S} s later either"

    def _record_rows(self) -> dict[str, str]:
        """The number of each release and build, and how many rows Milvus has for its record: more than one is stale."""
        with Store(Connection(self.uri)) as store:
            names = [name for name in store.collections() if is_item_collection(name)]
            return {
                name: f"release {record.release}, build {record.build}, rows {store.count(RECORDS, _named(name))}"
                for name, record in store.records.items(names).items()
            }

    def _names(self) -> set[str]:
        with Store(Connection(self.uri)) as store:
            return {name for name in store.collections() if is_item_collection(name)}

    def _as_expected(self, trial: Expected) -> bool:
        """Whether releases are as in `trial`, and the items of what is live and of what was."""
        if self._found() != trial.states():
            return False
        names = (trial.lives | self.expected.lives) & trial.there.keys()
        return all(self._years(name) == trial.there[name].items for name in names)

    def _years(self, name: str, uri: str = "") -> dict[int, int]:
        with Store(Connection(uri or self.uri)) as store:
            store.load(name)
            return {row[ITEM_ID]: row[YEAR] for row in store.rows(name, f"{ITEM_ID} > -1", 1_000)}

    def _check_contents(self, name: str) -> None:
        built, found = self.expected.there[name], self._years(name)
        if found != built.items:
            wrong = {item for item in found.keys() | built.items.keys() if found.get(item) != built.items.get(item)}
            shown = {item: (found.get(item), built.items.get(item), built.changes.get(item)) for item in wrong}
            raise Fault(f"{name} has other items (found, expected, changed): {shown}")
        with Store(Connection(self.uri)) as store:
            counted = store.changes(name)
        if counted != built.counted():
            raise Fault(f"the journal of {name} counts {counted}, expected {built.counted()}")

    def _check_way_back(self) -> None:
        for channel, released in self.expected.channels.items():
            if len(released) < 2:
                continue
            with Store(Connection(self.uri)) as store:
                back = check_rollback(store, channel=channel).next.name
            if back != released[-2]:
                raise Fault(f"a rollback in {channel} would return to {back}, the release before was {released[-2]}")


def _named(name: str) -> str:
    return f'{NAME} == "{name}"'


async def drill(adversary: Adversary, steps: int) -> Counter[str]:
    """Take so many steps. Raises Fault."""
    with skewed_clocks():
        await adversary.start()
        started = time.monotonic()
        for number in range(1, steps + 1):
            await adversary.step()
            if number % 100 == 0:
                say(f"[bold]{number} steps, {time.monotonic() - started:.0f} s, {dict(adversary.tally)}")
    return adversary.tally


@asynccontextmanager
async def on_milvus(milvus: Milvus, directory: Path, seed: int, restarts: bool = True) -> AsyncIterator[Adversary]:
    """The drill on a real Milvus, with servers."""
    models = make_models(directory / "models", MODELS, ITEMS)
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(Proxy(milvus.uri)) for _ in range(2)]
        operators = []
        for number, proxy in enumerate(proxies):
            own = directory / f"operator-{number}"
            own.mkdir()
            operators.append(Operator(f"http://{proxy.address}", Models(directory / "models"), own))
        rng = random.Random(seed)
        fleet = Fleet(milvus.uri, models, directory, rng)
        stack.push_async_callback(fleet.stop)
        commands = RandomCommands(milvus.uri, models, rng)
        yield Adversary(milvus.uri, commands, operators, rng, milvus if restarts else None, proxies, fleet)


@contextmanager
def on_lite(directory: Path, seed: int) -> Iterator[Adversary]:
    """The drill on Milvus Lite, whose file this process holds: operators alone, one command at a time."""
    models = make_models(directory / "models", MODELS, ITEMS)
    uri = str(directory / "milvus.db")
    operators = [Operator(uri, Models(directory / "models"), directory) for _ in range(2)]
    rng = random.Random(seed)
    yield Adversary(uri, RandomCommands(uri, models, rng), operators, rng)
    release_lite(uri)


def main(
    steps: Annotated[int, typer.Option(min=1)] = 2_000,
    seed: Annotated[int, typer.Option(help="Of all choices.")] = 2024,
    lite: Annotated[bool, typer.Option("--lite", help="On Milvus Lite: operators alone.")] = False,
) -> None:
    """Try to make releases break their promises."""
    try:
        if lite:
            with TemporaryDirectory() as directory, on_lite(Path(directory), seed) as adversary:
                tally = asyncio.run(drill(adversary, steps))
        else:
            tally = asyncio.run(_on_own_milvus(steps, seed))
    except Fault as fault:
        console.print(f"[bold red]not as it should be:[/] {fault}", soft_wrap=True)
        raise typer.Exit(1) from fault
    console.print(f"[bold green]{steps} steps, no fault[/]: {dict(tally)}")


async def _on_own_milvus(steps: int, seed: int) -> Counter[str]:
    with own_milvus(QUICK) as (milvus, directory):
        async with on_milvus(milvus, directory, seed) as adversary:
            return await drill(adversary, steps)


if __name__ == "__main__":
    typer.run(main)
