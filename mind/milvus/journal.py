"""The journal of an item collection, as plain data: what indexer and server agree on about changes after a build.

Beside `items_<version>_<digest>` lies `changes_<version>_<digest>`, from the first change on: one row for every item
that was changed, with the item's whole row as it is to be and the fields below; of a deleted one that the collection
never had, absent values and a zero vector. A change is written there first, then applied to the item collection, then
marked as applied. So the rows that a collection must hold are known at any time, give or take the changes that are
pending, and what a killed process left can be completed. Knows nothing of Milvus.
"""

from dataclasses import dataclass

from mind.milvus.collection import is_item_collection

OP = "change_op"
"""VARCHAR: `UPSERT` or `DELETE`."""
UPSERT, DELETE = "upsert", "delete"
KNOWN = "change_known"
"""BOOL: whether the model knows the item, so that the build inserted it."""
APPLIED = "change_applied"
"""BOOL: whether the item collection has the change."""
NAMES = "change_names"
"""VARCHAR, JSON: names of the attributes that were changed since the build, ascending."""
NEIGHBOURS = "change_neighbours"
"""VARCHAR, JSON: `[[item_id, weight], ...]` that the vector was derived from; `[]` if from something else."""
CHANGED_AT = "change_at"
"""VARCHAR: when, ISO 8601, UTC; texts order as times do."""
FIELDS = (OP, KNOWN, APPLIED, NAMES, NEIGHBOURS, CHANGED_AT)
"""What a row of the journal has besides the fields of the item collection."""

PENDING = f"{APPLIED} == false"
DELETED = f'{OP} == "{DELETE}" or {PENDING}'
"""Filters: what may or may not be in the collection yet, and which of the model's items it may lack."""

_ITEMS, _CHANGES = "items_", "changes_"


def journal_of(collection: str) -> str:
    """Name of the journal of an item collection."""
    return _CHANGES + collection.removeprefix(_ITEMS)


def collection_of(name: str) -> str | None:
    """The item collection that a journal belongs to; None if the name is not that of a journal."""
    collection = _ITEMS + name.removeprefix(_CHANGES)
    return collection if name.startswith(_CHANGES) and is_item_collection(collection) else None


@dataclass(frozen=True)
class Changes:
    """How many items of a collection differ from what was built."""

    added: int = 0
    """Items that the model does not know."""
    changed: int = 0
    """Items of the model whose attributes are others."""
    deleted: int = 0
    """Items of the model that are gone."""
    pending_new: int = 0
    """Items that the model does not know, and that may be there or not: their change is being applied."""
    pending_known: int = 0
    """The same for items of the model."""

    def rows(self, built: int) -> tuple[int, int]:
        """The least and the most rows that a collection may hold of which `built` were inserted by its build."""
        applied = built - self.deleted + self.added
        return applied - self.pending_known, applied + self.pending_new


COUNTED = {
    "added": f'{OP} == "{UPSERT}" and {KNOWN} == false and {APPLIED} == true',
    "changed": f'{OP} == "{UPSERT}" and {KNOWN} == true and {APPLIED} == true',
    "deleted": f'{OP} == "{DELETE}" and {KNOWN} == true and {APPLIED} == true',
    "pending_new": f"{KNOWN} == false and {PENDING}",
    "pending_known": f"{KNOWN} == true and {PENDING}",
}
"""The fields of `Changes`, and the filters by which the rows of a journal are counted for them."""


def rows_between(before: Changes, after: Changes, built: int) -> tuple[int, int]:
    """What may be counted between two looks at the journal: a change may come at any time."""
    least, most = zip(before.rows(built), after.rows(built), strict=True)
    return min(least), max(most)
