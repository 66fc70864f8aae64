"""Writes the directory of prepared data: train/, valid/ and test/, and the items if the data describe them.

`rest/` has the users with too few interactions for the other parts. Text files hold integers. If users or items have
text ids, these are in `user_keys.parquet` and `item_keys.parquet`, and `test_users.jsonl` has the test users with their
histories in text ids, in the format that `recall-client` reads. If clicks have kinds, `events.json` says the use of
each kind, and `held_out/` has all clicks of the users of whom train/ has only a part. valid/ and test/ have some of
these clicks.
"""

import json
import re
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mind.data.files import replacing
from mind.data.ids import KeyTable, read_keys, write_keys
from mind.data.paddlerec import write_eval, write_train
from mind.data.parts import EVENTS, beside, recorded
from mind.data.split import Split
from mind.sequences import EvalCases, Sequences

ITEM_KEYS = "item_keys.parquet"
USER_KEYS = "user_keys.parquet"
TEST_USERS = "test_users.jsonl"
SPLIT = "split.json"
HELD_OUT = "held_out"
"""The directory of all clicks of the users of whom train/ has only a part. It exists if clicks have kinds."""
REST = "rest"
"""The directory of users with too few interactions to be in train, valid or test."""
PARTS = ("train", "valid", "test", REST, HELD_OUT)
"""The directories of lines in prepared data."""
_USERS_AT_ONCE = 10_000
_PART_FILE = re.compile(r"part-[0-9]{5,}\.txt")


def item_keys(part: Path) -> KeyTable | None:
    """Read the text ids of the items of a part, such as data/mine/train.

    Return None if ids are integers. Raises DataError.
    """
    return read_keys(beside(part, ITEM_KEYS))


def user_keys(part: Path) -> KeyTable | None:
    """Read the text ids of the users of a part, such as data/mine/test.

    Return None if ids are integers. Raises DataError.
    """
    return read_keys(beside(part, USER_KEYS))


def how_split(part: Path) -> dict[str, Any]:
    """Read how the data of a part, such as data/mine/test, were split; empty if it is not recorded.

    Raises DataError.
    """
    return recorded(part, SPLIT)


def events_of(part: Path) -> dict[str, Any]:
    """Read the description of kinds of a part, such as data/mine/train; empty if there is none. Raises DataError."""
    return recorded(part, EVENTS)


def write_split(
    output: Path,
    parts: Split,
    items: pa.Table | None,
    keys: tuple[KeyTable | None, KeyTable | None] = (None, None),
    rest: Sequences | None = None,
    events: dict[str, Any] | None = None,
) -> None:
    """Write all files to temporary names, then rename all of them.

    Args:
        output: the directory of the prepared data.
        parts: the parts train, valid and test.
        items: the description of the items in the data; None if there is none.
        keys: the text ids of users and of items; None where ids are integers.
        rest: users with too few interactions, from whom `mind.train --final` also learns; None if there are none.
        events: the description of kinds of clicks to record; None or empty if there is none.

    Raises:
        DataError: a file cannot be written. Earlier files at these paths stay as they were.
    """
    with ExitStack() as files:
        train, valid, test = (
            files.enter_context(replacing(output / part / f"{part}.txt")) for part in ("train", "valid", "test")
        )
        write_train(train, parts.train)
        write_eval(valid, parts.valid)
        write_eval(test, parts.test)
        for name, more in ((REST, rest), (HELD_OUT, parts.held_out)):
            if more is not None:
                write_train(files.enter_context(replacing(output / name / f"{name}.txt")), more)
        for name in PARTS:
            is_left = (rest if name == REST else parts.held_out if name == HELD_OUT else parts) is not None
            remove_others(output / name, {f"{name}.txt"} if is_left else ())
        for name, content in ((SPLIT, parts.how), (EVENTS, events)):
            if content or name == SPLIT:
                files.enter_context(replacing(output / name)).write_text(json.dumps(content), encoding="utf-8")
            else:
                (output / name).unlink(missing_ok=True)
        if items is not None:
            pq.write_table(items, files.enter_context(replacing(output / "items.parquet")))
        for name, table in zip((USER_KEYS, ITEM_KEYS), keys, strict=True):
            if table is not None:
                write_keys(files.enter_context(replacing(output / name)), table)
            else:
                (output / name).unlink(missing_ok=True)  # a file of data that were prepared here before
        if any(keys):
            write_users(files.enter_context(replacing(output / TEST_USERS)), parts.test, *keys)
        else:
            (output / TEST_USERS).unlink(missing_ok=True)


def part_file(number: int) -> str:
    """Return the name of one of several files of a directory of lines, in the order of their users."""
    return f"part-{number:05}.txt"


def remove_others(directory: Path, kept: Collection[str]) -> None:
    """Delete the files of lines that an earlier preparation wrote to a directory. All of its files would be read.

    `kept`: the names of the new files.
    """
    for file in directory.glob("*.txt"):
        if file.name not in kept and (file.name == f"{directory.name}.txt" or _PART_FILE.fullmatch(file.name)):
            file.unlink()


def write_users(file: Path, cases: EvalCases, users: KeyTable | None, items: KeyTable | None) -> None:
    """Write a line for every user, with the history and the later clicks, in the ids of the data."""
    with file.open("w", encoding="utf-8") as lines:
        for start in range(0, len(cases), _USERS_AT_ONCE):
            some = cases.take(np.arange(start, min(start + _USERS_AT_ONCE, len(cases))))
            user_id = some.history.user_id
            names: list[Any] = users.of(user_id).at(np.arange(len(user_id))) if users else user_id.tolist()
            parts = zip(names, _listed(some.history, items), _listed(some.target, items), strict=True)
            for name, history, target in parts:
                line = {"user_id": name, "hist_item": history, "eval_item": target}
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")


def _listed(sequences: Sequences, items: KeyTable | None) -> Iterator[list[Any]]:
    """Yield the items of each sequence, in the ids of the data."""
    clicks = sequences.item_id
    ids: list[Any] = items.of(clicks).at(np.arange(len(clicks))) if items else clicks.tolist()
    for start, end in pairwise(sequences.offsets.tolist()):
        yield ids[start:end]
