"""The users of a load test: from a file, or with histories made from popular items."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from clients.aio_client import AsyncRecallClient
from clients.ids import ItemIds
from clients.user_files import FileError, check_own_ids, read_users
from protos.recall.v1 import recall_pb2

MOST_USERS = 100_000
"""Most users that are read from a file, the first ones."""
_DRAWN_USERS = 4_096
_MOST_ITEMS = 1_000


@dataclass(frozen=True)
class Clicks:
    """The clicks of one user."""

    hist_item: ItemIds
    """The ids of the items, oldest first."""
    exclude_item_ids: ItemIds = ()


def read_histories(path: Path, text: bool = False) -> list[Clicks]:
    """Read the first `MOST_USERS` users of a file.

    Args:
        path: Parquet with the columns `user_id`, `hist_item` and perhaps `exclude_item_ids`, as `bulk` reads it, if the
            name ends in .parquet; otherwise lines as `recall --input` reads them.
        text: whether item ids are text.

    Raises:
        FileError: it is neither, has no users, or has ids of the other kind.
        OSError: it cannot be read.
    """
    users = _from_parquet(path, text) if path.suffix == ".parquet" else _from_lines(path, text)
    found = list(itertools.islice(users, MOST_USERS))
    if not found:
        raise FileError(f"{path} has no users")
    return found


def _from_lines(path: Path, text: bool) -> Iterator[Clicks]:
    check_own_ids(path)
    with path.open("rb") as lines:
        for user in read_users(lines, str(path), text):
            yield Clicks(user.hist_item)


def _from_parquet(path: Path, text: bool) -> Iterator[Clicks]:
    try:
        from clients.bulk_input import open_histories
    except ModuleNotFoundError as error:
        raise FileError(f"{path}: Parquet needs numpy and pyarrow: pip install 'mind-recall[bulk]'") from error
    histories = open_histories(path, "user_id", "hist_item", None)
    histories.check_ids(text)
    for rows in histories.read(0, 1_024):
        for user in range(len(rows.user_ids)):
            yield Clicks(rows.hist_item.of(user), rows.exclude_item_ids.of(user))


async def popular_items(client: AsyncRecallClient, info: recall_pb2.GetServerInfoResponse) -> ItemIds:
    """Return the popular list of the service, which a user without a history gets.

    Raises:
        RecallError: the service does not answer.
        FileError: the list is empty.
    """
    answer = await client.recall([[]], top_k=min(info.limits.max_top_k or _MOST_ITEMS, _MOST_ITEMS))
    item_ids = answer.item_ids[0]
    if not item_ids:
        raise FileError("the server has no popular items to make histories from; give --histories")
    return item_ids


def draw_histories(item_ids: ItemIds, length: int, rng: random.Random) -> list[Clicks]:
    """Make users that clicked so many items, each drawn at random."""
    return [Clicks(cast(ItemIds, rng.choices(item_ids, k=length))) for _ in range(_DRAWN_USERS)]
