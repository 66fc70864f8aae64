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
_id_lists = st.one_of(
    st.lists(_ids, max_size=12),
    st.tuples(_ids, st.sampled_from([999, 1_000, 1_001, 9_999, 10_000, 10_001, 30_000])).map(lambda p: [p[0]] * p[1]),
)
_users = st.builds(recall_pb2.User, hist_item=_id_lists, exclude_item_ids=_id_lists)
_user_lists = st.one_of(
    st.lists(_users, max_size=4),
    st.integers(0, 300).map(lambda users: [recall_pb2.User(hist_item=[1000 + 7 * user]) for user in range(users)]),
)
_int32 = st.one_of(st.integers(-1, 12), st.sampled_from([999, 1_000, 1_001, 2**31 - 1, -(2**31)]))
_WORDS = (
    "item_id year genres Item $meta ( ) [ ] { } , . ; : ! && || and or not in like exists true false null == != < <= "
    '> >= + - * ** / % & | ^ ~ 0 -0 1 1e400 0x1F 9223372036854775808 /* -- "a" "a% \' \\" \\u0000 array_contains '
    "json_contains \u202e \U0001f600"
)
_CLAUSE = (
    ("year", "item_id", "genres[0]", "array_length(genres)", "title", "genres", "-year", "year * 2"),
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

_metadata = st.lists(
    st.one_of(
        st.sampled_from([("authorization", f"Bearer {TOKEN}"), ("authorization", "Bearer"), ("authorization", "")]),
        st.tuples(st.from_regex(r"x-[a-z0-9._-]{1,20}", fullmatch=True), st.text("~ !\"#%&'()*+,", max_size=200)),
        st.tuples(st.from_regex(r"x-[a-z]{1,8}-bin", fullmatch=True), st.binary(max_size=200)),
    ),
    max_size=4,
).map(tuple)
_timeouts = st.one_of(st.just(PATIENT_S), st.sampled_from([None, 1e-9, 1e-6, 1e-4, 1e-3, 0.01, 1e6, 3e9]))


def odd_requests() -> st.SearchStrategy[Asked]:
    """Calls of any of our methods."""
    rest = {"top_k": _int32, "filter": _filters, "exclude_history": st.booleans(), "merge_strategy": _int32}
    collections = st.one_of(st.text(max_size=40), st.just("items_0123456789ab_01234567"))
    messages: list[tuple[str, st.SearchStrategy[Any]]] = [
        (f"{RECALL}/Recall", st.builds(recall_pb2.RecallRequest, users=_user_lists, **rest)),
        (f"{RECALL}/Explain", st.builds(recall_pb2.ExplainRequest, user=_users, **rest)),
        (f"{RECALL}/CountItems", st.builds(recall_pb2.CountItemsRequest, filter=_filters)),
        (f"{RECALL}/GetServerInfo", st.just(recall_pb2.GetServerInfoRequest())),
        (f"{ADMIN}/Reload", st.just(admin_pb2.ReloadRequest())),
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
