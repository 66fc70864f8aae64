"""Requests that are well-formed and odd: extreme ids, empty and huge lists, filters that are almost filters."""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from protos.recall.v1 import admin_pb2, recall_pb2
from tests.faults.fake_server import TOKEN

RECALL, ADMIN = "/recall.v1.RecallService", "/recall.v1.AdminService"
PATIENT_S = 20.0
"""A deadline by which anything must have ended."""


@dataclass(frozen=True)
class Asked:
    """One call."""

    path: str
    body: bytes
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    timeout_s: float | None = PATIENT_S


_ids = st.one_of(
    st.sampled_from([0, 1, -1, 2**31, -(2**31), 2**32, 2**53 + 1, 2**63 - 1, -(2**63), -(2**63) + 1]),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 199).map(lambda row: 1000 + 7 * row),  # known to the model
)
_keys = st.one_of(
    st.sampled_from(
        ["", "KIT", "kit-1", "KIT-01", "1000", "x" * 256, "x" * 257, "ü" * 128, "ü" * 129, "\x00", '"', "\n"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
    st.integers(0, 199).map(lambda item: f"KIT-{item}"),  # known to a model with text ids
)
_SIZES = st.sampled_from([999, 1_000, 1_001, 9_999, 10_000, 10_001, 30_000])


def _lists(ids: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.lists(ids, max_size=12), st.tuples(ids, _SIZES).map(lambda pair: [pair[0]] * pair[1]))


_user_ids = st.sampled_from(["", "", "ann", "bob", "ü/%00", "x" * 128, "x" * 129])
_of_numbers = st.builds(recall_pb2.User, hist_item=_lists(_ids), exclude_item_ids=_lists(_ids), user_id=_user_ids)
_of_keys = st.builds(recall_pb2.User, hist_item_keys=_lists(_keys), exclude_item_keys=_lists(_keys), user_id=_user_ids)
_nothing = st.just([])


def _updates(text: bool) -> st.SearchStrategy[Any]:
    """Updates with ids of the right kind, of one list or of several."""
    numbers, keys = ("append_item_ids", "shown_item_ids"), ("append_item_keys", "shown_item_keys")
    fields, ids = (("hist_item_keys", *keys), _keys) if text else (("hist_item", *numbers), _ids)
    lists = {field: st.one_of(_nothing, _lists(ids)) for field in fields}
    return st.lists(st.builds(recall_pb2.UserUpdate, user_id=_user_ids, **lists), max_size=4)


def _feedback(text: bool) -> st.SearchStrategy[Any]:
    lists = {"item_keys": _lists(_keys)} if text else {"item_ids": _lists(_ids)}
    words = st.one_of(st.sampled_from(["click", "candidate", "", "x" * 65]), st.text(max_size=20))
    times = st.one_of(st.just(0), st.integers(-(2**63), 2**63 - 1))
    who = {"user_id": _user_ids, "recall_id": words, "channel": _channels}
    return st.builds(recall_pb2.LogFeedbackRequest, kind=words, time_ms=times, **who, **lists)


def _user_lists(text: bool) -> st.SearchStrategy[Any]:
    """Users with ids of the right kind, mostly."""
    right, wrong = (_of_keys, _of_numbers) if text else (_of_numbers, _of_keys)

    def one(user: int) -> recall_pb2.User:
        known = {"hist_item_keys": [f"KIT-{user}"]} if text else {"hist_item": [1000 + 7 * user]}
        return recall_pb2.User(**known)

    return st.one_of(
        st.lists(right, max_size=4),
        st.lists(st.one_of(right, wrong), max_size=4),
        st.integers(0, 300).map(lambda users: [one(user) for user in range(users)]),
    )


def _query_lists(text: bool) -> st.SearchStrategy[Any]:
    """Queries for similar items with ids of the right kind, mostly."""
    numbers = st.builds(recall_pb2.ItemQuery, item_ids=_lists(_ids), exclude_item_ids=_lists(_ids))
    keys = st.builds(recall_pb2.ItemQuery, item_keys=_lists(_keys), exclude_item_keys=_lists(_keys))
    right, wrong = (keys, numbers) if text else (numbers, keys)

    def one(row: int) -> recall_pb2.ItemQuery:
        known = {"item_keys": [f"KIT-{row}"]} if text else {"item_ids": [1000 + 7 * row]}
        return recall_pb2.ItemQuery(**known)

    return st.one_of(
        st.lists(right, max_size=4),
        st.lists(st.one_of(right, wrong), max_size=4),
        st.integers(0, 300).map(lambda queries: [one(query) for query in range(queries)]),
    )


_int32 = st.one_of(st.integers(-1, 12), st.sampled_from([999, 1_000, 1_001, 2**31 - 1, -(2**31)]))
_WORDS = (
    "item_id year genres Item $meta ( ) [ ] { } , . ; : ! && || and or not in like exists true false null == != < <= "
    '> >= + - * ** / % & | ^ ~ 0 -0 1 1e400 0x1F 9223372036854775808 /* -- "a" "a% \' \\" \\u0000 array_contains '
    "json_contains \u202e \U0001f600"
)
_CLAUSE = (
    ("year", "item_id", "item_key", "genres[0]", "array_length(genres)", "title", "genres", "-year", "year * 2"),
    ("<", "==", ">=", "!=", "in", "not in", "like"),
    ("1995", "-1", "9223372036854775807", "1e308", "[1, 2]", "[]", '"A%"', '"Drama"', "true", "year", "0 < 3"),
    ("", "and item_id > 1000", 'or array_contains(genres, "Drama")', "and not (year / 2 == 1)", "and 1 / 0 == 1"),
)
_filters = st.one_of(
    st.just(""),
    st.integers(-(2**70), 2**70).map(lambda value: f"item_id < {value}"),
    st.tuples(*map(st.sampled_from, _CLAUSE)).map(" ".join),
    st.lists(st.sampled_from(_WORDS.split()), max_size=12).map(" ".join),
    st.text(max_size=40),
    st.integers(1, 2_100).map(lambda size: "(" * size),
    st.integers(1, 660).map(lambda size: "not " * (size // 2) + "item_id > 0" + " and item_id > 0" * (size // 2)),
)
"""Of the length limit and what lies around it: nonsense, near misses, deep nesting."""

_names = st.lists(st.one_of(st.sampled_from(["year", "title", "genres", "item_id"]), st.text(max_size=8)), max_size=18)
_ruled = st.one_of(st.sampled_from(["year", "genres", "vector_source", "item_id", "Year", ""]), st.text(max_size=10))
_at_most = st.lists(st.builds(recall_pb2.AtMost, attribute=_ruled, count=_int32), max_size=10)
_added = st.one_of(st.sampled_from([0.0, 0.5, -2.0, 1e4]), st.floats(width=32))
_boost = st.one_of(
    st.builds(recall_pb2.Boost, filter=_filters, add=_added),
    st.builds(recall_pb2.Boost, attribute=_ruled, half_life_days=_added, weight=_added),
    st.builds(recall_pb2.Boost, filter=_filters, add=_added, attribute=_ruled, weight=_added),
)
_explore = st.builds(
    recall_pb2.Explore,
    share=st.one_of(st.floats(0, 1, width=32), _added),
    filter=_filters,
    seed=st.integers(0, 2**64 - 1),
)
_diversity = st.one_of(st.just(0.0), st.floats(0, 1, width=32), st.floats(width=32))

_channels = st.one_of(st.sampled_from(["", "", "live", "b", "c", "B", "live/b"]), st.text(max_size=40))
_split_keys = st.one_of(
    st.just(""), st.text(max_size=140), st.sampled_from(["x" * 128, "x" * 129, "ü" * 65, "x" * 9_999])
)

_metadata = st.lists(
    st.one_of(
        st.sampled_from([("authorization", f"Bearer {TOKEN}"), ("authorization", "Bearer"), ("authorization", "")]),
        st.tuples(st.from_regex(r"x-[a-z0-9._-]{1,20}", fullmatch=True), st.text("~ !\"#%&'()*+,", max_size=200)),
        st.tuples(st.from_regex(r"x-[a-z]{1,8}-bin", fullmatch=True), st.binary(max_size=200)),
    ),
    max_size=4,
).map(tuple)
_timeouts = st.one_of(st.just(PATIENT_S), st.sampled_from([None, 1e-9, 1e-6, 1e-4, 1e-3, 0.01, 1e6, 3e9]))


def odd_requests(text: bool = False) -> st.SearchStrategy[Asked]:
    """Calls of any of our methods. `text`: whether the items of the server have text ids."""
    rest = {"top_k": _int32, "filter": _filters, "exclude_history": st.booleans(), "merge_strategy": _int32}
    rest |= {"exclude_shown": st.booleans(), "channel": _channels, "split_key": _split_keys}
    of_channel = {"channel": _channels}
    tokens = st.one_of(st.just(b""), st.binary(max_size=200).map(lambda end: b"\x01" + end), st.just(b"\x01" * 140_001))
    pages = {"paged": st.booleans(), "page_token": tokens}
    who = st.lists(_user_ids, max_size=4)
    items = [{"item_ids": _lists(_ids)}, {"item_keys": _lists(_keys)}]
    rest |= {"at_most": _at_most, "per_interest_min": st.one_of(st.just(0), _int32), "diversity": _diversity}
    rest |= {"boosts": st.lists(_boost, max_size=10), "explore": st.one_of(st.none(), _explore)}
    rest |= {"release_rules": _int32}
    rest |= {"now_unix_s": st.one_of(st.just(0), st.integers(-(2**63), 2**63 - 1))}
    rest |= {"pin_item_keys": st.lists(_keys, max_size=4)} if text else {"pin_item_ids": st.lists(_ids, max_size=60)}
    collections = st.one_of(st.text(max_size=40), st.just("items_0123456789ab_01234567"))
    messages: list[tuple[str, st.SearchStrategy[Any]]] = [
        (f"{RECALL}/Recall", st.builds(recall_pb2.RecallRequest, users=_user_lists(text), **pages, **rest)),
        (f"{RECALL}/Explain", st.builds(recall_pb2.ExplainRequest, user=st.one_of(_of_keys, _of_numbers), **rest)),
        (
            f"{RECALL}/SimilarItems",
            st.builds(
                recall_pb2.SimilarItemsRequest,
                queries=_query_lists(text),
                top_k=_int32,
                filter=_filters,
                by=_int32,
                channel=_channels,
            ),
        ),
        (f"{RECALL}/CountItems", st.builds(recall_pb2.CountItemsRequest, filter=_filters, **of_channel)),
        *(
            (f"{RECALL}/GetItems", st.builds(recall_pb2.GetItemsRequest, return_attributes=_names, **ids, **of_channel))
            for ids in items
        ),
        (f"{RECALL}/UpsertUsers", st.builds(recall_pb2.UpsertUsersRequest, users=_updates(text), **of_channel)),
        (f"{RECALL}/DeleteUsers", st.builds(recall_pb2.DeleteUsersRequest, user_ids=who)),
        (f"{RECALL}/LogFeedback", _feedback(text)),
        (f"{RECALL}/GetServerInfo", st.builds(recall_pb2.GetServerInfoRequest, **of_channel)),
        (f"{ADMIN}/Reload", st.builds(admin_pb2.ReloadRequest, **of_channel)),
        (f"{ADMIN}/DropItems", st.builds(admin_pb2.DropItemsRequest, collection=collections, allow_live=st.booleans())),
    ]
    return st.one_of(
        *(
            st.builds(
                Asked,
                path=st.just(path),
                body=message.map(lambda found: found.SerializeToString()),
                metadata=_metadata,
                timeout_s=_timeouts,
            )
            for path, message in messages
        )
    )
