"""What is held out for validation and for the test, as a command names it."""

from dataclasses import dataclass, replace

from mind.data.interactions import Interactions
from mind.data.split import Split, SplitKind, split, split_by_time, split_last_out, split_users
from mind.data.time_units import TimeUnit, moment_of
from mind.events import Role


@dataclass(frozen=True)
class Held:
    """What is held out."""

    kind: SplitKind
    valid_from: str | None = None
    """The first day of validation, for `SplitKind.TIME`."""
    test_from: str | None = None
    last: int = 1
    """The number of last clicks of each user, for `SplitKind.LAST_OUT`."""
    seed: int = 2024
    """The seed of the shuffle, for `SplitKind.USERS`."""

    def least(self, min_interactions: int) -> int:
        """Return the number of interactions that a user must have to be in a part."""
        return max(min_interactions, 2 * self.last + 1) if self.kind is SplitKind.LAST_OUT else min_interactions

    def split(
        self, interactions: Interactions, unit: TimeUnit | None, min_interactions: int, part: Role | None = None
    ) -> Split:
        """Split the data.

        Args:
            interactions: the interactions, sorted by user and time.
            unit: the unit of the times.
            min_interactions: interactions that a user must have.
            part: if these are the interactions of some of the users: the part of each, as for `split_users`. It is
                empty if the split is not by users. None for all users.

        Raises:
            DataError: a part would have no user. It is not raised for some of the users.
        """
        is_some, options = part is not None, {"min_interactions": min_interactions}
        if self.kind is SplitKind.LAST_OUT:
            return split_last_out(interactions, self.last, may_be_empty=is_some, **options)
        if self.kind is SplitKind.USERS or self.valid_from is None or self.test_from is None:
            if part is not None:
                return split_users(interactions, part, seed=self.seed, **options)
            return split(interactions, seed=self.seed, **options)
        moments = (moment_of(text, unit) for text in (self.valid_from, self.test_from))
        parts = split_by_time(interactions, *moments, may_be_empty=is_some, **options)
        return replace(parts, how=parts.how | {"valid_from": self.valid_from, "test_from": self.test_from})
