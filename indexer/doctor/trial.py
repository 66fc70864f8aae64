"""The steps of `doctor` that make collections. They do what a build, a release and a server do, with few rows.

Every step returns what it found, in a few words. It raises WrongAnswerError if an answer of Milvus is not right.
"""

import time
from collections.abc import Callable

import numpy as np

from indexer.doctor.diagnosis import NoteError, WrongAnswerError
from mind.milvus.collection import EMBEDDING, ITEM_ID, MAX_HITS, presence_of
from mind.milvus.errors import StoreError, UnfinishedError
from mind.milvus.inspection import Inspection
from mind.milvus.schemas import Column
from mind.milvus.store import Row, Store

ROWS, DIM, NEAREST, QUERIES = 2_000, 16, 10, 8
"""Numbers of rows, of numbers in a vector, of hits of a search, and of searches."""
MIN_RECALL = 0.9
"""Minimum share of the exact hits that a search must find."""
MAX_FIELDS = 64
"""Number of fields of the largest journal."""
NOTHING = "nothing to remove"
"""What `Trial.remove` finds if nothing was made."""
TAGS = ("red", "green", "blue")
_FIELDS = {
    "year": Column("INT64", 0, 0),
    "title": Column("VARCHAR", 64, 0),
    presence_of("title"): Column("BOOL", 0, 0),
    "tags": Column("ARRAY<VARCHAR>", 16, 4),
}
_FILTERS: dict[str, Callable[[int], bool]] = {
    "year >= 1990 and title__present == true": lambda row: _year(row) >= 1990 and row % 2 == 0,
    'title like "title 1%"': lambda row: row % 2 == 0 and str(row).startswith("1"),
    'array_contains(tags, "red")': lambda row: row % 3 == 0,
    f"not (year == 1980) and {ITEM_ID} in [1, 50, 51]": lambda row: row in (1, 51),
}
"""Filters as servers write them, and which rows match."""


class Trial:
    """A trial: collections and an alias with names that nothing else has, and the steps that use them."""

    def __init__(self, store: Store, name: str) -> None:
        """Prepare a trial. All names of its collections begin with `name`."""
        self._store = store
        self._asked = Inspection(store.session)
        self._name, self._alias = f"{name}_new", f"{name}_alias"
        self._final, self._wide = name, f"{name}_wide"
        rng = np.random.default_rng(0)
        self._vectors = rng.standard_normal((ROWS, DIM)).astype(np.float32)
        self._queries = rng.standard_normal((QUERIES, DIM)).astype(np.float32)
        self._is_lite = store.version().is_lite

    def create(self) -> str:
        """Create a collection."""
        self._store.create(self._name, DIM, _FIELDS)
        return f"{len(_FIELDS) + 2} fields"

    def insert(self) -> str:
        """Insert rows into the collection."""
        self._store.insert(self._name, [self._row(number) for number in range(ROWS)])
        return f"{ROWS:,} rows of {DIM} numbers"

    def flush(self) -> str:
        """Write the rows to disk."""
        self._store.flush(self._name)
        return ""

    def compact(self) -> str:
        """Join the segments, as a build does before it indexes."""
        if self._is_lite:
            raise NoteError("Milvus Lite has nothing to join")
        try:
            self._store.compact(self._name)
        except UnfinishedError as error:
            raise NoteError(f"{error}; builds go on without it") from error
        return f"{self._store.segments(self._name)} segment(s)"

    def index(self) -> str:
        """Index the vectors."""
        kind, params = ("FLAT", {}) if self._is_lite else ("HNSW", {"M": 16, "efConstruction": 100})
        counted: list[int] = []
        self._store.index(self._name, kind, params, ROWS, counted.append)
        if counted[-1] < ROWS:
            raise NoteError(f"{kind}; Milvus does not count the indexed rows, so builds cannot wait for them")
        return kind

    def rename(self) -> str:
        """Give the collection its final name."""
        if not self._store.rename(self._name, self._final):
            raise WrongAnswerError(f"there is a collection {self._final} already")
        self._name = self._final
        return ""

    def load(self) -> str:
        """Load the collection."""
        self._store.load(self._name)
        return ""

    def count(self) -> str:
        """Count the rows exactly."""
        self._expect("count(*)", self._store.count(self._name), ROWS)
        return f"{ROWS:,} rows"

    def search(self) -> str:
        """Search with strong consistency, then as a server does."""
        params = {} if self._is_lite else {"ef": 64}
        best = np.argsort(-(self._queries @ self._vectors.T), axis=1)[:, :NEAREST]
        found = self._store.search(self._name, self._queries, NEAREST, params)
        hits = self._store.search_columns(self._name, self._queries, NEAREST, params)
        self._expect("the hits of a search by the protocol", hits.item_ids.reshape(-1, NEAREST).tolist(), found)
        recall = float(np.mean([np.isin(own, exact).mean() for own, exact in zip(found, best, strict=True)]))
        if recall < MIN_RECALL:
            raise WrongAnswerError(f"finds {recall:.2f} of the exact best {NEAREST}, at least {MIN_RECALL:g} is right")
        times = sorted(self._timed(params) for _ in range(QUERIES))
        return f"finds {recall:.2f} of the exact best {NEAREST}; {1000 * times[QUERIES // 2]:.1f} ms for one (p50)"

    def filter(self) -> str:
        """Count what filters match, in the grammar that servers use."""
        for filter_, matches in _FILTERS.items():
            right = sum(map(matches, range(ROWS)))
            self._expect(f"rows that match {filter_!r}", self._store.count(self._name, filter_), right)
        return f"{len(_FILTERS)} filters"

    def order(self) -> str:
        """Read rows by ascending id, page by page, as changes to items are read."""
        after = self._store.rows(self._name, f"{ITEM_ID} > 99", NEAREST, first=True)
        found = [row[ITEM_ID] for row in after]
        self._expect("the first ids above 99", found, list(range(100, 100 + len(found))))
        if not found:
            raise WrongAnswerError("there is no id above 99, but there must be")
        return f"{len(found)} rows by id"

    def change(self) -> str:
        """Replace and delete rows, and count at once."""
        self._store.upsert(self._name, [self._row(number) | {"year": 2099} for number in range(10)])
        self._store.delete(self._name, [20, 21])
        self._expect("the number of replaced rows", self._store.count(self._name, "year == 2099"), 10)
        self._expect("count(*) after two deletions", self._store.count(self._name), ROWS - 2)
        return "10 rows replaced and 2 deleted, seen at once"

    def alias(self) -> str:
        """Set an alias, follow it, and drop it."""
        self._expect("an alias that is not set", self._store.alias(self._alias), None)
        for _ in range(2):  # the second time it exists
            self._store.point_alias(self._name, self._alias)
        self._expect("the collection of the alias", self._store.alias(self._alias), self._name)
        self._store.drop_alias(self._alias)
        self._expect("an alias that was dropped", self._store.alias(self._alias), None)
        return ""

    def limits(self) -> str:
        """Try the largest query and the largest collection that we make."""
        self._store.rows(self._name, f"{ITEM_ID} >= 0", MAX_HITS)
        numbers = {f"field_{number}": Column("INT64", 0, 0) for number in range(MAX_FIELDS - 2)}
        self._store.create(self._wide, DIM, numbers)
        return f"{MAX_HITS:,} rows in a query, {MAX_FIELDS} fields"

    def remove(self) -> str:
        """Remove the alias and the collections. An error names what may be left."""
        doomed = [f"{self._final}_new", self._final, self._wide]
        try:
            there = self._store.collections()
            if not set(doomed).intersection(there):
                return NOTHING
            if self._store.alias(self._alias):
                self._store.drop_alias(self._alias)
            for name in list(doomed):
                if name in there:
                    self._asked.drop(name)
                doomed.remove(name)
        except StoreError as error:
            left = ", ".join(doomed)
            raise WrongAnswerError(f"{error}; drop the collections {left} yourself, if they are there") from error
        return ""

    def _row(self, number: int) -> Row:
        has_title = number % 2 == 0
        return {
            ITEM_ID: number,
            EMBEDDING: self._vectors[number],
            "year": _year(number),
            "title": f"title {number}" if has_title else "",
            presence_of("title"): has_title,
            "tags": [TAGS[number % len(TAGS)]],
        }

    def _timed(self, params: dict[str, int]) -> float:
        began = time.perf_counter()
        self._store.search_columns(self._name, self._queries[:1], NEAREST, params)
        return time.perf_counter() - began

    @staticmethod
    def _expect(what: str, found: object, right: object) -> None:
        if found != right:
            raise WrongAnswerError(f"{what}: Milvus says {found!s:.100}, but {right!s:.100} is right")


def _year(row: int) -> int:
    return 1980 + row % 50
