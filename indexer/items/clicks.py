"""Reads the interactions from which new items get their vectors."""

from pathlib import Path

from mind.data.clicks import read_interactions
from mind.data.csv_text import open_csv
from mind.data.ids import IdKind, KeyTable
from mind.data.paddlerec import read_train
from mind.data.prepared import is_part, item_keys
from mind.data.roles import find_column
from mind.data.sources import Format, find_files
from mind.errors import DataError
from mind.sequences import Sequences

COLUMNS = ("user_id", "item_id", "timestamp")


def read_clicks(path: Path, has_text_ids: bool) -> tuple[Sequences, KeyTable | None]:
    """Read interactions with items of a collection.

    Args:
        path: lines user,item,time without a header; or CSV, JSON lines or Parquet with columns of usual names, one file
            or a directory; or a part that `mind.prepare` wrote.
        has_text_ids: whether the items of the collection have text ids.

    Returns:
        The items of each user, and the text ids of these items; None where ids are integers.

    Raises:
        DataError: the files cannot be read, or their ids are of the other kind.
    """
    keys = item_keys(path) if is_part(path) else None
    if keys is not None and not has_text_ids:
        raise DataError(f"{path}: its items have text ids, but those of the collection are integers")
    header = _header(path)
    if keys is not None or (header and not has_text_ids):
        return read_train(path), keys
    kind = IdKind.TEXT if has_text_ids else IdKind.INTEGER
    columns = COLUMNS if header else (None, None, None)
    found, _ = read_interactions(path, *columns, delimiter="," if header else None, header=header, ids=kind)
    return found.sequences(), found.item_keys


def _header(path: Path) -> tuple[str, ...] | None:
    """The names of the columns of a CSV file that does not name them; None for anything else."""
    files = find_files(path)
    if files.format is not Format.CSV:
        return None
    try:
        text, _ = open_csv(files.files[0].name, files.files[0].text(), None, None, None)
        find_column(path, text.names, "item")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except DataError:
        return COLUMNS
    return None
