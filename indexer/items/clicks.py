"""Reads the interactions from which new items get their vectors."""

from pathlib import Path

from mind.data.clicks import read_interactions
from mind.data.csv_text import open_csv
from mind.data.ids import IdKind, KeyTable
from mind.data.json_lines import open_json_lines
from mind.data.paddlerec import read_train
from mind.data.parquet import parquet_schema
from mind.data.parts import is_part
from mind.data.prepared import item_keys
from mind.data.roles import find_column
from mind.data.sources import Format, Source, find_files
from mind.data.targets import assign
from mind.errors import DataError
from mind.events import EventRules
from mind.sequences import Sequences

COLUMNS = ("user_id", "item_id", "timestamp")


def read_clicks(path: Source, has_text_ids: bool, rules: EventRules | None = None) -> tuple[Sequences, KeyTable | None]:
    """Read interactions with items of a collection.

    Args:
        path: lines user,item,time without a header; or CSV, JSON lines or Parquet with columns of usual names; a file,
            a directory or a URL; or a part that `mind.prepare` wrote.
        has_text_ids: whether the items of the collection have text ids.
        rules: what clicks of each kind are for, for the model of the collection. If the file names the column of kinds,
            clicks of kinds that are neither history nor target are left out. None for a model that knows no kinds.

    Returns:
        The items of each user, and the text ids of these items; None where ids are integers.

    Raises:
        DataError: the files cannot be read, their ids are of the other kind, or the model does not know a kind.
    """
    keys = item_keys(path) if isinstance(path, Path) and is_part(path) else None
    if keys is not None and not has_text_ids:
        raise DataError(f"{path}: its items have text ids, but those of the collection are integers")
    names = _column_names(path)
    if isinstance(path, Path) and (keys is not None or (names is None and not has_text_ids)):
        return read_train(path), keys
    kind = IdKind.TEXT if has_text_ids else IdKind.INTEGER
    if names is None:
        found, _ = read_interactions(path, *COLUMNS, delimiter=",", header=COLUMNS, ids=kind)
    elif rules and rules.column in (one for name in names for one in (name, name.partition(":")[0])):
        clicks, report = read_interactions(path, ids=kind, events=rules.as_events(), rules=rules)
        found = assign(clicks, report.kinds, None, 0).interactions
    else:
        found, _ = read_interactions(path, ids=kind)
    return found.sequences(), found.item_keys


def _column_names(path: Source) -> list[str] | None:
    """Return the columns of the files; None for CSV files that do not name them."""
    files = find_files(path)
    first = files.files[0]
    if files.format is Format.PARQUET:
        return list(parquet_schema(files).names)
    try:
        if files.format is Format.JSON_LINES:
            return open_json_lines(first.name, first.text())[0]
        names = open_csv(first.name, first.text(), None, None, None)[0].names
        find_column(path, names, "item")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except DataError:
        return None
    return names
