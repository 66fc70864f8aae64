"""How many hits are fetched for each user: users who want different numbers share a search where that costs little.

Milvus fetches one number of hits for all queries of a search. 64 users with 128 hits of each interest cost it 14 % more
than with 50, and with 256 twice as much (HNSW, ef 128, 367,982 items). More hits cost in proportion, because an index
must look at as many items as it gives. So all users up to `TOGETHER` hits share searches, those up to 192 share others,
those up to 256 others, and so on. Users with many hits cost the others nothing.

Exclusions take hits away, and a user with a long history excludes much that is not near. So a first search leaves room
for few of them. Only a user whom it gave too little is searched for again, with room for all exclusions. The items that
a user was shown were the nearest ones of some interest, so a first search has room for twice the share of an interest.

Boosts that lower items may bring items to the top that are not among the nearest. So a first search has room for as
many lowered items as there would be if they were spread evenly. A user for whom that was not enough is searched for
again among all items, in memory.

A rule such as at_most may drop any number of hits. So users with such rules are searched for again and again, each time
`WIDER`, until they have enough, or all that there is.
"""

from dataclasses import dataclass, replace

from mind.interests import OVERSEARCH
from mind.milvus.collection import MAX_HITS
from server.release import Release
from server.serving.matching import Matches
from server.serving.question import Query, UserQuery

TOGETHER = 128
"""Hits up to which all users share searches, or fewer where the index looks at fewer candidates."""
ROOM = 4
"""The first search has room for one exclusion for each so many candidates wanted, even if that takes a higher step."""
ROUND = 10
"""Hits are asked for in multiples of it, so that searches of a step differ little."""
WIDER = 4
"""How many times the hits of the search before the next one fetches for a user whose rules drop hits."""
DEEP = 1_024
"""Hits of an interest from which users with such rules do not share a search with others."""
MARGIN = 1.25
"""With boosts that lower items, a search fetches so many times the hits that would do if these were spread evenly."""
MOST_LOWERED = 0.5
"""Share of the items that boosts lower beyond which all items are scored at once."""
DEEP_HITS = 1_000_000
"""Most hits of all users of such a search."""


@dataclass(frozen=True)
class Depth:
    """How deep to search for one user."""

    limit: int
    """Hits of each interest that the user gets, if there are as many."""
    needed: int
    """Hits of which `top_k` are left whatever is excluded, as far as the server over-fetches."""
    fetched: int
    """Hits that Milvus is asked for at most; 0 with a filter, because its matches are searched in memory."""
    step: int
    """Users of one step share a search."""
    widens: bool = False
    """Whether the user has rules that may drop any number of hits; `needed` is then all that may be fetched."""
    lowers: bool = False
    """Whether boosts lower items of the user, which means that the next search scores all items."""
    whole: bool = False
    """Whether all items are scored in memory."""

    @property
    def goes_on(self) -> bool:
        """Whether another search may find more."""
        return self.needed > self.limit or self.lowers

    @property
    def kind(self) -> tuple[int, bool]:
        """Users of one kind share a search."""
        return self.step, self.whole

    @property
    def deep(self) -> bool:
        """Whether the user is searched for without others, as far as `DEEP_HITS` need it."""
        return self.widens and self.limit > DEEP

    def together(self, interests: int) -> int | None:
        """Most users of one search; None for any number."""
        return max(1, DEEP_HITS // (interests * self.limit)) if self.deep else None


def first_depths(
    release: Release, matches: Matches | None, query: Query, max_overfetch: int, lowered: float | None = None
) -> list[Depth]:
    """The depth to begin with for each user of a query; arguments as of `first_depth`.

    `lowered`: the share of the items that boosts lower; None without boosts. A depth follows from three lengths, which
    many users of a query share.
    """
    known: dict[tuple[int, int, int], Depth] = {}
    found = []
    for user in query.users:
        lengths = len(user.exclude), len(user.hist_item) if query.exclude_history else 0, len(user.shown)
        depth = known.get(lengths)
        if depth is None:
            depth = first_depth(release, matches, query, user, max_overfetch, lowered)
            depth = known[lengths] = replace(depth, lowers=True, whole=lowered > MOST_LOWERED) if lowered else depth
        found.append(depth)
    return found


def first_depth(
    release: Release,
    matches: Matches | None,
    query: Query,
    user: UserQuery,
    max_overfetch: int,
    lowered: float | None = None,
) -> Depth:
    """The depth to begin with for a user.

    `matches`: of the query's filter; None without a filter. `lowered`: as of `first_depths`.
    """
    top_k, boosted = query.ranked, lowered is not None
    if lowered and lowered <= MOST_LOWERED:
        top_k = int(top_k / (1 - lowered) * MARGIN) + ROUND
    widens, shown = bool(query.variety.at_most), len(user.shown)
    history = len(user.hist_item) if query.exclude_history else 0
    excluded = min(max_overfetch, len(user.exclude) + len(query.pins) + history)
    if not (excluded or shown or widens):
        return _depth(release, matches, top_k, max(top_k, TOGETHER) if boosted else top_k, top_k)
    recent = min(history, release.hyper_parameters.maxlen)  # older clicks are seldom among the hits
    near = len(user.exclude) + len(query.pins) + recent
    room = top_k // ROOM
    share = min(shown, 2 * shown // release.hyper_parameters.num_interests)
    least = top_k + min(excluded, room) + share
    wanted = top_k + min(excluded, max(room, near)) + shown
    if widens:
        most = MAX_HITS // _each(release) if matches is None else len(matches) + 1
        return _widening(release, matches, least, wanted + max(ROUND, top_k // ROUND), most)
    wanted = max(wanted, TOGETHER) if boosted else wanted  # the more hits, the fewer boosted items must be scored
    return _depth(release, matches, least, wanted, top_k + excluded + shown)


def exact_depth(query: Query, user: UserQuery, max_overfetch: int, whole: bool = False) -> Depth:
    """The depth for an exact search, which finds at once whatever the exclusions leave; `whole`: as of `Depth`."""
    history = len(user.hist_item) if query.exclude_history else 0
    left_out = (
        max_overfetch if query.variety.at_most else min(max_overfetch, len(user.exclude) + len(query.pins) + history)
    )
    needed = query.ranked + len(user.shown) + left_out
    return Depth(needed, needed, 0, 0, whole=whole)


def full_depth(release: Release, matches: Matches | None, depth: Depth) -> Depth:
    """The depth for a user whom `depth` gave too little."""
    if depth.widens:
        most = depth.needed
        deeper = _widening(release, matches, min(most, WIDER * depth.limit), most, most)
    else:
        deeper = _depth(release, matches, depth.needed, depth.needed, depth.needed)
    return replace(deeper, whole=True) if depth.lowers or depth.whole else deeper


def hits_to_ask(fetched: int, wanted: int, breadth: int | None) -> int:
    """The number of hits to ask Milvus for.

    Args:
        fetched: the most that any user of the step may want.
        wanted: the most that a user of this search wants. It does where the index would find the same, only more of
            it; otherwise a user's answer would depend on the neighbours.
        breadth: `Fingerprint.breadth` of what is searched.
    """
    if not breadth or fetched > breadth:
        return fetched
    return min(fetched, -(-wanted // ROUND) * ROUND)


def _widening(release: Release, matches: Matches | None, least: int, wanted: int, most: int) -> Depth:
    """The depth for a user with rules that drop hits; `most`: hits that may be fetched."""
    depth = _depth(release, matches, min(least, most), min(wanted, most), least)
    return replace(depth, needed=max(most, depth.limit), widens=True)


def _each(release: Release) -> int:
    """Hits that are fetched for each hit that an interest gets."""
    return OVERSEARCH if release.fingerprint.interest_cosine < 1 else 1


def _depth(release: Release, matches: Matches | None, least: int, wanted: int, needed: int) -> Depth:
    """The depth with at least `least` hits, and as many of those `wanted` as the same step has."""
    if matches is None:
        each = _each(release)
        fetched = _step(least * each, release.fingerprint.breadth)
        return Depth(min(wanted, max(least, fetched // each)), needed, fetched, fetched)
    return Depth(needed, needed, 0, -_step(needed, None))


def _step(hits: int, breadth: int | None) -> int:
    """The lowest step with so many hits: beyond `TOGETHER`, a power of two, or three quarters of one."""
    together = min(TOGETHER, breadth or TOGETHER)
    if hits <= together:
        return together
    power = 1 << (hits - 1).bit_length()
    return min(MAX_HITS, power * 3 // 4 if hits <= power * 3 // 4 else power)
