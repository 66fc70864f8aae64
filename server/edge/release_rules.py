"""Adds the rules of a release to those of a request, unless the request turns them off.

They were checked against the collection when they were published. What does not fit a request, such as diversity with
a large top_k, does not apply to it: no request fails for a rule that it did not send.
"""

from collections.abc import Mapping
from dataclasses import replace

from mind.milvus.filter.canonical import canonical
from mind.milvus.rules import MAX_DEPTH, NO_RULES, BoostRule, ReleaseRules
from protos.recall.v1 import recall_pb2
from server.errors import InvalidRequestError
from server.release import Release
from server.serving.question import ANY, Boost, Explore, Query, Variety
from server.settings import Settings

Request = recall_pb2.RecallRequest | recall_pb2.ExplainRequest


def with_release_rules(query: Query, request: Request, limits: Settings, release: Release) -> Query:
    """A query with the rules of the release. Raises InvalidRequestError for a number without a meaning."""
    if request.release_rules not in recall_pb2.ReleaseRules.values():
        most = max(recall_pb2.ReleaseRules.values())
        raise InvalidRequestError("release_rules", f"is {request.release_rules}, must be 0 to {most}", "UNKNOWN_RULES")
    rules = release.rules
    if rules == NO_RULES or request.release_rules == recall_pb2.RELEASE_RULES_OFF:
        return query
    attributes = release.fingerprint.attributes
    explore = query.explore
    if explore is None and rules.explore:
        explore = Explore(rules.explore.share, canonical(rules.explore.filter, attributes, MAX_DEPTH))
    return replace(
        query,
        boosts=(*(_boost(rule, attributes) for rule in rules.boosts), *query.boosts),
        variety=_variety(query, rules, limits, release.hyper_parameters.num_interests),
        explore=explore,
    )


def _boost(rule: BoostRule, attributes: Mapping[str, str]) -> Boost:
    if rule.attribute:
        days = rule.half_life_days or 0.0
        return Boost(attribute=rule.attribute, half_life_days=days, weight=rule.weight, of_release=True)
    return Boost(filter=canonical(rule.filter, attributes, MAX_DEPTH), add=rule.add, of_release=True)


def _variety(query: Query, rules: ReleaseRules, limits: Settings, interests: int) -> Variety:
    own = query.variety
    at_most = {rule.attribute: rule.count for rule in rules.at_most}
    for name, count in own.at_most:
        at_most[name] = min(count, at_most.get(name, count))
    least = own.per_interest_min or min(rules.per_interest_min, query.top_k // interests)
    diversity = own.diversity or (rules.diversity if query.top_k <= limits.max_diverse_top_k else 0.0)
    return Variety(tuple(at_most.items()), least, diversity) if at_most or least or diversity else ANY
