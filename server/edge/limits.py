"""The limits that several kinds of requests share: number of users, top_k, length of a user_id."""

from collections.abc import Sequence

from mind.milvus.users import MAX_USER_ID_BYTES
from server.errors import InvalidRequestError
from server.release import Release
from server.settings import Settings

INTEGER_CANDIDATE_BYTES = 23
"""Size in bytes of a candidate in an answer within `max_candidates`: 3.5 MB by default. An integer id takes up to 16.
"""
KEY_CANDIDATE_BYTES = 8
"""Size in bytes of a candidate without its key: score, interest, and the tag and the length of the key."""


def most_candidates(limits: Settings, release: Release) -> int:
    """Return the limit for users times top_k: `max_candidates`, or less if long keys would make answers too large."""
    longest = release.longest_key + KEY_CANDIDATE_BYTES
    return limits.max_candidates * INTEGER_CANDIDATE_BYTES // max(longest, INTEGER_CANDIDATE_BYTES)


def check_batch(
    field: str, users: Sequence[object], limits: Settings, one: str = "user", several: str = "users"
) -> None:
    """Check the number of users or queries of a request. Raises InvalidRequestError.

    `one` and `several`: what the message calls them.
    """
    if not users:
        raise InvalidRequestError(field, f"is empty; a request has 1 {one} or more", "EMPTY_BATCH")
    if len(users) > limits.max_users:
        wrong = f"has {len(users)} {several}, the limit is {limits.max_users}"
        raise InvalidRequestError(field, wrong, f"TOO_MANY_{several.upper()}")


def check_top_k(top_k: int, limits: Settings) -> None:
    """Check the number of results for each user. Raises InvalidRequestError."""
    if not 1 <= top_k <= limits.max_top_k:
        raise InvalidRequestError("top_k", f"is {top_k}, must be 1 to {limits.max_top_k}", "TOP_K_OUT_OF_RANGE")


def check_total(users: int, top_k: int, wanted: str, limit: int, several: str = "users") -> None:
    """Check the total number of results, which the message calls `wanted`. Raises InvalidRequestError."""
    if users * top_k > limit:
        total = f"{users} {several} times {top_k} {wanted} is {users * top_k}, the limit is {limit}"
        raise InvalidRequestError("top_k", f"{total}; send fewer {several} at once", "TOO_MANY_CANDIDATES")


def check_user_id(user_id: str) -> str:
    """Return what is wrong with a user id; empty if nothing is."""
    size = len(user_id.encode())
    if 1 <= size <= MAX_USER_ID_BYTES:
        return ""
    return f"user_id has {size} bytes, must have 1 to {MAX_USER_ID_BYTES}"
