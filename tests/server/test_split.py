"""Which channel a key gets: always the same one, as many keys as the share says, and larger shares move few keys."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mind.errors import ConfigError
from protos.recall.v1 import recall_pb2
from server.edge.split import LINE, MAX_KEY_BYTES, Split
from server.errors import InvalidRequestError
from server.options import load_settings

KEYS = [f"user-{number}" for number in range(20_000)]
User, Recall, Explain = recall_pb2.User, recall_pb2.RecallRequest, recall_pb2.ExplainRequest


def assigned(**shares: float) -> list[str]:
    """The channel of each of the keys; empty for the default one."""
    split = Split(shares)
    return [split.of(key) for key in KEYS]


def test_each_channel_gets_its_share() -> None:
    found = Counter(assigned(b=0.1, c=0.25, d=0.05))
    shares = {channel: count / len(KEYS) for channel, count in found.items()}
    assert shares == pytest.approx({"": 0.6, "b": 0.1, "c": 0.25, "d": 0.05}, abs=0.01)
    assert set(assigned(b=1)) == {"b"} and set(assigned()) == {""}


def test_a_key_always_gets_the_same_channel() -> None:
    """These were computed once: another version that gave others would move users between two models."""
    split = Split({"b": 0.3, "c": 0.3})
    expected = ["c", "", "c", "b", "c", "c"]
    assert [split.of(key) for key in ("ann", "bob", "eve", "user-1", "user-2", "名前")] == expected


@pytest.mark.parametrize(
    ("before", "after", "grown"),
    [
        ({"b": 0.1}, {"b": 0.2}, "b"),
        ({"b": 0.1}, {"b": 1.0}, "b"),
        ({"b": 0.1, "c": 0.1}, {"b": 0.4, "c": 0.1}, "b"),
        ({"b": 0.1, "c": 0.1}, {"b": 0.1, "c": 0.5}, "c"),
        ({"b": 0.2, "c": 0.2, "d": 0.2}, {"b": 0.25, "c": 0.2, "d": 0.2}, "b"),
        ({"b": 0.2}, {"b": 0.2, "c": 0.3}, "c"),
    ],
)
def test_a_larger_share_moves_only_keys_of_the_default_channel(
    before: dict[str, float], after: dict[str, float], grown: str
) -> None:
    moved = {(one, other) for one, other in zip(assigned(**before), assigned(**after), strict=True) if one != other}
    assert moved == {("", grown)}


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=15))
def test_parts_cover_the_line_without_overlap(weights: list[float]) -> None:
    total = max(1.0, sum(weights))
    shares = {f"c{number}": weight / total for number, weight in enumerate(weights)}
    split = Split(shares)
    parts = sorted(split._parts)
    assert all(0 <= start < end <= LINE for start, end, _ in parts)
    assert all(one[1] <= other[0] for one, other in pairwise(parts))
    for channel, share in shares.items():
        places = sum(end - start for start, end, name in parts if name == channel)
        assert places == pytest.approx(share * LINE, abs=len(shares))


def test_what_a_request_is_split_by() -> None:
    split = Split({"b": 1})
    assert split.channel_of(Recall(users=[User()])) == ""  # nothing to split by
    assert split.channel_of(Recall(users=[User(user_id="ann")])) == "b"
    assert split.channel_of(Recall(users=[User(user_id="ann"), User(user_id="bob")])) == ""
    assert split.channel_of(Recall(users=[User(), User()], split_key="session")) == "b"
    assert split.channel_of(Recall(users=[User()], split_key="session", channel="live")) == "live"
    assert split.channel_of(Explain(user=User(user_id="ann"))) == "b"
    assert split.channel_of(Recall(users=[User(user_id="ann")], split_key="other")) == "b"
    half = Split({"b": 0.5})
    by_key = {half.channel_of(Recall(users=[User(user_id="ann")], split_key=key)) for key in KEYS[:50]}
    assert by_key == {"", "b"}  # the key, not the user


def test_a_key_that_is_too_long() -> None:
    split = Split({})
    assert split.channel_of(Recall(split_key="é" * 64)) == ""
    with pytest.raises(InvalidRequestError, match=f"split_key: has 130 bytes, the limit is {MAX_KEY_BYTES}"):
        split.channel_of(Recall(split_key="é" * 65))


def test_the_options() -> None:
    assert load_settings([]).channels == ("live",)
    settings = load_settings(["--channel", "live", "--channel", "b", "--channel", "uk-home", "--split", "b=0.1"])
    assert (settings.channels, settings.splits) == (("live", "b", "uk-home"), {"b": 0.1})


def test_the_options_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECALL_CHANNEL", "live, b")
    monkeypatch.setenv("RECALL_SPLIT", "b=.25")
    settings = load_settings([])
    assert (settings.channels, settings.splits) == (("live", "b"), {"b": 0.25})


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--channel", "B"], "--channel is 'B': expected 1 to 32 of a-z, 0-9 and -, from a letter on"),
        (["--channel", "a_b"], "--channel is 'a_b': expected 1 to 32"),
        (["--channel", "b", "--channel", "b"], "--channel is b twice"),
        ([f for n in range(17) for f in ("--channel", f"c{n}")], "--channel is given 17 times, the limit is 16"),
        (["--split", "b=0.1"], "--split is b=0.1: expected one of the other channels of the server"),
        (["--split", "live=0.1"], "--split is live=0.1: .* other channels of the server; live gets what is left"),
        (["--channel", "live", "--channel", "b", "--split", "b=1.5"], "--split is 'b=1.5': expected a channel and a"),
        (["--channel", "live", "--channel", "b", "--split", "b=nan"], "--split is 'b=nan': expected a channel and a"),
        (["--channel", "live", "--channel", "b", "--split", "b=0"], "--split is 'b=0': expected a channel and a"),
        (["--channel", "live", "--channel", "b", "--split", "b"], "--split is 'b': expected a channel and a share"),
        (
            ["--channel", "live", "--channel", "b", "--split", "b=0.1", "--split", "b=0.2"],
            "--split is given twice for b",
        ),
        (
            ["--channel", "live", "--channel", "b", "--channel", "c", "--split", "b=0.6", "--split", "c=0.5"],
            "--split is 1.1 for all channels together, the limit is 1",
        ),
    ],
)
def test_options_that_cannot_work(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_settings(words)
