"""Reads the interactions from which new items get their vectors."""

from pathlib import Path

from mind.data.ids import IdKind, KeyTable
from mind.data.interactions import read_interactions
from mind.data.paddlerec import read_train
from mind.data.parquet import parquet_names
from mind.data.parts import is_part
from mind.data.prepared import item_keys
from mind.data.targets import assign
from mind.errors import DataError
from mind.events import EventRules
from mind.sequences import Sequences

COLUMNS = ("user_id", "item_id", "timestamp")


def read_clicks(path: Path, has_text_ids: bool, rules: EventRules | None = None) -> tuple[Sequences, KeyTable | None]:
    """Read interactions with items of a collection.

    Args:
        path: a file or directory of lines user,item,time, or a part that `mind.prepare` wrote.
        has_text_ids: whether the items of the collection have text ids.
        rules: what clicks of each kind are for, for the model of the collection. If the file names the column of kinds,
            clicks of kinds that are neither history nor target are left out. None for a model that knows no kinds.

    Returns:
        The items of each user, and the text ids of these items; None where ids are integers.

    Raises:
        DataError: the file cannot be read, its ids are of the other kind, or the model does not know a kind.
    """
    if rules and rules.column in _named_columns(path):
        ids = IdKind.TEXT if has_text_ids else IdKind.INTEGER
        clicks, report = read_interactions(path, *COLUMNS, ids=ids, events=rules.as_events(), rules=rules)
        clicks = assign(clicks, report.kinds, None, 0).interactions
        return clicks.sequences(), clicks.item_keys
    keys = item_keys(path) if is_part(path) else None
    if keys is not None and not has_text_ids:
        raise DataError(f"{path}: its items have text ids, but those of the collection are integers")
    if keys is not None or not has_text_ids:
        return read_train(path), keys
    found, _ = read_interactions(path, *COLUMNS, delimiter=",", header=_header(path), ids=IdKind.TEXT)
    return found.sequences(), found.item_keys


def _named_columns(path: Path) -> list[str]:
    """The names of the columns of a file that names them; none for bare lines."""
    if path.suffix == ".parquet" or (path.is_dir() and any(path.rglob("*.parquet"))):
        return parquet_names(path)
    if path.is_dir() or _header(path):
        return []
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        return [name.strip().strip('"') for name in lines.readline().split(",")]


def _header(path: Path) -> tuple[str, ...] | None:
    """The names of the columns of a CSV file that does not name them; None for anything else."""
    if path.is_dir() or path.suffix == ".parquet":
        return None
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as lines:
            return None if COLUMNS[1] in lines.readline() else COLUMNS
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
