"""The job: runs the tasks on Spark and puts their summaries together. The only module that imports Spark.

Three tables stay on the disks of the cluster until the next one is made: the clicks of all files; the clicks sorted by
user, in ranges of users; and the items of each part. Files are written to a hidden directory beside the prepared data,
and get their names when all are there.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import bit_or, col, spark_partition_id
from rich.console import Console

from mind.data.clicks import chooser
from mind.data.found import check_share
from mind.data.gathered import PART_ROWS
from mind.data.heavy_users import HeavyUser
from mind.data.interactions import EXAMPLES, Finding, Report
from mind.data.losses import UNTRAINED, Part
from mind.data.parquet import parquet_schema
from mind.data.prepared import ITEM_KEYS, USER_KEYS
from mind.data.sources import Files, Format, find_files
from mind.data.split import SplitKind, check_able, check_no_part_is_empty, shuffled_parts
from mind.data.tables import read_pieces
from mind.data.time_units import span_of
from mind.errors import DataError
from mind.prepare_report import tell_dropped_users, tell_fresh_users, tell_heavy_users
from mind.spark import rows
from mind.spark.finish import finish
from mind.spark.keys import join_key_parts, keys_of, write_key_parts
from mind.spark.reading import Guess, Read, Reading, read_files, together
from mind.spark.task import Task
from mind.spark.users import Choice, Sorted, Writing, Written, sort_clicks, write_parts


def prepare(task: Task, output: Path, master: str | None, console: Console) -> list[Part]:
    """Prepare data on Spark. Print what `mind.prepare` prints about the files.

    Args:
        task: what to do.
        output: the directory of the prepared data, which all machines of the cluster share.
        master: the address of the cluster; None for that of spark-submit, or else this machine.
        console: where to print.

    Returns:
        The parts of the data, and what was left out of them.

    Raises:
        DataError: Spark does not start or fails, or as for `read_interactions` and `split`.
    """
    reading = _reading(task)
    directory = output / f".spark-{uuid4().hex[:12]}"
    with _session(master, console) as spark:
        try:
            directory.mkdir(parents=True)
            return _Job(spark, task, reading, directory, console).run(output)
        except OSError as error:
            raise DataError(f"{output}: cannot be written: {error.strerror or error}") from error
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _reading(task: Task) -> Reading:
    """Find the files and the columns. Raises DataError."""
    files = find_files(task.source)
    choose = chooser(files.name, *task.columns)
    schema = parquet_schema(files) if files.format is Format.PARQUET else None
    first = Files(files.name, files.files[:1], files.root)
    piece = next(read_pieces(first, choose, task.options, may_be_lists=False, schema=schema))
    users, items, times = piece.table.column_names
    names = (users, items, times)
    return Reading(files, names, task.options, schema, task.ids, task.time_unit, task.max_malformed)


@contextmanager
def _session(master: str | None, console: Console) -> Iterator[SparkSession]:
    """Start Spark, and stop it at the end. Raises DataError."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = {
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(rows.BATCH_ROWS),
        "spark.ui.showConsoleProgress": str(console.is_terminal).lower(),
    }
    if master and master.startswith("local"):  # nobody else needs to reach it
        settings |= {"spark.ui.enabled": "false", "spark.driver.bindAddress": "127.0.0.1"}
        settings |= {"spark.driver.host": "127.0.0.1"}
    builder = SparkSession.builder.appName("mind.prepare")
    for name, value in (settings | ({"spark.master": master} if master else {})).items():
        builder = builder.config(name, value)
    try:
        spark = builder.getOrCreate()
    except Exception as error:  # Spark raises what Java said, in many classes
        raise DataError(
            f"Spark did not start: {_in_one_line(error)}; it needs Java 17 or later, in JAVA_HOME or on the PATH"
        ) from error
    try:
        spark.sparkContext.setLogLevel("ERROR")
        yield spark
    except (PySparkException, Py4JError) as error:
        raise DataError(f"Spark failed: {_in_one_line(error)}; its log says more") from error
    finally:
        spark.stop()


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


@dataclass
class _Job:
    """The steps of the job, in order."""

    spark: SparkSession
    task: Task
    reading: Reading
    directory: Path
    console: Console

    def run(self, output: Path) -> list[Part]:
        read, table = self._read()
        report = read.found.report(self.reading.files.name, read.columns, np.array(read.edges))
        check_share(self.reading.files.name, report, self.task.max_malformed)
        self._write_keys(read, table)
        choice = self._choice(report, read)
        ranges = self._ranges(read.clicks)
        self._tell(f"sorting {read.clicks:,} clicks in {ranges:,} ranges of users")
        clicks = self._kept(
            table.filter(col("sort") == rows.CLICK),
            ranges,
            lambda found: sort_clicks(choice, read.guess.time_is_float, found),
            rows.schema(read.guess.time_is_float),
        )
        told = sorted((Sorted(**json.loads(text)) for text in _summaries(clicks)), key=lambda one: one.part)
        table.unpersist()
        self.console.print(str(self._with_places(report, read, told)), markup=False, soft_wrap=True)
        writing = self._writing(choice, read, told, ranges)
        self._tell("writing the parts")
        items = clicks.filter(col("sort") == rows.CLICK)
        items = items.mapInArrow(lambda found: write_parts(writing, found), rows.schema(False))
        items = items.persist(StorageLevel.DISK_ONLY)
        written = sorted((Written(**json.loads(text)) for text in _summaries(items)), key=lambda one: one.part)
        self._check(choice, writing, told, written)
        parts = _counted(writing.causes, written, items)
        events = {"once_per": self.task.once_per} if self.task.once_per else {}
        finish(self.directory, output, written, written[0].how, events, _sum_days(told))
        return parts

    def _tell(self, text: str) -> None:
        """Print the step that begins."""
        self.console.print(f"Spark: {text}", markup=False, soft_wrap=True)

    def _ranges(self, count: int) -> int:
        """Return the number of ranges for some rows: one for each core at least."""
        return max(-(-count // PART_ROWS), int(self.spark.sparkContext.defaultParallelism))

    def _read(self) -> tuple[Read, DataFrame]:
        """Read all files, once more if the types of columns are not as guessed."""
        reading, guess, count = self.reading, self.reading.guess(), len(self.reading.files.files)
        while True:
            self._tell(f"reading {count:,} file{'s' * (count > 1)}")
            table = _reader(self.spark, reading, guess).persist(StorageLevel.DISK_ONLY)
            read = together(reading, guess, _summaries(table))
            if read.is_right:
                return read, table
            table.unpersist()
            guess = read.guess

    def _write_keys(self, read: Read, table: DataFrame) -> None:
        """Write the text ids of users and items, if they have any."""
        if not read.keys:
            return
        self._tell(f"sorting {read.keys:,} text ids")
        directory, where = self.directory, self.reading.files.name
        names = (self.reading.names[0], self.reading.names[1])
        keys = table.filter(col("sort").isin(rows.USER_KEY, rows.ITEM_KEY))
        keys = _in_ranges(keys, self._ranges(read.keys))
        done = keys.mapInArrow(lambda found: write_key_parts(directory, names, where, found), rows.schema(False))
        if errors := [error for error in _summaries(done) if error]:
            raise DataError(errors[0])
        for file, is_text in ((USER_KEYS, read.guess.users_are_text), (ITEM_KEYS, read.guess.items_are_text)):
            if is_text:
                join_key_parts(directory, file)

    def _choice(self, report: Report, read: Read) -> Choice:
        """Return what is left out and how the rest is split. Raise DataError or ConfigError if it makes no sense."""
        task = self.task
        choice = Choice(
            task.how,
            report.time_unit,
            task.min_interactions,
            task.max_user_share,
            task.since,
            task.once_per,
            span_of(task.once_per, report.time_unit) if task.once_per else 0,
            read.edges[1],
        )
        choice.check()
        return choice

    def _kept(
        self,
        table: DataFrame,
        ranges: int,
        work: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]],
        schema: str,
    ) -> DataFrame:
        """Return the result of a task on ranges of users, which stays on the disks of the cluster."""
        return _in_ranges(table, ranges).mapInArrow(work, schema).persist(StorageLevel.DISK_ONLY)

    def _with_places(self, report: Report, read: Read, told: Sequence[Sorted]) -> Report:
        """Return the report with the repeats and the rows out of order of all ranges."""

        def finding(name: str, count: int) -> Finding:
            places = sorted(place for one in told for place in getattr(one, name))[:EXAMPLES]
            return read.found.finding(count, [(self.reading.file(file).name, line) for file, line in places])

        return replace(
            report,
            duplicates=finding("duplicate_places", sum(one.duplicates for one in told)),
            unsorted=finding("unsorted_places", sum(one.unsorted for one in told)),
        )

    def _writing(self, choice: Choice, read: Read, told: Sequence[Sorted], ranges: int) -> Writing:
        """Choose the part of each user who can be shuffled, and the users who are left out."""
        share, total = self.task.max_user_share, sum(one.rows for one in told)
        counts = [(user, count) for one in told for user, count in one.heavy if count > min(share, 0.5) * total]
        heavy = [HeavyUser(user, count, count / total) for user, count in sorted(counts, key=_most_first)]
        tell_heavy_users(self.console, heavy, self._user_name(read), share)
        dropped = {user.user_id: user.interactions for user in heavy if user.share > share}
        able = np.zeros(ranges, np.int64)
        for one in told:
            gone = [user for user, _ in one.heavy if user in dropped]
            able[one.part] = one.able - sum(dropped[user] >= self.task.min_interactions for user in gone)
        parts = np.zeros(0, np.uint8)
        if choice.how.kind is SplitKind.USERS:
            users, most = sum(one.users for one in told) - len(dropped), max(one.longest for one in told)
            check_able(int(able.sum()), users, most, self.task.min_interactions)
            parts = shuffled_parts(int(able.sum()), choice.how.seed)
        return Writing(
            choice,
            self.directory,
            tuple(dropped),
            choice.causes(bool(dropped)),
            tuple(np.append(0, np.cumsum(able)).tolist()),
            parts,
            read.guess.users_are_text,
            read.guess.items_are_text,
        )

    def _user_name(self, read: Read) -> Callable[[int], object]:
        def name(user: int) -> object:
            if not read.guess.users_are_text:
                return user
            return keys_of(self.directory / USER_KEYS, np.array([user])).name(user)

        return name

    def _check(self, choice: Choice, writing: Writing, told: Sequence[Sorted], written: Sequence[Written]) -> None:
        """Check that no part is empty, and print how many users were dropped."""
        dropped = sum(one.dropped_users for one in written)
        users = sum(one.users for one in told) - len(writing.heavy) - dropped
        if choice.how.kind is not SplitKind.USERS:
            sizes = {name: sum(one.users[name] for one in written) for name in writing.causes[:3]}
            check_no_part_is_empty(choice.how.kind, users, sizes)
        if dropped:
            tell_dropped_users(self.console, dropped, choice.least)
        tell_fresh_users(self.console, sum(one.fresh for one in written), sum(one.users["test"] for one in written))


def _most_first(user_and_count: tuple[int, int]) -> tuple[int, int]:
    return -user_and_count[1], user_and_count[0]


def _reader(spark: SparkSession, reading: Reading, guess: Guess) -> DataFrame:
    """Return the table of all files, a task for each file."""
    count = len(reading.files.files)
    numbers = spark.range(0, count, 1, count)
    return numbers.mapInArrow(lambda found: read_files(reading, guess, found), rows.schema(guess.time_is_float))


def _in_ranges(table: DataFrame, ranges: int) -> DataFrame:
    """Return the rows in ranges of the column user_id, with the number of the range."""
    return table.repartitionByRange(ranges, "user_id").withColumn("part", spark_partition_id())


def _summaries(table: DataFrame) -> list[str]:
    return [row.text for row in table.filter(col("sort") == rows.SUMMARY).select("text").collect()]


def _counted(causes: Sequence[str], written: Sequence[Written], items: DataFrame) -> list[Part]:
    """Return how many users, items and interactions each part and each cause has."""
    masks = items.filter(col("sort") == rows.ITEM).groupBy("item_id").agg(bit_or("line").alias("mask"))
    counts = [(int(row.mask), int(row["count"])) for row in masks.groupBy("mask").count().collect()]

    def part(name: str, bits: int, users: int, interactions: int) -> Part:
        among = [(mask, count) for mask, count in counts if mask & bits]
        unlearnt = sum(count for mask, count in among if not mask & 1)
        return Part(name, users, sum(count for _, count in among), unlearnt, interactions)

    found = []
    for position, name in enumerate(causes):
        if any(name in one.rows for one in written):
            users, interactions = (sum(one.get(name, 0) for one in of) for of in _columns(written))
            found.append(part(name, 1 << position, users, interactions))
    untrained = sum(one.untrained for one in written)
    return [*found, part(UNTRAINED, (1 << len(causes)) - 2, untrained, sum(one.interactions for one in found[1:]))]


def _columns(written: Sequence[Written]) -> tuple[list[dict[str, int]], list[dict[str, int]]]:
    return [one.users for one in written], [one.rows for one in written]


def _sum_days(told: Sequence[Sorted]) -> dict[str, int]:
    days: dict[str, int] = {}
    for one in told:
        for day, count in one.days.items():
            days[day] = days.get(day, 0) + count
    return dict(sorted(days.items()))
