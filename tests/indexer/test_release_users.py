"""Remembered users across releases, on both engines: encoded before the switch, never resurrected, never forgotten."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from indexer.build import build, choose_index
from indexer.catalogue import item_collections
from indexer.errors import RefusedError
from indexer.items.attributes import Attributes
from indexer.rollout import rollout
from indexer.rollout.retire import prune
from indexer.rollout.switch import close_channel
from indexer.users.encode import Encoded, encode_users, forget_models, purge
from mind.artifact import Artifact, load_artifact
from mind.encoder import NumpyEncoder
from mind.milvus import histories, schemas
from mind.milvus.aio_user_store import MilvusUserStore
from mind.milvus.connection import Connection
from mind.milvus.histories import HISTORIES, StoredUser, appended, deleted, replaced, tidied
from mind.milvus.shown import DAY_MS, SHOWN, added
from mind.milvus.store import Store
from mind.milvus.user_store import UserStore
from mind.milvus.users import (
    CLOCK_MARGIN_MS,
    HIST_ITEM,
    UNUSED,
    UPDATED_AT,
    USER_KEY,
    USERS,
    UserVectors,
    interest_keys,
    now_ms,
    unit_interests,
)
from mind.transfer import Models
from tests import ROOT
from tests.artifacts import make_artifact
from tests.commands import run_here
from tests.conftest import release_lite
from tests.releases import item_store, publish
from tests.server.test_user_store import remove_user_collections


@dataclass
class World:
    """Two models in one Milvus, the first of which is released."""

    uri: str
    artifacts: Path
    first: Artifact
    second: Artifact

    def on_server(self, *work: str, **users: list[int]) -> None:
        """Write users as a server would, or delete them."""
        asyncio.run(self._on_server(work, users))

    async def _on_server(self, gone: tuple[str, ...], users: dict[str, list[int]]) -> None:
        connection = item_store(self.uri, timeout_s=20)
        store = MilvusUserStore(connection)
        await store.open()
        stored = await store.read([*users, *gone], strong=True)
        written = {name: replaced(stored.get(name), np.array(ids, np.int64), 500) for name, ids in users.items()}
        await store.write(written | {name: deleted(stored[name]) for name in gone})
        if gone:
            await store.forget(gone)
        await store.count()
        await connection.close()


@pytest.fixture
def world(milvus_uri: str, tmp_path: Path) -> Iterator[World]:
    remove_user_collections(milvus_uri)
    first, second = (load_artifact(make_artifact(tmp_path / "artifacts", seed=seed)) for seed in (0, 1))
    with Store(Connection(milvus_uri)) as store:
        for model in (second, first):
            index = choose_index(milvus_uri.endswith(".db"), None, {}, {})
            name = build(store, model, Attributes(), index).collection
        publish(store, name)
    yield World(milvus_uri, tmp_path / "artifacts", first, second)
    remove_user_collections(milvus_uri)


def encode(world: World, model: Artifact) -> Encoded | None:
    with Store(Connection(world.uri)) as store:
        return encode_users(store, model.model_version, Models(world.artifacts), lambda stage, done, total: None)


def vectors_of(world: World, model: Artifact) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    """Interest key to stored vector, strongly consistent."""
    with Store(Connection(world.uri)) as store:
        store.load(f"users_{model.model_version}")
        rows = store.session.client.query(
            f"users_{model.model_version}",
            filter="updated_at >= 0",
            output_fields=["interest_key", "embedding"],
            consistency_level="Strong",
        )
    return {row["interest_key"]: np.asarray(row["embedding"], np.float32) for row in rows}


def state_of(world: World, model: Artifact) -> UserVectors:
    with Store(Connection(world.uri)) as store:
        return next(v for v in UserStore(store).vectors() if v.model_version == model.model_version)


def test_users_are_encoded_before_the_switch_and_only_what_changed_later(world: World) -> None:
    assert encode(world, world.second) is None  # nobody is remembered
    world.on_server(ann=[1000, 1007], bob=[1014], odd=[5])
    assert encode(world, world.second) == Encoded(users=3, encoded=3 + 1)  # odd has no vectors: tried in both passes
    encoder = NumpyEncoder(world.second.weights, world.second.hyper_parameters)
    histories = [np.array(h, np.int64) for h in ([1000, 1007], [1014])]
    expected = unit_interests(histories, world.second.vocabulary, encoder, world.second.hyper_parameters)
    found = vectors_of(world, world.second)
    assert sorted(found) == sorted(interest_keys(["ann", "bob"], 4))
    for number, user_id in enumerate(("ann", "bob")):
        for interest in range(4):
            np.testing.assert_allclose(found[f"{user_id}/{interest}"], expected[number, interest], atol=1e-6)
    assert state_of(world, world.second).complete

    world.on_server("odd", ann=[1021])
    world.on_server("bob")
    assert encode(world, world.second) == Encoded(users=1, encoded=1)  # the switch back needs those alone
    [now] = unit_interests([np.array([1021])], world.second.vocabulary, encoder, world.second.hyper_parameters)
    found = vectors_of(world, world.second)
    assert sorted(found) == sorted(interest_keys(["ann"], 4))
    np.testing.assert_allclose(found["ann/0"], now[0], atol=1e-6)


def test_vectors_that_milvus_lost_are_written_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Milvus 2.3.5 was ended by SIGKILL twice, and the users of the next release had no vectors."""
    later = 10 * CLOCK_MARGIN_MS  # than the users were written
    monkeypatch.setattr("indexer.users.encode.now_ms", lambda: now_ms() + later)
    world.on_server(ann=[1000, 1007], bob=[1014])
    assert encode(world, world.second) == Encoded(users=2, encoded=2)
    before = vectors_of(world, world.second)
    assert encode(world, world.second) == Encoded(users=2, encoded=0)
    with Store(Connection(world.uri)) as store:
        UserStore(store).delete_vectors(state_of(world, world.second), ["bob"])
    assert encode(world, world.second) == Encoded(users=2, encoded=1)
    found = vectors_of(world, world.second)
    assert found.keys() == before.keys()
    for key, vector in before.items():
        np.testing.assert_array_equal(found[key], vector)


def test_a_release_brings_the_histories_to_the_storage_of_milvus(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Milvus 2.3.5 was ended by SIGKILL twice within a minute, and lost users that were in its log alone."""
    flushed: list[str] = []
    flush = Store.flush

    def noted(store: Store, name: str, wait_s: float | None = None) -> None:
        flush(store, name, wait_s)
        flushed.append(name)

    monkeypatch.setattr(Store, "flush", noted)
    world.on_server(ann=[1000, 1007])
    assert encode(world, world.second) == Encoded(users=1, encoded=1)
    assert flushed[:2] == ([] if world.uri.endswith(".db") else [HISTORIES, SHOWN])  # Lite writes at once


def test_status_tells_of_vectors_that_milvus_lost(world: World) -> None:
    def told() -> tuple[str, str]:
        table, rows = (
            run_here("indexer", "status", "--milvus-uri", world.uri, "--format", form) for form in ("table", "json")
        )
        return table.stdout, next(row["users"] for row in json.loads(rows.stdout) if row["state"] == "live")

    with Store(Connection(world.uri)) as store:
        live = store.alias()
    world.on_server(ann=[1000, 1007], bob=[1014])
    encode(world, world.first)
    table, users = told()
    assert "vectors" not in table and users == ""
    with Store(Connection(world.uri)) as store:
        UserStore(store).delete_vectors(state_of(world, world.first), ["bob"])
    table, users = told()
    assert users in table
    assert users == (
        f"users_{world.first.model_version}: holds 4 vectors of remembered users, 8 after the last release; "
        "unless so many users were deleted since, Milvus lost some: "
        f"`python -m indexer publish {live}` encodes users again whose vectors are missing"
    )
    again = run_here("indexer", "publish", live, "--milvus-uri", world.uri, "--artifact", world.artifacts)
    assert again.returncode == 0
    assert told()[1] == ""


def test_a_release_without_the_artifact_is_refused_where_users_are_remembered(world: World) -> None:
    world.on_server(ann=[1000])
    version = world.second.model_version
    with Store(Connection(world.uri)) as store:
        with pytest.raises(RefusedError, match=f"model {version} cannot be used"):
            encode_users(store, version, Models(world.artifacts / "nowhere"), lambda stage, done, total: None)
        with pytest.raises(
            RefusedError,
            match=f"this is model {world.first.model_version}, but the collection was built from {version}",
        ):
            encode_users(
                store, version, Models(world.artifacts / world.first.model_version), lambda stage, done, total: None
            )


def test_users_deleted_or_written_while_they_are_encoded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.on_server(ann=[1000], bob=[1007], cid=[1014])
    write_vectors = UserStore.write_vectors
    meanwhile = iter([lambda: world.on_server("ann", bob=[1021])])

    def slow(
        store: UserStore,
        vectors: UserVectors,
        users: dict[str, StoredUser],
        interests: np.ndarray,  # type: ignore[type-arg]
    ) -> None:
        for work in meanwhile:
            work()  # after the histories were read, before their vectors are written
        write_vectors(store, vectors, users, interests)

    monkeypatch.setattr(UserStore, "write_vectors", slow)
    encode(world, world.second)
    found = vectors_of(world, world.second)
    assert sorted(found) == sorted(interest_keys(["bob", "cid"], 4))
    encoder = NumpyEncoder(world.second.weights, world.second.hyper_parameters)
    [now] = unit_interests([np.array([1021])], world.second.vocabulary, encoder, world.second.hyper_parameters)
    np.testing.assert_allclose(found["bob/0"], now[0], atol=1e-6)


def test_a_job_that_was_killed_goes_on_and_leaves_nobody_behind(world: World) -> None:
    world.on_server(**{f"u{n}": [1000 + 7 * (n % 200), 1007] for n in range(3_000)})
    script = """
import os, sys
from mind.milvus.user_store import UserStore
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from mind.transfer import Models
from indexer.users.encode import encode_users
def killed(*_):
    os.kill(os.getpid(), 9)
UserStore.heads = killed  # after the first vectors were written, before they were held against the histories
with Store(Connection(sys.argv[1])) as store:
    encode_users(store, sys.argv[2], Models(sys.argv[3]), lambda stage, done, total: None)
"""
    command = [sys.executable, "-c", script, world.uri, world.second.model_version, str(world.artifacts)]
    if world.uri.endswith(".db"):
        release_lite(world.uri)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    written = vectors_of(world, world.second)
    assert 0 < len(written) < 3_000 * 4 and not state_of(world, world.second).complete
    half = {key.partition("/")[0] for key in written}
    gone = sorted(half)[0]
    with Store(Connection(world.uri)) as store:  # as if deleted before the vectors were written
        UserStore(store).count()  # brings the histories into memory
        UserStore(store).remove(list(UserStore(store).read([gone])[gone].rows))
    encoded = encode(world, world.second)
    assert encoded and encoded.users == 2_999 and encoded.encoded == 3_000 - len(half)
    assert sorted(vectors_of(world, world.second)) == sorted(
        interest_keys([f"u{n}" for n in range(3_000) if f"u{n}" != gone], 4)
    )


def test_vectors_go_with_the_last_items_of_their_model_and_histories_stay(world: World) -> None:
    world.on_server(ann=[1000])
    encode(world, world.first)
    encode(world, world.second)
    dropped: list[str] = []
    with Store(Connection(world.uri)) as store:
        forget_models(store, dropped.append)
        assert dropped == []
        store.drop(next(name for name in store.collections() if world.second.model_version in name and "items" in name))
        forget_models(store, dropped.append)
        assert dropped == [f"users_{world.second.model_version}"]
        assert UserStore(store).count() == 1


def test_users_are_encoded_for_the_model_of_each_channel(world: World) -> None:
    world.on_server(ann=[1000])
    encode(world, world.first)
    models = Models(world.artifacts)
    gone: list[str] = []
    with Store(Connection(world.uri)) as store:
        second = next(one.name for one in item_collections(store) if not one.live)
        done = rollout.publish(store, models, second, channel="b")
        assert (done.channel, done.encoded) == ("b", Encoded(users=1, encoded=1))
        assert sorted(vectors_of(world, world.second)) == sorted(interest_keys(["ann"], 4))
        prune(store, 0, False, set(), gone.append)
        forget_models(store, gone.append)
        assert gone == []
        UserStore(store).delete_vectors(state_of(world, world.second), ["ann"])
    listed = json.loads(run_here("indexer", "status", "--format", "json", "--milvus-uri", world.uri).stdout)
    told = {row["collection"]: row["users"] for row in listed}
    assert f"`python -m indexer publish {second} --channel b` encodes users again" in told[second]
    with Store(Connection(world.uri)) as store:
        assert rollout.promote(store, models, "b").encoded == Encoded(users=1, encoded=1)
        close_channel(store, "b")
        prune(store, 0, False, set(), gone.append)
        forget_models(store, gone.append)
    assert len(gone) == 2 and all(world.first.model_version in name for name in gone)


def test_purging_removes_vectors_without_a_user(world: World) -> None:
    world.on_server(ann=[1000], bob=[1007])
    encode(world, world.first)
    purged: list[str] = []
    with Store(Connection(world.uri)) as store:
        UserStore(store).remove(list(UserStore(store).read(["ann"])["ann"].rows))
        purge(store, purged.append)
    assert purged == [HISTORIES, SHOWN, f"users_{world.first.model_version}"]
    assert sorted(vectors_of(world, world.first)) == sorted(interest_keys(["bob"], 4))


def test_purging_leaves_one_row_a_user_and_tombstones_of_the_last_day(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.on_server(ann=[1000], bob=[1007], cid=[1014])
    with Store(Connection(world.uri)) as store:
        users = UserStore(store)
        before = users.read(["ann", "bob", "cid"])
        both = [appended(before["ann"], np.array([click], np.int64), 500) for click in (1021, 1028)]
        for one in both:  # two servers at the same moment
            users.write({"ann": one})
        users.write({"bob": deleted(before["bob"])})
        users.write({"bob": appended(before["bob"], np.array([1035], np.int64), 500)})
        users.write({"bob": deleted(users.read(["bob"])["bob"])})
        users.write({"bob": before["bob"]})  # by a server that was killed before it could look again
        clicks = sorted(users.read(["ann"])["ann"].hist_item.tolist())
        assert clicks == [1000, 1021, 1028]

        purge(store, lambda name: None)
        after = users.read(["ann", "bob", "cid"])
        assert [len(after[name].rows) for name in ("ann", "bob", "cid")] == [1, 1, 1]
        assert sorted(after["ann"].hist_item.tolist()) == clicks
        assert after["bob"].hist_item.tolist() == [] and after["cid"].rows == before["cid"].rows
        rows = store.session.client.query(HISTORIES, filter="cut >= -1", output_fields=["hist_item"])
        assert sorted(item for row in rows for item in row["hist_item"]) == [1000, 1014, 1021, 1028]

        monkeypatch.setattr("indexer.users.encode.TOMBSTONE_MS", -60_000)  # a day later
        purge(store, lambda name: None)
        assert sorted(users.read(["ann", "bob", "cid"])) == ["ann", "cid"]


def test_purging_removes_what_was_shown_long_ago(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.on_server(ann=[1000])  # makes the collections
    now = now_ms()
    shown_to = {
        "ann": [(9, 1), (3, 2), (2, 3)],  # days ago, item
        "bob": [(9, 4)],
        "cid": [(1, 5)],
        "dan": [(9, 6), (3, 7)],
        "eve": [(1, 8)],
    }
    with Store(Connection(world.uri)) as store:
        shown = UserStore(store, SHOWN)
        for user_id, times in shown_to.items():
            for days, item in times:
                monkeypatch.setattr(histories, "now_ms", lambda days=days: now - days * DAY_MS)
                before = shown.read([user_id]).get(user_id)
                shown.write({user_id: added(before, np.array([item]), 5_000, since=-1)})
        monkeypatch.setattr(histories, "now_ms", lambda: now)
        shown.write({"eve": deleted(shown.read(["eve"])["eve"])})  # a row with an empty array
        before = shown.read(["dan"])["dan"]
        shown.write({"dan": tidied(before)})  # one row, and one of its items does not count
        purge(store, lambda name: None, shown_ttl_days=4)
        found = {user_id: user.hist_item.tolist() for user_id, user in shown.read(shown_to).items()}
        assert found == {"ann": [2, 3], "bob": [], "cid": [5], "dan": [7], "eve": []}
        rows = store.session.client.query(SHOWN, filter="cut >= -1", output_fields=["hist_item"])
        assert sorted(list(row["hist_item"]) for row in rows) == [[], [], [2, 3], [5], [7]]
        assert UserStore(store).read(["ann"])["ann"].hist_item.tolist() == [1000]
        monkeypatch.setattr("indexer.users.encode.TOMBSTONE_MS", -60_000)  # a day later
        purge(store, lambda name: None, shown_ttl_days=4)
        assert "bob" not in shown.read(["bob"])


def test_users_deleted_while_their_rows_are_tidied_do_not_come_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.on_server(ann=[1000])
    write = UserStore.write
    meanwhile = iter([lambda: world.on_server("ann")])

    def slow(store: UserStore, users: dict[str, StoredUser]) -> None:
        for work in meanwhile:
            work()  # after the rows were read, before they are stored as one
        write(store, users)

    with Store(Connection(world.uri)) as store:
        users = UserStore(store)
        before = users.read(["ann"])["ann"]
        for click in (1021, 1028):  # two servers at the same moment
            users.write({"ann": appended(before, np.array([click], np.int64), 500)})
        monkeypatch.setattr(UserStore, "write", slow)
        purge(store, lambda name: None)
        rows = store.session.client.query(
            HISTORIES, filter="cut >= -1", output_fields=["hist_item"], consistency_level="Strong"
        )
        assert [item for row in rows for item in row["hist_item"]] == []
        assert users.count() == 0


def test_purging_brings_histories_of_the_earlier_format_into_the_present_one(world: World) -> None:
    with Store(Connection(world.uri)) as store:
        store.create_collection(USERS, schemas.users())
        store.open(USERS, UNUSED)
        old = {"ann": [1000, 1007], "bob": [1014], "cid": [1021]}
        store.upsert(
            USERS, [{USER_KEY: id_, HIST_ITEM: ids, UPDATED_AT: 7, UNUSED: [0.0, 0.0]} for id_, ids in old.items()]
        )
    world.on_server("bob", cid=[1028])
    assert encode(world, world.second) == Encoded(users=3, encoded=2)  # cid counts in both formats
    purged: list[str] = []
    with Store(Connection(world.uri)) as store:
        purge(store, purged.append)
        assert purged[0] == HISTORIES and USERS not in store.collections()
        found = UserStore(store).read(["ann", "bob", "cid"])
    assert {id_: user.hist_item.tolist() for id_, user in found.items()} == {
        "ann": [1000, 1007],
        "bob": [],
        "cid": [1028],
    }
    assert sorted(vectors_of(world, world.second)) == sorted(interest_keys(["ann", "cid"], 4))
