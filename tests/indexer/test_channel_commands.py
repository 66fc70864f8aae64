"""The commands of channels: what people and schedulers see."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from indexer.__main__ import app
from indexer.catalogue import item_collections
from mind.milvus.channels import LIVE
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from tests.artifacts import make_artifact

B, HOME = "b", "uk-home"


@pytest.fixture
def invoke(milvus_uri: str) -> Callable[..., list[str]]:
    """Runs a command of the indexer; gives the lines that it prints, or those of its error."""
    runner = CliRunner(env={"RECALL_MILVUS_URI": milvus_uri})

    def invoke(*arguments: object, exit_code: int = 0) -> list[str]:
        result = runner.invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == exit_code, result.output
        return [" ".join(line.split()) for line in (result.stderr if exit_code else result.stdout).splitlines()]

    return invoke


def test_the_commands_of_channels(invoke: Callable[..., list[str]], milvus_uri: str, tmp_path: Path) -> None:
    models = ["--artifact", tmp_path / "models"]
    for seed in (0, 1):
        make_artifact(tmp_path / "models", items=120, seed=seed)
        invoke("build", "--index-type", "FLAT", *models, *([] if seed else ["--publish"]))
    with Store(Connection(milvus_uri)) as store:
        one, two = (collection.name for collection in item_collections(store))

    assert invoke("publish", "--channel", HOME, two, *models) == [f"channel uk-home: {two}"]
    assert invoke("publish", "--channel", HOME, one, *models) == [f"channel uk-home: {one}, previously {two}"]
    assert invoke("rollback", "--channel", HOME) == [f"channel uk-home: {two}, previously {one}"]
    assert invoke("publish", "--channel", HOME, two) == [f"channel uk-home: {two} was live already"]
    lines = invoke("status")
    assert [line.split()[:4] for line in lines[1:3]] == [[one, "120", "FLAT", "live"], [two, "120", "FLAT", "uk-home"]]
    assert lines[3:5] == ["", "channel collection items since (UTC)"]
    assert [line.split()[:3] for line in lines[5:]] == [["live", one, "120"], ["uk-home", two, "120"]]
    in_live, in_home = json.loads("".join(invoke("status", "--format", "json")))
    assert (in_live["state"], in_home["state"]) == ("live", "built")
    assert {name: each["live"] for name, each in in_live["channels"].items()} == {LIVE: True}
    assert {name: each["live"] for name, each in in_home["channels"].items()} == {HOME: True}
    assert in_home["channels"][HOME]["published_at"] > in_live["channels"][LIVE]["published_at"]

    assert invoke("delete", "--channel", HOME, "--ids", "1000,1007") == [f"collection {two}", "deleted 2 items"]
    assert (invoke("count"), invoke("count", "--channel", HOME)) == (["120"], ["118"])
    (tmp_path / "given.csv").write_text(f"item_id,embedding\n7,{'|'.join(['0.1'] * 16)}\n")
    changed = invoke("upsert", "--channel", HOME, "--vectors", tmp_path / "given.csv", *models)
    assert (changed[0], changed[-1]) == (f"collection {two}", "added 1 items, vectors given")
    assert [line.split()[2] for line in invoke("status") if line.startswith("uk-home")] == ["119"]

    invoke("delete", "--ids", "1014")
    promoted = invoke("promote", HOME, "--carry-over", *models)
    assert promoted[:2] == [f"promoted uk-home: {two}", f"carried changes of {one}"]
    assert (promoted[2:], invoke("count")) == (["deleted 1 items", f"live {two}, previously {one}"], ["118"])
    assert invoke("status")[1].split()[3:5] == ["2", "channels"]
    refused = f"error: {two}: the collection is live and in uk-home; publish another one there, `close` the channel, or"
    assert invoke("drop", two, "--yes", exit_code=1)[0].startswith(refused)
    assert invoke("close", HOME) == [f"closed uk-home, which was {two}; this collection stays"]
    assert len(invoke("status")) == 5  # two collections with their changes, and no table of channels
    assert invoke("prune", "--keep", "0") == [f"dropped {one}"]


def test_changes_of_live_are_carried_into_a_new_channel(
    invoke: Callable[..., list[str]], milvus_uri: str, tmp_path: Path
) -> None:
    models = ["--artifact", tmp_path / "models"]
    for seed in (0, 1, 2):
        make_artifact(tmp_path / "models", items=120, seed=seed)
        invoke("build", "--index-type", "FLAT", *models, *([] if seed else ["--publish"]))
    with Store(Connection(milvus_uri)) as store:
        first, *others = (collection.name for collection in item_collections(store))
    three, two = others
    invoke("delete", "--ids", "1000")
    told = invoke("publish", "--channel", B, two, *models)
    assert told[0] == f"channel b: {two}"
    assert told[1].startswith(f"warning 0 items added or changed and 1 deleted in {first} were not carried over; ")
    assert f"publish {two} --carry-over --channel b --artifact" in told[1]
    carried = invoke("publish", "--channel", B, two, "--carry-over", *models)  # what the warning says
    assert carried[:2] == [f"carried changes of {first}", "deleted 1 items"]
    invoke("delete", "--channel", B, "--ids", "1007")
    invoke("delete", "--ids", "1014")
    carried = invoke("publish", "--channel", B, three, "--carry-over", *models)  # the channel has a release now
    assert carried == [f"carried changes of {two}", "deleted 2 items", f"channel b: {three}, previously {two}"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["publish", "--channel", "B b"], "channel 'B b': 1 to 32 of a-z, 0-9 and -, from a letter on"),
        (["promote", "9"], "channel '9': 1 to 32 of a-z, 0-9 and -, from a letter on"),
        (["count", "items_x", "--channel", "b"], "give either a collection or --channel"),
        (
            ["delete", "--ids", "1", "--collection", "items_x", "--channel", "b"],
            "give either --collection or --channel",
        ),
    ],
)
def test_wrong_usage_is_told(invoke: Callable[..., list[str]], arguments: list[str], told: str) -> None:
    assert told in " ".join(" ".join(invoke(*arguments, exit_code=2)).replace("│", " ").split())


def test_what_does_not_exist_is_told(invoke: Callable[..., list[str]]) -> None:
    assert invoke("count", "--channel", B, exit_code=1) == [
        "error: no collection is live in channel b; name the collection to count"
    ]
    assert invoke("delete", "--ids", "1", "--channel", B, exit_code=1) == [
        "error: no collection is live in channel b; name the collection to change with --collection"
    ]
    assert invoke("close", B, exit_code=1) == [
        "error: channel b: there is no such channel; `python -m indexer status` lists them"
    ]
