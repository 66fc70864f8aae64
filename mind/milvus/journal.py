"""The contract between indexer and server about the journal of an item collection, as plain data.

The journal of `items_<version>_<digest>` is the collection `changes_<version>_<digest>`. The first change creates it.
It has one row for every changed item: the whole new row of the item, and the fields below. For a deleted item that the
collection never had, the row has missing values and a zero vector.

A change is first written to the journal, then applied to the item collection, then marked as applied. So the number of
rows that the collection must hold is always known, except for pending changes, and the next command can complete what a
killed one left. This module does not use Milvus.
"""

import json
from dataclasses import dataclass

from mind.milvus.collection import is_item_collection

OP = "change_op"
"""VARCHAR: `UPSERT` or `DELETE`."""
UPSERT, DELETE = "upsert", "delete"
KNOWN = "change_known"
"""BOOL: whether the model knows the item, so that the build inserted it."""
APPLIED = "change_applied"
"""BOOL: whether the change is applied to the item collection."""
NAMES = "change_names"
"""VARCHAR, JSON: the sorted names of the attributes that were changed since the build."""
NEIGHBOURS = "change_neighbours"
"""VARCHAR, JSON: the `Clicked` of an item that the model does not know; `[]` if clicks say nothing of it."""
CHANGED_AT = "change_at"
"""VARCHAR: the time of the change, ISO 8601, UTC. These texts sort by time.

Clocks of operators may differ, so each change gets a time after all earlier changes of any collection: the order is
right, and the times are those of the clock that is furthest ahead."""
FIELDS = (OP, KNOWN, APPLIED, NAMES, NEIGHBOURS, CHANGED_AT)
"""The fields of a journal row that the item collection does not have."""

PENDING = f"{APPLIED} == false"
"""The filter for changes that are not marked as applied, so the collection may have them or not."""
DELETED = f'{OP} == "{DELETE}" or {PENDING}'
"""The filter for items that the collection may lack."""

DIFFERENT = f"{KNOWN} == false or {DELETED}"
"""The filter for items that the collection may have and the build had not, or that it may lack and the build had."""

_ITEMS, _CHANGES = "items_", "changes_"


def journal_of(collection: str) -> str:
    """Return the name of the journal of an item collection."""
    return _CHANGES + collection.removeprefix(_ITEMS)


def collection_of(name: str) -> str | None:
    """Return the item collection that a journal belongs to, or None if the name is not that of a journal."""
    collection = _ITEMS + name.removeprefix(_CHANGES)
    return collection if name.startswith(_CHANGES) and is_item_collection(collection) else None


Weights = list[tuple[int, float]]
"""Item ids with a weight each, the most important first."""


@dataclass(frozen=True)
class Clicked:
    """What the clicks of users say of an item that the model does not know (`mind.fresh_items`)."""

    together: Weights
    """The items that its vector was derived from; empty if the vector has another source."""
    before: Weights
    """The items that users clicked soon before it, and its weight as their neighbour (`mind.neighbours`)."""

    def to_json(self) -> str:
        """Write it as JSON, which `from_json` reads."""
        together, before = ([[item, round(weight, 6)] for item, weight in own] for own in (self.together, self.before))
        if not before:
            return json.dumps(together)
        return json.dumps({"together": together, "before": before})

    @classmethod
    def from_json(cls, text: str) -> "Clicked":
        """Read what is in `NEIGHBOURS`. A list is `together` alone: an earlier version knew nothing else."""
        found = json.loads(text)
        if isinstance(found, list):
            found = {"together": found, "before": []}
        return cls(*([(item, weight) for item, weight in found[name]] for name in ("together", "before")))


@dataclass(frozen=True)
class Changes:
    """How many items of a collection were added, changed and deleted since its build."""

    added: int = 0
    """Number of added items. The model does not know them."""
    changed: int = 0
    """Number of items of the model that have other attribute values now."""
    deleted: int = 0
    """Number of deleted items of the model."""
    pending_new: int = 0
    """Number of items that the model does not know and whose change is pending. The collection may have them or not."""
    pending_known: int = 0
    """Number of items of the model whose change is pending."""

    def rows(self, built: int) -> tuple[int, int]:
        """Return the minimum and maximum number of rows of a collection whose build inserted `built` rows."""
        applied = built - self.deleted + self.added
        return applied - self.pending_known, applied + self.pending_new


COUNTED = {
    "added": f'{OP} == "{UPSERT}" and {KNOWN} == false and {APPLIED} == true',
    "changed": f'{OP} == "{UPSERT}" and {KNOWN} == true and {APPLIED} == true',
    "deleted": f'{OP} == "{DELETE}" and {KNOWN} == true and {APPLIED} == true',
    "pending_new": f"{KNOWN} == false and {PENDING}",
    "pending_known": f"{KNOWN} == true and {PENDING}",
}
"""For each field of `Changes`, the filter that counts its rows in a journal."""


def rows_between(before: Changes, after: Changes, built: int) -> tuple[int, int]:
    """Return the minimum and maximum number of rows between two reads of the journal, as changes may come meanwhile."""
    least, most = zip(before.rows(built), after.rows(built), strict=True)
    return min(least), max(most)
