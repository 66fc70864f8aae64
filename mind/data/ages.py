"""The age of each click of prepared data at the end of the data, for training that weighs recent clicks more.

The files are `ages/train.npy` and so on, beside the parts: [N] float32, the ages in days of the N clicks of a part.
They are in the order of users; for a case of a user, the clicks of the history stand before the targets.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from mind.data.files import replacing
from mind.data.interactions import Interactions
from mind.data.prepared import HELD_OUT, REST
from mind.data.split import Split
from mind.data.time_units import TimeUnit
from mind.errors import DataError
from mind.sequences import Float32, Sequences, joined

AGES = "ages"
"""The directory of ages, in the directory of the prepared data."""


def ages_of(interactions: Interactions, newest: float, unit: TimeUnit | None) -> Interactions:
    """Return the interactions with ages in seconds in place of their items, so that a split also splits the ages.

    Raises:
        DataError: the times are not dates.
    """
    if unit is None:
        raise DataError("--keep-ages: the times of the data are no dates, so clicks have no age; give --time-unit")
    seconds = (newest - interactions.timestamp) / unit.per_second
    return replace(interactions, item_id=seconds.astype(np.int64), item_keys=None)


def write_ages(output: Path, ages: Split, rest: Sequences | None) -> None:
    """Write the ages of prepared data.

    Args:
        output: the directory of the prepared data.
        ages: the split of the interactions, with ages in seconds in place of items.
        rest: the ages of users in no part; None if there are none.

    Raises:
        DataError: a file cannot be written.
    """
    parts = {
        "train": ages.train,
        "valid": joined(ages.valid),
        "test": joined(ages.test),
        REST: rest,
        HELD_OUT: ages.held_out,
    }
    for name, part in parts.items():
        if part is not None:
            with replacing(output / AGES / f"{name}.npy") as file, file.open("wb") as content:
                np.save(content, (part.item_id / 86_400).astype(np.float32))
        else:
            (output / AGES / f"{name}.npy").unlink(missing_ok=True)


def forget_ages(output: Path) -> None:
    """Delete the ages of data that were prepared in this directory before."""
    for name in ("train", "valid", "test", REST, HELD_OUT):
        (output / AGES / f"{name}.npy").unlink(missing_ok=True)


def read_ages(part: Path, clicks: int) -> Float32:
    """Read the ages of the clicks of a part, such as data/mine/train: [clicks] float32 days, mapped from the file.

    Raises:
        DataError: there are no ages, or they belong to other data.
    """
    file = part.parent / AGES / f"{part.name}.npy"
    try:
        found: Float32 = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file; prepare the data with --keep-ages") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read: {error}; prepare the data again") from error
    if found.shape != (clicks,) or found.dtype != np.float32:
        raise DataError(f"{file}: has ages of {found.size:,} clicks, {part} has {clicks:,}; prepare the data again")
    return found
