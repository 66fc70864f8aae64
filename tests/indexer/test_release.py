"""Publishing, rolling back, pruning and dropping, on both engines."""

from typing import Any

import numpy as np
import pytest

from indexer import verify
from indexer.catalogue import item_collections
from indexer.errors import IndexerError, NothingToDoError, RefusedError, VerificationError
from indexer.rollout.retire import drop, prune
from indexer.rollout.rollout import Rollout
from mind.milvus.collection import EMBEDDING, ITEM_ID, Fingerprint
from mind.milvus.connection import Connection
from mind.milvus.errors import StoreError
from mind.milvus.records import NAME, RECORDS, ItemRecord
from mind.milvus.store import Store
from tests.conftest import remove_item_collections
from tests.releases import publish, rollback


def make_collection(
    store: Store, number: int, published: str = "", release: int = 0, finished: bool = True, rows: int = 3
) -> str:
    """A collection for 3 items, built on January `number`."""
    fingerprint = Fingerprint(
        model_version=f"{number:012x}",
        dim=4,
        metric="IP",
        count=3,
        attributes={},
        attributes_digest="",
        index_type="FLAT",
        index_params={},
        search_params={},
    )
    name = fingerprint.collection
    store.create(name, 4, {})
    store.insert(name, [{ITEM_ID: row, EMBEDDING: np.ones(4, np.float32)} for row in range(rows)])
    store.index(name, "FLAT", {}, 0, lambda indexed: None)
    if finished:
        record = ItemRecord(
            fingerprint=fingerprint, built_at=f"2024-01-{number:02}", published_at=published, release=release
        )
        store.records.write(name, record)
    return name


def states(store: Store) -> dict[str, str]:
    """Collection name to state, in the order of `status`."""
    return {collection.name: collection.state for collection in item_collections(store)}


def test_publish_and_roll_back_along_the_releases(milvus_uri: str) -> None:
    with Store(Connection(milvus_uri)) as store:
        one, two, three = (make_collection(store, number) for number in (1, 2, 3))
        assert publish(store, one) == Rollout(one, before=None)
        assert publish(store, two) == Rollout(two, before=one)
        assert not publish(store, two).changed
        assert publish(store) == Rollout(three, before=two)  # the one that was finished last
        assert states(store) == {three: "live", two: "published", one: "published"}

        assert rollback(store) == Rollout(two, before=three)
        assert states(store) == {two: "live", one: "published", three: "built"}
        assert rollback(store, to=one) == Rollout(one, before=two)
        with pytest.raises(NothingToDoError, match=f"{one} is live, and no earlier release is left to return to"):
            rollback(store)

        publish(store, three)
        with pytest.raises(RefusedError, match=f"{two}: was not published before the live collection {three}"):
            rollback(store, to=two)
        assert rollback(store) == Rollout(one, before=three)  # not two: its release was taken back
        assert store.alias() == one


def test_only_a_whole_collection_is_published(milvus_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(Connection(milvus_uri)) as store:
        with pytest.raises(NothingToDoError, match="there is no finished collection to publish"):
            publish(store)
        with pytest.raises(NothingToDoError, match="no collection is live"):
            rollback(store)
        unfinished = make_collection(store, 1, finished=False)
        short = make_collection(store, 2, rows=2)
        with pytest.raises(RefusedError, match=f"{unfinished}: its build did not finish"):
            publish(store, unfinished)
        monkeypatch.setattr(verify, "SETTLE_S", 0)
        with pytest.raises(VerificationError, match=f"{short}: holds 2 rows, but the model has 3 items"):
            publish(store, short)
        with pytest.raises(NothingToDoError, match="items_x: there is no item collection with this name"):
            publish(store, "items_x")
        assert store.alias() is None
        assert states(store) == {short: "built", unfinished: "incomplete"}


def test_a_flush_that_never_ends_does_not_hold_up_a_release(
    milvus_server_uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    remove_item_collections(milvus_server_uri)
    monkeypatch.setattr("mind.milvus.store.SECURE_S", 0.2)
    with Store(Connection(milvus_server_uri)) as store:
        one = make_collection(store, 1)
        monkeypatch.setattr("pymilvus.client.grpc_handler.GrpcHandler.get_flush_state", lambda *_, **__: False)
        assert publish(store, one).live == one
    late = "Milvus did not write the rows of release_records to its storage within 0.2 s; see the log of Milvus"
    assert "the command goes on, because the log of Milvus has the rows" in caplog.text and late in caplog.text


def test_prune_keeps_the_live_one_and_the_newest_others(milvus_uri: str) -> None:
    with Store(Connection(milvus_uri)) as store:
        live = make_collection(store, 1, published="2024-01-01")
        old = make_collection(store, 2, published="2024-01-02")
        recent = make_collection(store, 3, published="2024-01-20")
        built = make_collection(store, 10)
        unfinished = make_collection(store, 11, finished=False)
        store.create("somebody_elses", 4, {})
        store.point_alias(live)
        dropped: list[str] = []
        prune(store, keep=2, incomplete=False, in_use=set(), on_drop=dropped.append)
        assert dropped == [old]
        prune(store, keep=0, incomplete=True, in_use={built}, on_drop=dropped.append)
        assert dropped == [old, recent, unfinished]
        prune(store, keep=0, incomplete=True, in_use=set(), on_drop=dropped.append)
        assert dropped == [old, recent, unfinished, built]
        assert states(store) == {live: "live"}
        assert "somebody_elses" in store.collections()
        store.drop("somebody_elses")


def test_prune_keeps_what_a_rollback_would_return_to(milvus_uri: str) -> None:
    with Store(Connection(milvus_uri)) as store:
        oldest, before, live = (make_collection(store, n, published=f"2024-01-{n:02}") for n in (1, 2, 3))
        newer, newest = make_collection(store, 10), make_collection(store, 11)
        store.point_alias(live)
        dropped: list[str] = []
        prune(store, keep=2, incomplete=False, in_use=set(), on_drop=dropped.append)
        assert dropped == [newer, oldest]
        prune(store, keep=1, incomplete=False, in_use=set(), on_drop=dropped.append)
        assert dropped == [newer, oldest, newest]
        assert rollback(store) == Rollout(before, before=live)


def test_drop_spares_the_live_one(milvus_uri: str) -> None:
    with Store(Connection(milvus_uri)) as store:
        live, other = make_collection(store, 1), make_collection(store, 2)
        store.point_alias(live)
        with pytest.raises(RefusedError, match=f"{live}: the collection is live; publish another one first"):
            drop(store, live, allow_live=False)
        with pytest.raises(NothingToDoError, match="live: there is no item collection with this name"):
            drop(store, "live", allow_live=True)
        drop(store, other, allow_live=False)
        assert states(store) == {live: "live"}
        drop(store, live, allow_live=True)
        assert (store.alias(), states(store)) == (None, {})


def test_publish_after_somebody_dropped_the_live_one(milvus_uri: str) -> None:
    with Store(Connection(milvus_uri)) as store:
        live, other = make_collection(store, 1), make_collection(store, 2)
        publish(store, live)
        store.drop(live)  # a Milvus server keeps the alias, and admits no second one of its name
        assert publish(store, other) == Rollout(other, before=None)
        assert store.alias() == other


def test_a_rollback_that_was_cut_short_is_completed_by_the_same_command(
    milvus_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(Connection(milvus_uri)) as store:
        one, two, three = (make_collection(store, number) for number in (1, 2, 3))
        for name in (one, two, three):
            publish(store, name)
        with monkeypatch.context() as patch:
            patch.setattr(store, "point_alias", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                rollback(store)
        assert states(store) == {three: "live", two: "published", one: "published"}
        assert rollback(store).live == two  # and not one
        assert states(store) == {two: "live", one: "published", three: "built"}


def test_a_publish_that_overtakes_a_rollback_can_be_returned_to(
    milvus_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(Connection(milvus_uri)) as store, Store(Connection(milvus_uri)) as other:
        one, two, three = (make_collection(store, number) for number in (1, 2, 3))
        publish(store, one)
        publish(store, two)
        move = store.point_alias

        def late(name: str, alias: str) -> None:
            rollback(other)  # withdraws the release that is about to become live
            move(name, alias)

        monkeypatch.setattr(store, "point_alias", late)
        publish(store, three)
        monkeypatch.undo()
        assert states(store) == {three: "live", one: "published", two: "built"}
        publish(store, two)
        assert rollback(store).live == three


def test_a_rollback_whose_target_is_dropped_meanwhile_changes_nothing(
    milvus_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(Connection(milvus_uri)) as store, Store(Connection(milvus_uri)) as other:
        one, two = (make_collection(store, number) for number in (1, 2))
        for name in (one, two):
            publish(store, name)
        before, move = store.records.items([two]), store.point_alias

        def late(name: str, alias: str) -> None:
            drop(other, one, allow_live=False)
            move(name, alias)

        monkeypatch.setattr(store, "point_alias", late)
        with pytest.raises(StoreError):
            rollback(store)
        assert states(store) == {two: "live"}
        assert store.records.items([two]) == before


def test_releases_are_ordered_by_their_numbers_whatever_the_clock_says(
    milvus_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(Connection(milvus_uri)) as store:
        one, two = (make_collection(store, number) for number in (1, 2))
        publish(store, one)
        monkeypatch.setattr("indexer.rollout.switch.now", lambda: "2001-01-01T00:00:00.000000+00:00")
        publish(store, two)  # by a machine whose clock is years behind
        assert rollback(store).live == one


def test_rows_of_records_that_milvus_shows_again_change_nothing(milvus_uri: str) -> None:
    """Milvus replaces a row by deleting it, and versions of it have shown deleted rows again."""
    with Store(Connection(milvus_uri)) as store:

        def rows() -> list[dict[str, Any]]:
            found = store.session.client.query(
                RECORDS, filter=f'{NAME} > ""', output_fields=["*"], consistency_level="Strong"
            )
            return [dict(row) for row in found]

        one, two, three = (make_collection(store, number) for number in (1, 2, 3))
        earlier = []
        for name in (one, two, three, one, two):
            earlier += rows()
            publish(store, name)
        expected = {two: "live", one: "published", three: "published"}
        assert states(store) == expected
        for row in earlier:
            store.upsert(RECORDS, [row])
        assert states(store) == expected
        assert rollback(store).live == one
        drop(store, two, allow_live=False)
        for row in earlier:
            store.upsert(RECORDS, [row])
        assert store.records.items([two]) == {}
        make_collection(store, 2)
        assert states(store) == {one: "live", three: "published", two: "built"}
        assert rollback(store).live == three


def test_what_is_dropped_while_it_is_published_is_published_or_gone(
    milvus_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another operator drops the collection just before it gets its number, and just before it becomes live."""
    with Store(Connection(milvus_uri)) as store, Store(Connection(milvus_uri)) as other:
        one = make_collection(store, 1)
        publish(store, one)
        for number, moment in ((2, "write"), (3, "point_alias")):
            doomed = make_collection(store, number)
            owner = store if moment == "point_alias" else store.records
            step = getattr(owner, moment)

            def dropped(*arguments: Any, step: Any = step, doomed: str = doomed) -> Any:
                monkeypatch.undo()
                drop(other, doomed, allow_live=False)
                return step(*arguments)

            monkeypatch.setattr(owner, moment, dropped)
            with pytest.raises((IndexerError, StoreError), match=doomed):
                publish(store, doomed)
            assert states(store) == {one: "live"}


@pytest.mark.parametrize("published_before", [True, False])
def test_what_is_published_while_it_is_pruned_is_kept_or_not_published(
    milvus_uri: str, published_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another operator publishes it after it was chosen to be dropped, just before or just after it loses its name."""
    with Store(Connection(milvus_uri)) as store, Store(Connection(milvus_uri)) as other:
        one, two = (make_collection(store, number) for number in (1, 2))
        publish(store, one)

        def renamed(name: str, to: str) -> bool:
            monkeypatch.undo()
            if published_before:
                publish(other, two)
                return store.rename(name, to)
            store.rename(name, to)
            with pytest.raises(NothingToDoError, match="there is no item collection with this name"):
                publish(other, two)
            return True

        monkeypatch.setattr(store, "rename", renamed)
        dropped: list[str] = []
        prune(store, 0, False, set(), dropped.append)
        if published_before:
            assert (states(store), dropped, rollback(store).live) == ({two: "live", one: "published"}, [], one)
        else:
            assert (states(store), dropped) == ({one: "live"}, [two])
            assert store.records.items([two]) == {}


def test_a_build_that_ends_while_its_predecessor_is_pruned_stays(
    milvus_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(Connection(milvus_uri)) as store:
        publish(store, make_collection(store, 1))
        old = make_collection(store, 2)
        rename = store.rename

        def renamed(name: str, to: str) -> bool:
            done = rename(name, to)
            store.create(name, 4, {})  # a build of the same model takes the name that is free now
            return done

        monkeypatch.setattr(store, "rename", renamed)
        dropped: list[str] = []
        prune(store, 0, False, set(), dropped.append)
        assert dropped == [old] and old in store.collections()
        assert not [name for name in store.collections() if name.startswith("building_")]


def test_two_prunes_at_once(milvus_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(Connection(milvus_uri)) as store, Store(Connection(milvus_uri)) as other:
        one, two = (make_collection(store, number) for number in (1, 2))
        publish(store, one)

        def renamed(name: str, to: str) -> bool:
            monkeypatch.undo()
            prune(other, 0, False, set(), lambda name: None)
            return store.rename(name, to)

        monkeypatch.setattr(store, "rename", renamed)
        prune(store, 0, False, set(), lambda name: pytest.fail(f"{name} was dropped twice"))
        assert states(store) == {one: "live"}
        assert two not in store.collections()


def test_a_rollback_that_is_refused_changes_nothing(milvus_uri: str) -> None:
    with Store(Connection(milvus_uri)) as store:
        one, two, three = (make_collection(store, number) for number in (1, 2, 3))
        for name in (one, two):
            publish(store, name)
        before = store.records.items([one, two, three])
        with pytest.raises(RefusedError):
            rollback(store, to=three)
        assert store.records.items([one, two, three]) == before
