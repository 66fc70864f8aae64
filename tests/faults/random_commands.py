"""Random commands of the indexer, each with what it makes of the expected state (`tests.faults.expected`)."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mind.artifact import Artifact
from mind.milvus.channels import LIVE
from mind.milvus.collection import is_item_collection
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from tests.faults.expected import Expected, Fault
from tests.faults.fleet import vector_of
from tests.faults.operators import Operator

VARIANTS = 2
"""Builds of each model, which differ in the year of all items."""
FRESH = range(5, 10)
"""Ids of items that no model knows."""
MOST_COLLECTIONS = 7
BESIDE = "b"
"""The channel that commands open and close beside `live`."""


@dataclass(frozen=True)
class Command:
    """A command of the indexer, and what it makes of the expected state."""

    text: str
    run: Callable[[Operator], Any]
    expect: Callable[[Expected, Any], None]
    """Gets the state and what the command returned; None if it failed. May raise Fault."""
    change: Callable[[Expected, str], None] | None = None
    """Of a command that changes items: what it makes of one collection."""
    releases: bool = False
    """Whether it moves the alias."""
    channel: str = LIVE
    """The channel that it changes, or whose items it changes."""


@dataclass
class RandomCommands:
    """Makes commands that must end well in a state."""

    uri: str
    models: Sequence[Artifact]
    rng: random.Random
    in_use: set[str] = field(default_factory=set)
    """The collections that servers use, which prune must spare."""
    year: int = 3000

    def one(self, state: Expected) -> Command:
        """Any command."""
        if len(state.there) > MOST_COLLECTIONS:
            return self.prune(state)
        choices: list[tuple[float, Callable[[Expected], Command]]] = [
            (5, self.build),
            (6, self.publish),
            (3, self.publish_newest),
            (8, self.carry_over),
            (6, self.prune),
            (16, self.upsert),
            (10, self.delete),
            (7, lambda state: self.publish(state, channel=BESIDE)),
            (4, lambda state: self.publish(state, carry_over=True, channel=BESIDE)),
        ]
        if len(state.channels[LIVE]) > 1:
            choices += [(8, self.roll_back), (2, self.roll_back_to)]
        if BESIDE in state.channels:
            choices += [(5, self.promote), (2, self.close)]
            choices += [(4, lambda state: self.upsert(state, channel=BESIDE))]
            choices += [(3, lambda state: self.delete(state, channel=BESIDE))]
            if len(state.channels[BESIDE]) > 1:
                choices += [(5, lambda state: self.roll_back(state, channel=BESIDE))]
        weights, makers = zip(*choices, strict=True)
        return self.rng.choices(makers, weights)[0](state)

    def two(self, state: Expected) -> tuple[Command, Command]:
        """Two that may run at once. Never two that change items, which nobody may do."""
        pairs: list[tuple[Callable[[Expected], Command], Callable[[Expected], Command]]] = [
            (self.publish, self.prune),
            (self.publish, self.publish),
            (self.build, self.prune),
            (self.build, self.publish),
            (self.publish, self._publish_beside),
            (self._publish_beside, self._publish_beside),
            (self._publish_beside, self.prune),
        ]
        if BESIDE in state.channels:
            pairs += [(self._promote, other) for other in (self.publish, self._publish_beside, self.prune)]
            pairs += [(self.close, self.publish), (self.close, self._publish_beside), (self.close, self.prune)]
        others = [name for name in state.there if name not in state.lives]
        if others:  # to carry over to the live one would change its items, too
            carried = self.publish(state, self.rng.choice(others), carry_over=True)
            pairs += [
                (lambda _: carried, lambda state: self.upsert(state, fresh=False)),
                (lambda _: carried, self.delete),
            ]
        if len(state.channels[LIVE]) > 1:
            pairs += [(self.publish, self.roll_back_to), (self.roll_back_to, self.prune)]
            pairs += [(self._publish_beside, self.roll_back_to)]
        if self.rng.random() < 0.1:
            same = self.build(state)
            return same, replace(same)
        first, second = self.rng.choice(pairs)
        return first(state), second(state)

    def build(self, state: Expected, number: int | None = None) -> Command:
        """Build a model, or verify what was built of it."""
        variant = self.rng.randrange(VARIANTS) if number is None else 0
        number = self.rng.randrange(len(self.models)) if number is None else number
        model, year = self.models[number], 1990 + variant
        items = dict.fromkeys(model.weights.item_id.tolist(), year)

        def expect(state: Expected, name: Any) -> None:
            if name:
                state.build(name, number, dict(items))

        return Command(f"build {number}, {year}", lambda one: one.build(model.model_version, year), expect)

    def publish(
        self, state: Expected, name: str | None = None, carry_over: bool = False, channel: str = LIVE
    ) -> Command:
        """Publish a collection, any unless it is named."""
        chosen = name or self.rng.choice(list(state.there))

        def expect(state: Expected, live: Any) -> None:
            if chosen not in state.there:
                raise Fault(f"{chosen} was published, and is not there")
            state.publish(chosen, carry_over, channel)

        text = f"publish {chosen}{' --carry-over' if carry_over else ''}{_option(channel)}"
        run: Callable[[Operator], Any] = lambda one: one.publish(chosen, carry_over, channel)  # noqa: E731
        return Command(text, run, expect, releases=True, channel=channel)

    def _publish_beside(self, state: Expected) -> Command:
        return self.publish(state, channel=BESIDE)

    def promote(self, state: Expected, may_carry_over: bool = True) -> Command:
        """Make what is live in the other channel live."""
        carry_over = may_carry_over and self.rng.random() < 0.5

        def expect(state: Expected, live: Any) -> None:
            name = live or state.live_in(BESIDE)
            if name not in state.channels[BESIDE]:
                raise Fault(f"{name} was promoted, and was not live in {BESIDE}")
            state.publish(name, carry_over)

        text = f"promote {BESIDE}{' --carry-over' if carry_over else ''}"
        return Command(text, lambda one: one.promote(BESIDE, carry_over), expect, releases=True)

    def _promote(self, state: Expected) -> Command:
        return self.promote(state, may_carry_over=False)  # beside another release it may carry over from either

    def close(self, state: Expected) -> Command:
        """Close the other channel."""

        def expect(state: Expected, live: Any) -> None:
            state.close(BESIDE)

        return Command(f"close {BESIDE}", lambda one: one.close(BESIDE), expect, releases=True, channel=BESIDE)

    def carry_over(self, state: Expected) -> Command:
        """Publish a collection with the changes of the live one."""
        return self.publish(state, carry_over=True)

    def publish_newest(self, state: Expected) -> Command:
        """Publish what was built last."""

        def expect(state: Expected, live: Any) -> None:
            if live not in (None, state.newest()):
                raise Fault(f"publish took {live}, {state.newest()} was built last")
            state.publish(state.newest())

        return Command("publish", lambda one: one.publish(None), expect, releases=True)

    def roll_back(self, state: Expected, to: str | None = None, channel: str = LIVE) -> Command:
        """Return to the release before, or to an earlier one."""

        def expect(state: Expected, live: Any) -> None:
            if len(state.channels[channel]) < 2:
                raise Fault("there was nothing to roll back to")
            state.roll_back(to, channel)

        text = f"rollback {to or ''}{_option(channel)}"
        return Command(text, lambda one: one.roll_back(to, channel), expect, releases=True, channel=channel)

    def roll_back_to(self, state: Expected) -> Command:
        """Return to an earlier release that is named."""
        return self.roll_back(state, self.rng.choice(state.channels[LIVE][:-1]))

    def prune(self, state: Expected) -> Command:
        """Drop what is old."""
        keep, in_use = self.rng.choice((1, 1, 2, 3)), set(self.in_use)

        def expect(state: Expected, _: Any) -> None:
            there = self._names() & state.there.keys()  # not what is built beside it
            back = {name for released in state.channels.values() for name in released[-2:-1]}
            if lost := {*state.lives, *back, *in_use} & state.there.keys() - there:
                raise Fault(f"prune --keep {keep} dropped {lost}")
            state.drop(state.there.keys() - there)
            if len(there - in_use - state.lives) > max(keep, len(back - state.lives)):
                raise Fault(f"prune --keep {keep} left {there}")

        return Command(f"prune --keep {keep}", lambda one: one.prune(keep, in_use), expect)

    def upsert(self, state: Expected, fresh: bool = True, channel: str = LIVE) -> Command:
        """Give some items a year that no item had; with `fresh`, new ones too."""
        known = self.models[0].weights.item_id.tolist()
        items = self.rng.sample(known, self.rng.randint(1, 4)) + self.rng.sample(FRESH, self.rng.randint(0, 2) * fresh)
        self.year += 1
        years, at = dict.fromkeys(items, self.year), state.tick()
        given = {item: vector_of(item) for item in items if item in FRESH}
        return _changing(
            f"upsert {items} {self.year}{_option(channel)}",
            lambda one: one.upsert(years, given, channel),
            lambda state, name: state.upsert(years, name, at),
            channel,
        )

    def delete(self, state: Expected, channel: str = LIVE) -> Command:
        """Delete some items, which may be there or not."""
        items = self.rng.sample([*self.models[0].weights.item_id.tolist(), *FRESH], self.rng.randint(1, 3))
        at = state.tick()
        return _changing(
            f"delete {items}{_option(channel)}",
            lambda one: one.delete(items, channel),
            lambda state, name: state.delete(items, name, at),
            channel,
        )

    def _names(self) -> set[str]:
        with Store(Connection(self.uri)) as store:
            return {name for name in store.collections() if is_item_collection(name)}


def _changing(
    text: str, run: Callable[[Operator], Any], change: Callable[[Expected, str], None], channel: str
) -> Command:
    """A command that changes items of the live collection of a channel."""
    return Command(text, run, lambda state, _: change(state, state.live_in(channel)), change, channel=channel)


def _option(channel: str) -> str:
    return "" if channel == LIVE else f" --channel {channel}"
