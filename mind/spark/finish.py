"""Gives the files that the tasks wrote their names in the directory of the prepared data. Knows nothing of Spark."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mind.data import prepared
from mind.data.ages import forget_ages
from mind.data.days import write_days
from mind.data.files import replacing
from mind.data.parts import EVENTS
from mind.errors import DataError
from mind.spark.users import TEST_USERS, Written


def finish(
    directory: Path,
    output: Path,
    written: Sequence[Written],
    how: dict[str, Any],
    events: dict[str, Any],
    days: dict[str, int],
) -> None:
    """Move all files, write those that describe the data, and delete what an earlier preparation left.

    Args:
        directory: the directory of the files until now.
        output: the directory of the prepared data.
        written: what each task wrote.
        how: how the data were split.
        events: what is recorded about kinds and repeats; empty for nothing.
        days: the number of interactions of each day.

    Raises:
        DataError: a file is missing here, or cannot be moved.
    """
    try:
        _check_shared(directory, written)
        for name in prepared.PARTS:
            files = sorted((directory / name).glob("part-*.txt"))
            for file in files:
                (output / name).mkdir(parents=True, exist_ok=True)
                file.replace(output / name / file.name)
            prepared.remove_others(output / name, {file.name for file in files})
        for name in (prepared.USER_KEYS, prepared.ITEM_KEYS):
            if (directory / name).exists():
                (directory / name).replace(output / name)
            else:
                (output / name).unlink(missing_ok=True)
        _join_test_users(directory / TEST_USERS, output / prepared.TEST_USERS)
        for name, content in ((prepared.SPLIT, how), (EVENTS, events)):
            if content:
                with replacing(output / name) as file:
                    file.write_text(json.dumps(content), encoding="utf-8")
            else:
                (output / name).unlink(missing_ok=True)
        write_days(output, days)
        forget_ages(output)
    except OSError as error:
        raise DataError(f"{output}: cannot be written: {error.strerror or error}") from error


def _check_shared(directory: Path, written: Sequence[Written]) -> None:
    """Raise DataError if a file that a task wrote is not here, because the machines do not share the directory."""
    for one in written:
        for name in one.files:
            file = directory / name / prepared.part_file(one.part)
            if not file.exists():
                raise DataError(
                    f"{file}: a machine of the cluster wrote it, and it is not here; --output must be a directory that "
                    "all machines of the cluster share"
                )


def _join_test_users(directory: Path, file: Path) -> None:
    parts = sorted(directory.glob("part-*.txt"))
    if not parts:
        file.unlink(missing_ok=True)
        return
    with replacing(file) as path, path.open("wb") as joined:
        for part in parts:
            with part.open("rb") as content:
                shutil.copyfileobj(content, joined)
