"""Applies the rules of a batch's users to their merged lists.

The merge gives all items of users with rules, ranked, and each rule takes the list that the one before it gives: first
at_most drops items, then diversity orders the best of the others, then per_interest_min moves items up. The first
`top_k` become candidates. Another rule that ranks items would come before at_most.

A list is only ranked as a search of the whole collection would rank it down to the last hit of an interest that has
more. If the rules need items beyond, the user is searched for again, deeper (`server.serving.depth`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mind.artifact import Float32
from mind.sequences import Int64
from mind.vocabulary import Mask
from server.serving.columns import Groups
from server.serving.depth import Depth
from server.serving.merge import Fate, Merged, NearHits
from server.serving.question import ANY, Query
from server.serving.rules.at_most import allowed, without_room
from server.serving.rules.diversity import diversified, relevance_of
from server.serving.rules.per_interest import with_each_interest
from server.serving.search import Found

EVERYTHING = 2**62
"""Candidates of a user that the merge gives, if there are rules to choose among them."""


@dataclass(frozen=True)
class Rules:
    """The rules of B users."""

    top_k: Int64
    """[B] int64, candidates that are wanted."""
    needed: Int64
    """[B] int64, items that the rules choose among, once at_most has dropped some; 0 for users without rules."""
    round_robin: Mask
    """[B] bool, whether a user's interests take turns."""
    most: Mapping[str, Int64]
    """For each attribute, [B] int64, how many candidates may share a value; 0 for any number."""
    per_interest_min: Int64
    """[B] int64, candidates that each interest has at least."""
    diversity: Float32
    """[B] float32, how much candidates shall differ, 0 to 1."""

    @property
    def ruled(self) -> Mask:
        """[B] bool, whether each user has rules."""
        return self.needed > 0

    @property
    def merged(self) -> Int64:
        """[B] int64, items that the merge must give."""
        return np.where(self.ruled, EVERYTHING, self.top_k)

    @property
    def capped(self) -> Mask:
        """[B] bool, whether each user has a rule about attributes."""
        return np.any([most > 0 for most in self.most.values()], axis=0) if self.most else np.zeros_like(self.ruled)


@dataclass(frozen=True)
class Ranked:
    """The merged items that the rules of some users choose among, those of a user together and in their order."""

    row: Int64
    """[n] int64, their places among all merged items."""
    user: Int64
    """[n] int64, ascending."""
    sure: Mask
    """[n] bool, which have the place that a search of the whole collection would give them."""
    limit: Int64
    """[B] int64, hits of each interest that were wanted."""
    ends: Mask
    """[B] bool, whether these hits are all that there are."""
    deeper: Mask
    """[B] bool, for whom a deeper search finds more."""
    cut: Mask
    """[B] bool, of whose merged items the worst were left out."""


@dataclass(frozen=True)
class Varied:
    """What the rules made of merged lists."""

    merged: Merged
    """The candidates of all users."""
    short: Mask
    """[B] bool, who must be searched for again, deeper. These users have no candidates."""
    detail: Sequence[str]
    """For each user, what a person may want to know about the list; often empty."""
    capped_by: Mapping[str, Mask]
    """For each attribute of at_most, [H + P] bool, the hits that it dropped; none unless fates were asked for."""


def rules_of(queries: Sequence[Query], query: Int64, top_k: Int64, round_robin: Mask) -> Rules | None:
    """The rules of B users; None if nobody has any.

    Args:
        queries: those of a batch.
        query: [B] int64, the place of each user's among them.
        top_k: [B] int64.
        round_robin: [B] bool.
    """
    rules = [each.variety for each in queries]
    if not len(query) or all(own is ANY for own in rules):
        return None
    names = dict.fromkeys(name for own in rules for name, _ in own.at_most)
    return Rules(
        top_k,
        np.array([0 if each.variety is ANY else each.ranked for each in queries])[query],
        round_robin,
        {name: np.array([dict(own.at_most).get(name, 0) for own in rules])[query] for name in names},
        np.array([own.per_interest_min for own in rules])[query],
        np.array([own.diversity for own in rules], np.float32)[query],
    )


def ranked(
    rules: Rules, merged: Merged, found: Found, near: NearHits, depths: Sequence[Depth], times: float = np.inf
) -> Ranked:
    """The items that the rules choose among.

    Args:
        rules: of the users.
        merged: their merged lists, complete for users with rules.
        found: the hits of the search.
        near: those of the second source.
        depths: how deep each user was searched for.
        times: so many times the items that a user needs are looked at, unless each interest must have candidates.
    """
    limit = np.array([depth.limit for depth in depths], np.int64)
    open_ = found.goes_on(limit)
    if found.bound is None:
        open_ &= found.hits.lengths > 0
    goes_on = np.zeros(len(limit), bool)
    goes_on[found.user[open_]] = True
    deeper = goes_on & np.array([depth.goes_on for depth in depths], bool)
    user = np.arange(len(limit)).repeat(np.diff(merged.offsets))
    row = np.flatnonzero(rules.ruled[user])
    user = user[row]
    least = np.full(len(limit), -np.inf, np.float32)
    if found.bound is None:
        last = np.cumsum(found.hits.lengths) - 1
        np.maximum.at(least, found.user[open_], found.hits.scores[last[open_]])
    else:
        np.maximum.at(least, found.user, found.bound)
    values = merged.values
    sure = values[row] >= least[user]
    if rules.round_robin.any():
        turns = np.full(len(limit), EVERYTHING)
        np.minimum.at(turns, found.user[open_], found.hits.lengths[open_])
        lengths = np.concatenate([found.hits.lengths, near.hits.lengths])
        ends = np.cumsum(lengths)
        query = np.searchsorted(ends, merged.hit[row], side="right")
        turn = merged.hit[row] - (ends - lengths)[query]
        sure = np.where(rules.round_robin[user], turn < turns[user], sure)
    considered = sure | ~deeper[user] | (rules.per_interest_min[user] > 0)
    within = row - merged.offsets[user] < times * rules.needed[user]
    within |= rules.per_interest_min[user] > 0
    cut = np.zeros(len(limit), bool)
    cut[user[considered & ~within]] = True
    considered &= within
    return Ranked(row[considered], user[considered], sure[considered], limit, ~goes_on, deeper, cut)


def vary(
    rules: Rules, merged: Merged, items: Ranked, groups: Mapping[str, Groups], vectors: Callable[[Int64], Float32]
) -> Varied | None:
    """The candidates that the rules choose; None if they must see items that were left out.

    Args:
        rules: of the users.
        merged: their merged lists.
        items: those of them that the rules choose among (`ranked`).
        groups: the values of these items, of each attribute that is known.
        vectors: gives the embeddings of items by id, [n] int64, as [n, D] float32; zero for one that is unknown.
    """
    kept = _allowed(rules, items, groups)
    most = _most(rules, groups)
    enough = np.bincount(items.user[kept & items.sure], minlength=len(most)) >= np.minimum(rules.needed, most)
    if np.any(items.cut & ~enough):
        return None
    short = rules.ruled & items.deeper & ~enough
    listed = np.flatnonzero(kept & ~short[items.user])
    order = _diversified(rules, merged, items, listed, vectors) if rules.diversity.any() else listed
    interest = merged.interest[items.row[order]]
    taken = order[with_each_interest(items.user[order], interest, rules.per_interest_min, rules.top_k)]
    rows = np.concatenate([np.flatnonzero(~np.repeat(rules.ruled, np.diff(merged.offsets))), items.row[taken]])
    user = np.repeat(np.arange(len(short)), np.diff(merged.offsets))[rows]
    rows = rows[np.argsort(user, kind="stable")]
    fate = None if merged.fate is None else _fates(rules, merged, items, kept, listed, order, taken)
    capped_by = {} if fate is None else _capped_by(rules, merged, items, groups, kept, fate)
    given = np.bincount(user, minlength=len(short))
    detail = _enough_and_best(rules, items, given, enough, most)
    return Varied(_some(merged, rows, given, fate), short, detail, capped_by)


def _most(rules: Rules, groups: Mapping[str, Groups]) -> Int64:
    """Most items that at_most allows each user, whatever is searched, [B] int64."""
    most = np.full(len(rules.top_k), EVERYTHING)
    for name, values in groups.items():
        if values.different is not None:
            limited = rules.most[name] > 0
            most[limited] = np.minimum(most, rules.most[name] * values.different)[limited]
    return most


def _allowed(rules: Rules, items: Ranked, groups: Mapping[str, Groups]) -> Mask:
    """The items that at_most takes, [n] bool."""
    entries, first = [], 0
    for name, values in groups.items():
        place, group, most = _entries(rules, items, name, values)
        entries.append((place, first + group, most))
        first += len(rules.top_k) * (int(values.value.max(initial=0)) + 1)
    if not entries:
        return np.ones(len(items.row), bool)
    return allowed(len(items.row), *map(np.concatenate, zip(*entries, strict=True)))


def _entries(rules: Rules, items: Ranked, name: str, values: Groups) -> tuple[Int64, Int64, Int64]:
    """The values of an attribute that are limited: the item of each, its group of user and value, and the limit."""
    own = rules.most[name][items.user[values.place]]
    limited = own > 0
    width = int(values.value.max(initial=0)) + 1
    place = values.place[limited]
    return place, items.user[place] * width + values.value[limited], own[limited]


def _diversified(
    rules: Rules, merged: Merged, items: Ranked, listed: Int64, vectors: Callable[[Int64], Float32]
) -> Int64:
    """The listed items, [m] int64, in the order of users; those of users with diversity as it chooses them."""
    ends = np.cumsum(np.bincount(items.user[listed], minlength=len(rules.top_k)))
    starts = np.concatenate([[0], ends[:-1]])
    users = np.flatnonzero((rules.diversity > 0) & (ends > starts))
    if not len(users):
        return listed
    sizes = np.minimum(ends - starts, rules.needed)[users]
    first = starts[users]
    place = np.arange(sizes.sum()) - (np.cumsum(sizes) - sizes).repeat(sizes)  # in the pool of its user
    rows = items.row[listed[first.repeat(sizes) + place]]
    values = np.where(rules.round_robin[users].repeat(sizes), -place, merged.values[rows])
    relevance = relevance_of(values.astype(np.float32), sizes)
    how = sizes, rules.diversity[users], rules.top_k[users]
    order = listed.copy()
    for start, size, chosen in zip(
        first.tolist(), sizes.tolist(), diversified(relevance, vectors(merged.item_ids[rows]), *how), strict=True
    ):
        pool, left = listed[start : start + size], np.ones(size, bool)
        left[chosen] = False
        order[start : start + size] = np.concatenate([pool[chosen], pool[left]])
    return order


def _fates(rules: Rules, merged: Merged, items: Ranked, kept: Mask, listed: Int64, order: Int64, taken: Int64) -> Int64:
    """The fate of every hit of a batch of one user. `listed`: what at_most takes; `order`: that of diversity."""
    assert merged.fate is not None  # noqa: S101 - the caller looked
    top_k, needed = int(rules.top_k[0]), int(rules.needed[0])
    fate, hit = merged.fate.copy(), merged.hit[items.row]
    fate[merged.hit] = Fate.BELOW_TOP_K
    last = listed[needed - 1] if len(listed) >= needed else len(kept)
    fate[hit[:last][~kept[:last]]] = Fate.AT_MOST
    fate[hit[listed[:top_k]]] = Fate.DIVERSITY
    fate[hit[order[:top_k]]] = Fate.PER_INTEREST_MIN
    fate[hit[taken]] = Fate.KEPT
    return fate


def _capped_by(
    rules: Rules, merged: Merged, items: Ranked, groups: Mapping[str, Groups], kept: Mask, fate: Int64
) -> dict[str, Mask]:
    """For each attribute, which hits it dropped; `kept`: [n] bool, what at_most takes, `fate`: of every hit."""
    found = {}
    for name, values in groups.items():
        found[name] = np.zeros(len(fate), bool)
        dropped = without_room(kept, *_entries(rules, items, name, values))
        found[name][merged.hit[items.row[dropped]]] = True
        found[name] &= fate == Fate.AT_MOST
    return found


def _some(merged: Merged, rows: Int64, given: Int64, fate: Int64 | None) -> Merged:
    """Some of the merged items; `given`: [B] int64, how many of each user."""
    columns = {
        name: getattr(merged, name)[rows]
        for name in ("item_ids", "scores", "interest", "source", "bonus", "added", "hit")
    }
    return replace(merged, **columns, offsets=np.concatenate([[0], np.cumsum(given)]), fate=fate)


def _enough_and_best(rules: Rules, items: Ranked, given: Int64, enough: Mask, most: Int64) -> list[str]:
    """What to say of each user's list: why it has fewer items than wanted, or may miss better ones."""
    said = [""] * len(given)
    for user in np.flatnonzero(rules.capped & (~enough | (given < rules.top_k))).tolist():
        fewer = f"{given[user]} of {rules.top_k[user]}: " if given[user] < rules.top_k[user] else ""
        if items.ends[user] or given[user] == most[user]:
            said[user] = f"{fewer}at_most allows no more of the items that are not excluded" if fewer else ""
        else:
            searched = f"the {items.limit[user]:,} nearest items of each interest, and the search goes no deeper"
            what = "allows no more of" if fewer else "drops so many that there may be better ones beyond"
            said[user] = f"{fewer}at_most {what} {searched}"
    return said
