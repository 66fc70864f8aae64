"""Random CSV and Parquet files, read by the project and by a plain reader: the same values and the same totals.

    python -m tests.faults.fuzz_tables --files 10000

Every line is accounted for, every value is what stands there, and what one reader refuses the other refuses too.
"""

import gzip
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import track

from indexer.errors import AttributesError
from indexer.items.attributes import read_attributes
from indexer.items.item_files import ItemFile
from mind.data import text_blocks
from mind.data.clicks import read_interactions
from mind.data.ids import IdKind
from mind.data.interactions import Interactions, Report
from mind.data.quotes import Quote
from mind.data.targets import assign
from mind.errors import DataError
from mind.events import Events
from mind.milvus.schemas import Column
from tests.faults.plain_tables import (
    Expected,
    Record,
    RefusedError,
    expect_clicks,
    expect_json_lines,
    expect_rows,
    lines_of,
    records_of,
    roles_of,
)
from tests.faults.random_tables import CsvFile, random_csv, write_csv, write_json_lines, write_parquet
from tests.faults.tally import Tally, console

SPAN = 20
"""In which repeats of a click do not count, in the unit of the times."""
COLUMNS = ["user_id", "item_id", "timestamp"]
MODEL_ITEMS = np.arange(1000, 1040)


def judge(kind: str, seed: str, directory: Path) -> tuple[str, str, str]:
    """Outcome, problem (see `Tally.add`) and what to say, of one random file."""
    rng = random.Random(seed)
    path = directory / kind
    text_blocks.BLOCK_BYTES = rng.choice([1 << 24, 700]) if kind.endswith(".csv") else 1 << 24
    try:
        wanted, found = READERS[kind](rng, path)
    except Exception as error:
        return type(error).__name__, "failed", f"{seed}: {type(error).__name__}: {str(error)[:300]}"
    finally:
        text_blocks.BLOCK_BYTES = 1 << 24
        for left in directory.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    if wanted != found:
        return "read", "wrong", f"{seed}: expected {wanted!r}, found {found!r}"
    return ("refused" if isinstance(wanted, str) else "read"), "", ""


def _clicks(rng: random.Random, path: Path) -> tuple[Any, Any]:
    file = random_csv(rng, "user_id", ["item_id", "timestamp", "note"], [*",\t;|", "::", "||", "<->"])
    path = write_csv(rng, path, file)
    positions = [file.names.index(name) for name in COLUMNS]
    header = None if file.header else file.names
    options = {"delimiter": file.delimiter, "header": header, "quote": Quote(file.quote)}
    return _of_both_kinds(
        lambda text: expect_clicks(_records(file, "user_id"), len(file.names), positions, text),
        lambda ids: _read_clicks(path, ids=ids, **options),
    )


def _parquet(rng: random.Random, path: Path) -> tuple[Any, Any]:
    rows = write_parquet(rng, path)
    return _of_both_kinds(lambda text: expect_rows(rows, text), lambda ids: _read_clicks(path, ids=ids))


def _kinds_csv(rng: random.Random, path: Path) -> tuple[Any, Any]:
    """Clicks with kinds or ratings in CSV: every click gets its role, or the count of its cause."""
    event = rng.choice(["kind", "rating"])
    file = random_csv(rng, "user_id", ["item_id", "timestamp", "note", event], ",\t;|")
    path = write_csv(rng, path, file)
    positions = [file.names.index(name) for name in [*COLUMNS, event]]
    options = {"delimiter": file.delimiter, "header": None if file.header else file.names, "quote": Quote(file.quote)}
    return _of_both_kinds(
        lambda text: _expect_roles(
            expect_clicks(_records(file, "user_id"), len(file.names), positions, text, event == "rating"), event
        ),
        lambda ids: _read_roles(path, event, ids=ids, **options),
    )


def _kinds_json_lines(rng: random.Random, path: Path) -> tuple[Any, Any]:
    """The same in JSON lines."""
    event = rng.choice(["kind", "rating"])
    path = write_json_lines(rng, path, event)
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    user, item, time = COLUMNS
    return _of_both_kinds(
        lambda is_text: _expect_roles(expect_json_lines(text, [*COLUMNS, event], is_text, event == "rating"), event),
        lambda ids: _read_roles(path, event, user=user, item=item, time=time, ids=ids),
    )


def _kinds_parquet(rng: random.Random, path: Path) -> tuple[Any, Any]:
    """The same in Parquet."""
    event = rng.choice(["kind", "rating"])
    rows = write_parquet(rng, path, event)
    return _of_both_kinds(
        lambda text: _expect_roles(expect_rows(rows, text, event == "rating"), event),
        lambda ids: _read_roles(path, event, ids=ids),
    )


def _expect_roles(expected: Expected, event: str) -> tuple[list[tuple[Any, ...]], Expected]:
    kinds = {"view": (True, 0.5, False), "buy": (False, 3.0, False), "return": (False, 0.0, True)}
    if event == "rating":
        kinds = {">=4": (True, 2.0, False), "other": (True, 0.0, False), "<2": (False, 0.0, True)}
    others = dict.fromkeys({click[3] for click in expected.clicks} - kinds.keys(), (False, 0.0, False))
    return roles_of(expected.clicks, kinds | others, SPAN), replace(expected, clicks=[])


def _read_roles(path: Path, event: str, **options: Any) -> tuple[list[tuple[Any, ...]], Expected]:
    rules = Events(column="kind", history=("view",), target={"view": 0.5, "buy": 3.0}, exclude=("return",))
    if event == "rating":
        rules = Events(column="rating", target={">=4": 2.0}, exclude=("<2",))
    interactions, report = read_interactions(path, max_malformed=1, events=rules, **options)
    found = assign(interactions, report.kinds, "span", SPAN)
    kept = found.interactions
    assert kept.code is not None and kept.roles is not None
    assert len(kept) + sum(map(len, found.left_out.values())) == len(interactions)
    assert sum(one.clicks for one in found.counts) == len(interactions)
    columns = (kept.user_id.tolist(), kept.item_id.tolist(), kept.timestamp.tolist())
    roles = kept.roles.rows()
    clicks = [(*click, *roles[role]) for *click, role in zip(*columns, kept.code.tolist(), strict=True)]
    return clicks, replace(_expected(interactions, report), clicks=[])


def _json_lines(rng: random.Random, path: Path) -> tuple[Any, Any]:
    path = write_json_lines(rng, path)
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    return _of_both_kinds(
        lambda is_text: expect_json_lines(text, COLUMNS, is_text),
        lambda ids: _read_clicks(path, user=COLUMNS[0], item=COLUMNS[1], time=COLUMNS[2], ids=ids),
    )


def _of_both_kinds(expect: Callable[[bool], Any], read: Callable[[IdKind], Any]) -> tuple[Any, Any]:
    """What the two readers give where ids are integers; and where they are text, if they differ on that."""
    texts = _both(lambda: expect(True), lambda: read(IdKind.TEXT))
    return texts if texts[0] != texts[1] else _both(lambda: expect(False), lambda: read(IdKind.INTEGER))


def _attributes(rng: random.Random, path: Path) -> tuple[Any, Any]:
    """Both ways in which the indexer reads attributes, each against the plain reader."""
    file = random_csv(rng, "item_id", ["note", "other"], [","])
    if not file.header:
        file = CsvFile(",".join(file.names).encode() + b"\n" + file.content, file.names, True, ",", file.quote)
    path.write_bytes(file.content)
    quote = Quote(file.quote)
    kinds = {"note": Column("VARCHAR", 65_535, 0), "other": Column("VARCHAR", 65_535, 0)}

    def whole() -> Any:
        found = read_attributes(path, MODEL_ITEMS, types=dict.fromkeys(kinds, "VARCHAR"), quote=quote)
        cells = {column.name: column.column.to_pylist() for column in found.columns}
        ids = MODEL_ITEMS.tolist()
        values = {item_id: (cells["note"][at], cells["other"][at]) for at, item_id in enumerate(ids)}
        return {one: row for one, row in values.items() if row != (None, None)}, _counts(found.count)

    def batches() -> Any:
        items = ItemFile(path, "item_id", kinds, batch_rows=3, quote=quote)
        items.check()
        values = {}
        for ids, _, columns in items.batches():
            assert isinstance(columns, dict)
            values |= dict(zip(ids.tolist(), zip(columns["note"], columns["other"], strict=True), strict=True))
        return {one: row for one, row in values.items() if row != (None, None)}, _counts(items.count)

    wanted, found = _both(lambda: _expect_attributes(file), whole)
    also, streamed = _both(lambda: _expect_attributes(file), batches)
    return (wanted if wanted == also else (wanted, also)), (found if found == streamed else (found, streamed))


def _expect_attributes(file: CsvFile) -> Any:
    rows: dict[int, tuple[str | None, str | None]] = {}
    blank = continued = 0
    for record in _records(file, "item_id"):
        if record.blank:
            blank += 1
            continue
        if len(record.cells) != len(file.names):
            raise RefusedError("ragged")
        cells = dict(zip(file.names, record.cells, strict=True))
        continued += len(record.lines) - 1
        if not cells["item_id"].isdecimal() or int(cells["item_id"]) in rows:
            raise RefusedError("an id is none, or is there twice")
        rows[int(cells["item_id"])] = (cells["note"] or None, cells["other"] or None)
    if not rows:
        raise RefusedError("no rows")
    return {one: row for one, row in rows.items() if row != (None, None)}, (len(rows), 1, blank, continued)


def _records(file: CsvFile, key: str) -> list[Record]:
    """The rows after the header."""
    try:
        text = file.content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise RefusedError("not UTF-8") from None
    if not text.strip():
        raise RefusedError("empty")
    if file.header:
        text = text[len(lines_of(text)[0]) :]
        text = text[2:] if text.startswith("\r\n") else text[1:]
    return records_of(text, file.delimiter, len(file.names), file.names.index(key), file.quote) if text else []


def _both(expect: Any, read: Any) -> tuple[Any, Any]:
    """What each of the two readers gives; "refused" where it refuses. Line ends inside of values do not count."""
    try:
        wanted = expect()
    except RefusedError:
        wanted = "refused"
    try:
        found = read()
    except (DataError, AttributesError) as error:
        if "\n" in str(error):
            raise ValueError("the message has several lines") from error
        found = "refused"
    return _plain_ends(wanted), _plain_ends(found)


def _plain_ends(found: Any) -> Any:
    if isinstance(found, tuple) and isinstance(found[0], dict):
        texts = {
            one: tuple(text and text.replace("\r\n", "\n").replace("\r", "\n") for text in row)
            for one, row in found[0].items()
        }
        return texts, found[1]
    return found


def _read_clicks(path: Path, **options: Any) -> Expected:
    return _expected(*read_interactions(path, max_malformed=1, **options))


def _expected(interactions: Interactions, report: Report) -> Expected:
    columns = (interactions.user_id, interactions.item_id, interactions.timestamp)
    rows, _, blank, continued = _counts(report.count)
    return Expected(
        clicks=list(zip(*(column.tolist() for column in columns), strict=True)),
        rows=rows,
        malformed=report.malformed.count,
        missing=report.missing.count,
        duplicates=report.duplicates.count,
        blank=blank,
        continued=continued,
    )


def _counts(count: Any) -> tuple[int, int, int, int]:
    return count.rows, count.header, count.blank, count.continued


READERS = {
    "clicks.csv": _clicks,
    "clicks.jsonl": _json_lines,
    "clicks.parquet": _parquet,
    "items.csv": _attributes,
    "kinds.csv": _kinds_csv,
    "kinds.jsonl": _kinds_json_lines,
    "kinds.parquet": _kinds_parquet,
}
KINDS = tuple(READERS)
"""What is written and read."""


def drill(files: int, seed: int, directory: Path) -> bool:
    """Read `files` random files of every kind with both readers; whether they agree on all of them."""
    tally = Tally()
    for kind in KINDS:
        for number in track(range(files), description=kind, console=console, transient=True):
            tally.add(kind, *judge(kind, f"{seed}/{kind}/{number}", directory))
    console.print(tally.table(f"random files, seed {seed}"))
    return tally.clean


def main(
    files: Annotated[int, typer.Option(min=1, help="Of every kind.")] = 2_000,
    seed: Annotated[int, typer.Option(help="The same seed, the same files.")] = 2024,
) -> None:
    """Read random files with two readers."""
    with TemporaryDirectory() as directory:
        raise typer.Exit(int(not drill(files, seed, Path(directory))))


if __name__ == "__main__":
    typer.run(main)
