"""Processes that train together have different users, about equally many clicks each, and together all of them."""

from pathlib import Path

import numpy as np
import pytest

from mind.data.paddlerec import read_share, read_train, write_train
from mind.data.user_ranges import UserRange, range_of
from mind.errors import DataError
from mind.sequences import Sequences
from tests.server.test_metrics import sequences


def draw(users: int, seed: int) -> Sequences:
    rng = np.random.default_rng(seed)
    found = sequences(*(rng.integers(0, 50, rng.integers(1, 30)).tolist() for _ in range(users)))
    return Sequences(
        np.sort(rng.choice(np.arange(-(10**12), 10**12, 10**8), users, False)), found.offsets, found.item_id
    )


@pytest.mark.parametrize("world", [1, 2, 5])
@pytest.mark.parametrize("is_shuffled", [False, True])
def test_each_user_is_read_by_one_process(tmp_path: Path, world: int, is_shuffled: bool) -> None:
    every = draw(400, 1)
    write_train(tmp_path / "train.txt", every)
    if is_shuffled:
        lines = np.array((tmp_path / "train.txt").read_text().splitlines())
        order = np.random.default_rng(2).permutation(len(lines))
        for number, some in enumerate(np.array_split(lines[order], 3)):
            (tmp_path / f"train{number}.txt").write_text("\n".join(some) + "\n")
        (tmp_path / "train.txt").unlink()
    files = sorted(tmp_path.iterdir())
    shares = [read_share(tmp_path, range_of(files, rank, world)) for rank in range(world)]
    assert {share.total for share in shares} == {len(every.item_id)}
    parts = [share.sequences for share in shares]
    assert np.concatenate([part.user_id for part in parts]).tolist() == every.user_id.tolist()
    assert np.concatenate([part.item_id for part in parts]).tolist() == every.item_id.tolist()
    sizes = [len(part.item_id) for part in parts]
    assert [share.before for share in shares] == np.cumsum([0, *sizes[:-1]]).tolist()
    assert max(sizes) < 1.2 * len(every.item_id) / world


def test_a_user_with_most_of_the_clicks_leaves_the_others_to_the_other_processes(tmp_path: Path) -> None:
    rows = [[1, 2], [3] * 5_000, [1, 2], [4, 5], [6, 7]]
    file = tmp_path / "train.txt"
    write_train(file, sequences(*rows))
    parts = [read_share(file, range_of([file], rank, 2)).sequences for rank in (0, 1)]
    assert all(len(part) for part in parts)
    assert sum(map(len, parts)) == len(rows) == len(read_train(file))


def test_more_processes_than_users_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "train.txt"
    write_train(file, sequences([1, 2], [3, 4]))
    with pytest.raises(DataError, match="has users for 2 processes at most, and 3 were started"):
        range_of([file], 0, 3)


def test_a_share_may_be_empty(tmp_path: Path) -> None:
    file = tmp_path / "train.txt"
    write_train(file, sequences([1, 2], [3, 4]))
    share = read_share(file, UserRange(7, None))
    assert (len(share.sequences), share.before, share.total) == (0, 4, 4)
