"""Item attributes from CSV and Parquet."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from indexer.errors import AttributesError
from indexer.items.attributes import Attributes, read_attributes

ITEMS = np.array([10, 20, 30])

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
    with pytest.raises(AttributesError, match=r"items\.json: expected a file that ends in \.csv or \.parquet"):
        read_attributes(tmp_path / "items.json", ITEMS)
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
