"""The calls to Milvus that only `indexer doctor` makes. Every method may raise `StoreError`."""

import time

from mind.milvus import internals
from mind.milvus.session import Session


class Inspection:
    """Asks a Milvus about itself, and makes and removes a database."""

    def __init__(self, session: Session) -> None:
        """Use a connection."""
        self._session = session
        self._milvus = session.client
        self._timeout = session.timeout_s

    def edition(self) -> str:
        """Return how Milvus is deployed, in its own words, such as STANDALONE; empty if it does not say."""
        with self._session.calling("ask for the edition"):
            return str(self._milvus.get_server_version(timeout=self._timeout, detail=True).get("deploy_mode") or "")

    def clock_ahead_s(self) -> float:
        """Return by how many seconds the clock of Milvus is ahead of ours. The time of the call limits the accuracy."""
        before = time.time()
        with self._session.calling("ask for the time"):
            theirs = internals.time_ms(self._milvus, self._timeout) / 1000
        return theirs - (before + time.time()) / 2

    def databases(self) -> list[str]:
        """List the names of all databases."""
        with self._session.calling("list the databases"):
            return list(self._milvus.list_databases(timeout=self._timeout))

    def create_database(self, name: str) -> None:
        """Create a database."""
        with self._session.calling(f"create database {name}"):
            self._milvus.create_database(name, timeout=self._timeout)

    def drop_database(self, name: str) -> None:
        """Drop an empty database."""
        with self._session.calling(f"drop database {name}"):
            self._milvus.drop_database(name, timeout=self._timeout)

    def drop(self, name: str) -> None:
        """Drop a collection, and nothing else. It is no error if it does not exist."""
        with self._session.calling(f"drop {name}"):
            self._milvus.drop_collection(name, timeout=self._timeout)
