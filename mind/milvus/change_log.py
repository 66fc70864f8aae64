"""The newest changes of an item collection. The indexer writes them for servers that store which items match a filter.

The log is a row of the release records, under the name of the collection's journal. When a batch of changes is in the
item collection, the indexer puts it into the log. A server that reads the log again finds there what changed since it
read it last, or that anything may have changed. The log also counts the rows of the journal, so that a journal which
Milvus gives back incomplete after a crash is noticed. This module does not use Milvus.
"""

from typing import Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

ROOM = 2_000
"""Maximum size of a log: the number of ids, and `BATCH_ROOM` more for each batch. It takes 42 KB as JSON at most."""
BATCH_ROOM = 4


class Batch(BaseModel):
    """A batch of changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: str
    """The id of this batch, which no other batch has."""
    before: str
    """The token of the batch before it; empty for the first one."""
    item_ids: list[int]
    """The items that were added, changed or deleted."""


class ChangeLog(BaseModel):
    """The newest changes. Old batches, and those with very many items, are not in the log."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    newest: str = ""
    """The token of the newest batch; empty if nothing was changed since the build."""
    batches: list[Batch] = []
    """The batches, newest first."""
    changed_at: str = ""
    """The time of the newest change that is in the collection (`mind.milvus.journal.CHANGED_AT`)."""
    journal_rows: int = 0
    """Minimum number of rows of the journal. It had so many when changes were last applied, and never loses one."""

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a log. An empty text is the log without a change."""
        try:
            return cls.model_validate_json(text) if text else cls()
        except ValidationError:  # of another version of this project: anything may have changed
            return cls(newest=text)

    def to_json(self) -> str:
        """Write the log as JSON, which `from_json` reads."""
        return self.model_dump_json()

    def with_batch(self, item_ids: list[int], changed_at: str = "") -> Self:
        """Return the log after another batch of changes, the newest of which has this time."""
        batches = [Batch(token=uuid4().hex[:12], before=self.newest, item_ids=item_ids), *self.batches]
        token, room, kept = batches[0].token, ROOM, 0
        for batch in batches:
            room -= BATCH_ROOM + len(batch.item_ids)
            kept += room >= 0
        changed = {"newest": token, "batches": batches[:kept], "changed_at": max(self.changed_at, changed_at)}
        return self.model_copy(update=changed)

    def changed_since(self, earlier: Self) -> set[int] | None:
        """Return the items that changed since an earlier state of the log, or None if any item may have changed."""
        changed: set[int] = set()
        token, by_token = self.newest, {batch.token: batch for batch in self.batches}
        while token != earlier.newest:
            if token not in by_token:
                return None
            changed.update(by_token[token].item_ids)
            token = by_token[token].before
        return changed
