"""Prints the bounds of everything that a stranger can send, from the limits in the code: `make bounds`.

SECURITY.md holds the same tables; `tests/project/test_security.py` compares them, and finds fields without a bound.
"""

from dataclasses import dataclass
from typing import Any

from clients.gateway import body, connections, operations, pages, v1
from clients.gateway.settings import Settings as GatewaySettings
from mind.keys import MAX_KEY_BYTES
from mind.milvus.collection import MAX_HITS
from mind.milvus.filter import grammar
from mind.milvus.users import MAX_USER_ID_BYTES
from server import app
from server.edge import answers, door, feedback, health, page_token, receiving, split, streams, user_request, wire
from server.edge.limits import INTEGER_CANDIDATE_BYTES
from server.settings import Settings
from server.watching import endpoint, line_sink


@dataclass(frozen=True)
class Bound:
    """A bound on something that strangers send."""

    what: str
    """What is bounded. Fields of messages begin with the name of the message."""
    limit: str
    beyond: str
    """What a caller gets who goes beyond it."""
    option: str = ""
    """The option that sets the limit; empty if it is fixed."""


SERVER, GATEWAY = Settings(), GatewaySettings()
INVALID, EXHAUSTED = "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"
OF_USER, OF_QUERY = "that user is INVALID, the others are answered", "that query is INVALID, the others are answered"
OF_A_CHANNEL = (
    *("CountItemsRequest", "FindSimilarUsersRequest", "GetItemsRequest", "GetServerInfoRequest"),
    *("LogFeedbackRequest", "ReloadRequest", "UpsertUsersRequest"),
)
"""The other messages that name a channel."""
OF_A_CHANNEL_BY_HTTP = (
    *("RecallBody", "ExplainBody", "SimilarBody", "ItemsBody", "FeedbackBody", "UpsertBody", "SimilarUsersBody"),
)
"""The bodies of the gateway that name a channel."""
OF_BODY = f"{GATEWAY.max_body_bytes:,} bytes of body"


def of_server() -> list[Bound]:
    """What callers of a server can send, by default."""
    return [*_calls(), *_fields()]


def _calls() -> list[Bound]:
    request, calls = SERVER.max_request_bytes, SERVER.max_concurrent_requests
    of_strangers = f"{receiving.MAX_ARRIVING_OF_STRANGERS} of {request:,} bytes, {receiving.RECEIVE_TIMEOUT_S:g} s each"
    oldest = f"the oldest ends with {EXHAUSTED}, a late one with DEADLINE_EXCEEDED"
    in_memory = receiving.REQUESTS_IN_MEMORY * request
    return [
        Bound("connections", f"{app.MAX_CONNECTIONS:,}", "closed at once"),
        Bound("calls in progress on a connection", f"{app.MAX_CONCURRENT_STREAMS:,}", "the client waits"),
        Bound("calls that wait for the door", f"{app.MAX_PENDING_CALLS:,}", EXHAUSTED),
        Bound("metadata of a call", f"{app.MAX_METADATA_BYTES:,} bytes", EXHAUSTED),
        Bound("a request, also when decompressed", f"{request:,} bytes", EXHAUSTED, "--max-request-bytes"),
        Bound(
            "requests on their way, once their token is checked",
            f"{calls} of {request:,} bytes, {receiving.RECEIVE_TIMEOUT_S:g} s each",
            oldest,
            "--max-concurrent-requests",
        ),
        Bound("requests on their way to health and reflection", of_strangers, oldest),
        Bound("requests in progress", f"{calls}", EXHAUSTED, "--max-concurrent-requests"),
        Bound("all requests in progress", f"{in_memory:,} bytes", EXHAUSTED, "--max-request-bytes"),
        Bound(
            f"fields of a request of more than {wire.LARGE:,} bytes",
            f"{SERVER.max_users + wire.OTHER_FIELDS}, counted before it is decoded",
            INVALID,
            "--max-users",
        ),
        Bound("users that wait for a batch", f"{SERVER.max_queued_users:,}", EXHAUSTED, "--max-queued-users"),
        Bound(
            "streams of health and reflection",
            f"{streams.MAX_STREAMS_PER_CONNECTION} a connection, {streams.MAX_STREAMS:,} in all",
            EXHAUSTED,
        ),
        Bound("what an error quotes", f"{door.MAX_MESSAGE_BYTES:,} bytes", "shortened"),
        Bound(
            "connections to `--metrics-listen`",
            f"{endpoint.MAX_CONNECTIONS}, {endpoint.TIMEOUT_S:g} s each",
            "the oldest is closed",
        ),
    ]


def _fields() -> list[Bound]:
    users, history = f"1 to {SERVER.max_users}", f"{SERVER.max_history:,} ids"
    key = f"1 to {MAX_KEY_BYTES} bytes"
    size = f"{SERVER.max_filter_chars:,} characters, {SERVER.max_filter_depth} levels"
    filter_ = f"{size}, {grammar.MAX_CONDITIONS} conditions, {grammar.MAX_VALUES:,} values"
    filter_options = "--max-filter-chars, --max-filter-depth"
    asking = ("RecallRequest", "ExplainRequest", "SimilarItemsRequest")
    batches = ("RecallRequest.users", "FindSimilarUsersRequest.users", "UpsertUsersRequest.users")
    more = ("DeleteUsersRequest.user_ids", "SimilarItemsRequest.queries")
    return [
        *(Bound(f"`{name}`", users, INVALID, "--max-users") for name in (*batches, *more)),
        Bound("`ExplainRequest.user`", "1", "the fields of several become one"),
        *(
            Bound(f"`{name}`", history, OF_USER, "--max-history")
            for name in ("User.hist_item", "UserUpdate.hist_item", "UserUpdate.append_item_ids")
        ),
        *(
            Bound(f"`{name}`", f"{history}, {key} each", OF_USER, "--max-history")
            for name in ("User.hist_item_keys", "UserUpdate.hist_item_keys", "UserUpdate.append_item_keys")
        ),
        Bound(
            "`UserUpdate.events`",
            f"as many as ids, {user_request.MAX_EVENT_BYTES} bytes each",
            OF_USER,
            "--max-history",
        ),
        Bound("`UserUpdate.shown_item_ids`", f"{SERVER.max_shown:,} ids", OF_USER, "--max-shown"),
        Bound("`UserUpdate.shown_item_keys`", f"{SERVER.max_shown:,} ids, {key} each", OF_USER, "--max-shown"),
        Bound("`ItemQuery.item_ids`", f"1 to {SERVER.max_query_items} ids", OF_QUERY, "--max-query-items"),
        Bound("`ItemQuery.item_keys`", f"1 to {SERVER.max_query_items} ids, {key} each", OF_QUERY, "--max-query-items"),
        *(
            Bound(f"`{name}.exclude_item_{kind}`", f"{SERVER.max_exclude:,} ids{each}", beyond, "--max-exclude")
            for name, beyond in (("User", OF_USER), ("ItemQuery", OF_QUERY))
            for kind, each in (("ids", ""), ("keys", f", {key} each"))
        ),
        *(
            Bound(f"`{name}`", f"1 to {MAX_USER_ID_BYTES} bytes", OF_USER)
            for name in ("User.user_id", "UserUpdate.user_id")
        ),
        *(
            Bound(f"`{name}`", filter_, INVALID, filter_options)
            for name in (*(f"{name}.filter" for name in asking), "CountItemsRequest.filter")
        ),
        *(
            Bound(f"`{name}`", f"{SERVER.max_return_attributes} names", INVALID, "--max-return-attributes")
            for name in (f"{name}.return_attributes" for name in (*asking, "GetItemsRequest"))
        ),
        Bound("`GetItemsRequest.item_ids`", f"1 to {SERVER.max_users} ids", INVALID, "--max-users"),
        Bound("`GetItemsRequest.item_keys`", f"1 to {SERVER.max_users} ids, {key} each", INVALID, "--max-users"),
        *(
            Bound(f"`LogFeedbackRequest.{name}`", limit, INVALID)
            for name, limit in (
                ("recall_id", f"{feedback.MAX_RECALL_ID_BYTES} bytes"),
                ("user_id", f"1 to {MAX_USER_ID_BYTES} bytes"),
                ("item_ids", f"1 to {feedback.MAX_ITEMS:,} ids"),
                ("item_keys", f"1 to {feedback.MAX_ITEMS:,} ids, {key} each"),
                ("kind", f"1 to {feedback.MAX_KIND_BYTES} bytes"),
            )
        ),
        Bound("lines that wait for `--feedback-log`", f"{line_sink.MAX_WAITING:,}", f"dropped, feedback: {EXHAUSTED}"),
        Bound("`RecallRequest.page_token`", f"{page_token.MAX_TOKEN_BYTES:,} bytes", INVALID),
        Bound("candidates of a user on all pages", f"{SERVER.max_paged:,}", "the pages end", "--max-paged"),
        Bound("candidates of all users in a page token", f"{page_token.MAX_GIVEN:,}", "the pages end"),
        *(
            Bound(f"`{name}.at_most`", f"{SERVER.max_at_most} rules", INVALID, "--max-at-most")
            for name in ("RecallRequest", "ExplainRequest")
        ),
        *(
            bound
            for name in ("RecallRequest", "ExplainRequest")
            for bound in (
                Bound(f"`{name}.explore`", "1", "the fields of several become one"),
                Bound(f"`{name}.boosts`", f"{SERVER.max_boosts} boosts", INVALID, "--max-boosts"),
                Bound(f"`{name}.pin_item_ids`", f"{SERVER.max_pins} ids", INVALID, "--max-pins"),
                Bound(f"`{name}.pin_item_keys`", f"{SERVER.max_pins} ids, {key} each", INVALID, "--max-pins"),
            )
        ),
        *(
            Bound(f"`{name}.filter`", f"{SERVER.max_filter_chars:,} characters", INVALID, "--max-filter-chars")
            for name in ("Boost", "Explore")
        ),
        Bound("`Boost.attribute`", "the name of an attribute of the release", INVALID),
        Bound("`AtMost.attribute`", "the name of an attribute of the release", INVALID),
        Bound("`AtMost.count`", f"1 to {SERVER.max_top_k:,}", INVALID, "--max-top-k"),
        Bound("`top_k` with diversity", f"1 to {SERVER.max_diverse_top_k:,}", INVALID, "--max-diverse-top-k"),
        Bound("hits of a search that goes deeper for rules", f"{MAX_HITS:,} of an interest", "`detail` says so"),
        *(
            Bound(f"`{name}.channel`", "a channel of the server", INVALID, "--channel")
            for name in (*asking, *OF_A_CHANNEL)
        ),
        *(
            Bound(f"`{name}.split_key`", f"{split.MAX_KEY_BYTES} bytes", INVALID)
            for name in ("RecallRequest", "ExplainRequest")
        ),
        Bound("an answer with attributes", f"{answers.MAX_ANSWER_BYTES:,} bytes", INVALID),
        *(
            Bound(f"`{name}`", f"1 to {SERVER.max_top_k:,}", INVALID, "--max-top-k")
            for name in (*(f"{name}.top_k" for name in asking), "FindSimilarUsersRequest.top_k")
        ),
        Bound(
            "users times `RecallRequest.top_k`, queries times `SimilarItemsRequest.top_k`",
            f"{SERVER.max_candidates:,}, or {INTEGER_CANDIDATE_BYTES * SERVER.max_candidates:,} bytes of longest keys",
            INVALID,
            "--max-candidates",
        ),
        Bound(
            "unknown ids of an answer",
            f"{answers.UNKNOWN_LISTED} of a user, {answers.UNKNOWN_BYTES:,} bytes of keys in all",
            "counted, not listed",
        ),
        Bound("users times `FindSimilarUsersRequest.top_k`", f"{SERVER.max_similar:,}", INVALID, "--max-similar"),
        Bound("`DropItemsRequest.collection`", "the name of a collection of items", INVALID),
        Bound("`HealthCheckRequest.service`", f"{health.MAX_NAME} characters", INVALID),
        Bound(
            "`HealthCheckRequest`, `ServerReflectionRequest`",
            f"{receiving.MAX_REQUEST_BYTES_OF_STRANGERS:,} bytes",
            INVALID,
        ),
    ]


def of_gateway() -> list[Bound]:
    """What callers of a gateway can send, by default."""
    wire = connections.MAX_HEADER_BYTES + 2 * GATEWAY.max_body_bytes
    by_server = "what the server says, as 400"
    of_query = ("ItemQuery.item_ids", "ItemQuery.exclude_item_ids")
    of_user = ("User.hist_item", "User.exclude_item_ids", "ArticleBody.hist_item, ids of a user")
    of_update = ("Update.hist_item", "Update.append_item_ids", "Update.events")
    lists = (*of_user, *of_query, "TitlesBody.item_ids", "ItemsBody.item_ids", *of_update)
    return [
        Bound(
            "connections",
            f"{GATEWAY.max_connections_per_address:,} of one address, {GATEWAY.max_connections:,} in all",
            "429 and 503, closed",
            "--max-connections-per-address, --max-connections",
        ),
        Bound("the first line and the headers", f"{connections.MAX_HEADER_BYTES:,} bytes", "431, closed"),
        Bound("time of the headers", f"{GATEWAY.header_timeout_s:g} s", "408, closed", "--header-timeout-s"),
        Bound("a body", f"{GATEWAY.max_body_bytes:,} bytes", "413, closed", "--max-body-bytes"),
        Bound("a request as it is sent", f"{wire:,} bytes", "413, closed", "--max-body-bytes"),
        Bound("time of the body", f"{GATEWAY.body_timeout_s:g} s", "408, closed", "--body-timeout-s"),
        Bound("time in which an answer is read", f"{GATEWAY.answer_timeout_s:g} s", "closed", "--answer-timeout-s"),
        Bound("requests that wait for the one before", f"{connections.MAX_PIPELINED}", "400, closed"),
        Bound("names in `Host`", "the gateway's own", "403", "--allow-host"),
        Bound("fields of an object", f"{body.MAX_FIELDS}", "400"),
        *(
            Bound(f"`{name}`", f"1 to {body.MAX_USERS:,} users", "400")
            for name in ("RecallBody.users", "ArticleBody.hist_item", "UpsertBody.users", "SimilarUsersBody.users")
        ),
        Bound("`SimilarBody.queries`", f"1 to {body.MAX_USERS:,} queries", "400"),
        Bound("`DeleteBody.user_ids`", f"1 to {body.MAX_USERS:,} users", "400"),
        *(Bound(f"`{name}`", OF_BODY, "413", "--max-body-bytes") for name in lists),
        *(
            Bound(f"`{name}`", OF_BODY, by_server)
            for name in (
                "User.user_id",
                "Update.user_id",
                "AtMost.attribute",
                "Boost.attribute",
                "FeedbackBody.user_id",
                "FeedbackBody.recall_id",
            )
        ),
        *(
            Bound(f"`{name}.filter`", OF_BODY, by_server)
            for name in ("RecallBody", "ExplainBody", "SimilarBody", "Boost", "Explore")
        ),
        *(
            Bound(f"`{name}.return_attributes`", f"{v1.MAX_ATTRIBUTES} names", "400")
            for name in ("RecallBody", "ExplainBody", "SimilarBody", "ItemsBody")
        ),
        *(Bound(f"`{name}.channel`", "a name of 32 characters", "400") for name in OF_A_CHANNEL_BY_HTTP),
        *(
            Bound(f"`{name}.split_key`", f"{v1.MAX_SPLIT_KEY} characters", "400")
            for name in ("RecallBody", "ExplainBody")
        ),
        Bound("`FeedbackBody.kind`", "1 to 64 characters", "400"),
        Bound("`FeedbackBody.item_ids`", OF_BODY, "413", "--max-body-bytes"),
        Bound("`RecallBody.page_token`", f"{v1.MAX_TOKEN:,} characters", "400"),
        *(Bound(f"`{name}.at_most`", f"{v1.MAX_ATTRIBUTES} rules", "400") for name in ("RecallBody", "ExplainBody")),
        *(Bound(f"`{name}.boosts`", f"{v1.MAX_ATTRIBUTES} boosts", "400") for name in ("RecallBody", "ExplainBody")),
        *(Bound(f"`{name}.pin_item_ids`", f"{v1.MAX_PINS:,} ids", "400") for name in ("RecallBody", "ExplainBody")),
        Bound("a text id of an item", f"{MAX_KEY_BYTES} bytes", "400"),
        *(Bound(f"`channel` of {path}", "a name of 32 characters", "400") for path in ("/v1/count", "/v1/info")),
        Bound("`filter` of /v1/count", f"{connections.MAX_HEADER_BYTES:,} bytes of headers", by_server),
        Bound("metrics that are read of a server", f"{operations.MAX_BYTES:,} bytes", "cut off"),
        Bound("`search` of /explorer/items", f"{pages.MAX_SEARCH} characters", "400"),
    ]


def table(bounds: list[Bound]) -> str:
    """The bounds as Markdown."""
    rows: list[tuple[Any, ...]] = [("what", "limit", "beyond it", "option"), ("---",) * 4]
    rows += [(each.what, each.limit, each.beyond, _code(each.option)) for each in bounds]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _code(options: str) -> str:
    return ", ".join(f"`{option}`" for option in options.split(", ") if option) or "fixed"


if __name__ == "__main__":
    print(f"Server:\n\n{table(of_server())}\n\nGateway:\n\n{table(of_gateway())}")
