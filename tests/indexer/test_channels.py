"""Several releases at once: publishing, rolling back, promoting and closing in channels, on both engines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from indexer.build import build, choose_index
from indexer.catalogue import channels_in, item_collections, live_one
from indexer.errors import NothingToDoError, RefusedError
from indexer.items.attributes import Attributes
from indexer.rollout.retire import drop, prune
from indexer.rollout.rollout import Rollout
from indexer.rollout.switch import close_channel
from mind.artifact import load_artifact
from mind.milvus.channels import LIVE, MAX_CHANNELS, alias_of
from mind.milvus.connection import Connection
from mind.milvus.records import RECORDS, OtherReleases, Published, channels_of
from mind.milvus.store import Store
from tests.artifacts import make_artifact
from tests.indexer.test_release import make_collection
from tests.releases import promote, publish, rollback

B, HOME = "b", "uk-home"


def states(store: Store, channel: str = LIVE) -> dict[str, str]:
    """Collection name to state, as a channel sees it."""
    return {collection.name: collection.state for collection in item_collections(store, channel)}


def live(store: Store) -> dict[str, str | None]:
    """Channel to what is live in it."""
    channels = channels_in(item_collections(store))
    return {channel: store.alias(alias_of(channel)) for channel in channels}


def test_each_channel_has_releases_of_its_own(milvus_uri: str) -> None:
    with Store(Connection(milvus_uri)) as store:
        one, two, three = (make_collection(store, number) for number in (1, 2, 3))
        assert publish(store, one) == Rollout(one, before=None)
        assert publish(store, two, B) == Rollout(two, before=None, channel=B)
        assert publish(store, one, B) == Rollout(one, before=two, channel=B)
        assert publish(store, three, B) == Rollout(three, before=one, channel=B)
        assert not publish(store, three, B).changed
        assert publish(store, two, HOME).live == two
        assert live(store) == {LIVE: one, B: three, HOME: two}
        assert states(store) == {one: "live", two: "built", three: "built"}
        assert states(store, B) == {three: "live", one: "published", two: "published"}

        assert rollback(store, channel=B) == Rollout(one, before=three, channel=B)
        assert rollback(store, channel=B).live == two
        with pytest.raises(NothingToDoError, match=f"{two} is live in channel b, and no earlier release is left"):
            rollback(store, channel=B)
        with pytest.raises(RefusedError, match=f"{one}: was not published before the live collection {two} in chan"):
            rollback(store, one, HOME)
        with pytest.raises(NothingToDoError, match=f"{one} is live, and no earlier release is left"):
            rollback(store)
        with pytest.raises(NothingToDoError, match="no collection is live in channel c, so there is nothing to roll"):
            rollback(store, channel="c")
        assert live(store) == {LIVE: one, B: two, HOME: two}


def test_numbers_count_across_channels_and_builds(milvus_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(Connection(milvus_uri)) as store:
        one, two = (make_collection(store, number) for number in (1, 2))
        monkeypatch.setattr("indexer.rollout.switch.now", lambda: "2001-01-01")
        for name, channel in ((one, B), (two, LIVE), (two, B), (one, LIVE)):
            publish(store, name, channel)
        records = store.records.items([one, two])
        numbers = {name: [record.published_in(each).number for each in (LIVE, B)] for name, record in records.items()}
        assert numbers == {one: [4, 1], two: [2, 3]}
        assert (rollback(store).live, rollback(store, channel=B).live) == (two, one)


def test_promote_moves_one_alias(milvus_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(Connection(milvus_uri)) as store:
        one, two = (make_collection(store, number) for number in (1, 2))
        publish(store, one)
        publish(store, two, B)
        moved, move = [], store.point_alias

        def recorded(name: str, alias: str) -> None:
            moved.append((name, alias))
            move(name, alias)

        monkeypatch.setattr(store, "point_alias", recorded)
        assert promote(store, B) == Rollout(two, before=one)
        assert moved == [(two, "live")]
        assert live(store) == {LIVE: two, B: two}
        assert not promote(store, B).changed
        assert rollback(store) == Rollout(one, before=two)
        assert live(store) == {LIVE: one, B: two}
        with pytest.raises(NothingToDoError, match="no collection is live in channel uk-home, so there is nothing to"):
            promote(store, HOME)
        with pytest.raises(RefusedError, match="live cannot be promoted"):
            promote(store, LIVE)


def test_close_keeps_the_collections(milvus_uri: str) -> None:
    with Store(Connection(milvus_uri)) as store:
        one, two = (make_collection(store, number) for number in (1, 2))
        for name, channel in ((one, LIVE), (one, B), (two, B), (two, HOME)):
            publish(store, name, channel)
        assert close_channel(store, B) == two
        assert live(store) == {LIVE: one, HOME: two}
        assert states(store, B) == {one: "built", two: "built"}
        with pytest.raises(NothingToDoError, match="channel b: there is no such channel"):
            close_channel(store, B)
        with pytest.raises(RefusedError, match="live cannot be closed"):
            close_channel(store, LIVE)
        publish(store, two, B)
        with pytest.raises(NothingToDoError, match="no earlier release is left to return to"):
            rollback(store, channel=B)


def test_a_close_that_was_cut_short_is_completed_by_the_same_command(
    milvus_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(Connection(milvus_uri)) as store:
        one = make_collection(store, 1)
        publish(store, one, B)
        with monkeypatch.context() as patch:
            patch.setattr(store.records, "write_release", _interrupted)
            with pytest.raises(KeyboardInterrupt):
                close_channel(store, B)
        assert live(store) == {LIVE: None, B: None}
        assert close_channel(store, B) is None
        assert live(store) == {LIVE: None}


def test_a_publish_that_overtakes_a_close_keeps_the_channel_open(
    milvus_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends after the close dropped the alias, and before the close withdraws the releases."""
    with Store(Connection(milvus_uri)) as store, Store(Connection(milvus_uri)) as other:
        one, two, three = (make_collection(store, number) for number in (1, 2, 3))
        for name in (one, two):
            publish(store, name, B)
        drop_alias = store.drop_alias

        def overtaken(alias: str) -> None:
            drop_alias(alias)
            publish(other, three, B)

        monkeypatch.setattr(store, "drop_alias", overtaken)
        with pytest.raises(RefusedError, match=f"{three} was published in channel b meanwhile, so the channel stays"):
            close_channel(store, B)
        assert states(store, B) == {three: "live", one: "built", two: "built"}
        (opened,) = (one for one in item_collections(store, B) if one.live)
        assert opened.published_at


def test_releases_that_are_cut_short_in_a_channel(milvus_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kill comes after the records were written, and before the alias moves."""
    with Store(Connection(milvus_uri)) as store:
        one, two, three, four = (make_collection(store, number) for number in (1, 2, 3, 4))
        for name in (one, two, three):
            publish(store, name, B)
        publish(store, four)

        def cut(command: Callable[..., Any], *arguments: Any, **named: Any) -> None:
            with monkeypatch.context() as patch:
                patch.setattr(store, "point_alias", _interrupted)
                with pytest.raises(KeyboardInterrupt):
                    command(store, *arguments, **named)

        cut(rollback, channel=B)
        assert states(store, B)[three] == "live"
        assert rollback(store, channel=B).live == two  # and not one
        cut(publish, three, B)
        assert rollback(store, channel=B).live == one  # three never became live
        cut(promote, B)
        assert live(store) == {LIVE: four, B: one}
        assert promote(store, B) == Rollout(one, before=four)
        cut(publish, two, HOME)
        assert live(store) == {LIVE: one, B: one, HOME: None}
        assert publish(store, two, HOME) == Rollout(two, before=None, channel=HOME)
        assert rollback(store) == Rollout(four, before=one)


def test_a_close_during_a_publish_leaves_no_channel_without_a_number(
    milvus_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It withdraws the number of the release that is about to become live."""
    with Store(Connection(milvus_uri)) as store, Store(Connection(milvus_uri)) as other:
        one, two = (make_collection(store, number) for number in (1, 2))
        publish(store, one, B)
        move = store.point_alias

        def late(name: str, alias: str) -> None:
            close_channel(other, B)
            move(name, alias)

        monkeypatch.setattr(store, "point_alias", late)
        publish(store, two, B)
        assert live(store) == {LIVE: None, B: two}
        assert states(store, B) == {two: "live", one: "built"}


def test_two_channels_get_the_same_collection_at_once(milvus_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command reads the releases of the collection before the other one writes its own."""
    with Store(Connection(milvus_uri)) as store, Store(Connection(milvus_uri)) as other:
        one, two, three = (make_collection(store, number) for number in (1, 2, 3))
        for channel in (LIVE, B, HOME):
            publish(store, one, channel)
        write = store.records.write_release

        def late(*arguments: Any) -> None:
            monkeypatch.undo()
            publish(other, two, HOME)
            publish(other, two)
            write(*arguments)

        monkeypatch.setattr(store.records, "write_release", late)
        publish(store, two, B)
        for channel in (LIVE, B, HOME):
            assert states(store, channel) == {two: "live", one: "published", three: "built"}
            publish(store, three, channel)
            assert rollback(store, channel=channel).live == two


def test_prune_keeps_what_is_live_in_a_channel_and_its_way_back(milvus_uri: str) -> None:
    with Store(Connection(milvus_uri)) as store:
        first, second, back_b, in_b, old, back, in_live = (make_collection(store, number) for number in range(1, 8))
        for name, channel in ((first, B), (back_b, B), (in_b, B), (old, LIVE), (back, LIVE), (in_live, LIVE)):
            publish(store, name, channel)
        dropped: list[str] = []
        prune(store, keep=1, incomplete=False, in_use=set(), on_drop=dropped.append)
        assert sorted(dropped) == [first, second, old]
        assert rollback(store, channel=B) == Rollout(back_b, before=in_b, channel=B)
        assert rollback(store) == Rollout(back, before=in_live)
        prune(store, keep=0, incomplete=False, in_use=set(), on_drop=dropped.append)
        assert states(store) == {back: "live", back_b: "built"}
        assert live(store) == {LIVE: back, B: back_b}


def test_drop_refuses_what_is_live_in_any_channel(milvus_uri: str) -> None:
    with Store(Connection(milvus_uri)) as store:
        one, two = (make_collection(store, number) for number in (1, 2))
        for name, channel in ((one, LIVE), (two, B), (two, HOME)):
            publish(store, name, channel)
        with pytest.raises(RefusedError, match=f"{two}: the collection is live in b, uk-home; publish another one the"):
            drop(store, two, allow_live=False)
        publish(store, one, B)
        with pytest.raises(RefusedError, match=f"{one}: the collection is live and in b; publish another one there"):
            drop(store, one, allow_live=False)
        drop(store, one, allow_live=True)
        assert live(store) == {LIVE: None, B: None, HOME: two}
        drop(store, two, allow_live=True)
        assert live(store) == {LIVE: None}
        assert store.records.items([one, two]) == {}


@pytest.mark.parametrize("opened_before", [True, False])
def test_what_is_published_in_a_channel_while_it_is_pruned_is_kept(
    milvus_uri: str, opened_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(Connection(milvus_uri)) as store, Store(Connection(milvus_uri)) as other:
        one, two = (make_collection(store, number) for number in (1, 2))
        publish(store, one)
        if opened_before:
            publish(store, one, B)
        rename = store.rename

        def renamed(name: str, to: str) -> bool:
            monkeypatch.undo()
            publish(other, two, B)
            return rename(name, to)

        monkeypatch.setattr(store, "rename", renamed)
        prune(store, 0, False, set(), lambda name: pytest.fail(f"{name} was dropped"))
        assert live(store) == {LIVE: one, B: two}
        assert store.count(two) == 3


def test_what_is_dropped_while_it_is_published_in_a_new_channel(
    milvus_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(Connection(milvus_uri)) as store, Store(Connection(milvus_uri)) as other:
        one, two = (make_collection(store, number) for number in (1, 2))
        publish(store, one)
        write = store.records.write_release

        def late(*arguments: Any) -> None:
            drop(other, two, allow_live=False)
            write(*arguments)

        monkeypatch.setattr(store.records, "write_release", late)
        with pytest.raises(Exception, match=two):
            publish(store, two, B)
        assert (live(store), states(store)) == ({LIVE: one}, {one: "live"})


def test_a_name_that_is_taken_again_has_no_releases(milvus_uri: str) -> None:
    with Store(Connection(milvus_uri)) as store:
        one, two = (make_collection(store, number) for number in (1, 2))
        publish(store, one, B)
        publish(store, two, B)
        drop(store, one, allow_live=False)
        make_collection(store, 1)
        assert states(store, B) == {two: "live", one: "built"}


def test_a_record_of_an_earlier_version_is_in_no_other_channel(milvus_uri: str) -> None:
    with Store(Connection(milvus_uri)) as store:
        one = make_collection(store, 1, published="2024-01-01", release=7)
        store.point_alias(one)
        (found,) = item_collections(store)
        assert (found.order, channels_in([found])) == ((7, "2024-01-01"), [LIVE])
        publish(store, one, B)
        record = store.records.items([one])[one]
        assert (record.published_in(LIVE).number, record.published_in(B).number) == (7, 8)
        rows = store.session.client.query(RECORDS, filter=f'collection_name == "{one}"', output_fields=["record"])
        assert "channels" not in rows[0]["record"]  # servers of earlier versions refuse fields that they do not know


def test_a_build_takes_what_a_channel_has_for_live(milvus_uri: str, tmp_path: Path) -> None:
    model = load_artifact(make_artifact(tmp_path / "models", items=120))
    with Store(Connection(milvus_uri)) as store:
        index = choose_index(store.connection.is_lite, "FLAT", {}, {})
        built = build(store, model, Attributes(), index).collection
        publish(store, make_collection(store, 1), B)
        store.records.delete(built)
        store.point_alias(built, alias_of(B))
        with pytest.raises(RefusedError, match=f"{built}: a collection of this name exists, is live and has no rel"):
            build(store, model, Attributes(), index)
        assert store.alias(alias_of(B)) == built


def test_a_build_does_not_inherit_the_releases_of_a_drop_that_was_cut_short(
    milvus_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record was deleted, and the row of its releases in other channels was not."""
    model = load_artifact(make_artifact(tmp_path / "models", items=120))
    with Store(Connection(milvus_uri)) as store:
        index = choose_index(store.connection.is_lite, "FLAT", {}, {})
        built = build(store, model, Attributes(), index).collection
        publish(store, built, B)
        publish(store, make_collection(store, 1), B)
        row = OtherReleases.read(store.records._of(built)[channels_of(built)])
        drop(store, built, allow_live=False)
        store.records._write(channels_of(built), row.with_release(HOME, Published(number=9, at="2024-01-01")))
        assert build(store, model, Attributes(), index).collection == built
        assert channels_in(item_collections(store)) == [LIVE, B]
        assert states(store, B)[built] == "built"


def test_there_is_a_maximum_of_channels(lite: str) -> None:
    with Store(Connection(lite)) as store:
        one = make_collection(store, 1)
        publish(store, one)
        for number in range(1, MAX_CHANNELS):
            publish(store, one, f"c{number}")
        with pytest.raises(
            RefusedError, match=f"channel b: there are {MAX_CHANNELS} channels .live, c1, .*the maximum"
        ):
            publish(store, one, B)
        publish(store, one, "c1")
        close_channel(store, "c1")
        publish(store, one, B)
        with pytest.raises(ValueError, match="channel 'B b': 1 to 32 of"):
            publish(store, one, "B b")
        assert live_one(item_collections(store, B)) is not None


def _interrupted(*_: Any) -> None:
    raise KeyboardInterrupt
