"""`mind.prepare --engine spark`: the job on a stand-in for Spark, and what it refuses.

`tests/drills/test_spark.py` runs it on Spark.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from mind.data.paddlerec import data_files, read_share, read_train
from mind.data.user_ranges import range_of
from mind.sequences import Int64
from tests import fake_spark
from tests.commands import run_here
from tests.spark_cases import CASES, assert_same, without_steps, write_inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("inputs")
    write_inputs(directory)
    return directory


@pytest.fixture(autouse=True)
def spark(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_spark.install(monkeypatch)


@pytest.mark.parametrize("case", CASES)
def test_the_job_writes_and_tells_what_one_machine_does(inputs: Path, tmp_path: Path, case: str) -> None:
    name, options = CASES[case]
    one = run_here("mind.prepare", inputs / name, "--output", tmp_path / "one", *options)
    assert one.returncode == 0, one.stderr
    done = run_here("mind.prepare", inputs / name, "--output", tmp_path / "spark", *options, "--engine", "spark")
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "one", tmp_path / "spark")
    assert without_steps(done.stdout) == without_steps(one.stdout)
    assert done.stdout.count("Spark: reading 4 files\n") == (2 if name == "floats" else 1)


def prepare(source: Path, output: Path, *options: str) -> str:
    """Prepare data on Spark. Return what the command says on standard error."""
    done = run_here("mind.prepare", source, "--output", output, "--engine", "spark", *options)
    assert done.returncode, done.stdout
    return done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--event", "kind"], "--engine spark: does not read kinds of interactions; prepare them on one machine"),
        (["--keep-ages"], "--keep-ages: does not write ages; prepare them on one machine"),
        (["--archive", "a.zip"], "--archive: does not apply to --engine spark"),
        (["--once-per", "1h", "--since", "90d"], "takes a date beside --once-per, not 90d"),
        (["--output", "s3://bucket/data"], "is s3:/bucket/data, must be a directory that all machines of the cluster"),
    ],
)
def test_what_only_one_machine_prepares_is_refused_by_name(
    inputs: Path, tmp_path: Path, options: list[str], says: str
) -> None:
    told = prepare(inputs / "text", tmp_path / "data", *options)
    assert says in " ".join(told.split()) and not (tmp_path / "data").exists()


def test_a_data_set_by_name_and_an_address_without_spark_are_refused(inputs: Path, tmp_path: Path) -> None:
    assert "movielens-100k is small; prepare it without this option" in prepare(Path("movielens-100k"), tmp_path)
    done = run_here("mind.prepare", inputs / "text", "--output", tmp_path, "--master", "local[2]")
    assert done.returncode == 2 and "--master: belongs to --engine spark" in done.stderr


def test_without_spark_the_command_names_the_extra(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pyspark", "mind.spark.job"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr("mind.extras.find_spec", lambda name: None if name == "pyspark" else object())
    assert prepare(inputs / "text", tmp_path) == "error: this needs pyspark: pip install 'mind-recall[spark]'\n"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--since", "soon"], "'soon' is not a date such as 2014-06-01"),
        (["--split", "time", "--valid-from", "2024-02-01", "--test-from", "2024-01-01"], "test_from must be after"),
        (["--split", "time", "--valid-from", "then", "--test-from", "2024-01-01"], "'then' is not a date"),
    ],
)
def test_dates_that_make_no_sense_are_refused_before_the_sorting(
    inputs: Path, tmp_path: Path, options: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mind.spark.users.sort_clicks", None)
    assert says in prepare(inputs / "text", tmp_path / "data", *options)


@pytest.mark.parametrize(
    ("name", "content", "options", "says"),
    [
        ("b.csv", b"user_id,item_id,timestamp\n1,2,\xff\n", [], "b.csv: line 2: byte 0xff is not UTF-8; convert it"),
        ("b.csv", b"user_id,timestamp\n1,2\n", [], "b.csv: no column 'item_id'; there are: user_id, timestamp"),
        ("b.csv", b"user_id,item_id,timestamp\n1,2,soon\n", [], "1 of 31 rows are unusable (3.2%), the limit is 1.0%"),
        ("b.csv", b"user_id,item_id,timestamp\n1,2.5,3\n", [], "item_id is 2.5, a decimal number"),
        ("b.csv", b"user_id,item_id,timestamp\n1,02,3\n", ["--ids", "integer"], "1 integer ids have leading zeros"),
        ("b.csv", b"user_id,item_id,timestamp\n1,2,1700000000000\n", [], "timestamp has times of two units"),
        ("b.csv", b"user_id,item_id,timestamp\n1,2,3\n", ["--min-interactions", "20"], "0 of 6 users have 20"),
        ("b.csv", b"user_id,item_id,timestamp\n1,2,3\n", ["--max-user-share", "0.1"], "0 of 0 users have 5"),
        (
            "b.csv",
            b"user_id,item_id,timestamp\n1,2,3\n",
            ["--split", "time", "--valid-from", "2000-01-01", "--test-from", "2100-01-01"],
            "test would have no user: of 6 users nobody has interactions then; choose other moments",
        ),
    ],
)
def test_a_fault_is_told_in_one_line_and_earlier_data_stay(
    tmp_path: Path, name: str, content: bytes, options: list[str], says: str
) -> None:
    source, output = tmp_path / "in", tmp_path / "data"
    source.mkdir()
    rows = [f"{user},{item},{1_700_000_000 + item}" for user in range(6) for item in range(5)]
    (source / "a.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    (source / name).write_bytes(content)
    (output / "train").mkdir(parents=True)
    (output / "train" / "train.txt").write_text("1,2,3\n")
    told = prepare(source, output, *options)
    assert told.startswith("error: ") and told.count("\n") == 1 and says in told
    assert [path.name for path in output.rglob("*")] == ["train", "train.txt"]


def test_files_of_an_earlier_preparation_are_not_read_with_the_new_ones(inputs: Path, tmp_path: Path) -> None:
    name, options = CASES["since"]
    words = [inputs / name, *options]
    for engine in ("local", "spark", "spark", "local"):
        done = run_here("mind.prepare", *words, "--output", tmp_path / "data", "--engine", engine)
        assert done.returncode == 0, done.stderr
        if engine == "spark":
            assert_same(tmp_path / "one", tmp_path / "data")
        shutil.copytree(tmp_path / "data", tmp_path / "one", dirs_exist_ok=True)
        names = {path.name for path in (tmp_path / "data" / "train").iterdir()}
        assert names == ({"train.txt"} if engine == "local" else {f"part-0000{number}.txt" for number in range(3)})
        for path in (tmp_path / "one").rglob("part-*"):
            path.unlink()


def test_two_processes_read_the_users_of_all_files(inputs: Path, tmp_path: Path) -> None:
    source, _ = CASES["users"]
    done = run_here("mind.prepare", inputs / source, "--output", tmp_path / "data", "--engine", "spark")
    assert done.returncode == 0, done.stderr
    train = tmp_path / "data" / "train"
    every = read_train(train)
    shares = [read_share(train, range_of(data_files(train), rank, 2)).sequences for rank in range(2)]
    assert np.concatenate([share.user_id for share in shares]).tolist() == every.user_id.tolist()
    assert np.concatenate([share.item_id for share in shares]).tolist() == every.item_id.tolist()
    assert all(len(share.item_id) < 0.7 * len(every.item_id) for share in shares)


def test_a_directory_that_machines_do_not_share_is_refused(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(path: Path, sequences: object) -> None:
        """A task that writes to the disk of another machine."""

    monkeypatch.setattr("mind.spark.users.write_train", elsewhere)
    told = prepare(inputs / "text", tmp_path / "data")
    assert "--output must be a directory that all machines of the cluster share" in told


def test_two_text_ids_with_the_same_hash_are_refused(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weak(keys: list[str]) -> Int64:
        return np.array([int(key.rpartition("-")[2]) % 100 for key in keys], np.int64)

    monkeypatch.setattr("mind.data.ids.key_ids", weak)
    source = tmp_path / "in"
    source.mkdir()
    for file, user in (("a.csv", "ann-1"), ("b.csv", "bob-101")):
        (source / file).write_text(f"user_id,item_id,timestamp\n{user},item-1,5\n")
    told = prepare(source, tmp_path / "data")
    assert "in: user_id: 'ann-1' and 'bob-101' have the same hash, 1; rename one of them" in told
