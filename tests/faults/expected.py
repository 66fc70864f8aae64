"""What must be in Milvus after commands of the indexer: a plain model of releases and changes, without clocks.

It is what `tests.faults.adversary` compares with. It knows when each change really happened (a number that grows),
which releases there were in each channel and in which order, and nothing of Milvus.
"""

from collections.abc import Collection, Iterable
from copy import deepcopy
from dataclasses import dataclass, field

from mind.milvus.channels import LIVE
from mind.milvus.journal import Changes


class Fault(Exception):  # noqa: N818 - what a drill looks for
    """Something is not as it must be."""


@dataclass
class Change:
    """The newest change of an item in one collection."""

    at: int
    """A number that is larger for each later change, whatever the clocks say."""
    deleted: bool
    known: bool
    """Whether the build inserted the item."""


@dataclass
class Built:
    """A finished collection."""

    model: int
    """The number of its model; collections of one model hold the same vectors."""
    finished: int
    """A number that is larger for each later build."""
    items: dict[int, int]
    """The year of each item that is there."""
    changes: dict[int, Change] = field(default_factory=dict)

    def counted(self) -> Changes:
        """What its journal must count."""
        changes = self.changes.values()
        return Changes(
            added=sum(not one.known and not one.deleted for one in changes),
            changed=sum(one.known and not one.deleted for one in changes),
            deleted=sum(one.known and one.deleted for one in changes),
        )


@dataclass
class Expected:
    """All collections and releases."""

    there: dict[str, Built] = field(default_factory=dict)
    channels: dict[str, list[str]] = field(default_factory=lambda: {LIVE: []})
    """The releases that count in each open channel, the oldest first; the last one is live there."""
    now: int = 0

    def copy(self) -> "Expected":
        """The same, to change it on trial."""
        return deepcopy(self)

    def tick(self) -> int:
        """The number of the next event."""
        self.now += 1
        return self.now

    @property
    def live(self) -> str:
        """The collection that is live in `live`."""
        return self.live_in(LIVE)

    def live_in(self, channel: str) -> str:
        """The collection that is live in an open channel."""
        return self.channels[channel][-1]

    @property
    def lives(self) -> set[str]:
        """The collections that are live in any channel."""
        return {released[-1] for released in self.channels.values()}

    def states(self) -> dict[str, dict[str, str]]:
        """The state of each collection in each open channel, as the catalogue calls it."""
        found = {}
        for channel, released in self.channels.items():
            published = dict.fromkeys(released, "published") | {released[-1]: "live"}
            found[channel] = {name: published.get(name, "built") for name in self.there}
        return found

    def build(self, name: str, model: int, items: dict[int, int]) -> None:
        """A build that ends well; one that is there stays as it is."""
        self.there.setdefault(name, Built(model, self.tick(), items))

    def newest(self) -> str:
        """The collection whose build finished last."""
        return max(self.there, key=lambda name: self.there[name].finished)

    def publish(self, name: str, carry_over: bool = False, channel: str = LIVE) -> None:
        """A publish that ends well; of what is live in the channel, it changes no release."""
        before = [one for one in self.channels.get(channel, []) if one != name]
        sources = before or [one for one in self.channels[LIVE][-1:] if one != name and channel != LIVE]
        if carry_over and sources:
            self._carry(self.there[sources[-1]], self.there[name])
        self.channels[channel] = [*before, name]

    def roll_back(self, to: str | None = None, channel: str = LIVE) -> None:
        """A rollback that ends well."""
        released = self.channels[channel]
        del released[released.index(to or released[-2]) + 1 :]

    def close(self, channel: str) -> None:
        """A close that ends well."""
        del self.channels[channel]

    def drop(self, names: Iterable[str]) -> None:
        """Collections that were dropped."""
        for name in names:
            del self.there[name]
        for released in self.channels.values():
            released[:] = [name for name in released if name in self.there]

    def upsert(self, years: dict[int, int], name: str | None = None, at: int | None = None) -> None:
        """Give items of a collection, the one that is live in `live` by default, these years."""
        built, at = self.there[name or self.live], at or self.tick()
        for item, year in years.items():
            known = built.changes[item].known if item in built.changes else item in built.items
            built.items[item], built.changes[item] = year, Change(at, deleted=False, known=known)

    def delete(self, items: Collection[int], name: str | None = None, at: int | None = None) -> None:
        """Delete items of a collection, the one that is live in `live` by default."""
        built, at = self.there[name or self.live], at or self.tick()
        for item in items:
            if item in built.changes or item in built.items:
                known = built.changes[item].known if item in built.changes else True
                built.items.pop(item, None)
                built.changes[item] = Change(at, deleted=True, known=known)

    def _carry(self, source: Built, target: Built) -> None:
        for item, change in source.changes.items():
            own = target.changes.get(item)
            if own and own.at >= change.at:
                continue
            known = own.known if own else item in target.items
            if change.deleted:
                target.items.pop(item, None)
            elif known or source.model == target.model:
                target.items[item] = source.items[item]
            else:
                continue  # its vector was given for another model
            target.changes[item] = Change(change.at, change.deleted, known)
