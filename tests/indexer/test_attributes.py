"""Item attributes from CSV and Parquet."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from indexer.errors import AttributesError
from indexer.items.attributes import Attributes, read_attributes
from indexer.items.item_files import ItemFile
from mind.data.quotes import Quote
from mind.milvus.schemas import Column

ITEMS = np.array([10, 20, 30])
KINDS = {"title": Column("VARCHAR", 64, 0), "year": Column("INT64", 0, 0), "price": Column("DOUBLE", 0, 0)}

CSV = """item_id,title,year,score,adult,genres
30,"Heat, the film",1995,8.3,false,Crime|Thriller
10,Été,1999,,true,
77,Unknown to the model,2001,1,false,Crime
"""


def write(directory: Path, content: str | dict[str, Any]) -> Path:
    """Write a CSV file from text, or a Parquet file from columns."""
    if isinstance(content, str):
        path = directory / "items.csv"
        path.write_text(content, encoding="utf-8")
    else:
        path = directory / "items.parquet"
        pa.parquet.write_table(pa.table(content), path)
    return path


def values(attributes: Attributes) -> dict[str, list[Any]]:
    """Attribute name to its values, in the order of the model's items."""
    return {column.name: column.values(0, len(ITEMS)) for column in attributes.columns}


def test_csv_types_come_from_the_values_and_absent_ones_are_filled(tmp_path: Path) -> None:
    attributes = read_attributes(write(tmp_path, CSV), ITEMS, multi_valued=["genres"])
    assert attributes.types == {
        "title": "VARCHAR",
        "year": "INT64",
        "score": "DOUBLE",
        "adult": "BOOL",
        "genres": "ARRAY<VARCHAR>",
    }
    assert values(attributes) == {
        "title": ["Été", "", "Heat, the film"],
        "year": [1999, 0, 1995],
        "score": [0.0, 0.0, 8.3],
        "adult": [True, False, False],
        "genres": [[], [], ["Crime", "Thriller"]],
    }
    assert (attributes.missing, attributes.unknown) == (1, 1)
    assert {column.name: column.filled for column in attributes.columns}["score"] == 1


def test_parquet_types_come_from_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {
            "sku": pa.array([10, 30], pa.uint32()),
            "brand": pa.array(["a", None]).dictionary_encode(),
            "price": pa.array([1.5, 2.0], pa.float32()),
            "stock": pa.array([None, 7], pa.int16()),
            "tags": pa.array([["x", "y"], None]),
            "sizes": pa.array([[1], [2, 3]], pa.large_list(pa.int8())),
        },
    )
    attributes = read_attributes(path, ITEMS, id_column="sku")
    assert attributes.types == {
        "brand": "VARCHAR",
        "price": "DOUBLE",
        "stock": "INT64",
        "tags": "ARRAY<VARCHAR>",
        "sizes": "ARRAY<INT64>",
    }
    assert values(attributes) == {
        "brand": ["a", "", ""],
        "price": [1.5, 0.0, 2.0],
        "stock": [0, 0, 7],
        "tags": [["x", "y"], [], []],
        "sizes": [[1], [], [2, 3]],
    }


def test_digest_follows_the_values_and_not_the_order(tmp_path: Path) -> None:
    header, *rows = CSV.splitlines()
    digest = read_attributes(write(tmp_path, CSV), ITEMS).digest
    assert read_attributes(write(tmp_path, "\n".join([header, *reversed(rows)])), ITEMS).digest == digest
    assert read_attributes(write(tmp_path, CSV.replace("1995", "1996")), ITEMS).digest != digest
    assert read_attributes(write(tmp_path, CSV), ITEMS, types={"year": "VARCHAR"}).digest != digest
    assert Attributes().digest == ""
    zero, absent = (
        read_attributes(write(tmp_path, f"item_id,a,b\n10,{cell},1\n20,1,1\n"), ITEMS) for cell in ("0", "")
    )
    assert zero.digest != absent.digest and values(zero) == values(absent)


def test_types_that_the_data_must_not_decide(tmp_path: Path) -> None:
    csv = write(tmp_path, "item_id,zip,year\n10,01234,1999\n20,98765,\n")
    assert read_attributes(csv, ITEMS).types == {"zip": "VARCHAR", "year": "INT64"}
    assert read_attributes(csv, ITEMS, types={"year": "DOUBLE"}).types["year"] == "DOUBLE"
    pandas_year = write(tmp_path, {"item_id": [10, 20], "year": pa.array([1999.0, None])})
    assert values(read_attributes(pandas_year, ITEMS, types={"year": "INT64"})) == {"year": [1999, 0, 0]}


def test_lengths_are_counted_in_bytes_and_leave_room(tmp_path: Path) -> None:
    (column,) = read_attributes(write(tmp_path, {"item_id": [10], "tags": [["é" * 50, "b"]]}), ITEMS).columns
    assert (column.max_length, column.max_capacity, column.max_bytes) == (200, 16, 200)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("item_id,year\n10,1\n10,2\n", {}, "row 2: item_id 10 is in row 1 already"),
        ("item_id,year\n10,1\nx1,2\n", {}, "row 2: item_id is 'x1', which is not a valid INT64"),
        ("item_id,year\n10,1\n,2\n", {}, "row 2: item_id is empty"),
        (
            "item_id,year\n9223372036854775808,1\n",
            {},
            "row 1: item_id is '9223372036854775808', which is not a valid INT64",
        ),
        (
            "item_id,year\n-9223372036854775808,1\n",
            {},
            "row 1: item_id is -9223372036854775808, but the smallest item id is -2^63 + 1",
        ),
        ("item_id,year\n1,1\n2,2\n", {}, "the model knows none of the 2 item ids, such as 1"),
        (
            "item_id,year\n10,1\n20,n/a\n",
            {"types": {"year": "INT64"}},
            "row 2: year is 'n/a', which is not a valid INT64",
        ),
        ("item_id,year\n10,nan\n", {"types": {"year": "DOUBLE"}}, "row 1: year is 'nan', which is not a valid DOUBLE"),
        (
            "item_id,year\n10,1\n",
            {"types": {"year": "INT"}},
            "column year cannot have the type 'INT'; the types are INT64, DOUBLE, BOOL",
        ),
        ("item_id,year\n10,1\n", {"multi_valued": ["genres"]}, "has no column 'genres'; its columns are item_id, year"),
        ("sku,year\n10,1\n", {}, "has no column 'item_id'; its columns are sku, year"),
        ("item_id\n10\n", {}, "the only column is 'item_id'"),
        ("item_id,a,a\n10,1,2\n", {}, "has 2 columns 'a'"),
        (
            "item_id,release date\n10,1\n",
            {},
            "column 'release date': a name in Milvus has letters, digits and underscores",
        ),
        ("item_id,embedding\n10,1\n", {}, "column 'embedding': the name is reserved"),
        ("item_id,like\n10,1\n", {}, "column 'like': the name is reserved"),
        ("item_id,Text_Match\n10,1\n", {}, "column 'Text_Match': the name is reserved"),  # since Milvus 2.5
        ("item_id,year__present\n10,1\n", {}, "column 'year__present': the name is reserved"),
        ("item_id,year\n10,1,2\n", {}, "line 2: expected 2 columns, found 3: '10,1,2'"),
        ("", {}, "the file is empty"),
        (f"item_id,{'y' * 200_000}\n10,1\n", {}, "cannot be read: field larger than field limit"),
        (f"item_id,text\n10,a\n20,{'x' * 65_536}\n", {}, "row 2: text has 65,536 bytes; the limit is 65,535"),
        ({"item_id": [10], "tags": [["a"] * 4097]}, {}, "row 1: tags has 4,097 values; the limit is 4,096"),
        (
            {"item_id": [10, 20], "tags": [["a"], ["a", None]]},
            {},
            "row 2: tags is ['a', None], which is not a valid ARRAY<VARCHAR>",
        ),
        ({"item_id": [10, 20], "price": [1.0, float("inf")]}, {}, "row 2: price is inf, which is not a valid DOUBLE"),
        ({"item_id": ["10"], "year": [1]}, {}, "column item_id is string, but item ids must be 64-bit integers"),
        (
            {"item_id": [10], "day": pa.array([0], pa.date32())},
            {},
            "column day is date32[day], but an attribute is one of",
        ),
    ],
)
def test_faults_name_row_value_and_limit(
    tmp_path: Path, content: str | dict[str, Any], options: dict[str, Any], message: str
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(AttributesError) as caught:
        read_attributes(path, ITEMS, **options)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(AttributesError, match=r"missing\.csv: cannot be read: No such file"):
        read_attributes(tmp_path / "missing.csv", ITEMS)
    with pytest.raises(AttributesError, match=r"items\.xlsx: expected a file that ends in \.csv, \.jsonl or"):
        read_attributes(tmp_path / "items.xlsx", ITEMS)
    for name, content, message in (
        ("text.parquet", b"item_id,a\n", "cannot be read as Parquet: it does not begin with PAR1 as Parquet does"),
        ("latin.csv", b"item_id,a\n10,\xe9\n", "line 2: byte 0xe9 is not UTF-8; convert it"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AttributesError, match=f"{name}: {message}"):
            read_attributes(tmp_path / name, ITEMS)


def test_a_header_without_rows(tmp_path: Path) -> None:
    with pytest.raises(AttributesError, match=r"items\.csv: the file has no rows after the header"):
        read_attributes(write(tmp_path, "item_id,title\n"), ITEMS)


STRAY = 'item_id,title,year\n10,"Heroes,1977\n20,Low,1977\n30,"Heroes"" again",1977\n'


def test_a_quote_that_swallows_rows_is_refused_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, STRAY)
    with pytest.raises(AttributesError, match=r'items\.csv: line 2: a quote \("\) opens a value that'):
        read_attributes(path, ITEMS, quote=Quote.AUTO)
    file = ItemFile(path, "item_id", KINDS, quote=Quote.AUTO)
    with pytest.raises(
        AttributesError, match=r"items\.csv: line 2: .*--quote none if quotes mean nothing in this file"
    ):
        file.check()


def test_quotes_that_mean_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, STRAY)
    attributes = read_attributes(path, ITEMS, quote=Quote.NONE)
    assert values(attributes)["title"] == ['"Heroes', "Low", '"Heroes"" again"']
    assert str(attributes.count) == "4 lines: 1 header, 3 rows, 0 blank"
    file = ItemFile(path, "item_id", KINDS, quote=Quote.NONE)
    assert (file.check().tolist(), file.count) == ([10, 20, 30], attributes.count)


def test_every_line_is_counted_by_what_it_is(tmp_path: Path) -> None:
    path = write(tmp_path, 'item_id,title,year\n\n10,"one\n\ntwo",1999\n   \n20,"a, b",2000\n77,unknown,2001')
    attributes = read_attributes(path, ITEMS)
    assert str(attributes.count) == "8 lines: 1 header, 3 rows, 2 blank, 2 inside quoted values"
    assert values(attributes)["title"] == ["one\n\ntwo", "a, b", ""]
    file = ItemFile(path, "item_id", KINDS, batch_rows=1)
    assert (file.check().tolist(), file.count) == ([10, 20, 77], attributes.count)


def test_a_row_of_another_width_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "item_id,title,year\n10,a,1\n20,b\n")
    with pytest.raises(AttributesError, match=r"items\.csv: line 3: expected 3 columns, found 2: '20,b'"):
        read_attributes(path, ITEMS)
    with pytest.raises(AttributesError, match=r"items\.csv: line 3: expected 3 columns, found 2: '20,b'"):
        ItemFile(path, "item_id", KINDS).check()


def test_two_spellings_of_an_id_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "item_id,year\n010,1\n20,2\n10,3\n")
    message = r"items\.csv: row 3: item_id 10 is in row 1 already, spelt '010' there and '10' here; ids are integers"
    with pytest.raises(AttributesError, match=message):
        read_attributes(path, ITEMS)
    with pytest.raises(AttributesError, match=message):
        ItemFile(path, "item_id", KINDS, batch_rows=1).check()


def test_leading_zeros_that_are_dropped_are_counted(tmp_path: Path) -> None:
    attributes = read_attributes(write(tmp_path, "item_id,year\n010,1\n020,2\n30,3\n"), ITEMS)
    assert (values(attributes)["year"], attributes.padded) == ([1, 2, 3], 2)


def test_a_decimal_column_is_a_double(tmp_path: Path) -> None:
    prices = pa.array([Decimal("12.50"), None, Decimal("0.01")], pa.decimal128(9, 2))
    path = write(tmp_path, {"item_id": [10, 20, 30], "price": prices})
    attributes = read_attributes(path, ITEMS)
    assert (attributes.types, values(attributes)) == ({"price": "DOUBLE"}, {"price": [12.5, 0.0, 0.01]})
    (_, _, columns), *_ = ItemFile(path, "item_id", KINDS).batches()
    assert columns == {"price": [12.5, None, 0.01]}


def test_a_list_of_lists_is_refused_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(
        AttributesError, match=r"items\.parquet: column tags is list<.*, but an attribute is one of INT64"
    ):
        read_attributes(write(tmp_path, {"item_id": [10], "tags": [[["a"]]]}), ITEMS)
    path = write(tmp_path, {"item_id": [10], "embedding": [[["a"], ["b"]]]})
    with pytest.raises(
        AttributesError, match=r"column embedding holds list<.*, of which a value is no number; it must"
    ):
        ItemFile(path, "item_id", {}, 2).check()


def test_a_directory_of_parquet_files(tmp_path: Path) -> None:
    for year, item_ids in ((1999, [10, 20]), (2000, [30])):
        (tmp_path / "items" / f"year={year}").mkdir(parents=True)
        table = pa.table({"item_id": item_ids, "title": [f"film {item_id}" for item_id in item_ids]})
        pa.parquet.write_table(table, tmp_path / "items" / f"year={year}" / "part-0.parquet")
    attributes = read_attributes(tmp_path / "items", ITEMS)
    assert values(attributes) == {"title": ["film 10", "film 20", "film 30"], "year": [1999, 1999, 2000]}
    file = ItemFile(tmp_path / "items", "item_id", KINDS, batch_rows=1)
    assert file.check().tolist() == [10, 20, 30]
    assert [columns["year"] for _, _, columns in file.batches()] == [[1999], [1999], [2000]]
