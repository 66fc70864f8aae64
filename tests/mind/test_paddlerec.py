"""PaddleRec's files: what is written can be read back, and a broken line is named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mind.data.files import replacing
from mind.data.paddlerec import data_files, read_eval, read_train, write_eval, write_train
from mind.errors import DataError
from mind.sequences import EvalCases, Sequences


def sequences(items: dict[int, list[int]]) -> Sequences:
    lengths = [len(row) for row in items.values()]
    return Sequences(
        np.array(list(items), np.int64),
        np.append(0, np.cumsum(lengths, dtype=np.int64)),
        np.array([item for row in items.values() for item in row], np.int64),
    )


def as_dict(found: Sequences) -> dict[int, list[int]]:
    return {user: found[row].tolist() for row, user in enumerate(found.user_id.tolist())}


def test_the_formats_are_paddlerecs(tmp_path: Path) -> None:
    write_train(tmp_path / "train" / "train.txt", sequences({7: [30, 10, 30], 9: [20]}))
    write_eval(tmp_path / "test.txt", EvalCases(sequences({7: [30, 10], 9: [20]}), sequences({7: [30], 9: [1, 2]})))
    assert (tmp_path / "train" / "train.txt").read_bytes() == b"7,30,0\n7,10,1\n7,30,2\n9,20,0\n"
    assert (tmp_path / "test.txt").read_bytes() == (
        b"user_id:7 target_item:0 hist_item:30 hist_item:10 eval_item:30\n"
        b"user_id:9 target_item:0 hist_item:20 eval_item:1 eval_item:2\n"
    )


def test_training_lines_of_all_files_are_sorted_by_user_and_time(tmp_path: Path) -> None:
    (tmp_path / "part-1").write_text("2,20,5\n1,11,9\n\n1,10,8\n")
    (tmp_path / "part-0").write_text("1,12,9\n2,21,4\n")
    (tmp_path / ".part-2.incomplete").write_text("1,99,")
    (tmp_path / "old").mkdir()
    assert [file.name for file in data_files(tmp_path)] == ["part-0", "part-1"]
    assert as_dict(read_train(tmp_path)) == {1: [10, 12, 11], 2: [21, 20]}
    assert as_dict(read_train(tmp_path / "part-0")) == {1: [12], 2: [21]}


def test_evaluation_lines_keep_their_order(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("user_id:1 target_item:0 eval_item:5 \r\n")
    (tmp_path / "a.txt").write_text("user_id:-3 target_item:0 hist_item:4 hist_item:4 eval_item:-6 eval_item:7")
    cases = read_eval(tmp_path)
    assert as_dict(cases.history) == {-3: [4, 4], 1: []}
    assert as_dict(cases.target) == {-3: [-6, 7], 1: [5]}


int64 = st.integers(-(2**63), 2**63 - 1)
users = st.dictionaries(int64, st.lists(int64, min_size=1, max_size=8), min_size=1, max_size=8)


@given(users)
def test_training_files_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, items: dict[int, list[int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "train.txt"
    write_train(path, sequences(items))
    found = read_train(path)
    assert as_dict(found) == items
    assert found.user_id.tolist() == sorted(items)
    assert {found.user_id.dtype, found.offsets.dtype, found.item_id.dtype} == {np.dtype(np.int64)}


@given(users, st.lists(int64, max_size=8))
def test_evaluation_files_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, target: dict[int, list[int]], history: list[int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "test.txt"
    histories = dict.fromkeys(target, history)
    write_eval(path, EvalCases(sequences(histories), sequences(target)))
    found = read_eval(path)
    assert (as_dict(found.history), as_dict(found.target)) == (histories, target)
    assert {found.history.item_id.dtype, found.target.item_id.dtype} == {np.dtype(np.int64)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2", "line 3: expected uid,item_id,time, found '1,2'"),
        ("1,2,3,4", "line 3: expected uid,item_id,time, found '1,2,3,4'"),
        ("uid,item_id,time", "line 3: uid is 'uid', not an integer of 64 bits"),
        ("1,,3", "line 3: item_id is '', not an integer of 64 bits"),
        ("1,NA,3", "line 3: item_id is 'NA', not an integer of 64 bits"),
        ("1,2,3.5", "line 3: time is '3.5', not an integer of 64 bits"),
        ("9223372036854775808,2,3", "line 3: uid is '9223372036854775808', not an integer of 64 bits"),
        (f"{'9' * 5000},2,3", f"line 3: uid is '{'9' * 60}'..., not an integer of 64 bits"),
    ],
)
def test_a_broken_training_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "train.txt"
    path.write_text(f"1,2,3\n\n{line}\n1,2,3\n")
    with pytest.raises(DataError) as error:
        read_train(tmp_path)
    assert str(error.value) == f"{path}: {message}"


INTEGER = "<integer of 64 bits>"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2,3", f"expected user_id:{INTEGER}, found '1,2,3'"),
        ("user_id:1 hist_item:2 eval_item:3", f"expected target_item:{INTEGER}, found 'hist_item:2'"),
        (
            "user_id:1 target_item:0 hist_item:x eval_item:3",
            f"expected hist_item:{INTEGER} or eval_item:{INTEGER}, found 'hist_item:x'",
        ),
        ("user_id:1 target_item:0 eval_item:3 hist_item:2", f"expected eval_item:{INTEGER}, found 'hist_item:2'"),
        ("user_id:1 target_item:0 hist_item:2", f"expected eval_item:{INTEGER} at the end, found 'hist_item:2'"),
        (
            "user_id:9223372036854775808 target_item:0 eval_item:3",
            f"expected user_id:{INTEGER}, found 'user_id:9223372036854775808'",
        ),
        ("user_id:1 target_item:0 eval_item:3 eval_item:", f"expected eval_item:{INTEGER}, found 'eval_item:'"),
    ],
)
def test_a_broken_evaluation_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "test.txt"
    path.write_text(f"user_id:1 target_item:0 hist_item:2 eval_item:3\n\n{line}\n")
    with pytest.raises(DataError) as error:
        read_eval(path)
    assert str(error.value) == f"{path}: line 3: {message}"


@pytest.mark.parametrize("read", [read_train, read_eval])
def test_nothing_to_read(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(DataError, match="the directory holds no files"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"train: cannot be read: No such file or directory; `python -m mind.prepare`"):
        read(tmp_path / "train")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match=r"empty.txt"):
        read(tmp_path / "empty.txt")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as file:
        file.write_text("half of the ne")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_refuses_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, not a directory")
    path = tmp_path / "data" / "train.txt"
    with pytest.raises(DataError, match=r"train.txt: cannot be written: (File exists|Not a directory)"):
        write_train(path, sequences({1: [2]}))


def test_unsorted_lines_give_what_sorted_ones_give(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    rows = np.stack([rng.integers(0, 50, 2_000), rng.integers(0, 90, 2_000), rng.permutation(2_000)], axis=1)
    ordered = rows[np.lexsort((rows[:, 2], rows[:, 0]))]
    for name, lines in (("sorted", ordered), ("shuffled", rows)):
        for part in range(2):  # the cut goes through a user
            (tmp_path / name).mkdir(exist_ok=True)
            half = lines[part * 990 : 990 if part == 0 else None]
            np.savetxt(tmp_path / name / f"part-{part}", half, fmt="%d", delimiter=",")
    one, other = read_train(tmp_path / "sorted"), read_train(tmp_path / "shuffled")
    assert len(one) == 50 and one.lengths.sum() == 2_000
    for user in range(50):
        assert one[user].tolist() == other[user].tolist() == ordered[ordered[:, 0] == user][:, 1].tolist()


def test_a_long_file_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(user, 7 * user + time, time) for user in range(300) for time in range(1 + user % 3)]
    (tmp_path / "train.txt").write_text("".join(f"{user},{item},{time}\n" for user, item, time in rows))
    monkeypatch.setattr("mind.data.paddlerec.BLOCK_BYTES", 64)
    sequences = read_train(tmp_path)
    assert sequences.user_id.tolist() == list(range(300))
    assert sequences.item_id.tolist() == [item for _, item, _ in rows]
    assert sequences.lengths.tolist() == [1 + user % 3 for user in range(300)]
