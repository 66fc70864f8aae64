"""Decodes the pins and the exploring of a request, checked against the limits."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mind.sequences import Int64
from protos.recall.v1 import recall_pb2
from server.edge.filters import read_filter
from server.edge.item_ids import check_id_type, field_of, read_ids
from server.errors import InvalidRequestError
from server.release import Release
from server.serving.question import Explore, UserQuery
from server.settings import Settings

NO_PINS = np.zeros(0, np.int64)

Request = recall_pb2.RecallRequest | recall_pb2.ExplainRequest


def read_pins(request: Request, limits: Settings, release: Release) -> Int64:
    """The pins, [p] int64. Raises InvalidRequestError."""
    if not request.pin_item_ids and not request.pin_item_keys:
        return NO_PINS
    check_id_type([request], release.has_text_ids, "")
    field = field_of("pin_item_ids", release.has_text_ids)
    [(pins, wrong)] = read_ids([request], field, limits.max_pins)
    if wrong:
        raise InvalidRequestError(field, wrong.removeprefix(f"{field} "), "INVALID_PINS")
    values, place = np.unique(pins, return_index=True)
    if len(values) < len(pins):
        twice = int(np.setdiff1d(np.arange(len(pins)), place)[0])
        raise InvalidRequestError(f"{field}[{twice}]", "is there twice", "INVALID_PINS")
    return pins


def read_explore(request: Request, limits: Settings, release: Release) -> Explore | None:
    """The places for items that are drawn; None if there are none. Raises InvalidRequestError."""
    if not request.HasField("explore"):
        return None
    share = request.explore.share
    if not 0 < share <= 1:
        said = f"is {share:g}, must be more than 0 and at most 1"
        raise InvalidRequestError("explore.share", said, "SHARE_OUT_OF_RANGE")
    return Explore(share, read_filter(request.explore.filter, limits, release, "explore.filter"))


def read_draws(request: Request, users: Sequence[UserQuery]) -> list[UserQuery]:
    """The users of a request that explores, each with the start of the drawing."""
    sent = request.users if isinstance(request, recall_pb2.RecallRequest) else [request.user]
    seed = request.explore.seed or secrets.randbits(64)
    names = [user.user_id or place for place, user in enumerate(sent)]
    return [replace(user, draw=_draw(seed, name)) for user, name in zip(users, names, strict=True)]


def _draw(seed: int, name: str | int) -> int:
    """Where the drawing begins for a user of that id, or at that place of the batch."""
    kind = "user" if isinstance(name, str) else "place"
    return int.from_bytes(hashlib.blake2b(f"{seed}/{kind}/{name}".encode(), digest_size=8).digest(), "big")
