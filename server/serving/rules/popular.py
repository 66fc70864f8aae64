"""What at_most leaves of the popular list. The other rules are about interests, which its users have not."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mind.sequences import Int64
from server.serving.columns import Groups
from server.serving.rules.at_most import allowed


@dataclass(frozen=True)
class PopularRule:
    """The rule of a query, ready for a list of popular items."""

    groups: Sequence[tuple[Groups, int]]
    """For each attribute, the values of the items, and how many may share one."""
    detail: str
    """Why a part of the rule is not applied; empty if the whole rule is."""

    def among(self, places: Int64, items: int) -> Int64:
        """The places of the items that the rule takes.

        Args:
            places: [n] int64, those that a user may get, ascending.
            items: the length of the list.
        """
        number = np.full(items, -1)
        number[places] = np.arange(len(places))
        place, group, most, first = [NO_ENTRIES], [NO_ENTRIES], [NO_ENTRIES], 0
        for its, count in self.groups:
            own = number[its.place] >= 0
            place.append(number[its.place[own]])
            group.append(first + its.value[own])
            most.append(np.full(len(place[-1]), count))
            first += int(its.value.max(initial=0)) + 1
        return places[allowed(len(places), *map(np.concatenate, (place, group, most)))]


NO_ENTRIES = np.zeros(0, np.int64)
