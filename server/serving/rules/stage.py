"""The stage of rules: it gets what they need to know of items, and applies them to merged and to popular items."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mind.artifact import Float32
from mind.sequences import Int64
from server.popular import Popular
from server.release import Release
from server.serving.attributes import Attributes
from server.serving.columns import Groups
from server.serving.depth import Depth
from server.serving.local import LocalItems
from server.serving.matching import Matches
from server.serving.merge import Merged, NearHits
from server.serving.offload import computed
from server.serving.question import Query
from server.serving.rules.popular import PopularRule
from server.serving.rules.variety import Ranked, Rules, Varied, ranked, vary
from server.serving.search import Found

RULE_ITEMS = 3
"""To apply rules to an item takes as long as to work through so many items (`server.serving.offload`)."""
FIRST = 1.5
"""Times the items that a user needs are looked at first. Only if rules drop so many of them, all items are."""
PAIRS_AN_ITEM = 30
"""So many similarities of items are computed in the time that it takes to work through one."""


class RulesStage:
    """Applies the rules of requests."""

    def __init__(self, attributes: Attributes, local: LocalItems) -> None:
        """`attributes`: of items; `local`: knows the embeddings of items that were added since the build."""
        self._attributes = attributes
        self._local = local

    async def choose(
        self,
        release: Release,
        rules: Rules,
        merged: Merged,
        found: Found,
        near: NearHits,
        depths: Sequence[Depth],
        time_left_s: float,
    ) -> Varied:
        """Choose the candidates of the active users of a batch; arguments as of `ranked`."""
        size = RULE_ITEMS * len(merged.item_ids)
        for times in FIRST, np.inf:
            items = await computed(size, ranked, rules, merged, found, near, depths, times)
            if varied := await self._chosen(release, rules, merged, items, size, time_left_s):
                return varied
        raise AssertionError("rules that see all items choose among them")

    async def _chosen(
        self, release: Release, rules: Rules, merged: Merged, items: Ranked, size: int, time_left_s: float
    ) -> Varied | None:
        """What `vary` chooses; `size`: of the computation, without the similarities of items."""
        groups, why = dict[str, Groups](), ""
        if rules.most:
            own, item_ids = await computed(len(items.row), _capped, rules, merged, items)
            told, why = await self._attributes.groups(release, list(rules.most), item_ids, time_left_s)
            groups = await computed(len(own) * len(told), _of_items, told, own)
        fresh = None
        if rules.diversity.any():
            size += int((rules.needed[rules.diversity > 0] ** 2).sum()) // PAIRS_AN_ITEM
            if await self._local.seen(release, time_left_s):
                fresh = self._local.known(release).items

        def vectors(item_ids: Int64) -> Float32:
            return embeddings_of(release, fresh, item_ids)

        varied = await computed(size, vary, rules, merged, items, groups, vectors)
        if not why or not varied:
            return varied
        capped = rules.capped.tolist()
        missing = _missing(list(rules.most), list(groups), why)
        return replace(
            varied, detail=[missing if own else said for own, said in zip(capped, varied.detail, strict=True)]
        )

    async def for_popular(
        self, release: Release, query: Query, popular: Popular, time_left_s: float
    ) -> PopularRule | None:
        """What the rules of a query leave of a list of popular items; None if they leave all."""
        if not query.variety.at_most:
            return None
        names = [name for name, _ in query.variety.at_most]
        groups, why = await self._attributes.groups(release, names, popular.item_ids, time_left_s)
        known = [(groups[name], most) for name, most in query.variety.at_most if name in groups]
        return PopularRule(known, _missing(names, list(groups), why) if why else "")


def _capped(rules: Rules, merged: Merged, items: Ranked) -> tuple[Int64, Int64]:
    """The places and the ids of the items of users with at_most."""
    own = np.flatnonzero(rules.capped[items.user])
    return own, merged.item_ids[items.row[own]]


def _of_items(told: Mapping[str, Groups], own: Int64) -> dict[str, Groups]:
    """The values of items, of some of which they were told; `own`: the places of those."""
    return {name: replace(its, place=own[its.place]) for name, its in told.items()}


def _missing(names: Sequence[str], known: Sequence[str], why: str) -> str:
    """What to say of rules whose attributes are not known."""
    return f"at_most is not applied to {', '.join(name for name in names if name not in known)}: {why}"


def embeddings_of(release: Release, fresh: Matches | None, item_ids: Int64) -> Float32:
    """The embeddings of items, [n, D] float32; zero for those that nothing is known of.

    `fresh`: has the items that were added since the build; None if they are not known.
    """
    row = release.vocabulary.item_index(item_ids)
    found = release.item_embedding[row]
    if fresh is not None and len(fresh.fresh_ids):
        place = np.minimum(np.searchsorted(fresh.fresh_ids, item_ids), len(fresh.fresh_ids) - 1)
        is_fresh = fresh.fresh_ids[place] == item_ids
        found[is_fresh] = fresh.fresh_vectors[place[is_fresh]]
    return found
