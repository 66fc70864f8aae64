"""Decodes the rules of a request to `server.serving.question.Variety`, checked against the limits."""

from collections.abc import Sequence

from protos.recall.v1 import recall_pb2
from server.errors import InvalidRequestError
from server.release import Release
from server.serving.question import ANY, Variety
from server.settings import Settings


def read_variety(
    request: recall_pb2.RecallRequest | recall_pb2.ExplainRequest, limits: Settings, release: Release
) -> Variety:
    """The rules of a request. Raises InvalidRequestError with the field, the value and the limit."""
    least, diversity = request.per_interest_min, request.diversity
    if not request.at_most and not least and diversity == 0:
        return ANY
    interests = release.hyper_parameters.num_interests
    most = request.top_k // interests
    if not 0 <= least <= most:
        said = f"is {least}, must be 0 to {most}: {interests} interests share top_k, which is {request.top_k}"
        raise InvalidRequestError("per_interest_min", said, "PER_INTEREST_MIN_OUT_OF_RANGE")
    if not 0 <= diversity <= 1:
        raise InvalidRequestError("diversity", f"is {diversity:g}, must be 0 to 1", "DIVERSITY_OUT_OF_RANGE")
    if diversity and request.top_k > limits.max_diverse_top_k:
        said = f"is {request.top_k}, must be 1 to {limits.max_diverse_top_k} for a request with diversity"
        raise InvalidRequestError("top_k", said, "TOP_K_OUT_OF_RANGE")
    return Variety(_read_at_most(request.at_most, limits, release), least, diversity)


def _read_at_most(
    rules: Sequence[recall_pb2.AtMost], limits: Settings, release: Release
) -> tuple[tuple[str, int], ...]:
    """The attributes of at_most and their counts. Raises InvalidRequestError."""
    if len(rules) > limits.max_at_most:
        said = f"has {len(rules)} rules, the limit is {limits.max_at_most}"
        raise InvalidRequestError("at_most", said, "TOO_MANY_RULES")
    known = release.attributes if rules else {}
    found: dict[str, int] = {}
    for place, rule in enumerate(rules):
        name, field = rule.attribute, f"at_most[{place}]"
        if name not in known or name in found:
            there = ", ".join(known) or "none"
            wrong = "is there twice" if name in found else f"is unknown; the attributes are {there}"
            raise InvalidRequestError(f"{field}.attribute", f"{name!r} {wrong}", "UNKNOWN_ATTRIBUTE")
        if not 1 <= rule.count <= limits.max_top_k:
            said = f"is {rule.count}, must be 1 to {limits.max_top_k}"
            raise InvalidRequestError(f"{field}.count", said, "COUNT_OUT_OF_RANGE")
        found[name] = rule.count
    return tuple(found.items())
