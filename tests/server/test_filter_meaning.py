"""That Milvus understands filters as we do, absent values included: random filters against a plain evaluator."""

import asyncio
import operator
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from mind.artifact import load_artifact
from mind.milvus.collection import VECTOR_SOURCE
from mind.milvus.filter.grammar import MAX_CONDITIONS
from server.edge.filters import canonical
from server.errors import InvalidRequestError
from tests.artifacts import make_artifact
from tests.releases import item_store
from tests.server.test_filter import OPTIONAL
from tests.server.test_filter import TYPES as ATTRIBUTES
from tests.server.test_store import build


class Row(dict[str, Any]):
    """The values of an item; reading one that is absent raises LookupError, as an element beyond a list does."""

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if value is None:
            raise LookupError(name)
        return value


Meaning = Callable[[Row], bool | None]
Case = tuple[str, Meaning]
"""A filter and what it means for an item: true, false, or None where a value is absent."""
LONG = 40
"""How many long filters are tried."""
DEPTH = 6
"""How deep a long filter is nested."""
ALPHABET = "abzé☃%_'\"\\\n "
COMPARE = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def quoted(text: str) -> str:
    """The text as a literal, in the quotes that need fewer escapes."""
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    if '"' in text:
        return "'" + escaped.replace("'", "\\'") + "'"
    return f'"{escaped}"'


def literal(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else str(value)


NUMBERS = st.integers(-4, 4)
HALVES = st.integers(-6, 6).map(lambda number: number / 2)
TEXTS = st.text(ALPHABET, max_size=3)
VALUES = {"year": NUMBERS, "item_id": st.integers(995, 1500), "rating": HALVES | NUMBERS, "title": TEXTS}


@st.composite
def comparisons(draw: st.DrawFn) -> Case:
    """`field op value`, `value op field`, `value < field < value` or `field op field`."""
    field = draw(st.sampled_from(sorted(VALUES)))
    op, value = draw(st.sampled_from(sorted(COMPARE))), draw(VALUES[field])
    form = draw(st.integers(0, 3))
    if form == 0:
        return f"{field}{op} {literal(value)}", lambda row: COMPARE[op](row[field], value)
    if form == 1:
        return f"{literal(value)} {op} ({field})", lambda row: COMPARE[op](value, row[field])
    if form == 2:
        low, high = draw(st.sampled_from(["<", "<="])), draw(st.sampled_from(["<", "<="]))
        top = draw(VALUES[field])
        return (
            f"{literal(value)} {low} {field} {high} {literal(top)}",
            lambda row: COMPARE[low](value, row[field]) and COMPARE[high](row[field], top),
        )
    return f"year {op} rating", lambda row: COMPARE[op](row["year"], row["rating"])


@st.composite
def memberships(draw: st.DrawFn) -> Case:
    """`in`, `not in`, `like` and plain truth."""
    form = draw(st.integers(0, 2))
    if form == 0:
        field = draw(st.sampled_from(sorted(VALUES)))
        values = draw(st.lists(VALUES[field], max_size=3))
        inside = draw(st.booleans())
        text = f"{field} {'in' if inside else 'not in'} [{','.join(map(literal, values))}]"
        return text, lambda row: (row[field] in values) == inside
    if form == 1:
        prefix, wild = draw(TEXTS), draw(st.sampled_from(["", "%"]))
        pattern, end = re.sub(r"([%_\\])", r"\\\1", prefix) + wild, len(prefix) if wild else None
        if draw(st.booleans()):
            return f"title like {quoted(pattern)}", lambda row: row["title"][:end] == prefix
        return f"genres[1] like {quoted(pattern)}", lambda row: row["genres"][1][:end] == prefix
    flag = draw(st.booleans())
    return f"adult == {str(flag).lower()}", lambda row: row["adult"] == flag


@st.composite
def array_conditions(draw: st.DrawFn) -> Case:
    """The functions of arrays, and their first elements."""
    field, values = draw(st.sampled_from([("genres", TEXTS), ("tags", NUMBERS)]))
    wanted = draw(st.lists(values, min_size=1, max_size=2))
    listed = ", ".join(map(literal, wanted))
    form = draw(st.integers(0, 4))
    if form == 0:
        return f"array_contains({field}, {literal(wanted[0])})", lambda row: wanted[0] in row[field]
    if form == 1:
        return f"ARRAY_CONTAINS_ALL({field}, [{listed}])", lambda row: set(wanted) <= set(row[field])
    if form == 2:
        return f"array_contains_any({field}, [{listed}])", lambda row: bool(set(wanted) & set(row[field]))
    if form == 3:
        length = draw(st.integers(0, 3))
        return f"array_length({field}) == {length}", lambda row: len(row[field]) == length
    op = draw(st.sampled_from(sorted(COMPARE)))
    return f"{field}[0] {op} {literal(wanted[0])}", lambda row: COMPARE[op](row[field][0], wanted[0])


@st.composite
def arithmetic(draw: st.DrawFn, server: bool) -> Case:
    """What Milvus 2.3.5 computes; Lite divides integers otherwise, and has no `%`."""
    op = draw(st.sampled_from(["+", "-", "*", "/", "%"] if server else ["+", "-", "*"]))
    number, result = draw(st.sampled_from([2, 3, -2])), draw(st.integers(-4, 4))
    compute: dict[str, Callable[[int, int], float]] = {
        "+": operator.add, "-": operator.sub, "*": operator.mul,
        "/": lambda a, b: int(a / b), "%": lambda a, b: a - b * int(a / b),
    }  # fmt: skip
    equal = draw(st.sampled_from(["==", "!="]))
    return (
        f"year {op} {number} {equal} {result}",
        lambda row: COMPARE[equal](compute[op](row["year"], number), result),
    )


@st.composite
def nulls(draw: st.DrawFn) -> Case:
    """`is null` and `is not null`, which are never in doubt."""
    field, absent = draw(st.sampled_from(sorted(ATTRIBUTES))), draw(st.booleans())
    text = draw(st.sampled_from(["is null", "IS NULL"] if absent else ["is not null", "IS NOT NULL"]))
    return f"{field} {text}", lambda row: (row.get(field) is None) == absent


def in_doubt(case: Case) -> Case:
    """The same condition, of which nothing is known where a value is absent."""
    text, meaning = case

    def known(row: Row) -> bool | None:
        try:
            return bool(meaning(row))
        except LookupError:
            return None

    return text, known


def every(values: Iterable[bool | None]) -> bool | None:
    """`and` in three-valued logic (Kleene)."""
    found = set(values)
    return False if False in found else None if None in found else True


def negated(value: bool | None) -> bool | None:
    return None if value is None else not value


def leaves(server: bool) -> st.SearchStrategy[Case]:
    """Conditions of all kinds."""
    return (comparisons() | memberships() | array_conditions() | arithmetic(server)).map(in_doubt) | nulls()


def cases(server: bool) -> st.SearchStrategy[Case]:
    """Filters of all kinds, joined with all spellings."""

    @st.composite
    def joined(draw: st.DrawFn, inner: st.SearchStrategy[Case]) -> Case:
        """Up to two alternatives of up to three conditions each, negated or not; `and` binds more tightly."""
        alternatives = draw(st.lists(st.lists(inner, min_size=1, max_size=3), min_size=1, max_size=2))
        texts, meanings = [], []
        for conditions in alternatives:
            spelled, meant = [], []
            for text, meaning in conditions:
                negates = draw(st.booleans())
                spelled.append(f"{draw(st.sampled_from(['not ', '!']))}({text})" if negates else f"({text})")
                meant.append((meaning, negates))
            texts.append(draw(st.sampled_from([" and ", "&&", " AND "])).join(spelled))
            meanings.append(meant)

        def meaning_of_all(row: Row) -> bool | None:
            of_alternatives = (every(negated(m(row)) if n else m(row) for m, n in meant) for meant in meanings)
            return negated(every(negated(one) for one in of_alternatives))

        return draw(st.sampled_from([" or ", " || "])).join(texts), meaning_of_all

    return st.recursive(leaves(server), joined, max_leaves=8)


def long_case(some: Sequence[Case], conditions: int, rng: random.Random, depth: int = 0) -> Case:
    """A filter of so many conditions, each of them one of `some`: long rows of `and` and `or`, nested and negated."""
    if conditions == 1:
        return rng.choice(some)
    most = conditions if depth == DEPTH - 1 else rng.choice((2, 3, 40, conditions))
    sizes = [len(part) for part in np.array_split(range(conditions), min(most, conditions))]
    rng.shuffle(sizes)
    joins_all, inner = rng.random() < 0.5, [long_case(some, size, rng, depth + 1) for size in sizes]
    signs = [rng.random() < 0.7 for _ in inner]
    word = rng.choice((" and ", "&&") if joins_all else (" or ", " || "))
    text = word.join(f"({text})" if sign else f"not ({text})" for (text, _), sign in zip(inner, signs, strict=True))

    def meaning(row: Row) -> bool | None:
        values = [m(row) if sign else negated(m(row)) for (_, m), sign in zip(inner, signs, strict=True)]
        return every(values) if joins_all else negated(every(map(negated, values)))

    return text, meaning


def random_rows(item_ids: list[int], rng: np.random.Generator) -> list[Row]:
    """Random values, of which a quarter is absent; an empty text and an empty list are values."""

    def text() -> str:
        return "".join(rng.choice(list(ALPHABET), rng.integers(0, 3)))

    def value(name: str) -> Any:
        return {
            "year": lambda: int(rng.integers(-4, 5)),
            "rating": lambda: float(rng.integers(-6, 7) / 2),
            "adult": lambda: bool(rng.integers(2)),
            "title": text,
            "genres": lambda: [text() for _ in range(rng.integers(0, 4))],
            "tags": lambda: rng.integers(-4, 5, rng.integers(0, 4)).tolist(),
        }[name]()

    return [
        Row(item_id=item_id, **{name: value(name) if rng.random() < 0.75 else None for name in ATTRIBUTES})
        for item_id in item_ids
    ]


@contextmanager
def compared(uri: str, directory: Path) -> Iterator[Callable[[Case], None]]:
    """Gives what compares the items that Milvus finds with those that a filter means, in a collection of 100 items."""
    artifact = load_artifact(make_artifact(directory / "artifacts", items=100))
    rows = random_rows(artifact.weights.item_id.tolist(), np.random.default_rng(0))
    pq.write_table(pa.Table.from_pylist([dict(row.items()) for row in rows]), directory / "items.parquet")
    build(uri, directory / "artifacts", "--attributes", str(directory / "items.parquet"))
    store = item_store(uri, timeout_s=20)
    with asyncio.Runner() as runner:
        name = runner.run(store.released_collection())
        assert name is not None
        fingerprint = runner.run(store.fingerprint(name))
        assert fingerprint is not None and fingerprint.attributes == OPTIONAL | {VECTOR_SOURCE: "VARCHAR"}
        runner.run(store.load(name))

        def compare(case: Case) -> None:
            filter_, meaning = case
            expected = {row["item_id"] for row in rows if meaning(row)}
            text = canonical(filter_, fingerprint.attributes, 32)
            assert runner.run(store.matching(name, text)).tolist() == sorted(expected), text

        yield compare
        runner.run(store.close())


def test_milvus_understands_what_we_mean(milvus_uri: str, tmp_path: Path) -> None:
    with compared(milvus_uri, tmp_path) as compare:

        @settings(derandomize=True, max_examples=200, deadline=None, database=None)
        @given(cases(server=milvus_uri.startswith("http")))
        def agree(case: Case) -> None:
            compare(case)

        agree()


def test_milvus_understands_the_longest_filters(milvus_uri: str, tmp_path: Path) -> None:
    """Of 50 conditions to as many as a filter may have, where a condition may count as two."""
    with compared(milvus_uri, tmp_path) as compare:

        @settings(derandomize=True, max_examples=LONG, deadline=None, database=None)
        @given(
            st.lists(leaves(server=milvus_uri.startswith("http")), min_size=8, max_size=16),
            st.integers(50, MAX_CONDITIONS),
            st.integers(0, 2**32 - 1),
        )
        def agree(some: list[Case], conditions: int, seed: int) -> None:
            try:
                compare(long_case(some, conditions, random.Random(seed)))
            except InvalidRequestError as error:
                assert f"more than {MAX_CONDITIONS} conditions, the limit" in str(error)

        agree()
