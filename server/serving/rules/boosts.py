"""Gives what the boosts of queries add to items, and keeps it for the next queries with the same boosts.

A boost by filter adds to the items that match (`server.serving.matching`). A boost by age needs a time of every item,
so its attribute must be in memory as a column (`server.serving.attributes`).
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mind.artifact import Float32
from mind.milvus.errors import FilterError
from mind.sequences import Int64
from server.errors import InvalidRequestError
from server.release import Release
from server.serving.attributes import Attributes, Whole
from server.serving.local import LocalItems
from server.serving.matching import Matches, MatchingItems
from server.serving.question import Boost, Query
from server.serving.rules.lift import Lift, Part, lift_of

MAX_BYTES = 64 * 2**20
"""Memory for what is kept: 20 queries with boosts that add to 368,000 items each."""
DAY_S = 86_400.0


@dataclass(frozen=True)
class _Kept:
    lift: Lift
    needs: Sequence[object]
    """What it was made of. The key has their ids, so they must live as long as it is kept."""


class Boosts:
    """Gives what boosts add."""

    def __init__(self, matching: MatchingItems, attributes: Attributes, local: LocalItems) -> None:
        """`matching`: the items that match filters; `attributes`, `local`: of all items."""
        self._matching = matching
        self._attributes = attributes
        self._local = local
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._making: dict[Hashable, asyncio.Task[Lift]] = {}

    async def of(
        self, release: Release, query: Query, matches: Matches | None, timeout_s: float, away: bool = False
    ) -> tuple[Lift | None, str]:
        """What the boosts of a query add together, and why some of them are not applied.

        Args:
            release: whose items.
            query: has boosts.
            matches: the items that match its filter; None without a filter.
            timeout_s: most time to wait for Milvus.
            away: whether Milvus does not answer, so that what was seen last is used.

        Raises:
            InvalidRequestError: Milvus cannot use a filter.
            StoreUnavailableError: Milvus did not answer in time.
        """
        deadline, missing = time.perf_counter() + timeout_s, []
        boosts, needs = list[Boost](), list[Matches | Whole]()
        scope = None
        if any(boost.attribute for boost in query.boosts):
            if not away:
                await self._local.catch_up(release, timeout_s)
            scope = self._local.known(release).items
        for boost in query.boosts:
            left_s = max(0.001, deadline - time.perf_counter())
            need, why = await self._need(release, boost, left_s, away)
            if need is None:
                missing.append(f"{boost.attribute or boost.filter} ({why})")
            else:
                boosts.append(boost)
                needs.append(need)
        said = f"boosts are not applied: {', '.join(missing)}" if missing else ""
        if not boosts:
            return None, said
        return await self._lift(release, query, boosts, needs, scope, matches), said

    async def _need(
        self, release: Release, boost: Boost, left_s: float, away: bool
    ) -> tuple[Matches | Whole | None, str]:
        """What must be known to apply a boost; or None, and why it is not known."""
        if boost.attribute:
            return await self._attributes.whole(release, boost.attribute, left_s)
        if away:
            return self._matching.last(release, boost.filter), "Milvus does not answer"
        try:
            return await self._matching.of(release, boost.filter, left_s), ""
        except FilterError as error:
            raise InvalidRequestError("boosts.filter", str(error), error.reason) from error

    async def _lift(
        self,
        release: Release,
        query: Query,
        boosts: Sequence[Boost],
        needs: Sequence[Matches | Whole],
        scope: Matches | None,
        matches: Matches | None,
    ) -> Lift:
        objects = [*needs, scope, matches]
        versions = [need.version if isinstance(need, Whole) else id(need) for need in needs]
        now_s = query.now_s if scope else 0
        key = release.collection, tuple(boosts), now_s, *versions, id(scope), id(matches)
        if kept := self._kept.get(key):
            self._kept.move_to_end(key)
            return kept.lift
        if key not in self._making:

            async def make() -> Lift:
                try:
                    lift = await asyncio.to_thread(_made, release, boosts, needs, scope, matches, now_s)
                    self._keep(key, _Kept(lift, objects))
                    return lift
                finally:
                    del self._making[key]

            self._making[key] = asyncio.create_task(make())
        return await asyncio.shield(self._making[key])

    def _keep(self, key: Hashable, kept: _Kept) -> None:
        self._kept[key] = kept
        size = sum(each.lift.nbytes for each in self._kept.values())
        while size > MAX_BYTES and len(self._kept) > 1:
            size -= self._kept.popitem(last=False)[1].lift.nbytes


def _made(
    release: Release,
    boosts: Sequence[Boost],
    needs: Sequence[Matches | Whole],
    scope: Matches | None,
    matches: Matches | None,
    now_s: int,
) -> Lift:
    parts = []
    for boost, need in zip(boosts, needs, strict=True):
        if isinstance(need, Whole):
            assert scope is not None  # noqa: S101 - known if a boost is by age
            parts.append(_by_age(release, boost, need, scope, now_s))
        else:
            add = np.array([boost.add], np.float32)
            parts.append(Part(boost, need, add, add))
    return lift_of(parts, len(release.item_embedding), matches)


def _by_age(release: Release, boost: Boost, column: Whole, scope: Matches, now_s: int) -> Part:
    """What a boost by age adds to the items that have a time."""
    times, fresh_times = column.numbers(release, scope.fresh_ids)
    added, fresh_added = _decayed(boost, times[scope.rows], now_s), _decayed(boost, fresh_times, now_s)
    there, fresh = ~np.isnan(added), ~np.isnan(fresh_added)
    items = Matches(scope.rows[there], scope.fresh_ids[fresh], scope.fresh_vectors[fresh])
    return Part(boost, items, added[there], fresh_added[fresh])


def _decayed(boost: Boost, times: npt.NDArray[np.float64], now_s: int) -> Float32:
    """What items with these times get, [n] float32; NaN for an item without a time."""
    age_days = np.maximum(now_s - times, 0) / DAY_S
    added: Float32 = (boost.weight * np.exp2(-age_days / boost.half_life_days)).astype(np.float32)
    return added


def with_parts(lift: Lift, release: Release, item_ids: Int64) -> list[tuple[Boost, Float32]]:
    """What each boost adds to some items, for Explain."""
    return [(part.boost, part.of(release, item_ids)) for part in lift.parts]
