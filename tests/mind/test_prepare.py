"""`python -m mind.prepare`: files that the trainer reads, a report that a person reads, errors in one line."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.main import get_command

from mind.command import run
from mind.data.ages import read_ages
from mind.data.paddlerec import read_eval, read_train
from mind.data.prepared import how_split
from mind.errors import DataError
from mind.prepare import app
from mind.sequences import joined
from tests.mind.test_movielens import GROUPLENS, ML_1M, make_archive
from tests.mind.test_unpack import AMAZON_BOOK, make_tar

Output = pytest.CaptureFixture[str]
COLUMNS = ("--user", "uid", "--item", "iid", "--time", "ts")


@pytest.fixture
def clicks(tmp_path: Path) -> Path:
    """Ten users with ten items each, one with two, and one malformed row on line 104."""
    rows = [f"{user},{user * 100 + time},{time}" for user in range(1, 11) for time in range(10)]
    path = tmp_path / "clicks.csv"
    path.write_text("\n".join(["uid,iid,ts", *rows, "11,1,0", "11,2,1", "11,x,2"]) + "\n")
    return path


def prepare(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int | str | None:
    """Run the command in this process; returns the exit code."""
    monkeypatch.setattr("sys.argv", ["mind.prepare", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run(app)
    return ended.value.code


def test_a_csv_file_becomes_training_and_evaluation_data(
    tmp_path: Path, clicks: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    output = tmp_path / "data"
    for _ in range(2):  # it works a second time
        assert prepare(monkeypatch, clicks, "--output", output, *COLUMNS) == 0
    train, valid, test = read_train(output / "train"), read_eval(output / "valid"), read_eval(output / "test")
    assert (len(train), len(valid), len(test)) == (8, 1, 1)
    first = train.user_id[0] * 100
    assert train[0].tolist() == list(range(first, first + 10))
    assert (valid.history.lengths.tolist(), valid.target.lengths.tolist()) == ([8], [2])
    rest = read_train(output / "rest")
    assert {user: rest[at].tolist() for at, user in enumerate(rest.user_id.tolist())} == {11: [1, 2]}
    assert sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()) == [
        "days.json",
        "rest/rest.txt",
        "split.json",
        "test/test.txt",
        "train/train.txt",
        "valid/valid.txt",
    ]
    printed = capsys.readouterr().out
    assert "102 interactions in 103 rows" in printed
    assert "malformed, skipped: 1 (line 104: iid is 'x', not an integer of 64 bits)" in printed
    assert "users dropped, fewer than 5 interactions: 1" in printed
    assert "104 lines: 1 header, 103 rows, 0 blank" in printed
    assert "│ train        │     8 │    80 │             0 │           80 │" in printed
    assert "│ fewer than 5 │     1 │     2 │             2 │            2 │" in printed
    assert "│ not in train │     3 │    22 │            22 │     22 (22%) │" in printed


def test_a_file_without_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    path = tmp_path / "u.data"
    path.write_bytes(b"".join(b"%d\t%d\t5\t%d\n" % (user, item, item) for user in range(3) for item in range(5)))
    header = "user_id,item_id,rating,timestamp"
    assert prepare(monkeypatch, path, "--output", tmp_path, "--header", header, "--delimiter", "tab") == 0
    assert "15 interactions in 15 rows" in capsys.readouterr().out


def test_a_user_with_most_of_the_rows_is_told_and_left_out_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    path = tmp_path / "clicks.csv"
    rows = [f"{user},{item},{item}" for user in range(1, 5) for item in range(5)] + [f"9,{i},{i}" for i in range(180)]
    path.write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    assert prepare(monkeypatch, path, "--output", tmp_path) == 0
    warning = "warning: user 9 has 90.0% of the interactions (180); --max-user-share 0.5 would leave this user out"
    assert warning in capsys.readouterr().out
    assert prepare(monkeypatch, path, "--output", tmp_path, "--max-user-share", "0.5") == 0
    printed = capsys.readouterr().out
    assert "user 9 has 90.0% of the interactions (180): left out" in printed
    assert "│ more than 50% of all │     1 │   180 │           175 │          180 │" in printed
    assert 9 not in read_train(tmp_path / "train").user_id


def test_quotes_that_mean_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    path = tmp_path / "plays.tsv"
    lines = [f"{user}\t{item}\t{item}\tartist {item}" for user in range(4) for item in range(6)]
    lines[3] = '0\t3\t3\t"Heroes'
    path.write_text("\n".join(lines) + "\n")
    options = ("--output", tmp_path, "--header", "user_id,timestamp,item_id,artist")
    assert prepare(monkeypatch, path, *options) == 1
    assert 'line 4: a quote (") opens a value that is not closed' in capsys.readouterr().err
    assert prepare(monkeypatch, path, *options, "--quote", "none") == 0
    assert "24 lines: 0 header, 24 rows, 0 blank" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "members", "ratings", "line"),
    [
        ("movielens-100k", GROUPLENS, "ml-100k/u.data", b"%d\t%d\t3\t%d\n"),
        ("movielens-1m", ML_1M, "ml-1m/ratings.dat", b"%d::%d::3::%d\n"),
    ],
)
def test_movielens_comes_with_item_attributes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    members: Mapping[str, bytes],
    ratings: str,
    line: bytes,
) -> None:
    clicks = b"".join(line % (user, item, item) for user in range(3) for item in (1, 242, 267, 1412, 1500))
    archive = make_archive(tmp_path / "archive.zip", members | {ratings: clicks})
    assert prepare(monkeypatch, name, "--output", tmp_path, "--archive", archive) == 0
    assert len(read_train(tmp_path / "train")) == 1
    items = pq.read_table(tmp_path / "items.parquet")
    assert items.column_names == ["item_id", "title", "year", "genres"]
    assert items.column("item_id").to_pylist() == [1, 242, 267, 1412]


def test_amazon_book_keeps_the_split_it_comes_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    archive = make_tar(tmp_path / "AmazonBook.tar.gz", AMAZON_BOOK)
    assert prepare(monkeypatch, "amazon-book", "--output", tmp_path, "--archive", archive) == 0
    assert read_train(tmp_path / "train").user_id.tolist() == [0, 1]
    assert read_eval(tmp_path / "valid").target[0].tolist() == [24, 25]
    assert read_eval(tmp_path / "test").history.user_id.tolist() == [3, 4]
    assert "│ test         │     2 │     3 │             3 │            3 │" in capsys.readouterr().out


def test_a_failure_leaves_what_was_there(tmp_path: Path, clicks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise DataError("the disk is full")

    assert prepare(monkeypatch, clicks, "--output", tmp_path / "data", *COLUMNS) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()}
    monkeypatch.setattr("mind.data.prepared.write_eval", fail)
    assert prepare(monkeypatch, clicks, "--output", tmp_path / "data", *COLUMNS, "--seed", "1") == 1
    assert {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("movielens-1m", "--user", "uid"), "--user: does not apply to movielens-1m"),
        (("amazon-book", "--seed", "2024"), "--seed: does not apply to amazon-book"),
        (("amazon-book", "--min-interactions", "3"), "--min-interactions: does not apply to amazon-book"),
        (("clicks.csv", "--archive", "ml-1m.zip"), "--archive: does not apply to a file"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: Output, arguments: tuple[str, ...], message: str
) -> None:
    assert prepare(monkeypatch, *arguments, "--output", "data") == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing.csv",), "nothing.csv: cannot be read: No such file or directory"),
        (("clicks.csv", "--user", "user_id"), "clicks.csv: no column 'user_id'; there are: uid, iid, ts"),
        (
            ("clicks.csv", *COLUMNS, "--max-malformed", "0", "--ids", "integer"),
            "clicks.csv: 1 of 103 rows are unusable (1.0%), the limit is",
        ),
        (("clicks.csv", *COLUMNS, "--min-interactions", "11"), "0 of 11 users have 11 interactions or more"),
        (("movielens-100k", "--archive", "clicks.csv"), "clicks.csv: is neither a zip nor a tar.gz archive"),
        (("amazon-book", "--archive", "nothing.tar.gz"), "nothing.tar.gz: cannot be unpacked: No such file"),
        (
            ("movielens-10m",),
            "movielens-10m: there is no such file; the named data sets are: movielens-100k, movielens-1m, amazon-b",
        ),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    clicks: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(clicks.parent)
    assert prepare(monkeypatch, *arguments, "--output", "data") == 1
    assert not Path("data").exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")


@pytest.mark.parametrize("arguments", [(), ("clicks.csv",), ("clicks.csv", "--output", "x", "--max-malformed", "2")])
def test_a_wrong_command_line_is_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: Output, arguments: tuple[str, ...]
) -> None:
    assert prepare(monkeypatch, *arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: ") and lines[1].endswith("--help` shows the usage.") and len(lines) == 2


def test_every_option_is_explained() -> None:
    assert [parameter.name for parameter in get_command(app).params if not getattr(parameter, "help", None)] == []


def test_clicks_are_held_out_by_date_or_by_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    rows = [
        f"u{user},sku-{user}-{day},2024-03-{day:02d}T12:00:00Z"
        for user in range(6)
        for day in range(1 + user, 13 + user)
    ]
    (clicks := tmp_path / "clicks.csv").write_text("\n".join(["user,sku,date", *rows]))
    dates = ("--split", "time", "--valid-from", "2024-03-10", "--test-from", "2024-03-15T00:00:00+00:00")
    assert prepare(monkeypatch, clicks, "--output", tmp_path / "time", *dates) == 0
    test = read_eval(tmp_path / "time" / "test")
    assert [len(test), int(test.target.lengths.sum())] == [3, 1 + 2 + 3]
    assert how_split(tmp_path / "time" / "test") == {
        "split": "time", "min_interactions": 5, "valid_from": dates[3], "test_from": dates[5],
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "│ train        │     6 │    39 │             0 │           39 │" in printed
    assert "│ not in train │     0 │    33 │            33 │     33 (46%) │" in printed
    assert "test users without a past: 0 of 3" not in printed
    assert prepare(monkeypatch, clicks, "--output", tmp_path / "last", "--split", "last-out", "--last", "2") == 0
    assert read_eval(tmp_path / "last" / "test").target.lengths.tolist() == [2] * 6
    assert read_train(tmp_path / "last" / "train").lengths.tolist() == [8] * 6


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--split", "time"), 2, "needs --valid-from and --test-from"),
        (("--valid-from", "2024-01-01"), 2, "belongs to --split time, not to --split users"),
        (("--split", "last-out", "--seed", "1"), 2, "belongs to --split users, not to --split last-out"),
        (
            ("--split", "time", "--valid-from", "June", "--test-from", "July"),
            1,
            "'June' is not a date such as 2014-06-01",
        ),
        (("--split", "time", "--valid-from", "2014-06-01", "--test-from", "2014-07-01"), 1, "give --time-unit"),
    ],
)
def test_splits_that_cannot_be_made(
    clicks: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output, more: tuple[str, ...], code: int, message: str
) -> None:
    assert prepare(monkeypatch, clicks, "--output", "data", *COLUMNS, *more) == code
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_window_leaves_out_what_is_older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    rows = [f"{user},{user * 100 + day},2024-03-{day:02d}T12:00:00Z" for user in range(10, 20) for day in range(1, 13)]
    (clicks := tmp_path / "clicks.csv").write_text("\n".join(["user,item,time", *rows]))
    for window, left in (("7d", 8), ("1w", 8), ("2024-03-05", 8), ("168h", 8)):
        output = tmp_path / window
        assert prepare(monkeypatch, clicks, "--output", output, "--since", window) == 0
        assert read_train(output / "train").lengths.tolist() == [left] * 8
    printed = capsys.readouterr().out
    assert "│ older than 7d │    10 │    40 │" in printed
    assert "│ before 2024-03-05 │    10 │    40 │" in printed
    assert prepare(monkeypatch, clicks, "--output", tmp_path / "no", "--since", "soon") == 1
    assert "'soon' is not a date such as 2014-06-01" in capsys.readouterr().err


@pytest.mark.parametrize("split_by", [[], ["--split", "last-out"]])
def test_ages_stand_beside_their_clicks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output, split_by: list[str]
) -> None:
    """An item is the number of days before the newest click, so its age must be that number, in every part."""
    rows = [f"{user},{age},{1_700_000_000 - 86_400 * age}" for user in range(30) for age in range(user % 3, 20, 2)]
    rows += ["50,7,1699395200", "50,8,1699308800"]
    path = tmp_path / "clicks.csv"
    path.write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    output = tmp_path / "data"
    assert prepare(monkeypatch, path, "--output", output, "--keep-ages", *split_by) == 0
    parts = {name: joined(read_eval(output / name)) for name in ("valid", "test")}
    parts |= {name: read_train(output / name) for name in ("train", "rest")}
    for name, part in parts.items():
        assert read_ages(output / name, len(part.item_id)).tolist() == part.item_id.tolist(), name
    with pytest.raises(DataError, match=r"train\.npy: has ages of .* clicks, .*train has 7; prepare the data again"):
        read_ages(output / "train", 7)
    assert prepare(monkeypatch, path, "--output", output) == 0
    with pytest.raises(DataError, match=r"train\.npy: no such file; prepare the data with --keep-ages"):
        read_ages(output / "train", 7)
    path.write_text("user_id,item_id,timestamp\n" + "".join(f"{user},{n},{n}\n" for user in range(9) for n in range(9)))
    assert prepare(monkeypatch, path, "--output", output, "--keep-ages") == 1
    assert "--keep-ages: the times of the data are no dates" in capsys.readouterr().err
