"""Clicks in the shapes in which teams have them: each gives the same interactions, and a bad one says where and why."""

import bz2
import gzip
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.errors import AttributesError
from indexer.items.attributes import read_attributes
from indexer.items.item_files import ItemFile
from mind.data import gathered, parquet, text_blocks
from mind.data.clicks import read_interactions
from mind.data.ids import IdKind
from mind.data.interactions import Interactions
from mind.data.line_count import LineCount
from mind.data.sources import find_files
from mind.errors import DataError
from mind.milvus.schemas import Column

CLICKS = [(1, 10, 5), (1, 11, 6), (2, 10, 7), (3, 12, 1)]
HEADER = "user_id,item_id,timestamp\n"


def rows(interactions: Interactions) -> list[tuple[int, int, float]]:
    columns = (interactions.user_id, interactions.item_id, interactions.timestamp)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def csv_of(clicks: Sequence[tuple[int, int, int]]) -> str:
    return HEADER + "".join(f"{user},{item},{time}\n" for user, item, time in clicks)


def json_of(clicks: Sequence[tuple[int, int, int]]) -> str:
    lines = [{"timestamp": time, "user_id": user, "x": [user], "item_id": item} for user, item, time in clicks]
    return "".join(json.dumps(line) + "\n" for line in lines)


def write(path: Path, content: str | bytes | Sequence[tuple[int, int, int]]) -> Path:
    """A file whose ending says how clicks are written; texts and bytes are written as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, str | bytes):
        if path.suffix == ".parquet":
            pq.write_table(pa.table(list(zip(*content, strict=True)), HEADER.strip().split(",")), path)
            return path
        content = json_of(content) if ".json" in path.name or ".ndjson" in path.name else csv_of(content)
    data = content.encode() if isinstance(content, str) else content
    packed = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": lambda text: _zstd(text)}
    path.write_bytes(packed[path.suffix](data) if path.suffix in packed else data)
    return path


def _zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    "name",
    [
        "a.csv", "a.csv.gz", "a.csv.bz2", "a.csv.zst", "a.jsonl", "a.ndjson", "a.json", "a.jsonl.gz", "a.jsonl.zst",
        "a.JSONL", "a.parquet",
    ],
)  # fmt: skip
def test_one_file(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, CLICKS if name != "a.JSONL" else json_of(CLICKS))
    interactions, report = read_interactions(path)
    assert rows(interactions) == CLICKS
    assert report.rows == len(CLICKS)


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "jsonl", "jsonl.gz", "parquet"])
def test_a_directory_a_pattern_and_a_url(tmp_path: Path, ending: str) -> None:
    for number, click in enumerate(CLICKS):
        write(tmp_path / "clicks" / f"day-{number // 2}" / f"part-{number}.{ending}", [click])
    write(tmp_path / "clicks" / "_SUCCESS", "")
    write(tmp_path / "clicks" / "day-0" / ".part-0.crc", "x")
    for where in ("clicks", f"clicks/day-*/part-*.{ending}", "clicks/day-?", "clicks/**/part-[0-9]*"):
        interactions, report = read_interactions(f"{tmp_path}/{where}")
        assert rows(interactions) == CLICKS, where
        assert report.rows == 4
        assert report.count.header == (4 if "csv" in ending else 0)
    interactions, _ = read_interactions(f"file://{tmp_path}/clicks")
    assert rows(interactions) == CLICKS
    interactions, report = read_interactions(f"{tmp_path}/clicks/day-0/*")
    assert rows(interactions) == CLICKS[:2]


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's file system in memory."""
    system = fsspec.filesystem("memory")
    system.store.clear()  # all tests of a process share it
    yield system
    system.store.clear()


@pytest.mark.parametrize("ending", ["csv.gz", "jsonl", "parquet"])
def test_urls(tmp_path: Path, memory: Any, ending: str) -> None:
    for number, click in enumerate(CLICKS):
        path = write(tmp_path / f"{number}.{ending}", [click])
        memory.pipe_file(f"/urls/day={number}/{number}.{ending}", path.read_bytes())
    done: list[tuple[int, int]] = []
    interactions, _ = read_interactions("memory://urls/", on_progress=lambda *far: done.append(far))
    assert rows(interactions) == CLICKS
    size = sum(memory.size(path) for path in memory.find("/urls"))
    assert done[-1] == (size, size)
    for where, clicks in ((f"urls/day=[12]/*.{ending}", CLICKS[1:3]), (f"urls/day=3/3.{ending}", CLICKS[3:])):
        assert rows(read_interactions(f"memory://{where}")[0]) == clicks
    if ending == "parquet":
        found, _ = read_interactions("memory://urls", time="day")
        assert found.timestamp.tolist() == [0, 1, 2, 3]


def test_urls_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, memory: Any) -> None:
    for url, message in (
        ("s3://bucket/clicks.csv", "s3://bucket/clicks.csv: s3:// needs a package: pip install s3fs"),
        ("gs://bucket/*.csv", "gs:// needs a package: pip install gcsfs"),
        ("nowhere://x/y.csv", "nowhere://x/y.csv: cannot be read: Protocol not known: nowhere"),
        ("memory://nothing.csv", "memory://nothing.csv: cannot be read: there is no such file"),
        ("memory://nothing/*.csv", "memory://nothing/*.csv: no file matches"),
    ):
        with pytest.raises(DataError, match=re.escape(message)):
            read_interactions(url)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(DataError, match=re.escape("s3:// needs a package: pip install fsspec s3fs")):
        read_interactions("s3://bucket/clicks.csv")


def test_a_url_is_told_without_its_secrets(memory: Any) -> None:
    memory.pipe_file("/x.csv", HEADER.encode() + b"1,x,2\n")
    with pytest.raises(DataError, match=r"^memory://host/gone\.csv: cannot be read") as error:
        read_interactions("memory://me:secret@host/gone.csv?token=secret")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("user_id::item_id::timestamp\n1::10::5\n2::11::6\n", {}),
        ("1::10::5::5\n2::11::3::6\n", {"header": ["user_id", "item_id", "rating", "timestamp"]}),
        ("user_id||item_id||note||timestamp\n1||10||a|b||5\n2||11||||6\n", {"delimiter": "||"}),
        ('user_id::note::item_id::timestamp\n1::"a::b"::10::5\n2::"two\nlines"::11::6\n', {}),
        ("user_id<>item_id<>timestamp\r\n1<>10<>5\r\n2<>11<>6\r\n", {"delimiter": "<>"}),
        ("user_id\u00a7item_id\u00a7timestamp\n1\u00a710\u00a75\n2\u00a711\u00a76\n", {"delimiter": "\u00a7"}),
        ("user_id::item_id::timestamp::note\n1::10::5::\x1f\n2::11::6::x\n", {}),
    ],
)
def test_delimiters_of_several_characters(tmp_path: Path, content: str, options: dict[str, Any]) -> None:
    interactions, report = read_interactions(write(tmp_path / "ratings.dat", content), **options)
    assert rows(interactions) == [(1, 10, 5), (2, 11, 6)]
    assert report.malformed.count == 0


def test_cells_keep_what_stands_in_for_a_long_delimiter(tmp_path: Path) -> None:
    content = 'user_id::item_id::timestamp\n1::"a::b"::5\n1::"a:b"::6\n1::c::d::7\n'
    found, report = read_interactions(write(tmp_path / "a.csv", content), max_malformed=0.5)
    assert found.item_keys is not None
    assert found.item_keys.of(found.item_id).at(np.arange(2)) == ["a::b", "a:b"]
    assert "line 4: expected 3 columns, found 4: '1::c::d::7'" in str(report)


def test_netflix_blocks_are_refused_with_the_way_out(tmp_path: Path) -> None:
    path = write(
        tmp_path / "combined_data_1.txt", "1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n2:\n885013,4,2005-10-19\n"
    )
    message = "line 1 is '1:', an item to which the lines after it belong, as in Netflix' files; write a row for every"
    with pytest.raises(DataError, match=re.escape(message)) as error:
        read_interactions(path)
    command = re.search("`(awk .*)`", str(error.value))
    assert command

    done = subprocess.run(
        ["bash", "-c", command[1].replace("FILE > ratings.csv", str(path))], capture_output=True, text=True
    )
    assert done.stdout == "1,1488844,3,2005-09-06\n1,822109,5,2005-05-13\n2,885013,4,2005-10-19\n"
    header = "item_id,user_id,rating,date"
    assert header in str(error.value)
    found, _ = read_interactions(write(tmp_path / "ratings.csv", done.stdout), header=header.split(","))
    assert found.item_id.tolist() == [1, 2, 1]


def test_json_lines_of_every_kind(tmp_path: Path) -> None:
    lines = [
        '{"user_id": "a1", "item_id": 7, "timestamp": "2024-01-01T00:00:01Z"}',
        '  {"user_id": "a1", "item_id": "8", "timestamp": "2024-01-01T00:00:02Z", "more": {"x": NaN}}  ',
        "",
        '{"item_id": 7, "user_id": "b\\u00e92", "timestamp": "2024-01-01 00:00:03"}',
        '{"item_id": 9.0, "user_id": "b2", "timestamp": "2024-01-01"}',
        '{"item_id": null, "user_id": "b2", "timestamp": "2024-01-01"}',
        '{"user_id": "b2", "timestamp": "2024-01-01"}',
        '{"item_id": true, "user_id": "b2", "timestamp": "2024-01-01"}',
        '{"item_id": {"x": 1}, "user_id": "b2", "timestamp": "2024-01-01"}',
        '{"item_id": 1, "user_id": "\\ud800", "timestamp": "2024-01-01"}',
        '{"item_id": 1, "user_id": "c"} {"item_id": 2, "user_id": "c"}',
        '["item_id", 1]',
        '{"item_id": 1, "user_id": "c",',
        '"timestamp": "2024-01-01"}',
    ]
    found, report = read_interactions(
        write(tmp_path / "a.jsonl", "\r\n".join(lines)), max_malformed=0.9, ids=IdKind.TEXT
    )
    assert found.item_keys is not None and found.user_keys is not None
    users, items = (
        table.of(ids).at(np.arange(5))
        for table, ids in ((found.user_keys, found.user_id), (found.item_keys, found.item_id))
    )
    assert sorted(zip(users, items, strict=True)) == [
        ("a1", "7"),
        ("a1", "8"),
        ("b2", "9.0"),
        ("b2", "true"),
        ("b\u00e92", "7"),
    ]
    assert report.count == LineCount(rows=13, blank=1)
    assert (report.missing.lines, report.malformed.count) == ((6, 7), 6)
    assert 'line 9: item_id is \'{"x": "1"}\', not a text or a number' in str(report)
    assert "line 10: user_id has half of a character, \"'\\\\ud800'\"" in str(report)
    assert 'line 11: expected a JSON object, found \'{"item_id"' in str(report)


def test_alike_json_lines_are_read_as_odd_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast way and the way line by line give the same; blocks of both kinds may follow each other."""
    largest = 2**63 - 1
    clicks = [(user, largest - item, 5) for user in range(20) for item in range(5)]
    content = json_of(clicks)
    whole = rows(read_interactions(write(tmp_path / "a.jsonl", content))[0])
    assert whole == clicks
    odd = content.replace('"user_id": 7,', '"user_id": "7",').replace("}\n", "} \n", 60)
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 512)
    assert rows(read_interactions(write(tmp_path / "b.jsonl", odd))[0]) == whole


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", "a.jsonl: the file is empty"),
        (
            "a.json",
            '[{"user_id": 1}]',
            "a.json: is a JSON array; write an object a line, for example with `jq -c '.[",
        ),
        ("a.jsonl", "1,2,3\n", "a.jsonl: expected a JSON object a line, found '1,2,3'"),
        (
            "a.jsonl",
            '{"user_id": 1, "item_id": 2}\n',
            "a.jsonl: no column is called timestamp or alike; say with",
        ),
        ("a.jsonl", b'{"user_id": "\xff"}\n', "a.jsonl: line 1: byte 0xff is not UTF-8; convert it"),
        ("a.jsonl.gz", b"", "a.jsonl.gz: the file is empty"),
    ],
)
def test_json_lines_that_are_refused(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read_interactions(write(tmp_path / name, content))


def test_lines_of_several_files_add_up_and_are_named_by_file(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", HEADER + "1,10,5\n\n1,x,6\n1,11\n")
    write(tmp_path / "2.csv", "timestamp,note,item_id,user_id\n7,,10,\n5,,10,1\n6,,12,1\n4,,13,1\n")
    found, report = read_interactions(tmp_path, max_malformed=0.9)
    assert rows(found) == [(1, 13, 4), (1, 10, 5), (1, 12, 6)]
    assert str(report).splitlines()[1:] == [
        "  10 lines: 2 header, 7 rows, 1 blank",
        "  times from 4 to 6",
        f"  malformed, skipped: 2 ({tmp_path}/1.csv line 4: item_id is 'x', not an integer of 64 bits; "
        f"{tmp_path}/1.csv line 5: expected 3 columns, found 2: '1,11')",
        f"  missing values, skipped: 1 ({tmp_path}/2.csv line 2)",
        f"  duplicates, skipped: 1 ({tmp_path}/2.csv line 3)",
        f"  unsorted, put in order: 1 ({tmp_path}/2.csv line 5)",
    ]
    with pytest.raises(DataError, match=re.escape(f"the limit is 1.0%; {tmp_path}/1.csv line 4: item_id is 'x'")):
        read_interactions(tmp_path, ids=IdKind.INTEGER)


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", CLICKS)
    write(tmp_path / "b.jsonl", CLICKS)
    message = (
        f"{tmp_path}: has files of two formats: {tmp_path}/a.csv is CSV and {tmp_path}/b.jsonl is JSON lines; name"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        read_interactions(tmp_path)
    assert rows(read_interactions(f"{tmp_path}/*.csv")[0]) == CLICKS
    write(tmp_path / "c.csv", "user_id,sku,timestamp\n1,2,3\n")
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}/c.csv: no column 'item_id'; there are: user_id, sku")):
        read_interactions(f"{tmp_path}/*.csv")
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}/*.tsv: no file matches")):
        read_interactions(f"{tmp_path}/*.tsv")


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_pieces_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """However the files are cut, and whatever the first piece looks like, the result is that of one piece."""
    rng = np.random.default_rng(1)
    clicks = [tuple(map(int, row)) for row in rng.integers(0, [50, 30, 20], (3_000, 3))]
    path = write(tmp_path / f"a.{ending}", clicks)
    whole, report = read_interactions(path)
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 700)
    monkeypatch.setattr(parquet, "BATCH_ROWS", 70)
    monkeypatch.setattr(gathered, "PART_ROWS", 400)
    cut, told = read_interactions(path)
    assert rows(cut) == rows(whole)
    assert str(told) == str(report)
    assert report.duplicates.count > 50 and report.unsorted.count > 500


@pytest.mark.parametrize(
    ("early", "late"),
    [
        ("1,10,5\n" * 200, "1,KIT-1,6\n" * 200),
        ("1,KIT-1,5\n" * 3 + "1,10,5\n" * 50, "1,11,6\n" * 2000),
        ("1,10,5\n" * 200, "1,010,6\n"),
        ("1,10,5\n" * 200, "1,11,5.5\n" * 200),
        ("1,10,5\n" * 200, "1,11,2024-01-01\n" * 900),
    ],
)
def test_what_a_column_is_depends_on_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, early: str, late: str
) -> None:
    path = write(tmp_path / "a.csv", HEADER + early + late)
    whole, report = read_interactions(path, max_malformed=0.4)
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 300)
    cut, told = read_interactions(path, max_malformed=0.4)
    assert rows(cut) == rows(whole)
    assert str(told) == str(report)


def test_two_spellings_are_found_whichever_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 300)
    message = "item_id 7 is spelt '7' in line 2 and '07' in line 302"
    with pytest.raises(DataError, match=message):
        read_interactions(
            write(tmp_path / "a.csv", HEADER + "1,7,5\n" + "1,8,5\n" * 299 + "1,07,5\n"), ids=IdKind.INTEGER
        )


def test_a_bar_is_told_how_far_reading_is(tmp_path: Path) -> None:
    write(tmp_path / "1.csv.gz", CLICKS)
    write(tmp_path / "2.csv.gz", CLICKS)
    told: list[tuple[int, int]] = []
    read_interactions(tmp_path, on_progress=lambda *far: told.append(far))
    assert told[-1] == (find_files(tmp_path).size, find_files(tmp_path).size)


@pytest.mark.parametrize("name", ["items.csv.gz", "items.jsonl", "items.jsonl.gz", "items", "items.parquet"])
def test_attributes_of_items(tmp_path: Path, name: str) -> None:
    table = {"item_id": [10, 20], "title": ["a", None], "price": [1.5, 2.0], "tags": [["x", "y"], []]}
    lines = "".join(json.dumps(dict(zip(table, row, strict=True))) + "\n" for row in zip(*table.values(), strict=True))
    path = tmp_path / name
    if name == "items":
        for number, line in enumerate(lines.splitlines()):
            write(path / f"{number}.jsonl", line)
    elif name == "items.parquet":
        pq.write_table(pa.table(table), path)
    else:
        write(path, lines if "json" in name else "item_id,title,price,tags\n10,a,1.5,x|y\n20,,2.0,\n")
    several = ["tags"] if "csv" in name else []
    found = read_attributes(path, np.array([10, 20]), multi_valued=several)
    cells = {column.name: column.column.to_pylist() for column in found.columns}
    assert cells["title"] == ["a", None] and cells["price"] == [1.5, 2.0]
    assert cells["tags"][0] == ["x", "y"] and not cells["tags"][1]
    assert found.count.rows == 2
    kinds = {
        "title": Column("VARCHAR", 100, 0),
        "price": Column("DOUBLE", 0, 0),
        "tags": Column("ARRAY<VARCHAR>", 9, 9),
    }
    items = ItemFile(path, "item_id", kinds, batch_rows=1)
    assert items.check().tolist() == [10, 20]
    assert [values["title"] for _, _, values in items.batches()] == [["a"], [None]]


def test_attributes_that_are_malformed(tmp_path: Path) -> None:
    path = write(tmp_path / "items.jsonl", '{"item_id": 10, "a": 1}\n{"item_id": 20, "a": {"b": 1}}\n')
    with pytest.raises(AttributesError, match=r"items\.jsonl: line 2: a is .*, not a text, a number or a list"):
        read_attributes(path, np.array([10, 20]))
