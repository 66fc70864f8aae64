"""Filters: what is refused and why, and how the rest is written."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mind.milvus.collection import VECTOR_SOURCE, presence_of
from mind.milvus.filter.grammar import MAX_CONDITIONS, MAX_VALUES
from mind.milvus.filter.logic import IN_A_ROW
from server.edge.filters import canonical
from server.errors import InvalidRequestError

TYPES = {
    "year": "INT64",
    "rating": "DOUBLE",
    "adult": "BOOL",
    "title": "VARCHAR",
    "genres": "ARRAY<VARCHAR>",
    "tags": "ARRAY<INT64>",
}
OPTIONAL = TYPES | {presence_of(name): "BOOL" for name in TYPES}
"""The fields of a collection that knows which items lack a value."""


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
        ("not adult AND year > 1", "adult != true and year > 1"),
        ("!(adult or year > 1)", "adult != true and year <= 1"),
        ("not (adult and 1 < year < 5)", "adult != true or year <= 1 or year >= 5"),
        ("not not (year in [1])", "year in [1]"),
        ("not (year in [1])", "year not in [1]"),
        ("not (title like 'A%')", 'not (title like "A%")'),
        ("not array_contains(tags, 1) and adult", "not (array_contains(tags, 1)) and adult == true"),
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
        ("title like '%%'", 'title like "%"'),
        (r"title like '100\%'", 'title == "100%"'),
        (r"title like '100\\%'", 'title == "100%"'),
        (r"title like '100\%%'", 'title >= "100%" and title < "100&"'),
        (r"not (title like 'a\_%')", 'title < "a_" or title >= "a`"'),
        (r"title like '\\\\\uD7FF%'", 'title >= "\\\\\ud7ff" and title < "\\\\\ue000"'),
        ("array_contains(tags, -1)", "array_contains_any(tags, [-1])"),
        ("array_contains_all(tags, [1, 2])", "array_contains_all(tags, [1, 2])"),
        ("array_length(tags) == 2 and tags[0] > 3", "array_length(tags) == 2 and tags[0] > 3"),
        ("year < rating", "year < rating"),
    ],
)
def test_what_is_accepted_is_written_in_one_way(filter_: str, text: str) -> None:
    assert ours(filter_) == text
    assert ours(text) == text


@pytest.mark.parametrize(
    ("filter_", "text"),
    [
        ("price < 20", "price < 20 and price__present == true"),
        ("not (price < 20)", "price >= 20 and price__present == true"),
        ("10 <= price < 20", "price >= 10 and price < 20 and price__present == true"),
        ("price < 1 or price > 9", "(price < 1 or price > 9) and price__present == true"),
        ("price in [1] and item_id > 5", "price in [1] and item_id > 5 and price__present == true"),
        ("price in [1] or item_id > 5", "price in [1] and price__present == true or item_id > 5"),
        (
            "not (price < 1 or stock == 2)",
            "price >= 1 and stock != 2 and price__present == true and stock__present == true",
        ),
        (
            "not (price < 1 and stock == 2)",
            "price >= 1 and price__present == true or stock != 2 and stock__present == true",
        ),
        ("price * stock < 10", "price * stock < 10 and price__present == true and stock__present == true"),
        ("price > stock", "price > stock and price__present == true and stock__present == true"),
        ("sold", "sold == true and sold__present == true"),
        ("!sold", "sold != true and sold__present == true"),
        ("name not in ['a']", 'name not in ["a"] and name__present == true'),
        ("not name like 'a%'", 'not (name like "a%") and name__present == true'),
        ("not array_contains(tags, 'a')", 'not (array_contains(tags, "a")) and tags__present == true'),
        ("not tags[0] in ['a']", 'tags[0] not in ["a"] and tags[0] != "a" and tags__present == true'),
        ("array_length(tags) == 0", "array_length(tags) == 0 and tags__present == true"),
        ("price is null", "price__present == false"),
        ("price IS NOT NULL", "price__present == true"),
        ("not (price is null and price < 5)", "price__present == true or price >= 5 and price__present == true"),
        ("price is null or price < 5", "price__present == false or price < 5 and price__present == true"),
        ("vector_source == 'given'", 'vector_source == "given"'),
    ],
)
def test_an_absent_value_matches_no_comparison(filter_: str, text: str) -> None:
    kinds = {"price": "DOUBLE", "stock": "DOUBLE", "sold": "BOOL", "name": "VARCHAR", "tags": "ARRAY<VARCHAR>"}
    fields = kinds | {presence_of(name): "BOOL" for name in kinds} | {VECTOR_SOURCE: "VARCHAR"}
    assert canonical(filter_, fields, 16) == text


def test_a_pattern_that_milvus_2_3_would_misread_is_written_so_that_it_refuses_it() -> None:
    assert ours("title like 'a_c%'") == 'title like "a_c%" and title like "%a_c%"'
    assert ours("not title like 'a%c'") == 'not (title like "a%c" and title like "%a%c")'


def test_a_collection_of_an_earlier_version_has_no_null() -> None:
    with pytest.raises(
        InvalidRequestError, match=r"does not know which items have no year, .* build and publish"
    ) as one:
        ours("adult or year is null")
    assert one.value.reason == "FILTER_NEEDS_NEW_BUILD"


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
        ("year = 1", 6, "`=` is no operator; use `==`"),
        ("not year=1", 9, "`=` is no operator; use `==`"),
        ("year <> 1", 6, "`<>` is no operator; use `!=`"),
        ("year > 1 & year < 3", 10, "`&` is no operator; use `and`"),
        ("year > 1 | year < 3", 10, "`|` is no operator; use `or`"),
        ("year > 1; drop", 9, "';' is no part of a filter"),
        ('title == "Alien', 10, "a string that does not end"),
        (r'title == "\d"', 11, "is no escape"),
        (r'title == "\ud800"', 11, "is no escape"),
        ('year == "1990"', 9, '"1990" is a string; year needs an integer'),
        ("year > 1990.5", 8, "1990.5 is a number; year needs an integer"),
        ("title == 1", 10, "1 is an integer; title needs a string"),
        ("adult > false", 7, "adult is true or false: compare it with == or !="),
        ("genres == 1", 1, "an array of strings, which `==` cannot compare; use array_contains(genres, ...)"),
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
        ("tags[0] not in []", 1, "needs a list of one value or more for tags[0]"),
        ("tags[0] is null", 1, "`is null` needs an attribute on its left, found tags[0]"),
        ("1 is null", 1, "`is null` needs an attribute on its left, found 1"),
        ("item_id is null", 1, "item_id is never null"),
        ("year is 5", 9, "expected `null`, found '5'"),
        ("year is not 5", 13, "expected `null`, found '5'"),
        ("year == null", 9, "nothing equals null; write `is null` or `is not null` after an attribute"),
        (r"title like 'a\\\\b_'", 12, "takes no other wildcard than a % at its end"),
        (r"title like 'a\\b'", 12, "a backslash goes before %, _ or another backslash"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_column_and_what_is_wrong(filter_: str, column: int, says: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        ours(filter_)
    assert (caught.value.field, caught.value.reason) == ("filter", "FILTER_INVALID")
    assert f"column {column}: " in str(caught.value) and says in str(caught.value)


TEXT_IDS = {"item_key": "VARCHAR", "year": "INT64"}
"""The fields of a collection of items with text ids."""


@pytest.mark.parametrize(
    ("filter_", "text"),
    [
        ('item_id == "KIT-1424"', 'item_key == "KIT-1424"'),
        ("'KIT-1424' == item_id", 'item_key == "KIT-1424"'),
        ('item_id in ["A", "B"]', 'item_key in ["A", "B"]'),
        ('item_id like "KIT-%"', 'item_key like "KIT-%"'),
        ('not (item_id == "item_id" or year < 3)', 'item_key != "item_id" and year >= 3'),
    ],
)
def test_a_text_id_is_the_column_of_keys(filter_: str, text: str) -> None:
    assert canonical(filter_, TEXT_IDS, 16) == text


@pytest.mark.parametrize(
    ("filter_", "column", "says"),
    [
        ("item_id == 1424", 12, "1424 is an integer; item_id needs a string"),
        ("item_id > 1424", 11, "1424 is an integer; item_id needs a string"),
        ("item_id in [1424]", 13, "1424 is an integer; item_id needs a string"),
        ("item_id + 1 == 2", 1, "`+` needs a number, found item_id"),
        ("year == item_id", 9, "item_id is a string, year an integer"),
        ('(item_id == "A") == true', 2, 'item_id == "A" is a condition'),
        ("item_id", 1, 'expected a condition, such as item_id == "A", found item_id'),
        ("item_id is null", 1, "item_id is never null: every item has one"),
        ('item_key == "A"', 1, "'item_key' is no attribute of the items; known are item_id, year"),
    ],
)
def test_a_refusal_calls_a_text_id_by_the_callers_name(filter_: str, column: int, says: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        canonical(filter_, TEXT_IDS, 16)
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


def test_many_conditions_are_written_in_halves_so_that_milvus_reads_them_in_time() -> None:
    years = [f"year == {year}" for year in range(MAX_CONDITIONS)]
    text = ours(" or ".join(years))
    assert max(run.count(" or ") for run in re.split(r"[()]", text)) < IN_A_ROW
    assert re.findall(r"year == \d+", text) == years
    assert ours(text) == ours(f"not ({ours(f'not ({text})')})") == text
    assert ours(" and ".join(years[:IN_A_ROW])) == " and ".join(years[:IN_A_ROW])
    assert ours(" && ".join(years[:18])) == f"({' and '.join(years[:9])}) and ({' and '.join(years[9:18])})"


WORDS = r"""and or not in like true false ( ) [ ] , + - * / % ** == != < <= > >= && || ! = ' " \ . $ ; ~ é \x
    year rating adult title genres tags array_contains array_contains_any array_length 0 1 -1 1.5 1e9 .5 5.
    9223372036854775808 'a' "b%" '\' null is title tags[0]
    year>1 adult==true year/2==5 1<year<3 array_contains(genres,'a')"""


@settings(derandomize=True, max_examples=1_500, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS.split()), max_size=14).map(" ".join)))
def test_any_text_is_accepted_or_refused(filter_: str) -> None:
    try:
        text = ours(filter_)
    except InvalidRequestError:
        return
    ours(text, 32)
