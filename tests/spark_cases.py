"""Inputs for `mind.prepare`, on one machine and on Spark, and the comparison of what both write."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mind.data.prepared import PARTS

CASES = {
    "users": ("text", []),
    "last-out": ("text", ["--split", "last-out", "--last", "2", "--once-per", "6h"]),
    "time": ("integers", ["--split", "time", "--valid-from", "2023-12-20", "--test-from", "2024-01-02"]),
    "since": ("integers", ["--since", "45d", "--max-user-share", "0.06", "--min-interactions", "12", "--seed", "3"]),
    "folders": ("folders", ["--user", "day"]),
    "floats": ("floats", ["--header", "who,what,when", "--user", "who", "--item", "what", "--time", "when"]),
    "text": ("floats", ["--header", "user,item,time", "--ids", "text", "--delimiter", "::"]),
}
"""An input and options, by the name of the case."""


def write_inputs(directory: Path) -> None:
    """Write random clicks in several files and formats: repeats, unsorted and bad rows, users with few and many."""
    rng = np.random.default_rng(11)
    for name in ("text", "integers", "folders", "floats"):
        (directory / name).mkdir(parents=True)
    for file in range(4):
        rows = _clicks(rng, 1_200)
        _write_csv(directory / "text" / f"clicks-{file}.csv", rng, rows)
        _write_json(directory / "integers" / f"clicks-{file}.jsonl.gz", rows)
        folder = directory / "folders" / f"day={'007' if file == 2 else file + 30}"
        folder.mkdir()
        columns = {"item": [f"{item:04}" for _, item, _ in rows], "time": [time for *_, time in rows]}
        pq.write_table(pa.table(columns), folder / "part-0.parquet")
        last = file == 3  # by the first file alone, items and times are integers
        lines = [f"{user}::{'x' * last}{item}::{time + 0.25 if last else time}" for user, item, time in rows]
        (directory / "floats" / f"{file}.dat").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _clicks(rng: np.random.Generator, count: int) -> list[tuple[int, int, int]]:
    """Users, items and times in seconds. User 7 has a tenth of all clicks, and many users have few."""
    user = np.where(rng.random(count) < 0.1, 7, (rng.zipf(1.3, count) * 31) % 150)
    item = rng.zipf(1.4, count) % 200
    time = 1_700_000_000 + rng.integers(0, 60, count) * 86_400 + rng.integers(0, 40, count) * 900
    return list(zip(user.tolist(), item.tolist(), time.tolist(), strict=True))


def _write_csv(file: Path, rng: np.random.Generator, rows: list[tuple[int, int, int]]) -> None:
    lines = ["customer_id,sku,created_at"]
    for number, (user, item, time) in enumerate(rows):
        line = f"customer-{user},KIT-{item:04},{np.datetime64(time, 's')}Z"
        lines += [line] * (1 + (rng.random() < 0.03))
        if rng.random() < 0.01:
            bad = [f"nobody-{number},LOST-{number},", f"late-{number},LOST-{number},soon", "a,b,c,d", ""]
            lines.append(bad[number % 4])
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_json(file: Path, rows: list[tuple[int, int, int]]) -> None:
    with gzip.open(file, "wt", encoding="utf-8") as lines:
        for user, item, time in rows:
            lines.write(json.dumps({"user_id": user - 40, "item_id": item, "timestamp": time}) + "\n")


def assert_same(one: Path, spark: Path) -> None:
    """Compare the data that one machine and Spark prepared, line by line."""
    for part in PARTS:
        expected = one / part / f"{part}.txt"
        found = sorted((spark / part).glob("*")) if (spark / part).exists() else []
        assert bool(found) == expected.exists(), part
        if found:
            assert b"".join(file.read_bytes() for file in found) == expected.read_bytes(), part
            assert len(found) > 1 or part != "train"
    files = {path.name for path in one.iterdir() if path.is_file()}
    assert {path.name for path in spark.iterdir() if path.is_file()} == files
    for name in files:
        if name.endswith(".parquet"):
            assert pq.read_table(one / name).equals(pq.read_table(spark / name)), name
        else:
            assert (one / name).read_bytes() == (spark / name).read_bytes(), name
    assert not list(spark.glob(".*"))


def without_steps(printed: str) -> list[str]:
    """Return the lines that a command printed about the data."""
    return [line for line in printed.splitlines() if not line.startswith(("Spark: ", "written to "))]
