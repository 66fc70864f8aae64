"""The errors of the indexer. An error of Milvus is a `StoreError` (`mind.milvus.errors`).

IndexerError
├── AttributesError      an input file cannot be used
├── VerificationError    a collection does not hold what it was built from, or its index finds too little
├── TuningError          no index reaches the wanted recall, or too few histories can be used to measure
├── ServersError         a server did not answer, refused a release, or did not take it over in time
├── NightlyError         a step of the night shift failed
│   └── LockedError      another run of it holds the lock
├── NothingToDoError     there is no collection to publish, count or roll back to
└── RefusedError         the command would do harm or cannot work
"""


class IndexerError(Exception):
    """An error whose message tells users everything: the file, collection or option, the value and the limit."""


class AttributesError(IndexerError):
    """A file of attributes, vectors or ids cannot be used."""


class VerificationError(IndexerError):
    """A collection does not hold what it was built from, or its index finds too little."""


class TuningError(IndexerError):
    """No index reaches the wanted recall, or too few histories can be used to measure."""


class ServersError(IndexerError):
    """A server did not answer, refused a release, or did not take it over in time."""


class NightlyError(IndexerError):
    """A step of the night shift failed."""


class LockedError(NightlyError):
    """Another run of the night shift holds the lock."""


class NothingToDoError(IndexerError):
    """There is no collection to publish, count or roll back to."""


class RefusedError(IndexerError):
    """The command would do harm or cannot work."""
