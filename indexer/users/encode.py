"""Encodes the remembered users with the model of a release, before servers switch to it.

The vectors of users are derived from their histories. A user whose vectors already match the history is skipped, so the
job may be killed and run again. After writing vectors the job reads the histories again under strong consistency, so a
user who was deleted meanwhile does not come back. Servers do the same (`server.users.vectors`) after the switch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from indexer.errors import RefusedError
from indexer.model import load_model
from indexer.progress import Progress
from mind.artifact import Artifact
from mind.encoder import NumpyEncoder, check_golden
from mind.milvus.collection import is_item_collection
from mind.milvus.histories import HISTORIES, TOMBSTONE_MS, StoredUser, is_old, tidied
from mind.milvus.shown import MAX_SHOWN, SHOWN, TTL_DAYS, counting, counts_since
from mind.milvus.store import Store
from mind.milvus.user_store import UserStore, remembered
from mind.milvus.users import CLOCK_MARGIN_MS, UserVectors, is_user_vectors, now_ms, unit_interests, user_id_of
from mind.transfer import Models

PAGE_USERS = 2_000
"""Number of users that are read, encoded and written at once."""
PAGE_VECTORS = 10_000
"""Number of vectors whose users are looked up at once."""
PAGE_SHOWN = 500
"""Number of rows of what users were shown whose users are read at once: a row takes up to 70 KB."""
PAGE_ROWS = 10_000
"""Number of rows of histories whose keys are read at once."""
MAX_ROUNDS = 10
"""How often a user is encoded again because its history changed meanwhile. After that the servers do it."""


@dataclass(frozen=True)
class Encoded:
    """How many users are remembered, and how many of them were encoded."""

    users: int
    """Number of remembered users. Until `purge-users` moves the earlier format, users in both formats count twice."""
    encoded: int
    """Number of users whose vectors were missing or outdated, so that they were encoded now."""


def encode_users(store: Store, model_version: str, models: Models, on_progress: Progress) -> Encoded | None:
    """Encode the users whose vectors for a model are missing or outdated.

    The histories are written to Milvus' storage first, because Milvus 2.3.5, ended twice by SIGKILL within a minute,
    was seen to lose users whom it had acknowledged and had in its log alone.

    Args:
        store: the connection to Milvus.
        model_version: the version of the model of the next release.
        models: where models are stored.
        on_progress: called with the stage, the number of users done, and the number of all users.

    Returns:
        None if no users are remembered.

    Raises:
        RefusedError: users are remembered, but the model to encode them with cannot be used.
    """
    users = UserStore(store)
    total = users.count() if users.exists() else 0
    if not total:
        return None
    try:
        model = load_model(models, model_version)
    except RefusedError as error:
        why = f"{total:,} users are remembered and must be encoded with model {model_version}"
        raise RefusedError(f"{why}: {error}") from error
    users.secure()
    UserStore(store, SHOWN).secure()
    return _Encoding(users, model, on_progress).run(total)


def forget_models(store: Store, on_drop: Callable[[str], None]) -> None:
    """Drop the user vectors of models that have no item collection any more. Histories stay."""
    names = store.collections()
    kept = {name.split("_")[1] for name in filter(is_item_collection, names)}
    for name in filter(is_user_vectors, names):
        if name.split("_")[1] not in kept:
            store.drop(name)
            on_drop(name)


def purge(store: Store, on_purge: Callable[[str], None], shown_ttl_days: float = TTL_DAYS) -> None:
    """Tidy the histories, delete the vectors of users who are not remembered any more, and compact all collections.

    Tombstones that are a day old are removed, and items that were shown to users too long ago. Histories of the earlier
    format move to the present one. So no server may write the earlier format any more.

    Args:
        store: the connection to Milvus.
        on_purge: called with the name of every collection whose compaction started.
        shown_ttl_days: how long an item counts as shown, as the servers have it.
    """
    users, shown = UserStore(store), UserStore(store, SHOWN)
    if not users.exists():
        return
    if shown.exists():
        _purge_shown(shown, counts_since(shown_ttl_days))
    users.count()  # loads the collections
    if HISTORIES in users.collections():  # otherwise all servers still write the earlier format
        tidy(users)
        users.remove_tombstones(now_ms() - TOMBSTONE_MS, PAGE_ROWS)
        users.drop_old()
    for vectors in users.vectors():
        store.load(vectors.collection)
        remove_orphans(users, vectors)
    for name in (*users.collections(), *shown.collections(), *(vectors.collection for vectors in users.vectors())):
        store.flush(name)
        users.compact(name)
        on_purge(name)


def _purge_shown(shown: UserStore, since: int) -> None:
    """Store what was shown to each user as few rows, without items that do not count. `since`: as in `counting`."""
    shown.count()  # loads the collection
    counts = partial(_counting, since=since)
    tidy(shown, counts, PAGE_SHOWN)
    for keys in shown.older(since, PAGE_SHOWN):
        _tidy(shown, {user_id_of(key) for key in keys}, counts)
    shown.remove_tombstones(now_ms() - TOMBSTONE_MS, PAGE_ROWS)


def _counting(user: StoredUser, since: int) -> StoredUser:
    return tidied(counting(user, MAX_SHOWN, since), MAX_SHOWN)


def tidy(users: UserStore, tidy_one: Callable[[StoredUser], StoredUser] = tidied, page_rows: int = PAGE_ROWS) -> None:
    """Store each history as one row of the present format, without clicks that do not count.

    Servers do that when they write a user. This does it for users of the earlier format, for users whom two servers
    wrote at the same moment, and for users whose server was killed while it wrote.
    """
    last = ""
    for keys in users.rows(page_rows):
        names = [user_id_of(key) for key in keys]
        several = {name for name, before in zip(names, [last, *names], strict=False) if name == before}
        last = names[-1]
        _tidy(users, several | {user_id_of(key) for key in keys if is_old(key)}, tidy_one)


def _tidy(users: UserStore, user_ids: set[str], tidy_one: Callable[[StoredUser], StoredUser]) -> None:
    for _ in range(MAX_ROUNDS):
        if not user_ids:
            break
        stored = users.read(user_ids)
        users.write({user_id: tidy_one(user) for user_id, user in stored.items()})
        heads = users.heads(stored)  # from now on every server sees the new rows
        users.remove([key for user in stored.values() for key in user.rows if is_old(key)])
        user_ids = {user_id for user_id, head in heads.items() if head.stale}  # a server deleted them meanwhile


def remove_orphans(users: UserStore, vectors: UserVectors) -> None:
    """Delete the vectors of users who are not remembered any more. The collection must be loaded."""
    for user_ids in users.encoded(vectors, PAGE_VECTORS):
        heads = users.heads(user_ids)
        gone = [user_id for user_id in user_ids if user_id not in heads or not heads[user_id].remembered]
        users.delete_vectors(vectors, gone)


class _Encoding:
    def __init__(self, users: UserStore, model: Artifact, on_progress: Progress) -> None:
        self._users = users
        self._model = model
        self._encoder = NumpyEncoder(model.weights, model.hyper_parameters)
        check_golden(self._encoder, model)
        self._on_progress = on_progress
        sizes = model.hyper_parameters.num_interests, model.hyper_parameters.embedding_dim
        wanted = UserVectors(model_version=model.model_version, num_interests=sizes[0], dim=sizes[1])
        self._vectors = users.open_vectors(wanted)

    def run(self, total: int) -> Encoded:
        """Encode all users, or those written since the last run. Then encode those written during this run.

        If there are fewer vectors than after the last run, all users are looked at: Milvus 2.3.5, ended by SIGKILL, was
        seen without the vectors of users whom it had acknowledged. Deletions leave fewer, too, and then only cost time.
        """
        if not self._vectors.complete:
            remove_orphans(self._users, self._vectors)  # a job that was killed may have left some
        encoded = 0
        lost = self._users.count_vectors(self._vectors) < self._vectors.rows
        since = 0 if lost else self._vectors.synced_from
        for _ in range(2):
            started = now_ms()
            encoded += self._pass(max(0, since - CLOCK_MARGIN_MS), total)
            since = started
            if encoded:
                self._on_progress("index", 0, 0)
                self._users.seal(self._vectors)
        rows = self._users.count_vectors(self._vectors)
        self._vectors = self._vectors.model_copy(update={"synced_from": since, "rows": rows})
        self._users.mark(self._vectors)
        return Encoded(total, encoded)

    def _pass(self, since: int, total: int) -> int:
        done = encoded = 0
        for page in self._users.since(since, PAGE_USERS):
            encoded += self._bring_into_step(page)
            done += len(page)
            self._on_progress("users", done, max(done, total))
        return encoded

    def _bring_into_step(self, page: dict[str, StoredUser]) -> int:
        encoded_at = self._users.encoded_at(self._vectors, list(page))
        users = {user_id: user for user_id, user in page.items() if encoded_at.get(user_id) != user.version}
        behind = len(users)
        for _ in range(MAX_ROUNDS):
            if not users:
                break
            users = self._write(users)
        return behind

    def _write(self, users: dict[str, StoredUser]) -> dict[str, StoredUser]:
        """Encode and store users. Return those whose histories were written meanwhile, as they are now."""
        weights = self._model.hyper_parameters
        histories = [user.hist_item for user in users.values()]
        interests = unit_interests(histories, self._model.vocabulary, self._encoder, weights)
        self._users.write_vectors(self._vectors, users, interests)
        now = {user_id: head.version for user_id, head in self._users.heads(users).items() if head.remembered}
        self._users.delete_vectors(self._vectors, [user_id for user_id in users if user_id not in now])
        changed = [user_id for user_id, user in users.items() if now.get(user_id, user.version) != user.version]
        return remembered(self._users.read(changed))
