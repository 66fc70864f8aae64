"""Examines a Milvus step by step: what it is, and whether everything works that this project uses.

The trial runs in a database of its own. Milvus Lite has no use for databases, and a user may not be allowed to create
one; then the trial uses collections and an alias with names of their own. It never touches another collection or alias,
and it removes all that it made, also after Ctrl-C.
"""

import secrets
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

from indexer.doctor.diagnosis import Diagnosis, NoteError, WrongAnswerError
from indexer.doctor.trial import NOTHING, Trial
from mind.milvus.connection import Connection
from mind.milvus.errors import StoreDeniedError, StoreError, StoreTimeoutError, StoreUnavailableError
from mind.milvus.inspection import Inspection
from mind.milvus.store import Store
from mind.milvus.version import caution, danger

WAIT_S = 50
"""Maximum time in seconds of a flush, an index or a load of the few rows of the trial."""
CLOCK_S = 5
"""Minimum difference between two clocks, in seconds, that is reported."""


def examine(
    connection: Connection, on_step: Callable[[str], None] = lambda name: None, diagnosis: Diagnosis | None = None
) -> Diagnosis:
    """Examine a Milvus. All that is made for the examination is removed at the end, also after an error.

    Args:
        connection: the address and the credentials.
        on_step: called with the name of each step before the step begins.
        diagnosis: gets the steps. The default is a new one.
    """
    connection = replace(connection, wait_s=min(connection.wait_s, WAIT_S))
    examination = _Examination(connection, on_step, diagnosis or Diagnosis(connection.shown))
    examination.run()
    return examination.diagnosis


class _Examination:
    def __init__(self, connection: Connection, on_step: Callable[[str], None], diagnosis: Diagnosis) -> None:
        self.diagnosis = diagnosis
        self._connection = connection
        self._on_step = on_step
        self._store: Store

    def run(self) -> None:
        if not self._step("connect", self._connect):
            return
        with self._store as store:
            asked = Inspection(store.session)
            self._step("version", lambda: self._version(store))
            self._step("edition", lambda: _edition(asked))
            self._step("clock", lambda: _clock(store, asked))
            own = f"recall_doctor_{secrets.token_hex(4)}"
            try:
                if self._step("own database", lambda: self._own_database(store, asked, own)):
                    with Store(self._inside(own)) as inside:
                        self._trial(inside)
                elif self.diagnosis.is_ok("own database"):
                    self._trial(store)
            finally:
                self._clean("drop database", lambda: self._drop_database(asked, own))

    def _own_database(self, store: Store, asked: Inspection, name: str) -> str:
        """Create a database, and check that collections can be created in it."""
        if _is_lite(store):
            raise NoteError("Milvus Lite: the trial uses collections of its own")
        try:
            asked.create_database(name)
            with Store(self._inside(name)) as inside:
                inside.create("probe", 2, {})
                Inspection(inside.session).drop("probe")
        except StoreUnavailableError:
            raise
        except StoreError as error:  # rights are granted by database, so those for a new database may be missing
            self._drop_database(asked, name)
            raise NoteError(f"not possible, so the trial uses collections of its own ({error})") from error
        return f"{name}, one of {len(asked.databases())}"

    def _drop_database(self, asked: Inspection, name: str) -> str:
        """Drop the database of the trial, and all that an interrupted trial left in it."""
        try:
            if name not in asked.databases():
                return NOTHING
            with Store(self._inside(name)) as inside:
                for collection in inside.collections():
                    Inspection(inside.session).drop(collection)
            asked.drop_database(name)
        except StoreDeniedError as error:
            if not self.diagnosis.is_ok("own database"):
                return NOTHING  # a user who may not list databases has not made one
            raise WrongAnswerError(f"{error}; drop the database {name} yourself") from error
        except StoreError as error:
            raise WrongAnswerError(f"{error}; drop the database {name} yourself, if it is there") from error
        return ""

    def _inside(self, database: str) -> Connection:
        return replace(self._connection, uri=_root(self._connection.uri), db_name=database)

    def _step(self, name: str, work: Callable[[], str], *needs: str) -> bool:
        self._on_step(name)
        return self.diagnosis.add(name, work, needs)

    def _connect(self) -> str:
        self._store = Store(self._connection)
        return ""

    def _version(self, store: Store) -> str:
        self.diagnosis.version = version = store.version()
        if says := danger(version):
            raise WrongAnswerError(says)
        if says := caution(version):
            raise NoteError(says.partition(";")[0])
        return f"{version}, which is tested"

    def _trial(self, store: Store) -> None:
        trial = Trial(store, f"doctor_{secrets.token_hex(4)}")
        try:
            self._step("create", trial.create)
            self._step("insert", trial.insert, "create")
            self._step("flush", trial.flush, "insert")
            self._step("compact", trial.compact, "flush")
            self._step("index", trial.index, "insert")
            self._step("rename", trial.rename, "create")
            self._step("load", trial.load, "index")
            self._step("count", trial.count, "load")
            self._step("search", trial.search, "load")
            self._step("filter", trial.filter, "load")
            self._step("order", trial.order, "load")
            self._step("change", trial.change, "load")
            self._step("limits", trial.limits, "load")
            self._step("alias", trial.alias, "create")
        finally:
            self._clean("drop", trial.remove)

    def _clean(self, name: str, work: Callable[[], str]) -> None:
        """Remove what was made, even if Milvus did not answer a moment ago. Add no step if nothing was made."""
        self.diagnosis.silent = False
        self._step(name, work)
        if self.diagnosis.steps[-1].detail == NOTHING:
            self.diagnosis.steps.pop()


def _is_lite(store: Store) -> bool:
    return store.connection.is_lite or store.version().is_lite


def _edition(asked: Inspection) -> str:
    edition = asked.edition()
    if not edition:
        raise NoteError("Milvus does not say how it is deployed")
    return edition.capitalize()


def _clock(store: Store, asked: Inspection) -> str:
    if _is_lite(store):
        raise NoteError("Milvus Lite uses the clock of its machine")
    try:
        ahead_s = asked.clock_ahead_s()
    except StoreTimeoutError:
        raise
    except StoreError as error:  # a cloud service may not have the call
        raise NoteError("Milvus does not tell its time") from error
    says = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine"
    if abs(ahead_s) > CLOCK_S:
        raise NoteError(f"{says}: times in logs and in `status` differ; releases do not depend on clocks")
    return says


def _root(uri: str) -> str:
    """Return an address without its path, because pymilvus takes the path for the name of a database."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}"
