"""Kinds of clicks from the command line to the files: roles, weights, repeats, exclusions, and counts that add up."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mind.config import load_config
from mind.data.clicks import read_interactions
from mind.data.events import Kind, repeats
from mind.data.interactions import Interactions
from mind.data.paddlerec import read_eval, read_train
from mind.data.split import Split, split, split_by_time, split_last_out
from mind.data.targets import assign
from mind.errors import ConfigError, DataError
from mind.events import EventRules, Events
from mind.sequences import EvalCases, Sequences
from tests.mind.test_prepare import prepare

Output = pytest.CaptureFixture[str]
VIEW, CART, BUY = Kind("view", True, 0, False), Kind("cart", True, 1, False), Kind("buy", False, 3, False)
RETURN, SCROLL = Kind("return", False, 0, True), Kind("scroll", False, 0, False)
KINDS = (VIEW, CART, BUY, RETURN, SCROLL)
SPAN = 5

rows = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 30), st.integers(0, 4)), min_size=1, max_size=60
)


def interactions(clicks: list[tuple[int, int, int, int]]) -> Interactions:
    """Clicks of user, item, time and kind, sorted by user and time."""
    user, item, time, kind = (np.array(column, np.int64) for column in zip(*clicks, strict=True))
    return Interactions(user, item, time, code=kind.astype(np.uint8)).sort()


def as_rows(found: Interactions) -> list[tuple[int, int, int]]:
    columns = (found.user_id, found.item_id, found.timestamp)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def plainly_folded(clicks: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Sorted clicks without those of less than a span after the last one that counts."""
    last: dict[Any, int] = {}
    kept = []
    for user, item, time, kind in clicks:
        key = (user, item, kind)
        if key not in last or time - last[key] >= SPAN:
            last[key] = time
            kept.append((user, item, time, kind))
    return kept


@given(rows)
def test_the_first_of_a_span_counts(clicks: list[tuple[int, int, int, int]]) -> None:
    found = interactions(clicks)
    assert found.code is not None
    code = found.code.astype(np.int64)
    repeated = repeats((code, found.item_id, found.user_id), found.timestamp, SPAN)
    ordered = [(*row, kind) for row, kind in zip(as_rows(found), code.tolist(), strict=True)]
    kept = [row for row, is_repeat in zip(ordered, repeated.tolist(), strict=True) if not is_repeat]
    assert kept == plainly_folded(ordered)


def test_a_long_run_of_repeats_is_folded_at_once() -> None:
    time = np.arange(300_000)
    same = (np.zeros(300_000, np.int64),)
    assert np.flatnonzero(~repeats(same, time, 7)).tolist() == list(range(0, 300_000, 7))
    assert np.flatnonzero(~repeats(same, time / 2, 3)).tolist() == list(range(0, 300_000, 6))


@pytest.mark.parametrize("largest", [2.0**63, 2**63 - 1])
def test_times_in_which_a_span_is_lost_end(largest: float) -> None:
    time = np.array([5, largest])
    assert repeats((np.zeros(2, np.int64),), time, 20).tolist() == [False, False]
    assert repeats((np.zeros(2, np.int64),), np.array([largest, largest]), 20).tolist()[0] is False


@given(rows)
def test_every_click_gets_its_role_or_is_left_out_by_cause(clicks: list[tuple[int, int, int, int]]) -> None:
    given = interactions(clicks)
    assert given.code is not None
    ordered = [(*row, kind) for row, kind in zip(as_rows(given), given.code.tolist(), strict=True)]
    found = assign(given, KINDS, "5s", SPAN)
    folded = plainly_folded(ordered)
    returned = {(user, item) for user, item, _, kind in ordered if KINDS[kind].excludes}
    expected = []
    for user, item, time, kind in folded:
        weight = 0 if (user, item) in returned else KINDS[kind].weight
        if KINDS[kind].is_history or weight:
            expected.append((user, item, time, KINDS[kind].name, KINDS[kind].is_history, weight))
    kept, roles = found.interactions, found.interactions.roles
    assert kept.code is not None and roles is not None
    table = roles.rows()
    assert [(*row, *table[role]) for row, role in zip(as_rows(kept), kept.code.tolist(), strict=True)] == expected
    assert len(kept) + sum(map(len, found.left_out.values())) == len(clicks)
    assert len(found.left_out["repeated within 5s"]) == len(clicks) - len(folded)
    assert {one.kind.name: one.clicks for one in found.counts} == {
        kind.name: Counter(row[3] for row in clicks)[at] for at, kind in enumerate(KINDS)
    }
    assert sum(one.targets for one in found.counts) == sum(row[-1] > 0 for row in expected)


def test_clicks_without_kinds_are_not_copied() -> None:
    """A hundred million of them need all the memory there is."""
    plain = replace(interactions([(1, 2, 3, 0), (1, 3, 4, 0)]), code=None)
    assert assign(plain, (), None, 0).interactions is plain


def with_roles(clicks: list[tuple[int, int, int, int]]) -> Interactions:
    return assign(interactions(clicks), (VIEW, CART, BUY), None, 0).interactions


def in_words(cases: EvalCases) -> dict[int, tuple[list[int], list[int]]]:
    users = cases.history.user_id.tolist()
    return {user: (cases.history[at].tolist(), cases.target[at].tolist()) for at, user in enumerate(users)}


def test_the_last_fifth_of_the_targets_is_held_out_and_histories_have_no_other_kinds() -> None:
    """Of six targets the last two; what is bought is no history here, and what is viewed is no target."""
    kinds = [0, 1, 2, 0, 1, 1, 0, 1, 0, 2, 0]
    clicks = [(user, 100 * user + at, at, kind) for user in range(1, 4) for at, kind in enumerate(kinds)]
    parts = split(with_roles(clicks))
    [(user, (history, target))] = in_words(parts.test).items()
    assert [item - 100 * user for item in history] == [0, 1, 3, 4, 5, 6]
    assert [item - 100 * user for item in target] == [7, 9]
    assert parts.test.target.weight is not None and parts.test.target.weight.tolist() == [1, 3]
    assert parts.held_out is not None and len(parts.held_out) == 2
    assert [row.tolist() for row in (parts.held_out[0] % 100, parts.train[0] % 100)] == [list(range(11))] * 2
    assert parts.aside is not None and Counter((parts.aside.item_id % 100).tolist()) == {2: 2, 8: 2, 10: 2}


def test_users_without_a_target_after_a_history_are_trained_on() -> None:
    clicks = [(user, item, item, 0) for user in range(1, 31) for item in range(1, 7)]
    clicks += [(user, 50, 9, 2) for user in range(1, 11)] + [(40, item, 10 + item, item // 9 * 0) for item in range(6)]
    clicks += [(41, 7, 0, 2)] + [(41, item, item, 0) for item in range(1, 6)]  # bought before anything was seen
    parts = split(with_roles(clicks))
    held_out = {*parts.valid.history.user_id.tolist(), *parts.test.history.user_id.tolist()}
    assert len(held_out) == 2 and held_out <= set(range(1, 11))
    assert len(parts.train) == 30
    assert {*parts.train.user_id.tolist()} | held_out == {*range(1, 31), 40, 41}
    with pytest.raises(DataError, match=r"1 of 4 users have 5 interactions or more .* and a target after a history"):
        split(with_roles([row for row in clicks if row[0] in (1, 28, 29, 30)]))


def test_clicks_before_a_moment_are_trained_on_and_targets_after_it_are_found() -> None:
    kinds = [0, 1, 2, 0, 1, 0, 2, 0]
    clicks = [(user, 10 * user + at, at, kind) for user in (1, 2) for at, kind in enumerate(kinds)]
    parts = split_by_time(with_roles(clicks), 3, 5)
    assert parts.train.item_id.tolist() == [10, 11, 12, 20, 21, 22]
    assert in_words(parts.valid) == {1: ([10, 11], [14]), 2: ([20, 21], [24])}
    assert in_words(parts.test) == {1: ([10, 11, 13, 14], [16]), 2: ([20, 21, 23, 24], [26])}
    assert parts.aside is not None and parts.aside.item_id.tolist() == [13, 15, 17, 23, 25, 27]


def test_the_last_targets_of_every_user_are_held_out() -> None:
    kinds = [0, 1, 0, 2, 0, 1, 0]
    clicks = [(1, at, at, kind) for at, kind in enumerate(kinds)] + [
        (2, at, at, kind) for at, kind in enumerate(kinds[:5])
    ]
    clicks += [(3, at, at, int(at == 4)) for at in range(6)]  # one target: too few for both
    parts = split_last_out(with_roles(clicks))
    assert {user: parts.train[at].tolist() for at, user in enumerate(parts.train.user_id.tolist())} == {
        1: [0, 1, 2],
        2: [0],
        3: [0, 1, 2, 3, 4, 5],
    }
    assert in_words(parts.valid) == {1: ([0, 1, 2], [3]), 2: ([0], [1])}
    assert in_words(parts.test) == {1: ([0, 1, 2, 4], [5]), 2: ([0, 1, 2], [3])}


@pytest.mark.parametrize("how", ["users", "time", "last-out"])
@given(clicks=rows)
def test_a_split_loses_no_click_and_gives_none_another_role(how: str, clicks: list[tuple[int, int, int, int]]) -> None:
    """Users 10 to 12 make sure that every part has somebody."""
    clicks = [row for row in clicks if row[3] < 3]
    clicks += [(user, 5, time, time % 3) for user in (10, 11, 12) for time in (*range(12), *range(20, 30))]
    given = with_roles(clicks)
    splits = {
        "users": lambda: split(given, min_interactions=2),
        "time": lambda: split_by_time(given, 10, 22, min_interactions=2),
        "last-out": lambda: split_last_out(given, 1, min_interactions=3),
    }
    parts: Split = splits[how]()
    assert parts.aside is not None and parts.held_out is not None
    for cases in (parts.valid, parts.test):
        assert cases.history.is_history is not None and cases.history.is_history.all()
        assert cases.target.weight is not None and (cases.target.weight > 0).all() and cases.target.lengths.all()
    histories = [parts.valid.history, parts.test.history] if how == "users" else []
    found = [parts.train, *histories, parts.valid.target, parts.test.target]
    aside = Counter(zip(parts.aside.user_id.tolist(), parts.aside.item_id.tolist(), strict=True))
    clicks_of = Counter(row[0] for row in clicks)
    least = 3 if how == "last-out" else 2
    assert sum(map(pairs, found), aside) == Counter((row[0], row[1]) for row in clicks if clicks_of[row[0]] >= least)
    owners = {*parts.valid.history.user_id.tolist(), *parts.test.history.user_id.tolist()}
    owners |= set(parts.aside.user_id.tolist())
    assert pairs(parts.held_out) == Counter((row[0], row[1]) for row in clicks if row[0] in owners)


def pairs(found: Sequences) -> "Counter[tuple[int, int]]":
    users = np.repeat(found.user_id, found.lengths).tolist()
    return Counter(zip(users, found.item_id.tolist(), strict=True))


SHOP = [
    *[(user, item, 60 * item, "view") for user in range(1, 21) for item in range(10)],
    *[(user, 7, 60 * 7 + 20, "view") for user in range(1, 21)],  # again, within a minute
    *[(user, item, 60 * item + 30, "buy") for user in range(1, 21) for item in (2, 5, 8)],
    *[(user, 5, 2_000, "return") for user in range(1, 11)],
    *[(user, 1, 3_000, "hover") for user in range(1, 4)],
]
RULES = (
    "--event",
    "kind",
    "--target",
    "buy=3,view",
    "--history",
    "view,buy",
    "--exclude",
    "return",
    "--once-per",
    "1m",
)


def shop_file(path: Path, rows: list[tuple[Any, ...]], column: str = "kind") -> Path:
    """Clicks as CSV, or as Parquet if the name ends so; times in seconds of 2024."""
    moved = [(user, item, 1_704_067_200 + time, kind) for user, item, time, kind in rows]
    names = ["user_id", "item_id", "timestamp", column]
    if path.suffix == ".parquet":
        pq.write_table(pa.table(dict(zip(names, map(list, zip(*moved, strict=True)), strict=True))), path)
    else:
        path.write_text("\n".join([",".join(names), *(",".join(map(str, row)) for row in moved)]) + "\n")
    return path


def content(output: Path) -> dict[str, bytes]:
    return {str(file.relative_to(output)): file.read_bytes() for file in output.rglob("*") if file.is_file()}


def numbers(printed: str, row: str) -> list[str]:
    """The cells of a table's row."""
    [line] = [line for line in printed.splitlines() if line.startswith(f"│ {row} ")]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_what_became_of_every_row_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    file, output = shop_file(tmp_path / "shop.csv", SHOP), tmp_path / "data"
    assert prepare(monkeypatch, file, "--output", output, *RULES) == 0
    printed = capsys.readouterr().out
    assert numbers(printed, "view") == ["view", "220", "20", "200", "190", "1", "10"]
    assert numbers(printed, "buy") == ["buy", "60", "0", "60", "50", "3", "10"]
    assert numbers(printed, "return (excludes)") == ["return (excludes)", "10", "0", "-", "-", "-", "-"]
    assert numbers(printed, "hover") == ["hover", "3", "0", "-", "-", "-", "-"]
    parts = {name: int(numbers(printed, name)[-1]) for name in ("train", "valid", "test")}
    causes = ("repeated within 1m", "of kinds that exclude", "of kinds left out", "held out, no target")
    out = {cause: int(numbers(printed, cause)[-1]) for cause in causes if f"│ {cause}" in printed}
    assert (out["repeated within 1m"], out["of kinds that exclude"], out["of kinds left out"]) == (20, 10, 3)
    assert sum(parts.values()) + sum(out.values()) == len(SHOP)
    assert "293 interactions in 293 rows" in printed
    recorded = json.loads((output / "events.json").read_text())
    assert EventRules.model_validate(recorded) == EventRules(
        column="kind",
        history=("view", "buy"),
        target={"view": 1, "buy": 3},
        exclude=("return",),
        left_out=("hover",),
        once_per="1m",
    )
    train = read_train(output / "train")
    assert train.weight is not None and set(train.weight.tolist()) == {0, 1, 3}
    for at, user in enumerate(train.user_id.tolist()):
        start, end = train.offsets[at : at + 2]
        of_5 = train.weight[start:end][train.item_id[start:end] == 5]
        assert of_5.tolist() == ([0, 0] if user <= 10 else [1, 3])
    test = read_eval(output / "test")
    assert test.target.roles is not None and test.target.role is not None
    assert {test.target.roles.kinds[role] for role in test.target.role.tolist()} <= {"view", "buy"}


def test_the_files_are_the_same_from_csv_and_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("shop.csv", "shop.parquet"):
        assert prepare(monkeypatch, shop_file(tmp_path / name, SHOP), "--output", tmp_path / name[:6], *RULES) == 0
        found = content(tmp_path / name[:6])
        (tmp_path / name[:6]).rename(tmp_path / f"of {name}")
    assert found == content(tmp_path / "of shop.csv")
    ratings = [(user, item, item, rating) for user in range(9) for item, rating in enumerate([5, 1, 3, 4, 4, 5])]
    outputs = []
    for name, values in (
        ("r.csv", ratings),
        ("i.parquet", ratings),
        ("f.parquet", [(*r[:3], float(r[3])) for r in ratings]),
    ):
        file, output = shop_file(tmp_path / name, values, "rating"), tmp_path / f"of {name}"
        assert (
            prepare(monkeypatch, file, "--output", output, "--event", "rating", "--target", ">=4", "--exclude", "<2")
            == 0
        )
        outputs.append(content(output))
    assert outputs[0] == outputs[1] == outputs[2]


def test_ratings_from_a_threshold_on_are_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    values = ["5", "4.5", "3", "2", "1", "4"]
    ratings = [(user, item, item, rating) for user in range(10) for item, rating in enumerate(values)]
    file = shop_file(tmp_path / "ratings.csv", ratings, "rating")
    options = ("--event", "rating", "--target", ">=4.5=2, >=4", "--exclude", "<2", "--history", ">=2")
    assert prepare(monkeypatch, file, "--output", tmp_path / "data", *options) == 0
    printed = capsys.readouterr().out
    assert numbers(printed, ">=4.5") == [">=4.5", "20", "0", "20", "20", "2", "0"]
    assert numbers(printed, ">=4") == [">=4", "10", "0", "10", "10", "1", "0"]
    assert numbers(printed, ">=2") == [">=2", "20", "0", "20", "-", "-", "-"]
    assert numbers(printed, "<2 (excludes)") == ["<2 (excludes)", "10", "0", "-", "-", "-", "-"]
    train = read_train(tmp_path / "data" / "train")
    assert train.weight is not None
    assert (train[0].tolist(), train.weight[:5].tolist()) == ([0, 1, 2, 3, 5], [2, 2, 0, 0, 1])
    rules = EventRules.model_validate(json.loads((tmp_path / "data" / "events.json").read_text()))
    assert [rules.is_history(rating) for rating in ("5", "2", "1.5", "1")] == [True, True, False, False]


def test_a_rating_that_is_no_number_is_malformed(tmp_path: Path) -> None:
    ratings = [(1, item, item, 5) for item in range(5)] + [(1, 9, 9, "good"), (1, 10, 10, "nan"), (1, 11, 11, "")]
    file = shop_file(tmp_path / "ratings.csv", ratings, "rating")
    found, report = read_interactions(file, max_malformed=1, events=Events(column="rating", target={">=4": 1.0}))
    assert (len(found), report.malformed.count, report.missing.count) == (5, 1, 2)
    assert report.malformed.texts == ("rating is 'good', not a number",)


def test_data_without_kinds_are_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, output = shop_file(tmp_path / "shop.csv", SHOP), tmp_path / "data"
    assert prepare(monkeypatch, file, "--output", tmp_path / "plain") == 0
    assert prepare(monkeypatch, file, "--output", output, *RULES) == 0
    assert {"events.json", "held_out/held_out.txt"} <= content(output).keys()
    assert prepare(monkeypatch, file, "--output", output) == 0
    assert content(output) == content(tmp_path / "plain")
    assert sorted(content(output)) == ["days.json", "split.json", "test/test.txt", "train/train.txt", "valid/valid.txt"]
    assert re.fullmatch(rb"(\d+,\d+,\d+\n)+", content(output)["train/train.txt"])
    assert b"role" not in content(output)["test/test.txt"]


def test_repeats_are_folded_without_kinds_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    file = shop_file(tmp_path / "shop.csv", [row for row in SHOP if row[3] == "view"])
    assert prepare(monkeypatch, file, "--output", tmp_path / "data", "--once-per", "1m") == 0
    assert numbers(capsys.readouterr().out, "repeated within 1m")[-1] == "20"
    assert json.loads((tmp_path / "data" / "events.json").read_text()) == {"once_per": "1m"}
    assert read_train(tmp_path / "data" / "train").role is None


def test_the_yaml_says_the_same_and_options_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, config = shop_file(tmp_path / "shop.csv", SHOP), tmp_path / "config.yaml"
    config.write_text(
        "events: {column: kind, history: [view, buy], target: {buy: 3, view: 1}, exclude: [return], once_per: 1m}"
    )
    assert prepare(monkeypatch, file, "--output", tmp_path / "options", *RULES) == 0
    assert prepare(monkeypatch, file, "--output", tmp_path / "yaml", "-m", config) == 0
    assert content(tmp_path / "options") == content(tmp_path / "yaml")
    assert prepare(monkeypatch, file, "--output", tmp_path / "more", "-m", config, "--target", "buy") == 0
    assert json.loads((tmp_path / "more" / "events.json").read_text())["target"] == {"buy": 1}
    config.write_text("events: {column: kind, targets: {buy: 3}}")
    with pytest.raises(ConfigError, match=r"events.targets: unknown key; did you mean events.target\?"):
        load_config(config)


def test_every_kind_is_history_and_those_of_the_history_are_targets_unless_said(tmp_path: Path) -> None:
    file = shop_file(tmp_path / "shop.csv", SHOP)
    _, report = read_interactions(file, events=Events(column="kind", exclude=("return",)))
    assert {kind.name: (kind.is_history, kind.weight, kind.excludes) for kind in report.kinds} == {
        "view": (True, 1, False),
        "buy": (True, 1, False),
        "hover": (True, 1, False),
        "return": (False, 0, True),
    }


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--target", "bye=3"), "--target names bye, which no row has in kind; there are: view (220), buy (60), "),
        (("--history", "views"), "--history names views, which no row has in kind; there are: view (220)"),
        (("--exclude", "Return"), "--exclude names Return, which no row has"),
        (("--target", "buy=0"), "--target: the weight of buy is 0, must be above 0 and at most 1000"),
        (("--target", "buy=nan"), "--target: the weight of buy is nan, must be above 0"),
        (("--target", "buy=3x"), "--target: the weight of buy is '3x', must be a number"),
        (("--target", "buy,view,buy=2"), "--target: buy is named twice"),
        (("--history", "view,,buy"), "a kind is empty"),
        (("--target", ">=4"), "line 2: kind is 'view', not a number"),
        (("--target", ">=4x"), ">=4x is not a condition such as >=4"),
        (("--target", ">=4,buy"), ">=4 is a condition on numbers and buy is not"),
        (("--target", "buy", "--exclude", "buy"), "buy is in target and in exclude"),
        (("--target", "buy", "--once-per", "30"), "--once-per is '30', must be a span such as 30m"),
        (("--event", "item_id"), "--event names item_id, which has the users, the items or the times"),
        (("--event", "kinds"), "no column 'kinds'; there are: user_id, item_id, timestamp, kind"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output, options: tuple[str, ...], says: str
) -> None:
    file = shop_file(tmp_path / "shop.csv", SHOP)
    assert prepare(monkeypatch, file, "--output", tmp_path / "data", "--event", "kind", *options) == 1
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_kinds_need_a_column_of_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    file = shop_file(
        tmp_path / "shop.csv", [(user, item, item, f"{user}/{item}") for user in range(9) for item in range(12)]
    )
    assert prepare(monkeypatch, file, "--output", tmp_path, "--target", "buy") == 1
    assert "history, target and exclude need --event, the column of kinds" in capsys.readouterr().err
    assert prepare(monkeypatch, file, "--output", tmp_path, "--event", "kind") == 1
    assert "kind has 108 different values, kinds of events are at most 100; for numbers" in capsys.readouterr().err
    plain = tmp_path / "order.csv"
    plain.write_text(
        "user_id,item_id,timestamp\n" + "".join(f"{user},{item},{item}\n" for user in range(9) for item in range(6))
    )
    assert prepare(monkeypatch, plain, "--output", tmp_path, "--once-per", "1m") == 1
    assert "1m: the times of the data are no dates, so a span means nothing" in capsys.readouterr().err
    assert prepare(monkeypatch, "amazon-book", "--output", tmp_path, "--event", "rating") == 2
    assert "--event: does not apply to amazon-book" in capsys.readouterr().err


def test_roles_that_nothing_explains_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "data"
    assert prepare(monkeypatch, shop_file(tmp_path / "shop.csv", SHOP), "--output", output, *RULES) == 0
    events = output / "events.json"
    known = json.loads(events.read_text())
    events.write_text(json.dumps(known | {"roles": known["roles"][:1]}))
    with pytest.raises(DataError, match=r"a line has the role 5, events\.json has 0 to 0; prepare the data again"):
        read_train(output / "train")
    for content, says in (
        ("{}", "is missing or of other data"),
        ('{"roles": [["view", 1]]}', "roles: "),
        ("[", "cannot be read"),
    ):
        events.write_text(content)
        with pytest.raises(DataError, match=says):
            read_eval(output / "test")
    events.unlink()
    with pytest.raises(DataError, match=r"a fourth column, the role of the click, needs events.json beside"):
        read_train(output / "train")
    (output / "test" / "test.txt").write_text("user_id:1 target_item:0 hist_item:1 eval_item:2 eval_item:3 role:0\n")
    with pytest.raises(DataError, match="line 1: has 1 roles for 2 eval_item; every line has one for each"):
        read_eval(output / "test")
