"""Titles mean the same everywhere: the clients and the evaluation read the same files in the same way."""

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import clients.titles
import mind.data.titles
from clients.user_files import FileError
from mind.data.ids import IdKind
from mind.data.roles import ITEMS
from mind.errors import DataError
from mind.keys import key_ids

Reader = Callable[[Path], dict[int, str]]
READERS = [clients.titles.read_titles, mind.data.titles.read_titles]
FOUND = {-7: "Seven", 8: 'Heat "1995", uncut'}


@pytest.fixture(params=READERS, ids=["clients", "mind"])
def read(request: pytest.FixtureRequest) -> Reader:
    reader: Reader = request.param
    return reader


@pytest.mark.parametrize(
    "text",
    [
        'item_id,title\n-7,Seven\n8,"Heat ""1995"", uncut"\n9,\n',
        'year,price,title,item_id\n1990,1.5,Seven,-7\n1995,2,"Heat ""1995"", uncut",8\n,,,9\n',
        'title,item_id\n\nSeven,-7\n\n"Heat ""1995"", uncut",8\n',
        'year\titem_id:token\ttitle:token_seq\n1990\t-7\tSeven\n1995\t8\t"Heat ""1995"", uncut"\n',
        '\ufeffitem_id;title\r\n-7;Seven\r\n8;"Heat ""1995"", uncut"\r\n',
        '-7,Seven\n8,"Heat ""1995"", uncut"\n',
        '-7,Seven,1990\n8,"Heat ""1995"", uncut",1995\n',
    ],
)
def test_the_column_title_wherever_it_stands(read: Reader, tmp_path: Path, text: str) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes(text.encode())
    assert read(path) == FOUND


@pytest.mark.parametrize("item_id", [[-7, 8, 9], ["-7", "8", "9"]])
def test_parquet(read: Reader, tmp_path: Path, item_id: list[object]) -> None:
    table = {"year": [1990, 1995, None], "title": [*FOUND.values(), None], "item_id": item_id}
    pq.write_table(pa.table(table), tmp_path / "items.parquet")
    assert read(tmp_path / "items.parquet") == FOUND


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("item_id,name\n1,one\n", "no column 'title'; there are: item_id, name"),
        ("sku,name\n1,one\n", "no column 'title'; there are: sku, name"),
        (
            "number,title\n1,one\n",
            "no column is called item_id or alike; say with --titles-id-column which one holds the items; "
            "there are: number, title",
        ),
        ("item_id,title\n1,one\nx,two\n", "line 3: item_id is 'x', not an integer"),
        ("1,one\n99999999999999999999,two\n", "line 2: item_id is '99999999999999999999', not an integer"),
        ("item_id,title\n1,one,two\n", "line 2: expected 2 columns, found 3"),
        ("1\n", "line 1: must be item_id,title; is '1'"),
    ],
)
def test_a_file_that_has_none_says_why(read: Reader, tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "items.csv"
    path.write_text(text)
    with pytest.raises((FileError, DataError)) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: {says}")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_text_ids_stay_as_they_are(tmp_path: Path, kind: str) -> None:
    titles = {"0042": "Pan", "42": "Hose", "a, b": "<b>", "x y": "Space"}
    path = tmp_path / f"items.{kind}"
    if kind == "csv":
        path.write_text('item_id,title\n0042,Pan\n42,Hose\n"a, b",<b>\n x y ,Space\nKIT-1,\n')
    else:
        pq.write_table(pa.table({"item_id": [*titles, "KIT-1"], "title": [*titles.values(), None]}), path)
    assert clients.titles.read_titles(path, text=True) == titles
    ids = dict(zip(key_ids(titles).tolist(), titles.values(), strict=True))
    assert mind.data.titles.read_titles(path, IdKind.TEXT) == ids


@pytest.mark.parametrize(("row", "shown"), [(",Pan", "''"), (f"{'x' * 257},Pan", f"'{'x' * 50}'")])
def test_a_text_id_that_cannot_be_one_is_named(tmp_path: Path, row: str, shown: str) -> None:
    path = tmp_path / "items.csv"
    path.write_text(f"sku,title\nA,Hose\n{row}\n")
    says = f"{path}: line 3: sku is {shown}, not text of 1 to 256 bytes"
    with pytest.raises(FileError, match=re.escape(says)):
        clients.titles.read_titles(path, text=True, id_column="sku")


def test_both_know_the_same_names_of_the_column_of_ids() -> None:
    assert clients.titles.ITEM_IDS == ITEMS


@pytest.mark.parametrize("name", ["sku", "SKU:token", "Product-Id", "iid"])
def test_the_column_of_ids_is_found_by_a_usual_name(read: Reader, tmp_path: Path, name: str) -> None:
    (tmp_path / "items.csv").write_text(f"number,{name},title\n1,7,Seven\n")
    pq.write_table(pa.table({"title": ["Seven"], name: [7]}), tmp_path / "items.parquet")
    assert read(tmp_path / "items.csv") == read(tmp_path / "items.parquet") == {7: "Seven"}


@pytest.mark.parametrize("read", READERS, ids=["clients", "mind"])
def test_the_column_of_ids_may_be_named(read: Callable[..., dict[int, str]], tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("sku,number,title\nA,7,Seven\n")
    pq.write_table(pa.table({"sku": ["A"], "number": [7], "title": ["Seven"]}), tmp_path / "items.parquet")
    for path in (tmp_path / "items.csv", tmp_path / "items.parquet"):
        assert read(path, id_column="number") == {7: "Seven"}
        with pytest.raises((FileError, DataError), match="no column 'asin'; there are: sku, number, title"):
            read(path, id_column="asin")


def test_a_directory_of_parquet_files_for_the_report(tmp_path: Path) -> None:
    pq.write_table(pa.table({"title": ["Seven"], "item_id": [-7]}), tmp_path / "part.parquet")
    assert mind.data.titles.read_titles(tmp_path) == {-7: "Seven"}
