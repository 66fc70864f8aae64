"""The users of a load test: from a file, or made of items that the service tells."""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clients.aio_client import AsyncRecallClient
from clients.user_files import FileError, read_users
from protos.recall.v1 import recall_pb2

MOST_USERS = 100_000
"""Users of a file that are read, the first ones."""
_DRAWN_USERS = 4_096
_MOST_ITEMS = 1_000


@dataclass(frozen=True)
class Clicks:
    """What is known of one user."""

    hist_item: Sequence[int]
    """Oldest first."""
    exclude_item_ids: Sequence[int] = ()


def read_histories(path: Path) -> list[Clicks]:
    """The first `MOST_USERS` users of a file.

    Args:
        path: Parquet with the columns `user_id`, `hist_item` and perhaps `exclude_item_ids`, as `bulk` reads it, if the
            name ends in .parquet; else lines as `recall --input` reads them.

    Raises:
        FileError: it is neither, or has no users.
        OSError: it cannot be read.
    """
    users = _from_parquet(path) if path.suffix == ".parquet" else _from_lines(path)
    found = list(itertools.islice(users, MOST_USERS))
    if not found:
        raise FileError(f"{path} has no users")
    return found


def _from_lines(path: Path) -> Iterator[Clicks]:
    with path.open("rb") as lines:
        for _, hist_item in read_users(lines, str(path)):
            yield Clicks(hist_item)


def _from_parquet(path: Path) -> Iterator[Clicks]:
    try:
        from clients.bulk_input import open_histories
    except ModuleNotFoundError as error:
        raise FileError(f"{path}: Parquet needs numpy and pyarrow: pip install 'mind-recall[bulk]'") from error
    for rows in open_histories(path, "user_id", "hist_item", None).read(0, 1_024):
        for user in range(len(rows.user_ids)):
            yield Clicks(rows.hist_item.of(user), rows.exclude_item_ids.of(user))


async def popular_items(client: AsyncRecallClient, info: recall_pb2.GetServerInfoResponse) -> list[int]:
    """Items that the service tells: its popular list, which is what a user without a history gets.

    Raises:
        RecallError: the service does not answer.
        FileError: it tells none.
    """
    answer = await client.recall([[]], top_k=min(info.limits.max_top_k or _MOST_ITEMS, _MOST_ITEMS))
    item_ids = list(answer.results[0].item_ids)
    if not item_ids:
        raise FileError("the server tells no popular items to make histories of; give --histories")
    return item_ids


def draw_histories(item_ids: Sequence[int], length: int, rng: random.Random) -> list[Clicks]:
    """Users who clicked so many items, each of them at random."""
    return [Clicks(rng.choices(item_ids, k=length)) for _ in range(_DRAWN_USERS)]
