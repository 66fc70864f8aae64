"""Reading interactions: any CSV or Parquet, sorted, with every problem counted and named by its line."""

import gzip
import re
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mind.data import tables, text_blocks
from mind.data.clicks import read_interactions
from mind.data.ids import IdKind
from mind.data.interactions import Finding, Interactions, Report
from mind.data.line_count import LineCount
from mind.data.quotes import Quote
from mind.data.time_units import TimeUnit
from mind.errors import DataError

HEADER = "user_id,item_id,timestamp\n"
NOTHING = Finding(0, ())


def findings(report: Report) -> tuple[int, str, Finding, Finding, Finding, Finding]:
    return report.rows, report.unit, report.malformed, report.missing, report.duplicates, report.unsorted


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
    assert findings(report) == (2, "line", NOTHING, NOTHING, NOTHING, NOTHING)


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
    assert findings(report) == (3, "line", Finding(1, (3,), (text,)), NOTHING, NOTHING, NOTHING)


def test_a_day_that_is_not_in_the_calendar(tmp_path: Path) -> None:
    _, report = read(tmp_path, f"{HEADER}1,10,2024-02-29\n1,10,2023-02-28\n1,10,2023-02-29\n", max_malformed=0.5)
    assert report.malformed == Finding(1, (4,), ("timestamp is '2023-02-29', not a time",))


zones = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@settings(deadline=None)  # the first example may wait for a slow disk
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


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            '1,"11,6\n1,12,7\n1,13,8\n',
            'line 3: a quote (") opens a value that is not closed before the end of the file',
        ),
        ('1,11,"6\n1,12,7\n1,13,"8\n', 'line 3: a quote (") opens a value that closes on line 5 in the middle of a va'),
        ('1,11,"6\n1,12,7\n1,13,8"\n', 'line 3: a quote (") opens a value that closes on line 5, and lines in it look'),
    ],
)
def test_a_quote_that_swallows_lines_is_refused(tmp_path: Path, rows: str, message: str) -> None:
    content = f"{HEADER}1,10,5\n{rows}"
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}/clicks.csv: {message}")) as error:
        read(tmp_path, content, max_malformed=0.9)
    assert "--quote" not in str(error.value)  # which a command without the option must not name
    with pytest.raises(DataError, match="give --quote none if quotes mean nothing in this file"):
        read(tmp_path, content, max_malformed=0.9, quote=Quote.AUTO)
    interactions, report = read(tmp_path, content, max_malformed=0.9, quote=Quote.NONE)
    assert report.count == LineCount(rows=4, header=1)
    assert len(interactions) + report.malformed.count == 4


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r"])
def test_a_quote_that_is_open_on_the_last_line_is_refused(tmp_path: Path, end: str) -> None:
    content = "user_id,item_id,note,timestamp\n1,10,,5\n".replace("\n", end or "\n")
    with pytest.raises(DataError, match=re.escape('line 3: a quote (") opens a value that is not closed')):
        read(tmp_path, content + '1,11,"an open end,6' + end, quote=Quote.ALWAYS)


def test_a_byte_order_mark_hides_no_quote(tmp_path: Path) -> None:
    options = {"header": ["note", "user_id", "item_id", "timestamp"]}
    interactions, report = read(tmp_path, '\ufeff"a,b",1,10,5\n"two\nlines",2,20,6\n', **options)
    assert rows(interactions) == [(1, 10, 5), (2, 20, 6)]
    assert report.count == LineCount(rows=2, continued=1)


def test_a_value_with_lines_that_look_like_rows_can_be_meant(tmp_path: Path) -> None:
    content = 'user_id,item_id,timestamp,note\n1,10,5,"as in\n2,20,6,x\n"\n3,30,7,\n'
    with pytest.raises(DataError, match=r"line 2: .* or --quote always if the value is meant to have several lines"):
        read(tmp_path, content, quote=Quote.AUTO)
    interactions, report = read(tmp_path, content, quote=Quote.ALWAYS)
    assert rows(interactions) == [(1, 10, 5), (3, 30, 7)]
    assert str(report.count) == "5 lines: 1 header, 2 rows, 0 blank, 2 inside quoted values"


def test_a_quote_in_the_middle_of_a_value_is_a_character(tmp_path: Path) -> None:
    content = 'user_id,item_id,timestamp,note\n1,10,5,7" vinyl\n2,20,6,"say ""hi"", then\nleave"\n3,30,7,12"\n'
    interactions, report = read(tmp_path, content)
    assert rows(interactions) == [(1, 10, 5), (2, 20, 6), (3, 30, 7)]
    assert report.count == LineCount(rows=3, header=1, continued=1)


def test_a_malformed_value_of_many_lines_counts_as_so_many(tmp_path: Path) -> None:
    _, report = read(tmp_path, f'{HEADER}1,10,5\n1,"a\nb\nc"\n1,11,6\n', max_malformed=0.9)
    assert report.malformed.lines == (3, 4, 5)
    assert report.count == LineCount(rows=5, header=1)


def test_a_quote_that_swallows_more_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 256)
    with pytest.raises(DataError, match='line 3: a quote \\("\\) opens a value that is not closed'):
        read(tmp_path, f'{HEADER}1,10,5\n1,"11,6\n' + "1,12,7\n" * 200)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_add_up_whatever_ends_them(tmp_path: Path, end: str) -> None:
    lines = ["user_id,item_id,timestamp,note", "1,10,5,", "", '1,11,6,"a', "", 'b"', "   ", ",,,only a note", "1,12"]
    _, report = read(tmp_path, end.join(lines), max_malformed=0.9)
    assert report.count == LineCount(rows=4, header=1, blank=2, continued=2)
    assert (report.missing, report.malformed.lines) == (Finding(1, (8,)), (9,))


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
    assert findings(report) == (6, "line", NOTHING, NOTHING, Finding(1, (6,)), Finding(1, (4,)))


small = st.integers(0, 3)


@settings(deadline=None)  # the first example may wait for a slow disk
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
        "  14 lines: 1 header, 13 rows, 0 blank",
        "  times from 4 to 5",
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
        ("uid,item,ts\n1,2,3\n", {"user": "user_id"}, "no column 'user_id'; there are: uid, item, ts"),
        (b"user_id,item_id,timestamp\n1,2,3\n1,\xff,3\n", {}, "line 3: byte 0xff is not UTF-8; convert it"),
        (b"\xef\xbb\xbfuser_id,item_id,timestamp\n1,\xfe,3\n", {}, "line 2: byte 0xfe is not UTF-8; convert it"),
        (HEADER.encode("utf-16"), {}, "line 1: byte 0xff is not UTF-8; convert it"),
        (
            HEADER + "1,2,3\n",
            {"delimiter": '"'},
            "the delimiter is '\"'; it must have 1 to 8 characters, without quotes",
        ),
        (HEADER + "1,2,3\n", {"delimiter": ""}, "the delimiter is ''; it must have 1 to 8 char"),
        (HEADER + "a,2,3\n", {"max_malformed": 1.0}, "1 of 1 rows are unusable (100.0%), the limit is 100.0%"),
        (HEADER + "a,b,3,4\n", {"ids": IdKind.TEXT, "max_malformed": 1.0}, "1 of 1 rows are unusable (100.0%)"),
        (
            HEADER + "1,2,3\n" * 98 + "1,x,3\n,2,3\n",
            {"ids": IdKind.INTEGER},
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
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 64)
    content = b"user_id,item_id,timestamp,note\n1,10,5,\n2,20,6,"
    content += b"x" * (60 - len(content) + before) + "😀é".encode()
    interactions, _ = read(tmp_path, content)
    assert rows(interactions) == [(1, 10, 5), (2, 20, 6)]
    for fault, byte in ((b"\xff", "0xff"), ("😀".encode()[:2], "0xf0")):
        with pytest.raises(DataError, match=f"line 3: byte {byte} is not UTF-8"):
            read(tmp_path, content + fault)


def test_a_file_is_in_memory_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 1 << 16)
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
    with pytest.raises(DataError, match="no column is called timestamp or alike; say with --time which one holds the"):
        read_interactions(parquet(tmp_path, uid=[1], item_id=[1]))
    with pytest.raises(DataError, match="no column 'user_id'; there are: uid, item_id"):
        read_interactions(parquet(tmp_path, uid=[1], item_id=[1]), "user_id", "item_id", "uid")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["customer_id", "sku", "clicked_at", "event"], ("customer_id", "sku", "clicked_at")),
        (["visitorid", "itemid", "timestamp", "event"], ("visitorid", "itemid", "timestamp")),
        (["userId", "movieId", "rating", "TimeStamp"], ("userId", "movieId", "TimeStamp")),
        (["parent_asin", "asin", "User ID", "date"], ("User ID", "asin", "date")),
        (["user_id:token", "item_id:token", "timestamp:float"], ("user_id", "item_id", "timestamp")),
    ],
)
def test_columns_are_found_by_usual_names(tmp_path: Path, names: list[str], found: tuple[str, ...]) -> None:
    _, report = read(tmp_path, ",".join(names) + "\n" + ",".join("1234"[: len(names)]) + "\n")
    assert report.columns == found
    shown = f"users in {found[0]}, items in {found[1]}, times in {found[2]}"
    assert (shown in str(report)) == (found != ("user_id", "item_id", "timestamp"))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("0101", "101"), "item_id 101 is spelt '0101' in line 2 and '101' in line 3"),
        (("7", "07"), "item_id 7 is spelt '7' in line 2 and '07' in line 3"),
        (("0007", "007"), "item_id 7 is spelt '0007' in line 2 and '007' in line 3"),
        (("0", "-0"), "item_id 0 is spelt '0' in line 2 and '-0' in line 3"),
        (("-01", "-1"), "item_id -1 is spelt '-01' in line 2 and '-1' in line 3"),
    ],
)
def test_two_spellings_of_an_id_never_become_one(tmp_path: Path, texts: tuple[str, str], message: str) -> None:
    content = HEADER + "".join(f"1,{text},5\n" for text in texts)
    with pytest.raises(DataError, match=re.escape(message)):
        read(tmp_path, content, ids=IdKind.INTEGER)
    with pytest.raises(DataError, match=re.escape(message.replace("item_id", "user_id"))):
        read(tmp_path, HEADER + "".join(f"{text},1,5\n" for text in texts), ids=IdKind.INTEGER)
    strings = {"user_id": [1, 1], "item_id": list(texts), "timestamp": [5, 5]}
    with pytest.raises(DataError, match=re.escape(message.replace("line 2", "row 1").replace("line 3", "row 2"))):
        read_interactions(parquet(tmp_path, **strings), ids=IdKind.INTEGER)


def test_leading_zeros_of_one_spelling_are_dropped_and_told(tmp_path: Path) -> None:
    content = f"{HEADER}1,0101,5\n1,0101,6\n1,0,7\n0x1,2,8\n"
    interactions, report = read(tmp_path, content, max_malformed=0.5, ids=IdKind.INTEGER)
    assert interactions.item_id.tolist() == [101, 101, 0]
    assert "  ids with leading zeros, read without them: 2" in str(report)


def item_keys(interactions: Interactions) -> list[str]:
    """The text ids of the items, row by row."""
    assert interactions.item_keys
    return interactions.item_keys.of(interactions.item_id).at(np.arange(len(interactions)))


def user_keys(interactions: Interactions) -> list[str]:
    """The text ids of the users, row by row."""
    assert interactions.user_keys
    return interactions.user_keys.of(interactions.user_id).at(np.arange(len(interactions)))


@pytest.mark.parametrize(
    "keys",
    [
        ["KIT-1424", "GAR-1", "KIT-1424"],
        ["B00005N7P0", "0142437239", "1142437239"],
        ["0101", "101", "7"],
        ["f" * 64, "1" * 64, "-"],
        ["3f2504e0-4f89-11d3-9a0c-0305e82c3301", "a|b;c", "ключ"],
        ["9223372036854775808", "9223372036854775807", "1"],
    ],
)
def test_text_ids_are_taken_as_they_are(tmp_path: Path, keys: list[str]) -> None:
    """In any format: each text is an item or a user of its own, and integers elsewhere stay integers."""
    rows = list(enumerate(keys, 5))
    found, report = read(tmp_path, HEADER + "".join(f"1,{key},{time}\n" for time, key in rows))
    assert item_keys(found) == keys
    assert (found.user_keys, found.user_id.tolist()) == (None, [1] * 3)
    assert f"  item_id: text ids, such as {keys[0]!r}" in str(report).splitlines()
    found, _ = read_interactions(parquet(tmp_path, user_id=[1] * 3, item_id=keys, timestamp=[5, 6, 7]))
    assert item_keys(found) == keys
    found, _ = read(tmp_path, HEADER + "".join(f"{key},1,{time}\n" for time, key in rows))
    assert (sorted(user_keys(found)), found.item_keys) == (sorted(keys), None)


def test_a_few_values_that_are_no_integers_do_not_make_text_of_the_others(tmp_path: Path) -> None:
    found, report = read(tmp_path, HEADER + "1,2,3\n" * 99 + "1,x,3\n")
    assert found.item_keys is None
    assert report.malformed.count == 1
    found, _ = read(tmp_path, HEADER + "1,2,3\n" * 99 + "1,x,3\n", ids=IdKind.TEXT)
    assert sorted(item_keys(found)) == ["2", "x"]


def test_keys_that_are_too_long_or_hash_alike_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = HEADER + "1,ab,3\n" * 99 + f"1,{'x' * 257},4\n"
    _, report = read(tmp_path, content)
    assert report.malformed.texts[0].endswith("not an id of at most 256 bytes")
    monkeypatch.setattr("mind.data.ids.key_ids", lambda keys: np.array([len(key) for key in keys], np.int64))
    with pytest.raises(DataError, match="item_id: 'ab' and 'ac' have the same hash, 2; rename one of them"):
        read(tmp_path, HEADER + "1,ab,3\n1,ac,4\n")


def test_keys_that_hash_alike_are_found_between_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 200)
    monkeypatch.setattr("mind.data.ids._HASHED_AT_ONCE", 4)
    monkeypatch.setattr("mind.data.ids.key_ids", lambda keys: np.array([int(key[1:]) % 300 for key in keys], np.int64))
    content = HEADER + "".join(f"1,k{number},3\n" for number in range(300))
    found, _ = read(tmp_path, content + content.removeprefix(HEADER))
    assert found.item_keys and len(found.item_keys.ids) == 300
    with pytest.raises(DataError, match=r"item_id: 'k[0-9]+' and 'k[0-9]+' have the same hash, 5; rename one of them"):
        read(tmp_path, content + "1,k305,3\n")


def test_decimal_numbers_are_no_ids(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape("line 2: item_id is 10.0, a decimal number; ids are integers or")):
        read(tmp_path, HEADER + "1,10.0,5\n1,11.0,6\n")
    found, _ = read(tmp_path, HEADER + "1,10.0,5\n1,11.0,6\n", ids=IdKind.TEXT)
    assert item_keys(found) == ["10.0", "11.0"]


def test_a_quote_that_swallows_rows_with_text_ids_is_found(tmp_path: Path) -> None:
    header, row = "user_id,timestamp,item_id,artist\n", "cust_{0},{0},KIT-{0},The Band\n"
    content = header + row.format(1) + 'cust_2,2,KIT-2,"Live\n' + "".join(map(row.format, range(3, 9)))
    content += 'cust_9,9,KIT-9,an"\n'
    with pytest.raises(DataError, match="line 3: a quote"):
        read(tmp_path, content)
    _, report = read(tmp_path, header + row.format(1) + 'cust_2,2,KIT-2,"two\nlines, or 3"\n')
    assert report.count.continued == 1


SECONDS = 1_559_969_382


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (
            (SECONDS, SECONDS * 1000),
            "timestamp has times of two units: line 2 has 1559969382, which is 2019-06-08 04:49:42 UTC in seconds, and "
            "line 3 has 1559969382000, which is 2019-06-08 04:49:42 UTC in milliseconds; convert them to one unit",
        ),
        ((SECONDS * 10**9, SECONDS * 10**6), "line 3 has 1559969382000000, which is 2019-06-08 04:49:42 UTC in micro"),
        ((SECONDS + 0.5, SECONDS * 1000), "line 2 has 1559969382.5, which is 2019-06-08 04:49:42 UTC in seconds, and"),
    ],
)
def test_times_of_two_units_are_refused(tmp_path: Path, times: tuple[float, float], message: str) -> None:
    content = HEADER + "".join(f"1,{item},{time}\n" for item, time in enumerate(times))
    with pytest.raises(DataError, match=re.escape(message)):
        read(tmp_path, content)
    assert len(read(tmp_path, content, time_unit=TimeUnit.S)[0]) == 2


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (("0", "9"), "times from 0 to 9"),
        (("0", SECONDS), "times from 1970-01-01 00:00:00 UTC to 2019-06-08 04:49:42 UTC"),
        ((SECONDS * 1000, SECONDS * 1000 + 5000), "times from 2019-06-08 04:49:42 UTC to 2019-06-08 04:49:47 UTC"),
        (("1970-01-08", "2019-06-08T04:49:42Z"), "times from 1970-01-08 00:00:00 UTC to 2019-06-08 04:49:42 UTC"),
    ],
)
def test_the_range_of_the_times_is_told(tmp_path: Path, times: tuple[Any, Any], expected: str) -> None:
    _, report = read(tmp_path, HEADER + "".join(f"1,{item},{time}\n" for item, time in enumerate(times)))
    assert report.times == expected


def test_a_directory_of_parquet_files_with_columns_in_its_folders(tmp_path: Path) -> None:
    for day, users in (("2019-01", [1, 2]), ("2019-02", [3])):
        folder = tmp_path / "clicks" / f"day={day}" / "kind=7"
        folder.mkdir(parents=True)
        columns = {"user_id": users, "item_id": [user * 10 for user in users]}
        pq.write_table(pa.table(columns), folder / "part-0.parquet")
    (tmp_path / "clicks" / "_SUCCESS").touch()
    interactions, report = read_interactions(tmp_path / "clicks", item="kind", time="item_id")
    assert rows(interactions) == [(1, 7, 10), (2, 7, 20), (3, 7, 30)]
    assert (report.rows, report.unit) == (3, "row")
    days = tables.read_columns(tmp_path / "clicks", ["user_id", "day"]).table.column("day").to_pylist()
    assert days == ["2019-01", "2019-01", "2019-02"]


def test_folders_with_leading_zeros_stay_text(tmp_path: Path) -> None:
    for user in ("07", "7"):
        folder = tmp_path / f"user_id={user}"
        folder.mkdir()
        pq.write_table(pa.table({"item_id": [1], "timestamp": [1]}), folder / "a.parquet")
    interactions, _ = read_interactions(tmp_path)
    assert user_keys(interactions) == ["07", "7"]


def test_directories_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{tmp_path}: the directory has no files to read"):
        read_interactions(tmp_path)
    pq.write_table(pa.table({"user_id": [1], "item_id": [1], "timestamp": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"user_id": ["x"], "item_id": [1], "timestamp": [1]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=f"{tmp_path}: its files have a column of the same name and different types"):
        read_interactions(tmp_path)
    (tmp_path / "b.parquet").write_text("user_id,item_id\n")
    with pytest.raises(
        DataError, match=r"b\.parquet: cannot be read as Parquet: it does not begin with PAR1 as Parquet"
    ):
        read_interactions(tmp_path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: b"", "the file is empty"),
        (lambda content: content[:-100], "its end is missing; copy or export it again"),
        (
            lambda content: b"user_id,item_id\n1,2\n",
            "it does not begin with PAR1 as Parquet does; a CSV file ends in .csv",
        ),
        (lambda content: content[:-4] + b"PARE", "it is encrypted; write it again without encryption"),
        (lambda content: content[:-8] + b"\xff\xff\x00\x00PAR1", "its content is damaged; copy or export it again"),
        (
            lambda content: content[:4] + b"\xff" * 200 + content[204:],
            "its content is damaged; copy or export it again",
        ),
        (
            lambda content: content.replace("Zoë12".encode(), b"Zo\xff\xfe12"),
            "a text in it is not UTF-8; write it again",
        ),
    ],
)
def test_a_parquet_file_that_cannot_be_read_says_why(
    tmp_path: Path, damage: Callable[[bytes], bytes], reason: str
) -> None:
    path = parquet(tmp_path, user_id=["Zoë12"] * 2, item_id=list(range(2)), timestamp=[1, 2])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=re.escape(f"{path}: cannot be read as Parquet: {reason}")):
        read_interactions(path)


@pytest.mark.parametrize("values", [[[[1]]], [{"a": 1}], [[{"a": 1}]]])
def test_nested_columns_are_refused_in_plain_words(tmp_path: Path, values: list[Any]) -> None:
    with pytest.raises(
        DataError, match=r"column item_id is .*; a column may hold numbers, texts, times, or lists of num"
    ):
        read_interactions(parquet(tmp_path, user_id=[1], item_id=values, timestamp=[1]))


def test_text_ids_of_a_file_whose_rows_are_all_malformed(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text("user_id,item_id,timestamp\n1,2\n")
    with pytest.raises(DataError, match="1 of 1 rows are unusable"):
        read_interactions(path, ids=IdKind.TEXT)
