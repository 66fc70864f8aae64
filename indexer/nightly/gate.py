"""Checks a night's data and its candidate. Each check has a name, a value, a limit, and a sentence with both.

The functions take figures and read no files. A check that has nothing to compare with is left out.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from statistics import median

from indexer.nightly.config import Gate
from indexer.nightly.data import Catalogue, DataFigures
from mind.evaluation.side_by_side import Comparison


@dataclass(frozen=True)
class Check:
    """The result of one check: the value that was found, and the limit."""

    name: str
    value: float
    limit: float
    passed: bool
    says: str
    """The value, the limit and the key of the configuration, in words."""

    def plain(self) -> dict[str, object]:
        """Return the check as plain data, for JSON."""
        return asdict(self) | {"value": round(self.value, 6), "limit": round(self.limit, 6)}


def refused(checks: Iterable[Check]) -> list[str]:
    """Return the names and sentences of the checks that did not pass."""
    return [f"{check.name}: {check.says}" for check in checks if not check.passed]


def check_data(
    gate: Gate,
    night: date,
    data: DataFigures,
    catalogue: Catalogue,
    before: tuple[DataFigures, Catalogue | None] | None,
) -> list[Check]:
    """Check the data of a night against their limits.

    Args:
        gate: the limits.
        night: the date of the night.
        data, catalogue: the figures and the items of this night.
        before: the figures and the items of the last night that released a model; None if there is none.
    """
    checks = []
    for name in ("rows", "users", "items"):
        value, least, key = getattr(data, name), getattr(gate, f"min_{name}"), f"gate.min_{name}"
        if before:
            earlier = getattr(before[0], name)
            if gate.min_share * earlier > least:
                least, key = gate.min_share * earlier, f"gate.min_share {gate.min_share:g} of {earlier:,} before"
        says = f"{value:,}, at least {least:,.0f} are asked for ({key})"
        checks.append(Check(name, value, least, value >= least, says))
    if gate.calendar_days:
        checks += _check_days(gate, night, data.days)
    if before and before[1]:
        checks += _check_items(gate, catalogue, before[1])
    return checks


def _check_days(gate: Gate, night: date, days: dict[str, int]) -> list[Check]:
    window = [str(night - timedelta(days=ago)) for ago in range(gate.calendar_days, 0, -1)]
    missing = [day for day in window if not days.get(day)]
    most = gate.max_missing_days
    shown = ", ".join(missing[-3:]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    says = f"{len(missing)} of the {len(window)} days before {night} have no interactions"
    says += f" ({shown}), at most {most} may (gate.max_missing_days)" if missing else ""
    checks = [Check("missing_days", len(missing), most, len(missing) <= most, says)]
    counts = [days[day] for day in window if days.get(day)]
    if len(counts) > 1:
        newest, usual = counts[-1], median(counts)
        share, least = newest / usual, gate.min_day_share
        says = f"the newest day has {newest:,} interactions, {share:.2f} of the median {usual:,.0f}, "
        says += f"at least {least:g} is asked for (gate.min_day_share)"
        checks.append(Check("newest_day", share, least, share >= least, says))
    return checks


def _check_items(gate: Gate, catalogue: Catalogue, before: Catalogue) -> list[Check]:
    unknown, overlap = catalogue.unknown_to(before), catalogue.overlap(before)
    return [
        _at_most("unknown_items", unknown, gate.max_unknown_items, "items new since that night", "max_unknown_items"),
        _at_least("overlap", overlap, gate.min_overlap, "clicks on the same items as then", "min_overlap"),
    ]


def check_models(gate: Gate, found: Comparison, live_before: float | None) -> list[Check]:
    """Check the candidate against its limits. Some limits are absolute, others depend on the live model.

    Args:
        gate: the limits.
        found: the metrics of both models on the same users.
        live_before: recall@50 of the live model on the night of its release; None if it is not known.
    """
    own, live, users = found.candidate, found.live, found.users
    checks = [
        Check(
            "test_users",
            users,
            gate.min_test_users,
            users >= gate.min_test_users,
            f"{users:,}, at least {gate.min_test_users:,} are asked for (gate.min_test_users)",
        ),
        _at_least("recall", own.recall.mean, gate.min_recall, "recall@50 of the candidate", "min_recall"),
        _at_most("fallback", own.fallback, gate.max_fallback, "users who get the popular list", "max_fallback"),
    ]
    if live is None or found.difference is None or found.new_items is None:
        return checks
    drop, half = -found.difference.mean, found.difference.half_width
    sure = "" if half is None else f" ± {half:.4f}"
    says = f"recall@50 {own.recall.mean:.4f}, the live model's {live.recall.mean:.4f} on the same {users:,} users: "
    says += f"{-drop:+.4f}{sure}, it may fall by {gate.max_drop:g} (gate.max_drop)"
    checks.append(Check("recall_drop", drop, gate.max_drop, drop <= gate.max_drop, says))
    if live_before:
        lost = 1 - live.recall.mean / live_before
        says = f"the live model's recall@50 is {live.recall.mean:.4f} on the data of tonight, it was {live_before:.4f} "
        says += f"on those of its release; it may lose {gate.max_live_drop:g} of it (gate.max_live_drop)"
        checks.append(Check("live_drop", lost, gate.max_live_drop, lost <= gate.max_live_drop, says))
    rise, least = own.fallback - live.fallback, gate.min_coverage_share * live.coverage
    return [
        *checks,
        _at_most("fallback_rise", rise, gate.max_fallback_rise, "more users get the popular list", "max_fallback_rise"),
        _at_least(
            "coverage", own.coverage, least, "items in a list", f"min_coverage_share {gate.min_coverage_share:g}"
        ),
        _at_most("new_items", found.new_items, gate.max_new_items, "items that the live model lacks", "max_new_items"),
    ]


def _at_least(name: str, value: float, least: float, what: str, key: str) -> Check:
    return Check(
        name, value, least, value >= least, f"{what}: {value:.4f}, at least {least:.4g} is asked for (gate.{key})"
    )


def _at_most(name: str, value: float, most: float, what: str, key: str) -> Check:
    says = f"{what}: {value:.4f}, at most {most:.4g} is allowed (gate.{key})"
    return Check(name, value, most, value <= most, says)
