"""How old each click of prepared data was when the data ended: for training that counts recent clicks more.

`ages/train.npy` and so on, beside the parts: [N] float32 days for the N clicks of a part, user after user, those of a
case's history before its targets.
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
"""The directory of ages, in that of the prepared data."""


def ages_of(interactions: Interactions, newest: float, unit: TimeUnit | None) -> Interactions:
    """The same interactions with their ages in seconds in place of their items, so that a split splits the ages.

    Raises:
        DataError: the times are no moments.
    """
    if unit is None:
        raise DataError(
            "--keep-ages: the times of the data are no moments, so clicks have no age; say with --time-unit"
        )
    seconds = (newest - interactions.timestamp) / unit.per_second
    return replace(interactions, item_id=seconds.astype(np.int64), item_keys=None)


def write_ages(output: Path, ages: Split, rest: Sequences | None) -> None:
    """Write the ages of prepared data.

    Args:
        output: the directory of the data.
        ages: the split of them, with ages in seconds in place of items.
        rest: the ages of users in no part; None without any.

    Raises:
        DataError: the disk refused it.
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
    """Delete the ages of other data that were prepared in a directory."""
    for name in ("train", "valid", "test", REST, HELD_OUT):
        (output / AGES / f"{name}.npy").unlink(missing_ok=True)


def read_ages(part: Path, clicks: int) -> Float32:
    """The ages of the clicks of a part, such as data/mine/train: [clicks] float32 days, mapped from the file.

    Raises:
        DataError: there are none, or they are of other data.
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
