"""The parts of `mind.prepare` that print what was left out and what is in each part of the data."""

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from mind.data.heavy_users import HeavyUser
from mind.data.interactions import EXAMPLES
from mind.data.losses import Part


def tell_heavy_users(console: Console, heavy: Sequence[HeavyUser], name: Callable[[int], object], share: float) -> None:
    """Print the users with a large share of all interactions.

    Args:
        console: where to print.
        heavy: the users, the greatest share first.
        name: returns the id of a user as the data have it.
        share: users with more than this share are left out.
    """
    for user in heavy[:EXAMPLES]:
        told = f"user {name(user.user_id)} has {user.share:.1%} of the interactions ({user.interactions:,})"
        is_out = user.share > share
        told = f"{told}: left out" if is_out else f"warning: {told}; --max-user-share 0.5 would leave this user out"
        console.print(told, markup=False, soft_wrap=True)
    if len(heavy) > EXAMPLES:
        console.print(f"and {len(heavy) - EXAMPLES:,} more users: left out")


def tell_dropped_users(console: Console, users: int, least: int) -> None:
    """Print how many users have too few interactions."""
    console.print(f"users dropped, fewer than {least} interactions: {users:,}")


def tell_fresh_users(console: Console, fresh: int, users: int) -> None:
    """Print how many test users have no interactions before the test."""
    if fresh:
        console.print(f"test users without a past: {fresh:,} of {users:,}; an evaluation counts them apart")


def summary(parts: Sequence[Part]) -> Table:
    """Return a table of the parts of the data: train first, and all that is not in train last."""
    table = Table(
        caption="A model learns from train and does not know the items that no user in train has. The one to release "
        "learns from all of them: mind.train --final."
    )
    table.add_column("split")
    for heading in ("users", "items", "unknown items", "interactions"):
        table.add_column(heading, justify="right")
    total = sum(part.interactions for part in (parts[0], parts[-1]))
    for part in parts:
        share = f" ({part.interactions / total:.0%})" if part is parts[-1] else ""
        numbers = (f"{part.users:,}", f"{part.items:,}", f"{part.unlearnt:,}", f"{part.interactions:,}{share}")
        if part is parts[-1]:
            table.add_section()
        table.add_row(part.name, *numbers)
    return table
