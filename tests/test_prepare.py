"""`python -m mind.prepare`: files that the trainer reads, a report that a person reads, errors in one line."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.main import get_command

from mind.command import run
from mind.paddlerec import read_eval, read_train
from mind.prepare import app
from tests.test_movielens import GROUPLENS, make_archive

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
    assert sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()) == [
        "test/test.txt",
        "train/train.txt",
        "valid/valid.txt",
    ]
    printed = capsys.readouterr().out
    assert "102 interactions in 103 rows" in printed
    assert "malformed, skipped: 1 (line 104: iid is 'x', not an integer of 64 bits)" in printed
    assert "users dropped, fewer than 5 interactions: 1" in printed
    assert "│ train │     8 │    80 │           80 │" in printed


def test_a_file_without_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    path = tmp_path / "u.data"
    path.write_bytes(b"".join(b"%d\t%d\t5\t%d\n" % (user, item, item) for user in range(3) for item in range(5)))
    header = "user_id,item_id,rating,timestamp"
    assert prepare(monkeypatch, path, "--output", tmp_path, "--header", header, "--delimiter", "tab") == 0
    assert "15 interactions in 15 rows" in capsys.readouterr().out


def test_movielens_comes_with_item_attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    clicks = b"".join(
        b"%d\t%d\t3\t%d\n" % (user, item, item) for user in range(3) for item in (1, 242, 267, 1412, 1500)
    )
    archive = make_archive(tmp_path / "ml-100k.zip", GROUPLENS | {"ml-100k/u.data": clicks})
    assert prepare(monkeypatch, "movielens-100k", "--output", tmp_path, "--archive", archive) == 0
    assert len(read_train(tmp_path / "train")) == 1
    items = pq.read_table(tmp_path / "items.parquet")
    assert items.column_names == ["item_id", "title", "year", "genres"]
    assert items.column("item_id").to_pylist() == [1, 242, 267, 1412]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing.csv",), "nothing.csv: cannot be read: No such file or directory"),
        (("clicks.csv",), "clicks.csv: no column 'user_id'; there are: uid, iid, ts"),
        (
            ("clicks.csv", *COLUMNS, "--max-malformed", "0"),
            "clicks.csv: 1 of 103 rows are unusable (1.0%), the limit is",
        ),
        (("clicks.csv", *COLUMNS, "--min-interactions", "11"), "0 of 11 users have 11 interactions or more"),
        (("movielens-100k", "--archive", "clicks.csv"), "clicks.csv: cannot be read: File is not a zip file"),
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
    assert "Usage: " in capsys.readouterr().err


def test_every_option_is_explained() -> None:
    assert [parameter.name for parameter in get_command(app).params if not getattr(parameter, "help", None)] == []
