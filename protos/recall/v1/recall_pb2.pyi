from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MergeStrategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MERGE_STRATEGY_UNSPECIFIED: _ClassVar[MergeStrategy]
    MERGE_STRATEGY_BEST_SCORE: _ClassVar[MergeStrategy]
    MERGE_STRATEGY_ROUND_ROBIN: _ClassVar[MergeStrategy]

class Neighbours(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NEIGHBOURS_UNSPECIFIED: _ClassVar[Neighbours]
    NEIGHBOURS_ON: _ClassVar[Neighbours]
    NEIGHBOURS_OFF: _ClassVar[Neighbours]

class ReleaseRules(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RELEASE_RULES_UNSPECIFIED: _ClassVar[ReleaseRules]
    RELEASE_RULES_ON: _ClassVar[ReleaseRules]
    RELEASE_RULES_OFF: _ClassVar[ReleaseRules]

class UserStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    USER_STATUS_UNSPECIFIED: _ClassVar[UserStatus]
    USER_STATUS_OK: _ClassVar[UserStatus]
    USER_STATUS_EMPTY_HISTORY: _ClassVar[UserStatus]
    USER_STATUS_ALL_UNKNOWN: _ClassVar[UserStatus]
    USER_STATUS_INVALID: _ClassVar[UserStatus]
    USER_STATUS_DEGRADED: _ClassVar[UserStatus]
    USER_STATUS_UNKNOWN_USER: _ClassVar[UserStatus]

class Source(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SOURCE_UNSPECIFIED: _ClassVar[Source]
    SOURCE_SEARCH: _ClassVar[Source]
    SOURCE_NEIGHBOURS: _ClassVar[Source]
    SOURCE_BOTH: _ClassVar[Source]
    SOURCE_EXPLORE: _ClassVar[Source]
    SOURCE_PIN: _ClassVar[Source]

class IdType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ID_TYPE_UNSPECIFIED: _ClassVar[IdType]
    ID_TYPE_INTEGER: _ClassVar[IdType]
    ID_TYPE_TEXT: _ClassVar[IdType]

class DropReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DROP_REASON_UNSPECIFIED: _ClassVar[DropReason]
    DROP_REASON_DUPLICATE: _ClassVar[DropReason]
    DROP_REASON_HISTORY: _ClassVar[DropReason]
    DROP_REASON_EXCLUDED: _ClassVar[DropReason]
    DROP_REASON_BELOW_TOP_K: _ClassVar[DropReason]
    DROP_REASON_AT_MOST: _ClassVar[DropReason]
    DROP_REASON_DIVERSITY: _ClassVar[DropReason]
    DROP_REASON_PER_INTEREST_MIN: _ClassVar[DropReason]
    DROP_REASON_SHOWN: _ClassVar[DropReason]
    DROP_REASON_PINNED: _ClassVar[DropReason]

class ItemStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ITEM_STATUS_UNSPECIFIED: _ClassVar[ItemStatus]
    ITEM_STATUS_OK: _ClassVar[ItemStatus]
    ITEM_STATUS_UNKNOWN: _ClassVar[ItemStatus]
    ITEM_STATUS_INVALID: _ClassVar[ItemStatus]
    ITEM_STATUS_DEGRADED: _ClassVar[ItemStatus]
MERGE_STRATEGY_UNSPECIFIED: MergeStrategy
MERGE_STRATEGY_BEST_SCORE: MergeStrategy
MERGE_STRATEGY_ROUND_ROBIN: MergeStrategy
NEIGHBOURS_UNSPECIFIED: Neighbours
NEIGHBOURS_ON: Neighbours
NEIGHBOURS_OFF: Neighbours
RELEASE_RULES_UNSPECIFIED: ReleaseRules
RELEASE_RULES_ON: ReleaseRules
RELEASE_RULES_OFF: ReleaseRules
USER_STATUS_UNSPECIFIED: UserStatus
USER_STATUS_OK: UserStatus
USER_STATUS_EMPTY_HISTORY: UserStatus
USER_STATUS_ALL_UNKNOWN: UserStatus
USER_STATUS_INVALID: UserStatus
USER_STATUS_DEGRADED: UserStatus
USER_STATUS_UNKNOWN_USER: UserStatus
SOURCE_UNSPECIFIED: Source
SOURCE_SEARCH: Source
SOURCE_NEIGHBOURS: Source
SOURCE_BOTH: Source
SOURCE_EXPLORE: Source
SOURCE_PIN: Source
ID_TYPE_UNSPECIFIED: IdType
ID_TYPE_INTEGER: IdType
ID_TYPE_TEXT: IdType
DROP_REASON_UNSPECIFIED: DropReason
DROP_REASON_DUPLICATE: DropReason
DROP_REASON_HISTORY: DropReason
DROP_REASON_EXCLUDED: DropReason
DROP_REASON_BELOW_TOP_K: DropReason
DROP_REASON_AT_MOST: DropReason
DROP_REASON_DIVERSITY: DropReason
DROP_REASON_PER_INTEREST_MIN: DropReason
DROP_REASON_SHOWN: DropReason
DROP_REASON_PINNED: DropReason
ITEM_STATUS_UNSPECIFIED: ItemStatus
ITEM_STATUS_OK: ItemStatus
ITEM_STATUS_UNKNOWN: ItemStatus
ITEM_STATUS_INVALID: ItemStatus
ITEM_STATUS_DEGRADED: ItemStatus

class User(_message.Message):
    __slots__ = ("hist_item", "exclude_item_ids", "user_id", "hist_item_keys", "exclude_item_keys")
    HIST_ITEM_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    HIST_ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    hist_item: _containers.RepeatedScalarFieldContainer[int]
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[int]
    user_id: str
    hist_item_keys: _containers.RepeatedScalarFieldContainer[str]
    exclude_item_keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, hist_item: _Optional[_Iterable[int]] = ..., exclude_item_ids: _Optional[_Iterable[int]] = ..., user_id: _Optional[str] = ..., hist_item_keys: _Optional[_Iterable[str]] = ..., exclude_item_keys: _Optional[_Iterable[str]] = ...) -> None: ...

class AtMost(_message.Message):
    __slots__ = ("attribute", "count")
    ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    attribute: str
    count: int
    def __init__(self, attribute: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class Boost(_message.Message):
    __slots__ = ("filter", "add", "attribute", "half_life_days", "weight")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ADD_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
    HALF_LIFE_DAYS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    filter: str
    add: float
    attribute: str
    half_life_days: float
    weight: float
    def __init__(self, filter: _Optional[str] = ..., add: _Optional[float] = ..., attribute: _Optional[str] = ..., half_life_days: _Optional[float] = ..., weight: _Optional[float] = ...) -> None: ...

class Explore(_message.Message):
    __slots__ = ("share", "filter", "seed")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    share: float
    filter: str
    seed: int
    def __init__(self, share: _Optional[float] = ..., filter: _Optional[str] = ..., seed: _Optional[int] = ...) -> None: ...

class RecallRequest(_message.Message):
    __slots__ = ("users", "top_k", "filter", "exclude_history", "merge_strategy", "neighbours", "return_attributes", "at_most", "per_interest_min", "diversity", "boosts", "pin_item_ids", "pin_item_keys", "explore", "now_unix_s", "release_rules", "exclude_shown", "paged", "page_token", "channel", "split_key")
    USERS_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_HISTORY_FIELD_NUMBER: _ClassVar[int]
    MERGE_STRATEGY_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    RETURN_ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    AT_MOST_FIELD_NUMBER: _ClassVar[int]
    PER_INTEREST_MIN_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    BOOSTS_FIELD_NUMBER: _ClassVar[int]
    PIN_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    PIN_ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    EXPLORE_FIELD_NUMBER: _ClassVar[int]
    NOW_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    RELEASE_RULES_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_SHOWN_FIELD_NUMBER: _ClassVar[int]
    PAGED_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    SPLIT_KEY_FIELD_NUMBER: _ClassVar[int]
    users: _containers.RepeatedCompositeFieldContainer[User]
    top_k: int
    filter: str
    exclude_history: bool
    merge_strategy: MergeStrategy
    neighbours: Neighbours
    return_attributes: _containers.RepeatedScalarFieldContainer[str]
    at_most: _containers.RepeatedCompositeFieldContainer[AtMost]
    per_interest_min: int
    diversity: float
    boosts: _containers.RepeatedCompositeFieldContainer[Boost]
    pin_item_ids: _containers.RepeatedScalarFieldContainer[int]
    pin_item_keys: _containers.RepeatedScalarFieldContainer[str]
    explore: Explore
    now_unix_s: int
    release_rules: ReleaseRules
    exclude_shown: bool
    paged: bool
    page_token: bytes
    channel: str
    split_key: str
    def __init__(self, users: _Optional[_Iterable[_Union[User, _Mapping]]] = ..., top_k: _Optional[int] = ..., filter: _Optional[str] = ..., exclude_history: bool = ..., merge_strategy: _Optional[_Union[MergeStrategy, str]] = ..., neighbours: _Optional[_Union[Neighbours, str]] = ..., return_attributes: _Optional[_Iterable[str]] = ..., at_most: _Optional[_Iterable[_Union[AtMost, _Mapping]]] = ..., per_interest_min: _Optional[int] = ..., diversity: _Optional[float] = ..., boosts: _Optional[_Iterable[_Union[Boost, _Mapping]]] = ..., pin_item_ids: _Optional[_Iterable[int]] = ..., pin_item_keys: _Optional[_Iterable[str]] = ..., explore: _Optional[_Union[Explore, _Mapping]] = ..., now_unix_s: _Optional[int] = ..., release_rules: _Optional[_Union[ReleaseRules, str]] = ..., exclude_shown: bool = ..., paged: bool = ..., page_token: _Optional[bytes] = ..., channel: _Optional[str] = ..., split_key: _Optional[str] = ...) -> None: ...

class AttributeList(_message.Message):
    __slots__ = ("integers", "texts")
    INTEGERS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    integers: _containers.RepeatedScalarFieldContainer[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, integers: _Optional[_Iterable[int]] = ..., texts: _Optional[_Iterable[str]] = ...) -> None: ...

class AttributeValues(_message.Message):
    __slots__ = ("name", "integers", "numbers", "texts", "booleans", "lists", "absent")
    NAME_FIELD_NUMBER: _ClassVar[int]
    INTEGERS_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    BOOLEANS_FIELD_NUMBER: _ClassVar[int]
    LISTS_FIELD_NUMBER: _ClassVar[int]
    ABSENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    integers: _containers.RepeatedScalarFieldContainer[int]
    numbers: _containers.RepeatedScalarFieldContainer[float]
    texts: _containers.RepeatedScalarFieldContainer[str]
    booleans: _containers.RepeatedScalarFieldContainer[bool]
    lists: _containers.RepeatedCompositeFieldContainer[AttributeList]
    absent: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., integers: _Optional[_Iterable[int]] = ..., numbers: _Optional[_Iterable[float]] = ..., texts: _Optional[_Iterable[str]] = ..., booleans: _Optional[_Iterable[bool]] = ..., lists: _Optional[_Iterable[_Union[AttributeList, _Mapping]]] = ..., absent: _Optional[_Iterable[int]] = ...) -> None: ...

class UserCandidates(_message.Message):
    __slots__ = ("item_ids", "scores", "interest", "status", "fallback", "unknown_item_ids", "unknown_count", "detail", "item_keys", "unknown_item_keys", "source", "attributes", "added", "recall_id")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    INTEREST_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_COUNT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    RECALL_ID_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    interest: _containers.RepeatedScalarFieldContainer[int]
    status: UserStatus
    fallback: bool
    unknown_item_ids: _containers.RepeatedScalarFieldContainer[int]
    unknown_count: int
    detail: str
    item_keys: _containers.RepeatedScalarFieldContainer[str]
    unknown_item_keys: _containers.RepeatedScalarFieldContainer[str]
    source: _containers.RepeatedScalarFieldContainer[Source]
    attributes: _containers.RepeatedCompositeFieldContainer[AttributeValues]
    added: _containers.RepeatedScalarFieldContainer[float]
    recall_id: str
    def __init__(self, item_ids: _Optional[_Iterable[int]] = ..., scores: _Optional[_Iterable[float]] = ..., interest: _Optional[_Iterable[int]] = ..., status: _Optional[_Union[UserStatus, str]] = ..., fallback: bool = ..., unknown_item_ids: _Optional[_Iterable[int]] = ..., unknown_count: _Optional[int] = ..., detail: _Optional[str] = ..., item_keys: _Optional[_Iterable[str]] = ..., unknown_item_keys: _Optional[_Iterable[str]] = ..., source: _Optional[_Iterable[_Union[Source, str]]] = ..., attributes: _Optional[_Iterable[_Union[AttributeValues, _Mapping]]] = ..., added: _Optional[_Iterable[float]] = ..., recall_id: _Optional[str] = ...) -> None: ...

class StageTimings(_message.Message):
    __slots__ = ("queue_ms", "encode_ms", "search_ms", "merge_ms", "total_ms", "history_ms")
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_MS_FIELD_NUMBER: _ClassVar[int]
    SEARCH_MS_FIELD_NUMBER: _ClassVar[int]
    MERGE_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_MS_FIELD_NUMBER: _ClassVar[int]
    queue_ms: float
    encode_ms: float
    search_ms: float
    merge_ms: float
    total_ms: float
    history_ms: float
    def __init__(self, queue_ms: _Optional[float] = ..., encode_ms: _Optional[float] = ..., search_ms: _Optional[float] = ..., merge_ms: _Optional[float] = ..., total_ms: _Optional[float] = ..., history_ms: _Optional[float] = ...) -> None: ...

class RecallResponse(_message.Message):
    __slots__ = ("results", "model_version", "collection", "timings", "attributes_detail", "next_page_token", "channel")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_DETAIL_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[UserCandidates]
    model_version: str
    collection: str
    timings: StageTimings
    attributes_detail: str
    next_page_token: bytes
    channel: str
    def __init__(self, results: _Optional[_Iterable[_Union[UserCandidates, _Mapping]]] = ..., model_version: _Optional[str] = ..., collection: _Optional[str] = ..., timings: _Optional[_Union[StageTimings, _Mapping]] = ..., attributes_detail: _Optional[str] = ..., next_page_token: _Optional[bytes] = ..., channel: _Optional[str] = ...) -> None: ...

class CountItemsRequest(_message.Message):
    __slots__ = ("filter", "channel")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    filter: str
    channel: str
    def __init__(self, filter: _Optional[str] = ..., channel: _Optional[str] = ...) -> None: ...

class CountItemsResponse(_message.Message):
    __slots__ = ("count", "model_version", "collection", "channel")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    count: int
    model_version: str
    collection: str
    channel: str
    def __init__(self, count: _Optional[int] = ..., model_version: _Optional[str] = ..., collection: _Optional[str] = ..., channel: _Optional[str] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ("channel",)
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    channel: str
    def __init__(self, channel: _Optional[str] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_users", "max_top_k", "max_candidates", "max_history", "max_exclude", "max_filter_chars", "max_request_bytes", "max_concurrent_requests", "max_filter_depth", "max_stored_history", "max_similar", "max_return_attributes", "max_query_items", "max_at_most", "max_diverse_top_k", "max_boosts", "max_pins", "max_shown", "max_paged")
    MAX_USERS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOP_K_FIELD_NUMBER: _ClassVar[int]
    MAX_CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    MAX_HISTORY_FIELD_NUMBER: _ClassVar[int]
    MAX_EXCLUDE_FIELD_NUMBER: _ClassVar[int]
    MAX_FILTER_CHARS_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENT_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MAX_FILTER_DEPTH_FIELD_NUMBER: _ClassVar[int]
    MAX_STORED_HISTORY_FIELD_NUMBER: _ClassVar[int]
    MAX_SIMILAR_FIELD_NUMBER: _ClassVar[int]
    MAX_RETURN_ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    MAX_QUERY_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_AT_MOST_FIELD_NUMBER: _ClassVar[int]
    MAX_DIVERSE_TOP_K_FIELD_NUMBER: _ClassVar[int]
    MAX_BOOSTS_FIELD_NUMBER: _ClassVar[int]
    MAX_PINS_FIELD_NUMBER: _ClassVar[int]
    MAX_SHOWN_FIELD_NUMBER: _ClassVar[int]
    MAX_PAGED_FIELD_NUMBER: _ClassVar[int]
    max_users: int
    max_top_k: int
    max_candidates: int
    max_history: int
    max_exclude: int
    max_filter_chars: int
    max_request_bytes: int
    max_concurrent_requests: int
    max_filter_depth: int
    max_stored_history: int
    max_similar: int
    max_return_attributes: int
    max_query_items: int
    max_at_most: int
    max_diverse_top_k: int
    max_boosts: int
    max_pins: int
    max_shown: int
    max_paged: int
    def __init__(self, max_users: _Optional[int] = ..., max_top_k: _Optional[int] = ..., max_candidates: _Optional[int] = ..., max_history: _Optional[int] = ..., max_exclude: _Optional[int] = ..., max_filter_chars: _Optional[int] = ..., max_request_bytes: _Optional[int] = ..., max_concurrent_requests: _Optional[int] = ..., max_filter_depth: _Optional[int] = ..., max_stored_history: _Optional[int] = ..., max_similar: _Optional[int] = ..., max_return_attributes: _Optional[int] = ..., max_query_items: _Optional[int] = ..., max_at_most: _Optional[int] = ..., max_diverse_top_k: _Optional[int] = ..., max_boosts: _Optional[int] = ..., max_pins: _Optional[int] = ..., max_shown: _Optional[int] = ..., max_paged: _Optional[int] = ...) -> None: ...

class Attribute(_message.Message):
    __slots__ = ("name", "type")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: str
    def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ...) -> None: ...

class ChannelInfo(_message.Message):
    __slots__ = ("name", "model_version", "collection", "refused_release", "refused_collection", "previous_collection", "item_count", "id_type", "split")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    REFUSED_RELEASE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_COLLECTION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_COLLECTION_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    ID_TYPE_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    model_version: str
    collection: str
    refused_release: str
    refused_collection: str
    previous_collection: str
    item_count: int
    id_type: IdType
    split: float
    def __init__(self, name: _Optional[str] = ..., model_version: _Optional[str] = ..., collection: _Optional[str] = ..., refused_release: _Optional[str] = ..., refused_collection: _Optional[str] = ..., previous_collection: _Optional[str] = ..., item_count: _Optional[int] = ..., id_type: _Optional[_Union[IdType, str]] = ..., split: _Optional[float] = ...) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("server_version", "model_version", "collection", "item_count", "embedding_dim", "num_interests", "maxlen", "metric", "encoder", "attributes", "limits", "admin_enabled", "refused_release", "instance", "processes", "previous_collection", "users_enabled", "refused_collection", "id_type", "search", "neighbours", "release_rules", "feedback_enabled", "channels", "channel", "shadows")
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_DIM_FIELD_NUMBER: _ClassVar[int]
    NUM_INTERESTS_FIELD_NUMBER: _ClassVar[int]
    MAXLEN_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    ADMIN_ENABLED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_RELEASE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_COLLECTION_FIELD_NUMBER: _ClassVar[int]
    USERS_ENABLED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_COLLECTION_FIELD_NUMBER: _ClassVar[int]
    ID_TYPE_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_RULES_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_ENABLED_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    SHADOWS_FIELD_NUMBER: _ClassVar[int]
    server_version: str
    model_version: str
    collection: str
    item_count: int
    embedding_dim: int
    num_interests: int
    maxlen: int
    metric: str
    encoder: str
    attributes: _containers.RepeatedCompositeFieldContainer[Attribute]
    limits: Limits
    admin_enabled: bool
    refused_release: str
    instance: str
    processes: int
    previous_collection: str
    users_enabled: bool
    refused_collection: str
    id_type: IdType
    search: str
    neighbours: Neighbours
    release_rules: str
    feedback_enabled: bool
    channels: _containers.RepeatedCompositeFieldContainer[ChannelInfo]
    channel: str
    shadows: _containers.RepeatedCompositeFieldContainer[ShadowSummary]
    def __init__(self, server_version: _Optional[str] = ..., model_version: _Optional[str] = ..., collection: _Optional[str] = ..., item_count: _Optional[int] = ..., embedding_dim: _Optional[int] = ..., num_interests: _Optional[int] = ..., maxlen: _Optional[int] = ..., metric: _Optional[str] = ..., encoder: _Optional[str] = ..., attributes: _Optional[_Iterable[_Union[Attribute, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., admin_enabled: bool = ..., refused_release: _Optional[str] = ..., instance: _Optional[str] = ..., processes: _Optional[int] = ..., previous_collection: _Optional[str] = ..., users_enabled: bool = ..., refused_collection: _Optional[str] = ..., id_type: _Optional[_Union[IdType, str]] = ..., search: _Optional[str] = ..., neighbours: _Optional[_Union[Neighbours, str]] = ..., release_rules: _Optional[str] = ..., feedback_enabled: bool = ..., channels: _Optional[_Iterable[_Union[ChannelInfo, _Mapping]]] = ..., channel: _Optional[str] = ..., shadows: _Optional[_Iterable[_Union[ShadowSummary, _Mapping]]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("user", "top_k", "filter", "exclude_history", "merge_strategy", "neighbours", "return_attributes", "at_most", "per_interest_min", "diversity", "boosts", "pin_item_ids", "pin_item_keys", "explore", "now_unix_s", "release_rules", "exclude_shown", "channel", "split_key")
    USER_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_HISTORY_FIELD_NUMBER: _ClassVar[int]
    MERGE_STRATEGY_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    RETURN_ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    AT_MOST_FIELD_NUMBER: _ClassVar[int]
    PER_INTEREST_MIN_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    BOOSTS_FIELD_NUMBER: _ClassVar[int]
    PIN_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    PIN_ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    EXPLORE_FIELD_NUMBER: _ClassVar[int]
    NOW_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    RELEASE_RULES_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_SHOWN_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    SPLIT_KEY_FIELD_NUMBER: _ClassVar[int]
    user: User
    top_k: int
    filter: str
    exclude_history: bool
    merge_strategy: MergeStrategy
    neighbours: Neighbours
    return_attributes: _containers.RepeatedScalarFieldContainer[str]
    at_most: _containers.RepeatedCompositeFieldContainer[AtMost]
    per_interest_min: int
    diversity: float
    boosts: _containers.RepeatedCompositeFieldContainer[Boost]
    pin_item_ids: _containers.RepeatedScalarFieldContainer[int]
    pin_item_keys: _containers.RepeatedScalarFieldContainer[str]
    explore: Explore
    now_unix_s: int
    release_rules: ReleaseRules
    exclude_shown: bool
    channel: str
    split_key: str
    def __init__(self, user: _Optional[_Union[User, _Mapping]] = ..., top_k: _Optional[int] = ..., filter: _Optional[str] = ..., exclude_history: bool = ..., merge_strategy: _Optional[_Union[MergeStrategy, str]] = ..., neighbours: _Optional[_Union[Neighbours, str]] = ..., return_attributes: _Optional[_Iterable[str]] = ..., at_most: _Optional[_Iterable[_Union[AtMost, _Mapping]]] = ..., per_interest_min: _Optional[int] = ..., diversity: _Optional[float] = ..., boosts: _Optional[_Iterable[_Union[Boost, _Mapping]]] = ..., pin_item_ids: _Optional[_Iterable[int]] = ..., pin_item_keys: _Optional[_Iterable[str]] = ..., explore: _Optional[_Union[Explore, _Mapping]] = ..., now_unix_s: _Optional[int] = ..., release_rules: _Optional[_Union[ReleaseRules, str]] = ..., exclude_shown: bool = ..., channel: _Optional[str] = ..., split_key: _Optional[str] = ...) -> None: ...

class Interest(_message.Message):
    __slots__ = ("vector", "item_ids", "scores", "item_keys", "neighbour_item_ids", "neighbour_item_keys", "neighbour_scores", "neighbour_bonuses", "neighbour_fresh", "weights", "added", "neighbour_added")
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOUR_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOUR_ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOUR_SCORES_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOUR_BONUSES_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOUR_FRESH_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOUR_ADDED_FIELD_NUMBER: _ClassVar[int]
    vector: _containers.RepeatedScalarFieldContainer[float]
    item_ids: _containers.RepeatedScalarFieldContainer[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    item_keys: _containers.RepeatedScalarFieldContainer[str]
    neighbour_item_ids: _containers.RepeatedScalarFieldContainer[int]
    neighbour_item_keys: _containers.RepeatedScalarFieldContainer[str]
    neighbour_scores: _containers.RepeatedScalarFieldContainer[float]
    neighbour_bonuses: _containers.RepeatedScalarFieldContainer[float]
    neighbour_fresh: _containers.RepeatedScalarFieldContainer[bool]
    weights: _containers.RepeatedScalarFieldContainer[float]
    added: _containers.RepeatedScalarFieldContainer[float]
    neighbour_added: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, vector: _Optional[_Iterable[float]] = ..., item_ids: _Optional[_Iterable[int]] = ..., scores: _Optional[_Iterable[float]] = ..., item_keys: _Optional[_Iterable[str]] = ..., neighbour_item_ids: _Optional[_Iterable[int]] = ..., neighbour_item_keys: _Optional[_Iterable[str]] = ..., neighbour_scores: _Optional[_Iterable[float]] = ..., neighbour_bonuses: _Optional[_Iterable[float]] = ..., neighbour_fresh: _Optional[_Iterable[bool]] = ..., weights: _Optional[_Iterable[float]] = ..., added: _Optional[_Iterable[float]] = ..., neighbour_added: _Optional[_Iterable[float]] = ...) -> None: ...

class DroppedHit(_message.Message):
    __slots__ = ("item_id", "interest", "score", "reason", "item_key", "source", "at_most", "added")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    INTEREST_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ITEM_KEY_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    AT_MOST_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    item_id: int
    interest: int
    score: float
    reason: DropReason
    item_key: str
    source: Source
    at_most: _containers.RepeatedScalarFieldContainer[str]
    added: float
    def __init__(self, item_id: _Optional[int] = ..., interest: _Optional[int] = ..., score: _Optional[float] = ..., reason: _Optional[_Union[DropReason, str]] = ..., item_key: _Optional[str] = ..., source: _Optional[_Union[Source, str]] = ..., at_most: _Optional[_Iterable[str]] = ..., added: _Optional[float] = ...) -> None: ...

class AppliedBoost(_message.Message):
    __slots__ = ("boost", "of_release", "added")
    BOOST_FIELD_NUMBER: _ClassVar[int]
    OF_RELEASE_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    boost: Boost
    of_release: bool
    added: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, boost: _Optional[_Union[Boost, _Mapping]] = ..., of_release: bool = ..., added: _Optional[_Iterable[float]] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("used_hist_item", "interests", "candidates", "dropped", "model_version", "collection", "timings", "used_hist_item_keys", "search", "attributes_detail", "boosts", "channel")
    USED_HIST_ITEM_FIELD_NUMBER: _ClassVar[int]
    INTERESTS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    USED_HIST_ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_DETAIL_FIELD_NUMBER: _ClassVar[int]
    BOOSTS_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    used_hist_item: _containers.RepeatedScalarFieldContainer[int]
    interests: _containers.RepeatedCompositeFieldContainer[Interest]
    candidates: UserCandidates
    dropped: _containers.RepeatedCompositeFieldContainer[DroppedHit]
    model_version: str
    collection: str
    timings: StageTimings
    used_hist_item_keys: _containers.RepeatedScalarFieldContainer[str]
    search: str
    attributes_detail: str
    boosts: _containers.RepeatedCompositeFieldContainer[AppliedBoost]
    channel: str
    def __init__(self, used_hist_item: _Optional[_Iterable[int]] = ..., interests: _Optional[_Iterable[_Union[Interest, _Mapping]]] = ..., candidates: _Optional[_Union[UserCandidates, _Mapping]] = ..., dropped: _Optional[_Iterable[_Union[DroppedHit, _Mapping]]] = ..., model_version: _Optional[str] = ..., collection: _Optional[str] = ..., timings: _Optional[_Union[StageTimings, _Mapping]] = ..., used_hist_item_keys: _Optional[_Iterable[str]] = ..., search: _Optional[str] = ..., attributes_detail: _Optional[str] = ..., boosts: _Optional[_Iterable[_Union[AppliedBoost, _Mapping]]] = ..., channel: _Optional[str] = ...) -> None: ...

class ItemQuery(_message.Message):
    __slots__ = ("item_ids", "exclude_item_ids", "item_keys", "exclude_item_keys")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[int]
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[int]
    item_keys: _containers.RepeatedScalarFieldContainer[str]
    exclude_item_keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, item_ids: _Optional[_Iterable[int]] = ..., exclude_item_ids: _Optional[_Iterable[int]] = ..., item_keys: _Optional[_Iterable[str]] = ..., exclude_item_keys: _Optional[_Iterable[str]] = ...) -> None: ...

class SimilarItemsRequest(_message.Message):
    __slots__ = ("queries", "top_k", "filter", "by", "return_attributes", "channel")
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    RETURN_ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    queries: _containers.RepeatedCompositeFieldContainer[ItemQuery]
    top_k: int
    filter: str
    by: Source
    return_attributes: _containers.RepeatedScalarFieldContainer[str]
    channel: str
    def __init__(self, queries: _Optional[_Iterable[_Union[ItemQuery, _Mapping]]] = ..., top_k: _Optional[int] = ..., filter: _Optional[str] = ..., by: _Optional[_Union[Source, str]] = ..., return_attributes: _Optional[_Iterable[str]] = ..., channel: _Optional[str] = ...) -> None: ...

class SimilarItems(_message.Message):
    __slots__ = ("item_ids", "scores", "source", "weights", "status", "unknown", "detail", "item_keys", "attributes")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    source: _containers.RepeatedScalarFieldContainer[Source]
    weights: _containers.RepeatedScalarFieldContainer[float]
    status: ItemStatus
    unknown: _containers.RepeatedScalarFieldContainer[int]
    detail: str
    item_keys: _containers.RepeatedScalarFieldContainer[str]
    attributes: _containers.RepeatedCompositeFieldContainer[AttributeValues]
    def __init__(self, item_ids: _Optional[_Iterable[int]] = ..., scores: _Optional[_Iterable[float]] = ..., source: _Optional[_Iterable[_Union[Source, str]]] = ..., weights: _Optional[_Iterable[float]] = ..., status: _Optional[_Union[ItemStatus, str]] = ..., unknown: _Optional[_Iterable[int]] = ..., detail: _Optional[str] = ..., item_keys: _Optional[_Iterable[str]] = ..., attributes: _Optional[_Iterable[_Union[AttributeValues, _Mapping]]] = ...) -> None: ...

class SimilarItemsResponse(_message.Message):
    __slots__ = ("results", "model_version", "collection", "timings", "attributes_detail", "channel")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_DETAIL_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SimilarItems]
    model_version: str
    collection: str
    timings: StageTimings
    attributes_detail: str
    channel: str
    def __init__(self, results: _Optional[_Iterable[_Union[SimilarItems, _Mapping]]] = ..., model_version: _Optional[str] = ..., collection: _Optional[str] = ..., timings: _Optional[_Union[StageTimings, _Mapping]] = ..., attributes_detail: _Optional[str] = ..., channel: _Optional[str] = ...) -> None: ...

class GetItemsRequest(_message.Message):
    __slots__ = ("item_ids", "item_keys", "return_attributes", "channel")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    RETURN_ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[int]
    item_keys: _containers.RepeatedScalarFieldContainer[str]
    return_attributes: _containers.RepeatedScalarFieldContainer[str]
    channel: str
    def __init__(self, item_ids: _Optional[_Iterable[int]] = ..., item_keys: _Optional[_Iterable[str]] = ..., return_attributes: _Optional[_Iterable[str]] = ..., channel: _Optional[str] = ...) -> None: ...

class GetItemsResponse(_message.Message):
    __slots__ = ("item_ids", "item_keys", "attributes", "attributes_detail", "model_version", "collection", "channel")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_DETAIL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[int]
    item_keys: _containers.RepeatedScalarFieldContainer[str]
    attributes: _containers.RepeatedCompositeFieldContainer[AttributeValues]
    attributes_detail: str
    model_version: str
    collection: str
    channel: str
    def __init__(self, item_ids: _Optional[_Iterable[int]] = ..., item_keys: _Optional[_Iterable[str]] = ..., attributes: _Optional[_Iterable[_Union[AttributeValues, _Mapping]]] = ..., attributes_detail: _Optional[str] = ..., model_version: _Optional[str] = ..., collection: _Optional[str] = ..., channel: _Optional[str] = ...) -> None: ...

class UserUpdate(_message.Message):
    __slots__ = ("user_id", "hist_item", "append_item_ids", "hist_item_keys", "append_item_keys", "events", "shown_item_ids", "shown_item_keys")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    HIST_ITEM_FIELD_NUMBER: _ClassVar[int]
    APPEND_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    HIST_ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    APPEND_ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    SHOWN_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SHOWN_ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    hist_item: _containers.RepeatedScalarFieldContainer[int]
    append_item_ids: _containers.RepeatedScalarFieldContainer[int]
    hist_item_keys: _containers.RepeatedScalarFieldContainer[str]
    append_item_keys: _containers.RepeatedScalarFieldContainer[str]
    events: _containers.RepeatedScalarFieldContainer[str]
    shown_item_ids: _containers.RepeatedScalarFieldContainer[int]
    shown_item_keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, user_id: _Optional[str] = ..., hist_item: _Optional[_Iterable[int]] = ..., append_item_ids: _Optional[_Iterable[int]] = ..., hist_item_keys: _Optional[_Iterable[str]] = ..., append_item_keys: _Optional[_Iterable[str]] = ..., events: _Optional[_Iterable[str]] = ..., shown_item_ids: _Optional[_Iterable[int]] = ..., shown_item_keys: _Optional[_Iterable[str]] = ...) -> None: ...

class UpsertUsersRequest(_message.Message):
    __slots__ = ("users", "channel")
    USERS_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    users: _containers.RepeatedCompositeFieldContainer[UserUpdate]
    channel: str
    def __init__(self, users: _Optional[_Iterable[_Union[UserUpdate, _Mapping]]] = ..., channel: _Optional[str] = ...) -> None: ...

class UserWritten(_message.Message):
    __slots__ = ("status", "history_length", "detail", "dropped")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_LENGTH_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    status: UserStatus
    history_length: int
    detail: str
    dropped: int
    def __init__(self, status: _Optional[_Union[UserStatus, str]] = ..., history_length: _Optional[int] = ..., detail: _Optional[str] = ..., dropped: _Optional[int] = ...) -> None: ...

class UpsertUsersResponse(_message.Message):
    __slots__ = ("results", "model_version")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[UserWritten]
    model_version: str
    def __init__(self, results: _Optional[_Iterable[_Union[UserWritten, _Mapping]]] = ..., model_version: _Optional[str] = ...) -> None: ...

class FindSimilarUsersRequest(_message.Message):
    __slots__ = ("users", "top_k", "channel")
    USERS_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    users: _containers.RepeatedCompositeFieldContainer[User]
    top_k: int
    channel: str
    def __init__(self, users: _Optional[_Iterable[_Union[User, _Mapping]]] = ..., top_k: _Optional[int] = ..., channel: _Optional[str] = ...) -> None: ...

class SimilarUsers(_message.Message):
    __slots__ = ("user_ids", "scores", "status", "detail")
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    user_ids: _containers.RepeatedScalarFieldContainer[str]
    scores: _containers.RepeatedScalarFieldContainer[float]
    status: UserStatus
    detail: str
    def __init__(self, user_ids: _Optional[_Iterable[str]] = ..., scores: _Optional[_Iterable[float]] = ..., status: _Optional[_Union[UserStatus, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class FindSimilarUsersResponse(_message.Message):
    __slots__ = ("results", "model_version", "collection", "channel")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SimilarUsers]
    model_version: str
    collection: str
    channel: str
    def __init__(self, results: _Optional[_Iterable[_Union[SimilarUsers, _Mapping]]] = ..., model_version: _Optional[str] = ..., collection: _Optional[str] = ..., channel: _Optional[str] = ...) -> None: ...

class DeleteUsersRequest(_message.Message):
    __slots__ = ("user_ids",)
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    user_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, user_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class UserDeleted(_message.Message):
    __slots__ = ("status", "detail")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    status: UserStatus
    detail: str
    def __init__(self, status: _Optional[_Union[UserStatus, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class DeleteUsersResponse(_message.Message):
    __slots__ = ("results", "model_version")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[UserDeleted]
    model_version: str
    def __init__(self, results: _Optional[_Iterable[_Union[UserDeleted, _Mapping]]] = ..., model_version: _Optional[str] = ...) -> None: ...

class LogFeedbackRequest(_message.Message):
    __slots__ = ("recall_id", "user_id", "item_ids", "item_keys", "kind", "time_ms", "channel")
    RECALL_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    ITEM_KEYS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    recall_id: str
    user_id: str
    item_ids: _containers.RepeatedScalarFieldContainer[int]
    item_keys: _containers.RepeatedScalarFieldContainer[str]
    kind: str
    time_ms: int
    channel: str
    def __init__(self, recall_id: _Optional[str] = ..., user_id: _Optional[str] = ..., item_ids: _Optional[_Iterable[int]] = ..., item_keys: _Optional[_Iterable[str]] = ..., kind: _Optional[str] = ..., time_ms: _Optional[int] = ..., channel: _Optional[str] = ...) -> None: ...

class LogFeedbackResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ShadowValues(_message.Message):
    __slots__ = ("count", "mean", "p05", "p50", "p95")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    P05_FIELD_NUMBER: _ClassVar[int]
    P50_FIELD_NUMBER: _ClassVar[int]
    P95_FIELD_NUMBER: _ClassVar[int]
    count: int
    mean: float
    p05: float
    p50: float
    p95: float
    def __init__(self, count: _Optional[int] = ..., mean: _Optional[float] = ..., p05: _Optional[float] = ..., p50: _Optional[float] = ..., p95: _Optional[float] = ...) -> None: ...

class ShadowOutcome(_message.Message):
    __slots__ = ("outcome", "requests")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    outcome: str
    requests: int
    def __init__(self, outcome: _Optional[str] = ..., requests: _Optional[int] = ...) -> None: ...

class ShadowItem(_message.Message):
    __slots__ = ("item_id", "item_key", "lists")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_KEY_FIELD_NUMBER: _ClassVar[int]
    LISTS_FIELD_NUMBER: _ClassVar[int]
    item_id: int
    item_key: str
    lists: int
    def __init__(self, item_id: _Optional[int] = ..., item_key: _Optional[str] = ..., lists: _Optional[int] = ...) -> None: ...

class ShadowSummary(_message.Message):
    __slots__ = ("channel", "share", "outcomes", "since_ms", "live_model_version", "live_collection", "model_version", "collection", "live_channel", "users_both", "users_live", "users_shadow", "users_neither", "overlap", "rbo", "live_ms", "shadow_ms", "latency_ratio", "score_ratio", "score_difference", "candidates", "new_candidates", "live_short", "live_empty", "shadow_short", "shadow_empty", "gained", "lost")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    LIVE_MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    LIVE_COLLECTION_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    LIVE_CHANNEL_FIELD_NUMBER: _ClassVar[int]
    USERS_BOTH_FIELD_NUMBER: _ClassVar[int]
    USERS_LIVE_FIELD_NUMBER: _ClassVar[int]
    USERS_SHADOW_FIELD_NUMBER: _ClassVar[int]
    USERS_NEITHER_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_FIELD_NUMBER: _ClassVar[int]
    RBO_FIELD_NUMBER: _ClassVar[int]
    LIVE_MS_FIELD_NUMBER: _ClassVar[int]
    SHADOW_MS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_RATIO_FIELD_NUMBER: _ClassVar[int]
    SCORE_RATIO_FIELD_NUMBER: _ClassVar[int]
    SCORE_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    NEW_CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    LIVE_SHORT_FIELD_NUMBER: _ClassVar[int]
    LIVE_EMPTY_FIELD_NUMBER: _ClassVar[int]
    SHADOW_SHORT_FIELD_NUMBER: _ClassVar[int]
    SHADOW_EMPTY_FIELD_NUMBER: _ClassVar[int]
    GAINED_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    channel: str
    share: float
    outcomes: _containers.RepeatedCompositeFieldContainer[ShadowOutcome]
    since_ms: int
    live_model_version: str
    live_collection: str
    model_version: str
    collection: str
    live_channel: str
    users_both: int
    users_live: int
    users_shadow: int
    users_neither: int
    overlap: ShadowValues
    rbo: ShadowValues
    live_ms: ShadowValues
    shadow_ms: ShadowValues
    latency_ratio: ShadowValues
    score_ratio: ShadowValues
    score_difference: float
    candidates: int
    new_candidates: int
    live_short: int
    live_empty: int
    shadow_short: int
    shadow_empty: int
    gained: _containers.RepeatedCompositeFieldContainer[ShadowItem]
    lost: _containers.RepeatedCompositeFieldContainer[ShadowItem]
    def __init__(self, channel: _Optional[str] = ..., share: _Optional[float] = ..., outcomes: _Optional[_Iterable[_Union[ShadowOutcome, _Mapping]]] = ..., since_ms: _Optional[int] = ..., live_model_version: _Optional[str] = ..., live_collection: _Optional[str] = ..., model_version: _Optional[str] = ..., collection: _Optional[str] = ..., live_channel: _Optional[str] = ..., users_both: _Optional[int] = ..., users_live: _Optional[int] = ..., users_shadow: _Optional[int] = ..., users_neither: _Optional[int] = ..., overlap: _Optional[_Union[ShadowValues, _Mapping]] = ..., rbo: _Optional[_Union[ShadowValues, _Mapping]] = ..., live_ms: _Optional[_Union[ShadowValues, _Mapping]] = ..., shadow_ms: _Optional[_Union[ShadowValues, _Mapping]] = ..., latency_ratio: _Optional[_Union[ShadowValues, _Mapping]] = ..., score_ratio: _Optional[_Union[ShadowValues, _Mapping]] = ..., score_difference: _Optional[float] = ..., candidates: _Optional[int] = ..., new_candidates: _Optional[int] = ..., live_short: _Optional[int] = ..., live_empty: _Optional[int] = ..., shadow_short: _Optional[int] = ..., shadow_empty: _Optional[int] = ..., gained: _Optional[_Iterable[_Union[ShadowItem, _Mapping]]] = ..., lost: _Optional[_Iterable[_Union[ShadowItem, _Mapping]]] = ...) -> None: ...
