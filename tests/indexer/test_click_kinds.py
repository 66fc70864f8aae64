"""Clicks from which new items get their vectors: those with kinds obey the rules of the model's data."""

import shutil
from pathlib import Path

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from indexer.items.clicks import read_clicks
from mind.errors import DataError
from mind.events import EventRules
from mind.sequences import Sequences
from tests.mind.test_weighted_targets import prepared

RULES = EventRules(
    column="kind", history=("view",), target={"buy": 3}, exclude=("return",), left_out=("hover",), once_per="30m"
)
CLICKS = """user_id,kind,item_id,timestamp
1,view,10,1
1,hover,11,2
1,buy,12,3
1,buy,13,4
1,return,13,5
2,hover,10,1
2,view,14,2
"""


def as_dict(found: Sequences) -> dict[int, list[int]]:
    return {user: found[at].tolist() for at, user in enumerate(found.user_id.tolist())}


def test_clicks_that_are_neither_history_nor_target_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "since.csv"
    file.write_text(CLICKS)
    assert as_dict(read_clicks(file, False, RULES)[0]) == {1: [10, 12], 2: [14]}
    table = pa_csv.read_csv(file)
    pq.write_table(table, tmp_path / "since.parquet")
    assert as_dict(read_clicks(tmp_path / "since.parquet", False, RULES)[0]) == {1: [10, 12], 2: [14]}
    (tmp_path / "days").mkdir()
    shutil.move(tmp_path / "since.parquet", tmp_path / "days")
    assert as_dict(read_clicks(tmp_path / "days", False, RULES)[0]) == {1: [10, 12], 2: [14]}
    sequences, keys = read_clicks(file, True, RULES)
    assert keys is not None and {keys.name(item) for item in sequences.item_id.tolist()} == {"10", "12", "14"}


def test_ratings_obey_the_conditions(tmp_path: Path) -> None:
    file = tmp_path / "since.csv"
    file.write_text("user_id,item_id,timestamp,rating\n1,10,1,5\n1,11,2,2\n1,12,3,1.5\n")
    rules = EventRules(column="rating", history=(">=2",), target={">=4": 1})
    assert as_dict(read_clicks(file, False, rules)[0]) == {1: [10, 11]}
    file.write_text("user_id,item_id,timestamp,rating\n1,11,2,2\n")  # nothing that would be a target
    assert as_dict(read_clicks(file, False, rules)[0]) == {1: [11]}


def test_a_kind_that_the_model_does_not_know_is_named(tmp_path: Path) -> None:
    file = tmp_path / "since.csv"
    file.write_text(CLICKS + "2,veiw,15,3\n")
    says = r"kind has veiw; the model knows view, buy, return, hover; there are: .*veiw \(1\)"
    with pytest.raises(DataError, match=says):
        read_clicks(file, False, RULES)


def test_lines_without_kinds_and_parts_are_read_as_before(tmp_path: Path) -> None:
    lines = tmp_path / "since.txt"
    lines.write_text("1,50,0\n1,181,1\n")
    assert as_dict(read_clicks(lines, False, RULES)[0]) == {1: [50, 181]}
    named = tmp_path / "since.csv"
    named.write_text("user_id,item_id,timestamp\n1,KIT-1,0\n")
    (with_rules, _), (without, _) = read_clicks(named, True, RULES), read_clicks(named, True)
    assert as_dict(with_rules) == as_dict(without) and len(without.item_id) == 1
    data = prepared(tmp_path)
    for part in (data / "train", data / "train" / "train.txt"):
        sequences, keys = read_clicks(part, False, RULES)
        assert keys is None and sequences.roles is not None and len(sequences) == 48
