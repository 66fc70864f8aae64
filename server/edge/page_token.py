"""Continues lists page by page: a token names the release and holds what each user was given, so no server keeps state.

A token comes from a stranger. It can only leave candidates of a release that the server has out, as `exclude_item_ids`
does; so it is bounded and checked, and needs no secret.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mind.milvus.channels import LIVE
from mind.sequences import Int64
from protos.recall.v1 import recall_pb2
from server.channels import Channels
from server.edge.limits import check_batch
from server.errors import InvalidRequestError
from server.release import Release
from server.releases import Releases
from server.serving.answer import UserResult
from server.serving.question import Query, UserQuery
from server.settings import Settings

MAX_GIVEN = 16_000
"""Most candidates of all users together that a token holds: 128 KB, so that answers stay under 4 MB."""
MAX_TOKEN_BYTES = 140_000
"""Most bytes of a token that is read."""

_HEAD = struct.Struct("<BB8s")
"""Format of the token, length of the release's name, digest of the request."""
_CHANNEL_OF = b"/"
"""Between the name of a channel and that of a collection. The channel `live` is left out, as by earlier versions."""
_FORMAT = 1
_MAY_DIFFER = ("users", "top_k", "paged", "page_token", "return_attributes")
"""The fields of a request that may differ from page to page; of the users, the user ids may not."""
_COUNT, _ID = np.dtype("<u4"), np.dtype("<i8")


@dataclass(frozen=True)
class Page:
    """Which part of longer lists a request wants."""

    channel: str
    """The channel of the first page."""
    release: Release
    """The release of the first page."""
    digest: bytes
    """Of what all pages of a list have in common."""
    given: list[Int64]
    """The candidates that each user has from the pages before."""
    most: int
    """Candidates of a user on all pages together."""

    def without_given(self, query: Query) -> Query:
        """The query of this page."""
        return replace(query, users=list(map(_without, query.users, self.given)))

    def add_next(self, answer: recall_pb2.RecallResponse, results: Sequence[UserResult], top_k: int) -> None:
        """Write the token of the next page into an answer, or why the pages end; neither if all lists have ended.

        `results`: of this page; `top_k`: candidates of a page.
        """
        if all(len(result.item_ids) < top_k for result in results):
            return
        given = [np.concatenate([own, result.item_ids]) for own, result in zip(self.given, results, strict=True)]
        ends = ""
        if max(map(len, given)) + top_k > self.most:
            ends = f"another one would exceed {self.most:,} candidates of a user"
        elif sum(map(len, given)) > MAX_GIVEN:
            ends = f"all users together have more than {MAX_GIVEN:,} candidates; ask for fewer users at once"
        for candidates in answer.results if ends else ():
            candidates.detail = candidates.detail or f"the pages end here: {ends}"
        if not ends:
            answer.next_page_token = self._token(given)

    def _token(self, given: list[Int64]) -> bytes:
        name = self.release.collection.encode()
        name = name if self.channel == LIVE else self.channel.encode() + _CHANNEL_OF + name
        counts = np.array([len(own) for own in given], _COUNT)
        ids = np.concatenate(given).astype(_ID)
        return _HEAD.pack(_FORMAT, len(name), self.digest) + name + counts.tobytes() + ids.tobytes()


def read_page(request: recall_pb2.RecallRequest, channels: Channels, first: Releases, limits: Settings) -> Page:
    """The page that a request wants, which has `paged` or a token.

    Args:
        request: the request.
        channels: those that are served.
        first: the channel of a first page. Later pages stay in the channel of their first one, whatever the split says.
        limits: the limits.

    Raises:
        InvalidRequestError: the token is not that of this request, or its release is not there.
    """
    check_batch("users", request.users, limits)
    digest, most = _digest(request), limits.max_paged
    if not request.page_token:
        return Page(first.channel, first.current, digest, [np.zeros(0, np.int64)] * len(request.users), most)
    channel, collection, of_request, given = _parse(request.page_token, len(request.users))
    if of_request != digest or (request.channel and request.channel != channel):
        raise _wrong("belongs to a request with other users or options; send those of the first page")
    if max(map(len, given)) + request.top_k > most:
        raise _wrong(f"has {max(map(len, given)):,} candidates of a user, and top_k more would exceed {most:,}")
    releases = channels.get(channel)
    if releases and (release := releases.of_collection(collection)):
        return Page(channel, release, digest, given, most)
    serves = releases.current.collection if releases else f"the channels {', '.join(each.channel for each in channels)}"
    raise InvalidRequestError(
        "page_token",
        f"is of a release that this server does not have; it serves {serves}; begin with the first page",
        "PAGE_RELEASE_GONE",
    )


def _parse(token: bytes, users: int) -> tuple[str, str, bytes, list[Int64]]:
    """The channel, the collection, the digest and the candidates of each user in a token of so many users."""
    if len(token) > MAX_TOKEN_BYTES:
        raise _wrong(f"has {len(token):,} bytes, the limit is {MAX_TOKEN_BYTES:,}")
    if len(token) < _HEAD.size or token[0] != _FORMAT:
        raise _wrong("is no token of this service; send next_page_token as it came")
    _, name_size, digest = _HEAD.unpack_from(token)
    counts_at = _HEAD.size + name_size
    ids_at = counts_at + users * _COUNT.itemsize
    counts = np.frombuffer(token[counts_at:ids_at], _COUNT) if ids_at <= len(token) else np.zeros(0, _COUNT)
    if len(counts) != users or ids_at + int(counts.sum(dtype=np.int64)) * _ID.itemsize != len(token):
        raise _wrong(f"is no token of a request with {users} users; send next_page_token as it came")
    ids = np.frombuffer(token[ids_at:], _ID).astype(np.int64)
    given = np.split(ids, np.cumsum(counts.astype(np.int64))[:-1])
    channel, slash, collection = token[_HEAD.size : counts_at].rpartition(_CHANNEL_OF)
    channel = channel if slash else LIVE.encode()
    return channel.decode(errors="replace"), collection.decode(errors="replace"), digest, given


def _digest(request: recall_pb2.RecallRequest) -> bytes:
    """Eight bytes of a digest of who the users are and how lists are made; histories may grow from page to page."""
    kept = {field.name: value for field, value in request.ListFields() if field.name not in _MAY_DIFFER}
    users = [recall_pb2.User(user_id=user.user_id) for user in request.users]  # histories are large, so not copied
    same = recall_pb2.RecallRequest(users=users, **kept)
    return hashlib.blake2b(same.SerializeToString(deterministic=True), digest_size=8).digest()


def _without(user: UserQuery, given: Int64) -> UserQuery:
    return replace(user, shown=np.concatenate([user.shown, given])) if len(given) else user


def _wrong(what: str) -> InvalidRequestError:
    return InvalidRequestError("page_token", what, "PAGE_TOKEN_INVALID")
