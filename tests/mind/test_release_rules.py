"""The rules of a release: how their file is read, and how they are checked against a collection."""

from pathlib import Path

import pytest

from mind.errors import ConfigError
from mind.milvus.rules import NO_RULES, ReleaseRules, read_rules

ATTRIBUTES = {
    "margin": "DOUBLE",
    "margin__present": "BOOL",
    "published_at": "INT64",
    "category": "VARCHAR",
    "item_key": "VARCHAR",
}
ALL = """
boosts:
  - {filter: margin > 0.3, add: 0.2}
  - {attribute: published_at, half_life_days: 14, weight: 0.5}
at_most:
  - {attribute: category, count: 5}
per_interest_min: 2
diversity: 0.25
explore: {share: 0.05, filter: "margin is null"}
"""


def read(tmp_path: Path, text: str) -> ReleaseRules:
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    return read_rules(file)


def test_a_file_of_all_rules_is_read_checked_and_kept_as_json(tmp_path: Path) -> None:
    rules = read(tmp_path, ALL)
    rules.check(ATTRIBUTES)
    assert (rules.boosts[0].add, rules.boosts[1].weight, rules.at_most[0].count) == (0.2, 0.5, 5)
    assert ReleaseRules.from_json(rules.to_json()) == rules
    assert '"seed"' not in rules.to_json() and "null" not in rules.to_json().replace("is null", "")


def test_nothing_is_no_rules(tmp_path: Path) -> None:
    assert read(tmp_path, "") == NO_RULES == ReleaseRules.from_json("")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("boost: []", "boost: Extra inputs are not permitted"),
        ("boosts: [{filter: margin > 1}]", "boosts[0]: Value error, has filter and add, or attribute"),
        ("boosts: [{filter: margin > 1, add: 1, weight: 2}]", "boosts[0]: Value error"),
        ("boosts: [{attribute: published_at, weight: 2}]", "boosts[0]: Value error"),
        ("boosts: [{filter: margin > 1, add: 1001}]", "boosts[0].add: Input should be less than or equal to 1000"),
        ("boosts: [{filter: margin > 1, add: .nan}]", "boosts[0].add: Input should be"),
        ("at_most: [{attribute: category, count: 0}]", "at_most[0].count: Input should be greater than"),
        ("at_most: [{attribute: category, count: '5'}]", "at_most[0].count: Input should be a valid integer"),
        ("diversity: 2", "diversity: Input should be less than or equal to 1"),
        ("explore: {share: 0}", "explore.share: Input should be greater than 0"),
        ("pin: [1]", "pin: Extra inputs are not permitted"),
        ("boosts: [", "cannot be read"),
        ("- 1", "Input should be a valid dictionary"),
        (f"explore: {{share: 0.5, filter: '{'x' * 2_001}'}}", "explore.filter: String should have at most 2000"),
    ],
)
def test_what_breaks_a_rule_of_rules_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert says in str(caught.value) and "rules.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("boosts: [{filter: price > 1, add: 1}]", "boosts[0].filter: 'price > 1', column 1"),
        ("boosts: [{filter: margin = 1, add: 1}]", "boosts[0].filter: 'margin = 1', column 8"),
        ("explore: {share: 0.1, filter: category > 1}", "explore.filter: 'category > 1'"),
        ("boosts: [{attribute: category, half_life_days: 1, weight: 1}]", "boosts[0].attribute: 'category' is VARCHAR"),
        ("boosts: [{attribute: sold, half_life_days: 1, weight: 1}]", "boosts[0].attribute: 'sold' is unknown"),
        ("at_most: [{attribute: brand, count: 1}]", "at_most[0].attribute: 'brand' is not an attribute"),
        ("at_most: [{attribute: margin__present, count: 1}]", "is not an attribute"),
        ("at_most: [{attribute: category, count: 1}, {attribute: category, count: 2}]", "at_most[1].attribute"),
    ],
)
def test_rules_are_checked_against_the_attributes_of_a_collection(tmp_path: Path, text: str, says: str) -> None:
    rules = read(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        rules.check(ATTRIBUTES)
    assert says in str(caught.value)
