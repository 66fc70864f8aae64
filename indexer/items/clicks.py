"""Reads the interactions from which new items get their vectors."""

from pathlib import Path

from mind.data.ids import IdKind, KeyTable
from mind.data.interactions import read_interactions
from mind.data.paddlerec import read_train
from mind.data.parts import is_part
from mind.data.prepared import item_keys
from mind.errors import DataError
from mind.sequences import Sequences

COLUMNS = ("user_id", "item_id", "timestamp")


def read_clicks(path: Path, has_text_ids: bool) -> tuple[Sequences, KeyTable | None]:
    """Read interactions with items of a collection.

    Args:
        path: a file or directory of lines user,item,time, or a part that `mind.prepare` wrote.
        has_text_ids: whether the items of the collection have text ids.

    Returns:
        The items of each user, and the text ids of these items; None where ids are integers.

    Raises:
        DataError: the file cannot be read, or its ids are of the other kind.
    """
    keys = item_keys(path) if is_part(path) else None
    if keys is not None and not has_text_ids:
        raise DataError(f"{path}: its items have text ids, but those of the collection are integers")
    if keys is not None or not has_text_ids:
        return read_train(path), keys
    found, _ = read_interactions(path, *COLUMNS, delimiter=",", header=_header(path), ids=IdKind.TEXT)
    return found.sequences(), found.item_keys


def _header(path: Path) -> tuple[str, ...] | None:
    """The names of the columns of a CSV file that does not name them; None for anything else."""
    if path.is_dir() or path.suffix == ".parquet":
        return None
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as lines:
            return None if COLUMNS[1] in lines.readline() else COLUMNS
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
