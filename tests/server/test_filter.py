"""Filters: what is refused and why, how the rest is written, and that Milvus understands it as we do."""

import asyncio
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mind.artifact import load_artifact
from mind.milvus.collection import VECTOR_SOURCE
from server.errors import InvalidRequestError
from server.serving.filter.canonical import canonical
from server.serving.filter.grammar import MAX_CONDITIONS, MAX_VALUES
from tests.artifacts import make_artifact
from tests.releases import item_store
from tests.server.test_store import build

TYPES = {
    "year": "INT64",
    "rating": "DOUBLE",
    "adult": "BOOL",
    "title": "VARCHAR",
    "genres": "ARRAY<VARCHAR>",
    "tags": "ARRAY<INT64>",
}


def ours(filter_: str, max_depth: int = 16) -> str:
    return canonical(filter_, TYPES, max_depth)


@pytest.mark.parametrize(
    ("filter_", "text"),
    [
        ("item_id < 5", "item_id < 5"),
        ('year >= 1990 and array_contains(genres, "Drama")', 'year >= 1990 and array_contains(genres, "Drama")'),
        (" \n", ""),
        ("(((year)))>=((1990))&&ARRAY_CONTAINS( genres,'Drama' )", 'year >= 1990 and array_contains(genres, "Drama")'),
        ("1990 <= year", "year >= 1990"),
        ("1990 < year <= 1995 or adult", "year > 1990 and year <= 1995 or adult == true"),
        ("5 > rating >= 1", "rating < 5 and rating >= 1"),
        ("not adult AND year > 1", "not (adult == true) and year > 1"),
        ("!(adult or year > 1)", "not (adult == true or year > 1)"),
        ("(year > 1 or adult) and year < 9", "(year > 1 or adult == true) and year < 9"),
        ("year > 1 or (adult and year < 9)", "year > 1 or adult == true and year < 9"),
        ("year == 1990 + 2 * 3 - 7 / 2", "year == 1993"),
        ("year == -7 / 2", "year == -3"),
        ("year == -7 % 3", "year == -1"),
        ("year == -2 ** 2", "year == -4"),
        ("rating == 2 ** -1", "rating == 0.5"),
        ("(year + 1) * 2 == - -4", "(year + 1) * 2 == 4"),
        ("year IN [1990, 1991,] and year not in []", "year in [1990, 1991] and year not in []"),
        (r"""title == 'it\'s "A\\B"\n\u00ef'""", r'''title == "it's \"A\\B\"\nï"'''),
        ("title like 'A%'", 'title like "A%"'),
        ("title like 'Alien'", 'title == "Alien"'),
        ("title LIKE ''", 'title == ""'),
        ("array_contains(tags, -1)", "array_contains_any(tags, [-1])"),
        ("array_contains_all(tags, [1, 2])", "array_contains_all(tags, [1, 2])"),
        ("array_length(tags) == 2 and tags[0] > 3", "array_length(tags) == 2 and tags[0] > 3"),
        ("year < rating", "year < rating"),
    ],
)
def test_what_is_accepted_is_written_in_one_way(filter_: str, text: str) -> None:
    assert ours(filter_) == text
    assert ours(text) == text


CRASHES = [
    "true == 0 and year > 1",
    "true != 1 and year > 1",
    "true > false and year > 1",
    '"a" == 1 and year > 1',
    '1 == "a" or year > 1',
    "0 == true and year > 1",
    "year / 0 == 1",
    "year / -0 == 1",
    "year / (1 - 1) == 1",
    "year / (2 ** 1 % 2) == 1",
    "tags[0] / 0 == 1",
    "year % 0 == 1",
    "year / -1 == 1",
    "not (adult and (year > 1 or 1 == 1))",
]


@pytest.mark.parametrize("filter_", CRASHES)
def test_what_ends_the_process_of_milvus_is_refused(filter_: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"compares the constants|divides by"):
        ours(filter_)


@pytest.mark.parametrize(
    ("filter_", "column", "says"),
    [
        ("colour == 1", 1, "'colour' is no attribute of the items; known are item_id, year, rating, adult, title"),
        ("year > 1 and embedding == 1", 14, "'embedding' is no attribute"),
        ("year >", 7, "expected a field, a value or `(`, found the end"),
        ("year > 1 year", 10, "expected `and`, `or` or the end, found 'year'"),
        ("(year > 1", 10, "expected `)`, found the end"),
        ("year", 1, "expected a condition, such as item_id > 0, found year"),
        ("true", 1, "expected a condition"),
        ("year > 1 and true", 14, "expected a condition"),
        ("year = 1", 6, "'=' is no part of a filter"),
        ("year > 1; drop", 9, "';' is no part of a filter"),
        ('title == "Alien', 10, "a string that does not end"),
        (r'title == "\d"', 11, "is no escape"),
        (r'title == "\ud800"', 11, "is no escape"),
        ('year == "1990"', 9, '"1990" is a string; year needs an integer'),
        ("year > 1990.5", 8, "1990.5 is a number; year needs an integer"),
        ("title == 1", 10, "1 is an integer; title needs a string"),
        ("adult > false", 7, "adult is true or false: compare it with == or !="),
        ("genres == 1", 1, "genres is an array of strings, which `==` cannot compare"),
        ("(year > 1) == true", 2, "is a condition, which `==` cannot compare"),
        ("year < title", 8, "title is a string, year an integer"),
        ("year in [1, 'a']", 13, '"a" is a string; year needs an integer'),
        ("year in [item_id]", 10, "expected a constant, found item_id"),
        ("year + 1 in [2]", 1, "`in` needs a field on its left"),
        ("1 < year > 5", 10, "`<` and then `>` is no range"),
        ("1 < year < 5 < 6", 14, "expected `and`, `or` or the end"),
        ("1 / year == 1", 5, "divides by year"),
        ("rating % 2 == 1", 1, "`%` needs an integer, found rating"),
        ("title + 1 == 2", 1, "`+` needs a number, found title"),
        ("year * 1.5 == 3", 8, "an integer field takes integers alone"),
        ("-year == 1", 1, "`-` goes before a number"),
        ("year == 9223372036854775808", 9, "a number beyond 64-bit integers"),
        ("year == -9223372036854775808", 10, "a number beyond 64-bit integers"),
        ("year == 9223372036854775807 + 1", 9, "a number beyond 64-bit integers"),
        ("rating < 1e999", 10, "a number beyond double precision"),
        ("rating < 2.0 ** 1023 * 4", 10, "a number beyond double precision"),
        ("rating == (0 - 8) ** 0.5", 19, "has no real value"),
        ("year == 9 ** 999999999", 14, "an exponent is -1023 to 1023"),
        ("year == 007", 9, "begins with 0"),
        ("title like 1", 12, "expected a pattern in quotes"),
        ("genres like 'a'", 1, "`like` needs a string field"),
        ("array_contains(year, 1)", 16, "year is an integer; array_contains needs an array"),
        ("array_contains(genres, 1)", 24, "1 is an integer; genres needs a string"),
        ("array_contains_any(tags, [])", 1, "needs a list of one value or more"),
        ("json_contains(genres, 'a')", 1, "'json_contains' is no function; known are array_contains"),
        ("tags[-1] == 1", 6, "expected a position from 0 to 4095"),
        ("tags[4096] == 1", 6, "expected a position from 0 to 4095"),
        ("title[0] == 'a'", 1, "title is a string, and has no elements"),
        ("tags[0] == item_id", 1, "can be compared with a constant alone"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_column_and_what_is_wrong(filter_: str, column: int, says: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        ours(filter_)
    assert (caught.value.field, caught.value.reason) == ("filter", "FILTER_INVALID")
    assert f"column {column}: " in str(caught.value) and says in str(caught.value)


def test_what_has_no_filterable_type_cannot_be_filtered() -> None:
    with pytest.raises(InvalidRequestError, match="raw is JSON, which filters cannot use"):
        canonical('raw["a"] == 1', {"raw": "JSON"}, 16)


@pytest.mark.parametrize("nest", ["({})", "not {}", "!({})"])
def test_depth_is_bounded(nest: str) -> None:
    filter_ = "adult"
    for _ in range(3):
        filter_ = nest.format(filter_)
    depth = 6 if nest == "!({})" else 3
    assert ours(filter_, depth)
    with pytest.raises(InvalidRequestError, match=f"nested more than {depth - 1} deep, the limit") as caught:
        ours(filter_, depth - 1)
    assert caught.value.reason == "FILTER_TOO_DEEP"


def test_the_deepest_that_the_options_allow_fits_the_stack() -> None:
    with pytest.raises(InvalidRequestError, match="nested more than 32 deep"):
        ours("adult or adult and year == 1 + 1 * (" * 500, 32)
    with pytest.raises(InvalidRequestError, match="nested more than 32 deep"):
        ours("year == " + "-" * 5_000 + "1", 32)


def test_length_is_bounded() -> None:
    assert ours(f"year in [{'1, ' * MAX_VALUES}]")
    with pytest.raises(InvalidRequestError, match=f"more than {MAX_VALUES} values in a list"):
        ours(f"year in [{'1, ' * (MAX_VALUES + 1)}]")
    assert ours(" or ".join(["adult"] * MAX_CONDITIONS))
    with pytest.raises(InvalidRequestError, match=f"more than {MAX_CONDITIONS} conditions"):
        ours(" or ".join(["adult"] * (MAX_CONDITIONS + 1)))


WORDS = r"""and or not in like true false ( ) [ ] , + - * / % ** == != < <= > >= && || ! = ' " \ . $ ; ~ é \x
    year rating adult title genres tags array_contains array_contains_any array_length 0 1 -1 1.5 1e9 .5 5.
    9223372036854775808 'a' "b%" '\' null tags[0] year>1 adult==true year/2==5 1<year<3 array_contains(genres,'a')"""


@settings(derandomize=True, max_examples=1_500, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS.split()), max_size=14).map(" ".join)))
def test_any_text_is_accepted_or_refused(filter_: str) -> None:
    try:
        text = ours(filter_)
    except InvalidRequestError:
        return
    assert ours(text, 32) == text


Row = dict[str, Any]
Case = tuple[str, Callable[[Row], bool]]
"""A filter and what it means."""
ALPHABET = "abzé☃%'\"\\\n "
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
        prefix = draw(st.text("abé☃'\n ", max_size=2))
        return f"title like {quoted(prefix + '%')}", lambda row: row["title"].startswith(prefix)
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


def cases(server: bool) -> st.SearchStrategy[Case]:
    """Filters of all kinds, joined with all spellings."""

    @st.composite
    def joined(draw: st.DrawFn, inner: st.SearchStrategy[Case]) -> Case:
        """Up to two alternatives of up to three conditions each; `and` binds more tightly."""
        alternatives = draw(st.lists(st.lists(inner, min_size=1, max_size=3), min_size=1, max_size=2))
        texts, meanings = [], []
        for conditions in alternatives:
            spelled, meant = [], []
            for text, meaning in conditions:
                negated = draw(st.booleans())
                spelled.append(f"{draw(st.sampled_from(['not ', '!']))}({text})" if negated else f"({text})")
                meant.append((meaning, negated))
            texts.append(draw(st.sampled_from([" and ", "&&", " AND "])).join(spelled))
            meanings.append(meant)
        text = draw(st.sampled_from([" or ", " || "])).join(texts)
        return text, lambda row: any(all(bool(m(row)) != n for m, n in meant) for meant in meanings)

    leaves = comparisons() | memberships() | array_conditions() | arithmetic(server)
    return st.recursive(leaves, joined, max_leaves=8)


def test_milvus_understands_what_we_mean(milvus_uri: str, tmp_path: Path) -> None:
    artifact = load_artifact(make_artifact(tmp_path / "artifacts", items=60))
    rng = np.random.default_rng(0)

    def text() -> str:
        return "".join(rng.choice(list(ALPHABET), rng.integers(0, 3)))

    rows: list[Row] = [
        {
            "item_id": item,
            "year": int(rng.integers(-4, 5)),
            "rating": float(rng.integers(-6, 7) / 2),
            "adult": bool(rng.integers(2)),
            "title": text(),
            "genres": [text() for _ in range(rng.integers(1, 4))],
            "tags": rng.integers(-4, 5, rng.integers(1, 4)).tolist(),
        }
        for item in artifact.weights.item_id.tolist()
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "items.parquet")
    build(milvus_uri, tmp_path / "artifacts", "--attributes", str(tmp_path / "items.parquet"))
    store = item_store(milvus_uri, timeout_s=20)
    with asyncio.Runner() as runner:
        name = runner.run(store.live_collection())
        assert name is not None
        fingerprint = runner.run(store.fingerprint(name))
        assert fingerprint is not None and fingerprint.attributes == TYPES | {VECTOR_SOURCE: "VARCHAR"}
        runner.run(store.load(name))

        @settings(derandomize=True, max_examples=150, deadline=None, database=None)
        @given(cases(server=milvus_uri.startswith("http")))
        def agree(case: Case) -> None:
            filter_, meaning = case
            expected = {row["item_id"] for row in rows if meaning(row)}
            found = runner.run(store.matching(name, ours(filter_, 32)))
            assert found.tolist() == sorted(expected), ours(filter_, 32)

        agree()
        runner.run(store.close())
