"""The few calls of PySpark that `mind.spark.job` makes, on tables in this process, so that the job runs without Java.

`tests/drills/test_spark.py` runs the same job on Spark.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

CORES = 3
_BATCH_ROWS = 1_000
_TYPES = {"tinyint": pa.int8(), "int": pa.int32(), "bigint": pa.int64(), "double": pa.float64(), "string": pa.string()}


@dataclass(frozen=True)
class Column:
    """An expression: what it is of each row of a table."""

    of: Callable[[pa.Table], Any]
    name: str = ""

    def __eq__(self, other: object) -> "Column":  # type: ignore[override]
        return Column(lambda table: pc.equal(self.of(table), pa.scalar(other, self.of(table).type)))

    def isin(self, *values: int) -> "Column":
        return Column(lambda table: pc.is_in(self.of(table), pa.array(values, self.of(table).type)))

    def alias(self, name: str) -> "Column":
        return Column(self.of, name)


class Row(dict[str, Any]):
    """A row whose columns are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


@dataclass(frozen=True)
class Groups:
    """The rows of a table by the values of a column."""

    table: pa.Table
    name: str

    def agg(self, made: Column) -> "DataFrame":
        keys, start = np.unique(self.table.column(self.name).to_numpy(), return_inverse=True)
        found = np.zeros(len(keys), np.int64)
        np.bitwise_or.at(found, start, made.of(self.table).to_numpy())
        return DataFrame([pa.table({self.name: keys, made.name: found})])

    def count(self) -> "DataFrame":
        keys, counts = np.unique(self.table.column(self.name).to_numpy(), return_counts=True)
        return DataFrame([pa.table({self.name: keys, "count": counts})])


@dataclass(frozen=True)
class DataFrame:
    """A table in partitions."""

    parts: Sequence[pa.Table]

    @property
    def _all(self) -> pa.Table:
        return pa.concat_tables(self.parts)

    def mapInArrow(self, work: Callable[..., Iterator[pa.RecordBatch]], schema: str) -> "DataFrame":  # noqa: N802
        names, types = zip(*(field.split() for field in schema.split(", ")), strict=True)
        expected = pa.schema(list(zip(names, [_TYPES[one] for one in types], strict=True)))
        made = []
        for part in self.parts:
            found = list(work(iter(part.combine_chunks().to_batches(_BATCH_ROWS))))
            assert all(batch.schema.equals(expected) for batch in found)
            made.append(pa.Table.from_batches(found, expected))
        return DataFrame(made)

    def filter(self, wanted: Column) -> "DataFrame":
        return DataFrame([part.filter(wanted.of(part)) for part in self.parts])

    def select(self, name: str) -> "DataFrame":
        return DataFrame([part.select([name]) for part in self.parts])

    def repartitionByRange(self, count: int, name: str) -> "DataFrame":  # noqa: N802
        table = self._all.take(np.random.default_rng(1).permutation(len(self._all)))  # a shuffle keeps no order
        values = table.column(name).to_numpy()
        borders = np.unique(np.sort(values)[np.arange(1, count) * len(values) // count]) if len(values) else []
        place = np.searchsorted(borders, values, side="right")
        return DataFrame([table.filter(pa.array(place == one)) for one in range(count)])

    def withColumn(self, name: str, made: Column) -> "DataFrame":  # noqa: N802
        numbers = [pa.array(np.full(len(part), number, np.int32)) for number, part in enumerate(self.parts)]
        return DataFrame([part.append_column(name, one) for part, one in zip(self.parts, numbers, strict=True)])

    def groupBy(self, name: str) -> Groups:  # noqa: N802
        return Groups(self._all, name)

    def collect(self) -> list[Row]:
        return [Row(row) for row in self._all.to_pylist()]

    def persist(self, level: object) -> "DataFrame":
        return self

    def unpersist(self) -> None:
        """Nothing is kept."""


class _Builder:
    def __getattr__(self, name: str) -> Callable[..., "_Builder"]:
        return lambda *words: self

    def getOrCreate(self) -> SimpleNamespace:  # noqa: N802
        context = SimpleNamespace(defaultParallelism=CORES, setLogLevel=lambda level: None)
        return SimpleNamespace(range=_range, sparkContext=context, stop=lambda: None)


def _range(start: int, end: int, step: int, count: int) -> DataFrame:
    return DataFrame([pa.table({"id": part}) for part in np.array_split(np.arange(start, end, step), count)])


def install(monkeypatch: Any) -> None:
    """Put these calls where the job imports Spark from."""
    modules = {
        "py4j": {},
        "py4j.protocol": {"Py4JError": type("Py4JError", (Exception,), {})},
        "pyspark": {"StorageLevel": SimpleNamespace(DISK_ONLY=None)},
        "pyspark.errors": {"PySparkException": type("PySparkException", (Exception,), {})},
        "pyspark.sql": {"DataFrame": DataFrame, "SparkSession": SimpleNamespace(builder=_Builder())},
        "pyspark.sql.functions": {
            "bit_or": lambda name: Column(lambda table: table.column(name)),
            "col": lambda name: Column(lambda table: table.column(name)),
            "spark_partition_id": lambda: Column(lambda table: None),
        },
    }
    for name, content in modules.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        module.__spec__ = SimpleNamespace(name=name)  # type: ignore[assignment]
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "mind.spark.job", raising=False)
