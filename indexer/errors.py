"""What can go wrong while indexing, for people to read. What goes wrong with Milvus is a
`StoreError` (`mind.milvus.errors`).

IndexerError
├── AttributesError      an attributes file that cannot be used
├── VerificationError    a collection does not hold what it was built from
├── TuningError          no index reaches what was asked for, or there is nothing to measure with
├── ServersError         a server cannot be asked, refused a release, or did not take it over in time
├── NothingToDoError     there is no collection to publish, count or roll back to
└── RefusedError         asked for something that would do harm or cannot work
"""


class IndexerError(Exception):
    """The message names the file, collection or option, the value and the limit; it is all a user needs to see."""


class AttributesError(IndexerError):
    """An attributes file that cannot be used."""


class VerificationError(IndexerError):
    """A collection does not hold what it was built from."""


class TuningError(IndexerError):
    """No index reaches what was asked for, or there is nothing to measure with."""


class ServersError(IndexerError):
    """A server cannot be asked, refused a release, or did not take it over in time."""


class NothingToDoError(IndexerError):
    """There is no collection to publish, count or roll back to."""


class RefusedError(IndexerError):
    """Asked for something that would do harm or cannot work."""
