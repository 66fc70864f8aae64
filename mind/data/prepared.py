"""The directory that `mind.prepare` writes: train/, valid/ and test/, and the items where the data describe them.

`rest/` has the users with too few interactions for any of them. Text files hold integers. Where users or items have
text ids, `user_keys.parquet` and `item_keys.parquet` have them, and `test_users.jsonl` has the test users with their
histories in these ids, as `recall-client` reads users. Where clicks have kinds, `events.json` says what each is for,
and `held_out/` has all clicks of the users of whom train/ has not all; valid/ and test/ have a part of them.
"""

import json
from collections.abc import Iterator
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
"""The directory of all clicks of the users of whom train/ has not all, where clicks have kinds."""
REST = "rest"
"""The directory of users with too few interactions to be in train, valid or test."""
_USERS_AT_ONCE = 10_000


def item_keys(part: Path) -> KeyTable | None:
    """The text ids of the items of a part, such as data/mine/train; None where ids are integers. Raises DataError."""
    return read_keys(beside(part, ITEM_KEYS))


def user_keys(part: Path) -> KeyTable | None:
    """The text ids of the users of a part, such as data/mine/test; None where ids are integers. Raises DataError."""
    return read_keys(beside(part, USER_KEYS))


def how_split(part: Path) -> dict[str, Any]:
    """How the data of a part, such as data/mine/test, were split; empty if that is not recorded. Raises DataError."""
    return recorded(part, SPLIT)


def events_of(part: Path) -> dict[str, Any]:
    """What the data of a part, such as data/mine/train, record of kinds; empty if nothing. Raises DataError."""
    return recorded(part, EVENTS)


def write_split(
    output: Path,
    parts: Split,
    items: pa.Table | None,
    keys: tuple[KeyTable | None, KeyTable | None] = (None, None),
    rest: Sequences | None = None,
    events: dict[str, Any] | None = None,
) -> None:
    """Write all files, then let them take their places.

    Args:
        output: the directory.
        parts: train, valid and test.
        items: what the data say of the items; None if nothing.
        keys: the text ids of users and of items; None where ids are integers.
        rest: users with too few interactions, from whom `mind.train --final` learns too; None without any.
        events: what is to be recorded of kinds of clicks; None or empty if nothing.

    Raises:
        DataError: the disk refused one; files that were there before are unharmed.
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
            else:
                (output / name / f"{name}.txt").unlink(missing_ok=True)
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
                (output / name).unlink(missing_ok=True)  # of other data that were prepared here
        if any(keys):
            _write_users(files.enter_context(replacing(output / TEST_USERS)), parts.test, *keys)
        else:
            (output / TEST_USERS).unlink(missing_ok=True)


def _write_users(file: Path, cases: EvalCases, users: KeyTable | None, items: KeyTable | None) -> None:
    """Write a line for every user: history and later clicks, with the ids that the data have."""
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
    """The items of each sequence, with the ids that the data have."""
    clicks = sequences.item_id
    ids: list[Any] = items.of(clicks).at(np.arange(len(clicks))) if items else clicks.tolist()
    for start, end in pairwise(sequences.offsets.tolist()):
        yield ids[start:end]
