"""Decodes the boosts of a request to `server.serving.question.Boost`, checked against the limits."""

import time

from mind.milvus.rules import MAX_ADDED, MAX_HALF_LIFE_DAYS, MIN_HALF_LIFE_DAYS, TIMES
from protos.recall.v1 import recall_pb2
from server.edge.filters import read_filter
from server.errors import InvalidRequestError
from server.release import Release
from server.serving.question import Boost
from server.settings import Settings

MINUTE_S = 60
"""The server's clock counts in minutes for boosts, so that what they add can be kept meanwhile."""
MAX_NOW_S = 2**40
"""A time 30,000 years from now, so that times in milliseconds are noticed in most cases."""
Request = recall_pb2.RecallRequest | recall_pb2.ExplainRequest


def read_boosts(request: Request, limits: Settings, release: Release) -> tuple[Boost, ...]:
    """The boosts of a request. Raises InvalidRequestError with the field, the value and the limit."""
    if len(request.boosts) > limits.max_boosts:
        said = f"has {len(request.boosts)} boosts, the limit is {limits.max_boosts}"
        raise InvalidRequestError("boosts", said, "TOO_MANY_BOOSTS")
    return tuple(_read(boost, f"boosts[{place}]", limits, release) for place, boost in enumerate(request.boosts))


def now_of(request: Request) -> int:
    """The time for boosts, in seconds since 1970. Raises InvalidRequestError."""
    if not 0 <= request.now_unix_s <= MAX_NOW_S:
        said = f"is {request.now_unix_s}, must be 0 to {MAX_NOW_S}"
        raise InvalidRequestError("now_unix_s", said, "NOW_OUT_OF_RANGE")
    return request.now_unix_s or int(time.time()) // MINUTE_S * MINUTE_S


def _read(boost: recall_pb2.Boost, field: str, limits: Settings, release: Release) -> Boost:
    if bool(boost.filter.strip()) == bool(boost.attribute):
        there = "both filter and attribute" if boost.attribute else "neither filter nor attribute"
        raise InvalidRequestError(field, f"has {there}, must have one of them", "BAD_BOOST")
    if boost.attribute:
        if boost.add:
            raise InvalidRequestError(f"{field}.add", "goes with filter; with attribute, give weight", "BAD_BOOST")
        return _by_age(boost, field, release)
    if boost.weight or boost.half_life_days:
        raise InvalidRequestError(f"{field}.weight", "goes with attribute; with filter, give add", "BAD_BOOST")
    _check_added(boost.add, f"{field}.add")
    return Boost(filter=read_filter(boost.filter, limits, release, f"{field}.filter"), add=boost.add)


def _by_age(boost: recall_pb2.Boost, field: str, release: Release) -> Boost:
    kind = release.attributes.get(boost.attribute)
    if kind not in TIMES:
        there = ", ".join(name for name, kind in release.attributes.items() if kind in TIMES) or "none"
        wrong = f"is of type {kind}" if kind else "is unknown"
        said = f"{boost.attribute!r} {wrong}; the attributes that can be a time are {there}"
        raise InvalidRequestError(f"{field}.attribute", said, "UNKNOWN_ATTRIBUTE")
    days = boost.half_life_days
    if not MIN_HALF_LIFE_DAYS <= round(days, 6) <= MAX_HALF_LIFE_DAYS:
        said = f"is {days:g}, must be {MIN_HALF_LIFE_DAYS:g} to {MAX_HALF_LIFE_DAYS:g}"
        raise InvalidRequestError(f"{field}.half_life_days", said, "HALF_LIFE_OUT_OF_RANGE")
    _check_added(boost.weight, f"{field}.weight")
    return Boost(attribute=boost.attribute, half_life_days=days, weight=boost.weight)


def _check_added(added: float, field: str) -> None:
    if not 0 < abs(added) <= MAX_ADDED:
        said = f"is {added:g}, must be -{MAX_ADDED:g} to {MAX_ADDED:g} and not 0"
        raise InvalidRequestError(field, said, "BOOST_OUT_OF_RANGE")
