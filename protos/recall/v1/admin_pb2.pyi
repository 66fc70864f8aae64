from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class DropItemsRequest(_message.Message):
    __slots__ = ("collection", "allow_live")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    ALLOW_LIVE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    allow_live: bool
    def __init__(self, collection: _Optional[str] = ..., allow_live: bool = ...) -> None: ...

class DropItemsResponse(_message.Message):
    __slots__ = ("collection", "dropped_count")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DROPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    dropped_count: int
    def __init__(self, collection: _Optional[str] = ..., dropped_count: _Optional[int] = ...) -> None: ...

class ReloadRequest(_message.Message):
    __slots__ = ("channel",)
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    channel: str
    def __init__(self, channel: _Optional[str] = ...) -> None: ...

class ReloadResponse(_message.Message):
    __slots__ = ("model_version", "collection", "previous_model_version", "previous_collection", "channel")
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_COLLECTION_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    model_version: str
    collection: str
    previous_model_version: str
    previous_collection: str
    channel: str
    def __init__(self, model_version: _Optional[str] = ..., collection: _Optional[str] = ..., previous_model_version: _Optional[str] = ..., previous_collection: _Optional[str] = ..., channel: _Optional[str] = ...) -> None: ...
