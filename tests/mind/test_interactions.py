"""Reading interactions: any CSV or Parquet, sorted, with every problem counted and named by its line."""

import gzip
import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mind.data import tables
from mind.data.interactions import Finding, Interactions, Report, read_interactions
from mind.errors import DataError

HEADER = "user_id,item_id,timestamp\n"
NOTHING = Finding(0, ())


def read(
    directory: Path, content: str | bytes, name: str = "clicks.csv", **options: Any
) -> tuple[Interactions, Report]:
    path = directory / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_interactions(path, **options)


def rows(interactions: Interactions) -> list[tuple[int, int, float]]:
    columns = (interactions.user_id, interactions.item_id, interactions.timestamp)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("user_id,item_id,timestamp\n1,10,5\n2,20,6\n", {}),
        ("user_id,item_id,timestamp\n1,10,5\n2,20,6", {}),
        ("user_id,item_id,timestamp\r\n1,10,5\r\n2,20,6\r\n", {}),
        ("\ufeffuser_id,item_id,timestamp\n1,10,5\n2,20,6\n", {}),
        ("user_id\titem_id\ttimestamp\n1\t10\t5\n2\t20\t6\n", {}),
        ("timestamp;note;item_id;user_id\n5;a,b,c;10;1\n6;;20;2\n", {}),
        ("user_id, item_id, timestamp\n1, 10, 5\n2, 20, 6\n", {}),
        ('"user_id","item_id","timestamp"\n"1","10","5"\n"2","20","6"\n', {}),
        ("user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t10\t3\t5\n2\t20\t4\t6\n", {}),
        ("uid,iid,ts\n1,10,5\n2,20,6\n", {"user": "uid", "item": "iid", "time": "ts"}),
        ("1,10,5\n2,20,6\n", {"header": ["user_id", "item_id", "timestamp"]}),
        ("1^10^5\n2^20^6\n", {"header": ["user_id", "item_id", "timestamp"], "delimiter": "^"}),
        (gzip.compress(b"user_id,item_id,timestamp\n1,10,5\n2,20,6\n", mtime=0), {"name": "clicks.csv.gz"}),
    ],
)
def test_every_dialect_gives_the_same(tmp_path: Path, content: str | bytes, options: dict[str, Any]) -> None:
    interactions, report = read(tmp_path, content, **options)
    assert rows(interactions) == [(1, 10, 5), (2, 20, 6)]
    assert report == Report(2, "line", NOTHING, NOTHING, NOTHING, NOTHING)


def test_ids_of_any_size(tmp_path: Path) -> None:
    largest, smallest = 2**63 - 1, -(2**63)
    interactions, _ = read(
        tmp_path, f"{HEADER}{largest},{smallest},1\n{smallest},{largest},2\n0,4611686018427387905,3\n"
    )
    assert rows(interactions) == [(smallest, largest, 2), (0, 2**62 + 1, 3), (largest, smallest, 1)]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (["3", "1", "2"], [1, 2, 3]),
        (["1.5", "1e3", "-2"], [-2.0, 1.5, 1000.0]),
        (["2020-01-02", "2020-01-01"], [1577836800_000000, 1577923200_000000]),
        (["2020-01-01T01:00:00+02:00", "2020-01-01 00:00"], [1577833200_000000, 1577836800_000000]),
        (["2020-01-01 00:00:02 UTC", "2020-01-01 00:00:01+00"], [1577836801_000000, 1577836802_000000]),
        (["2020-01-01T00:00:00.25Z", "2020-01-01T00:00:00.123456789"], [1577836800_123456, 1577836800_250000]),
    ],
)
def test_times(tmp_path: Path, times: list[str], expected: list[float]) -> None:
    interactions, _ = read(tmp_path, HEADER + "".join(f"1,{item},{time}\n" for item, time in enumerate(times)))
    assert interactions.timestamp.tolist() == expected
    assert interactions.timestamp.dtype == (np.float64 if isinstance(expected[0], float) else np.int64)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ("1,10", "expected 3 columns, found 2: '1,10'"),
        ("1,10,5,6", "expected 3 columns, found 4: '1,10,5,6'"),
        ("ann,10,5", "user_id is 'ann', not an integer of 64 bits"),
        ("1,1.5,5", "item_id is '1.5', not an integer of 64 bits"),
        ("1,0x10,5", "item_id is '0x10', not an integer of 64 bits"),
        ("1,9223372036854775808,5", "item_id is '9223372036854775808', not an integer of 64 bits"),
        ("-9223372036854775809,1,5", "user_id is '-9223372036854775809', not an integer of 64 bits"),
        ("1,10,yesterday", "timestamp is 'yesterday', not a time"),
        ("1,10,2020-01-01", "timestamp is '2020-01-01', not a time"),
        ("1,10,1e999", "timestamp is '1e999', not a time"),
        (f"1,10,{'x' * 1000}", f"timestamp is '{'x' * 60}'..., not a time"),
    ],
)
def test_malformed_rows_are_skipped_and_named(tmp_path: Path, row: str, text: str) -> None:
    interactions, report = read(tmp_path, f"{HEADER}1,10,5\n{row}\n1,11,6\n", max_malformed=0.5)
    assert rows(interactions) == [(1, 10, 5), (1, 11, 6)]
    assert report == Report(3, "line", Finding(1, (3,), (text,)), NOTHING, NOTHING, NOTHING)


def test_a_day_that_is_not_in_the_calendar(tmp_path: Path) -> None:
    _, report = read(tmp_path, f"{HEADER}1,10,2024-02-29\n1,10,2023-02-28\n1,10,2023-02-29\n", max_malformed=0.5)
    assert report.malformed == Finding(1, (4,), ("timestamp is '2023-02-29', not a time",))


zones = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.lists(st.datetimes(timezones=zones), min_size=1, max_size=5))
def test_dates_mean_what_python_says(tmp_path_factory: pytest.TempPathFactory, times: list[datetime]) -> None:
    microseconds = [(time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) for time in times]
    content = HEADER + "".join(f"{user},1,{time.isoformat()}\n" for user, time in enumerate(times))
    interactions, _ = read(tmp_path_factory.getbasetemp(), content)
    assert interactions.timestamp.tolist() == microseconds


@pytest.mark.parametrize("row", [",10,5", "1,,5", "1,10,", "1,  ,5", "1,NULL,5", "nan,10,5"])
def test_missing_values(tmp_path: Path, row: str) -> None:
    interactions, report = read(tmp_path, f"{HEADER}1,10,5\n{row}\n", max_malformed=0.5)
    assert rows(interactions) == [(1, 10, 5)]
    assert report.missing == Finding(1, (3,))


def test_line_numbers_count_the_lines_of_the_file(tmp_path: Path) -> None:
    content = (
        "user_id,item_id,note,timestamp\n"  # line 1
        '1,10,"two\nlines",5\n'  # lines 2 and 3
        "\n"  # line 4
        "1,x,,6\n"  # line 5
        "1,10\n"  # line 6
        '1,y,"three\n\nlines",6\n'  # lines 7 to 9
        "   \n"  # line 10
        "1,,,6\n"  # line 11
    )
    _, report = read(tmp_path, content, max_malformed=0.9)
    assert report.rows == 5
    assert report.malformed.lines == (5, 6, 7)
    assert report.missing.lines == (11,)


def test_lines_swallowed_by_an_open_quote_all_count(tmp_path: Path) -> None:
    _, report = read(tmp_path, f'{HEADER}1,10,5\n1,"11,6\n1,12,7\n1,13,8\n', max_malformed=0.9)
    assert (report.rows, report.malformed.count, report.malformed.lines) == (4, 3, (3, 4, 5))


def test_only_the_first_few_lines_are_named(tmp_path: Path) -> None:
    _, report = read(tmp_path, HEADER + "1,10,5\n" + "x,10,5\n" * 9, max_malformed=0.9)
    assert (report.malformed.count, report.malformed.lines) == (9, (3, 4, 5, 6, 7))


def test_duplicates_and_order(tmp_path: Path) -> None:
    content = (
        "7,30,9\n"  # line 2
        "5,10,3\n"  # line 3
        "5,12,1\n"  # line 4: before line 3
        "5,11,1\n"  # line 5: at the time of line 4, so it stays behind it
        "5,10,3\n"  # line 6: a duplicate of line 3
        "5,10,4\n"  # line 7: a repeated click, not a duplicate
    )
    interactions, report = read(tmp_path, HEADER + content)
    assert rows(interactions) == [(5, 12, 1), (5, 11, 1), (5, 10, 3), (5, 10, 4), (7, 30, 9)]
    assert report == Report(6, "line", NOTHING, NOTHING, duplicates=Finding(1, (6,)), unsorted=Finding(1, (4,)))


small = st.integers(0, 3)


@given(st.lists(st.tuples(small, small, small), min_size=1, max_size=30))
def test_order_and_counts_agree_with_a_loop_over_rows(
    tmp_path_factory: pytest.TempPathFactory, clicks: list[tuple[int, int, int]]
) -> None:
    content = HEADER + "".join(f"{user},{item},{time}\n" for user, item, time in clicks)
    interactions, report = read(tmp_path_factory.getbasetemp(), content)
    distinct = list(dict.fromkeys(clicks))
    last_time: dict[int, int] = {}
    unsorted = 0
    for user, _, time in distinct:
        unsorted += time < last_time.get(user, time)
        last_time[user] = time
    assert rows(interactions) == sorted(distinct, key=lambda click: (click[0], click[2]))
    assert (report.duplicates.count, report.unsorted.count) == (len(clicks) - len(distinct), unsorted)


def test_the_report_reads_well(tmp_path: Path) -> None:
    content = HEADER + "1,10,5\n1,10,5\n1,11,4\n" + "1,x,5\n1,10\n,10,5\n" + "2,10,5\n" * 7
    _, report = read(tmp_path, content, max_malformed=0.5)
    assert str(report).splitlines() == [
        "3 interactions in 13 rows",
        "  malformed, skipped: 2 (line 5: item_id is 'x', not an integer of 64 bits; "
        "line 6: expected 3 columns, found 2: '1,10')",
        "  missing values, skipped: 1 (line 7)",
        "  duplicates, skipped: 7 (line 3, 9, 10, 11, 12, ...)",
        "  unsorted, put in order: 1 (line 4)",
    ]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {}, "the file is empty"),
        ("\n \n", {}, "the file is empty"),
        (HEADER, {}, "no interactions"),
        (HEADER.strip(), {}, "no interactions"),
        ("uid,item,ts\n1,2,3\n", {}, "no column 'user_id'; there are: uid, item, ts"),
        (b"user_id,item_id,timestamp\n1,2,3\n1,\xff,3\n", {}, "line 3: byte 0xff is not UTF-8; convert it"),
        (b"\xef\xbb\xbfuser_id,item_id,timestamp\n1,\xfe,3\n", {}, "line 2: byte 0xfe is not UTF-8; convert it"),
        (HEADER.encode("utf-16"), {}, "line 1: byte 0xff is not UTF-8; convert it"),
        (HEADER + "1,2,3\n", {"delimiter": "::"}, "the delimiter is '::', it must be one character"),
        (HEADER + "a,2,3\n", {"max_malformed": 1.0}, "1 of 1 rows are unusable (100.0%), the limit is 100.0%"),
        (
            HEADER + "1,2,3\n" * 98 + "1,x,3\n,2,3\n",
            {},
            "2 of 100 rows are unusable (2.0%), the limit is 1.0%; line 100: item_id is 'x', not an integer of 64 bits",
        ),
        (b"not gzip", {"name": "clicks.csv.gz"}, "cannot be read: "),
        (b"PAR1 cut short", {"name": "clicks.data"}, "cannot be read as Parquet: "),
    ],
)
def test_unusable_files_are_refused_in_one_line(
    tmp_path: Path, content: str | bytes, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, content, **options)
    text = str(error.value)
    assert text.startswith(f"{tmp_path}/clicks.")
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize("before", range(5))
def test_characters_go_over_the_borders_of_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    monkeypatch.setattr(tables, "BLOCK_BYTES", 64)
    content = b"user_id,item_id,timestamp,note\n1,10,5,\n2,20,6,"
    content += b"x" * (60 - len(content) + before) + "😀é".encode()
    interactions, _ = read(tmp_path, content)
    assert rows(interactions) == [(1, 10, 5), (2, 20, 6)]
    for fault, byte in ((b"\xff", "0xff"), ("😀".encode()[:2], "0xf0")):
        with pytest.raises(DataError, match=f"line 3: byte {byte} is not UTF-8"):
            read(tmp_path, content + fault)


def test_a_file_is_in_memory_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BLOCK_BYTES", 1 << 16)
    path = tmp_path / "clicks.csv"
    path.write_text("user_id,note" + f"\n1,{'é' * 1000}" * 1000)  # 2 MB, without a last newline
    tracemalloc.start()
    found = tables.read_columns(path, ["user_id"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.table) == 1000 and peak < 1.5 * path.stat().st_size


def test_one_percent_may_be_malformed(tmp_path: Path) -> None:
    interactions, _ = read(tmp_path, HEADER + "".join(f"1,{item},3\n" for item in range(99)) + "1,x,3\n")
    assert len(interactions) == 99


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing.csv: cannot be read: No such file or directory"):
        read_interactions(tmp_path / "nothing.csv")


def parquet(directory: Path, **columns: Any) -> Path:
    path = directory / "clicks.parquet"
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("id_type", [pa.int32(), pa.int64(), pa.uint64(), pa.float64(), pa.string(), pa.large_string()])
@pytest.mark.parametrize(
    "time_type", [pa.int64(), pa.float64(), pa.timestamp("us"), pa.timestamp("ns", "Europe/Berlin")]
)
def test_parquet_of_any_type(tmp_path: Path, id_type: pa.DataType, time_type: pa.DataType) -> None:
    ids, times = pa.array([2, 1, None]), pa.array([2_000_000, 1_000_000, 3])
    to_ids = ids.cast(id_type)
    to_times = (
        times.cast(pa.timestamp("us", getattr(time_type, "tz", None))).cast(time_type)
        if pa.types.is_timestamp(time_type)
        else times.cast(time_type)
    )
    interactions, report = read_interactions(
        parquet(tmp_path, timestamp=to_times, item_id=to_ids, user_id=to_ids), max_malformed=0.5
    )
    assert rows(interactions) == [(1, 1, 1_000_000), (2, 2, 2_000_000)]
    assert (report.unit, report.missing) == ("row", Finding(1, (3,)))


def test_parquet_rows_are_named(tmp_path: Path) -> None:
    path = parquet(
        tmp_path,
        user_id=[1, 1],
        item_id=pa.array([2, 2**63], pa.uint64()),
        timestamp=[datetime(2020, 1, 1, tzinfo=UTC)] * 2,
    )
    _, report = read_interactions(path, max_malformed=0.5)
    assert "(row 2: item_id is '9223372036854775808', not an integer of 64 bits)" in str(report)


def test_truncated_parquet(tmp_path: Path) -> None:
    path = parquet(tmp_path, user_id=[1] * 1000, item_id=[1] * 1000, timestamp=[1] * 1000)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"clicks.parquet: cannot be read as Parquet: "):
        read_interactions(path)


def test_parquet_with_texts_that_are_not_utf8(tmp_path: Path) -> None:
    path = parquet(tmp_path, user_id=["Zoë12"] * 2, item_id=[1, 2], timestamp=[1, 2])
    path.write_bytes(path.read_bytes().replace("Zoë12".encode(), b"Zo\xff\xfe12"))
    with pytest.raises(DataError, match=r"clicks.parquet: cannot be read as Parquet: "):
        read_interactions(path)


def test_parquet_without_the_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'user_id'; there are: uid, item_id"):
        read_interactions(parquet(tmp_path, uid=[1], item_id=[1]))
