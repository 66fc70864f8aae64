"""Writes the report page of a night: new and lost items, the checks of the gate, and both models side by side."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, StrictUndefined

from indexer.nightly.data import Catalogue
from indexer.nightly.run import Exit
from indexer.nightly.shift import COMPARISON, DATA, Shift
from indexer.nightly.steps import read_comparison
from mind.data.ids import IdKind
from mind.data.prepared import item_keys, user_keys
from mind.data.titles import read_titles
from mind.evaluation.side_by_side import TOP_N, Comparison

TEMPLATE = Path(__file__).with_name("report.html.j2")
REPORT = "report.html"
SHOWN = 20
"""Maximum number of new or lost items that the page names, those with the most clicks first."""
_ENDS = {
    Exit.RELEASED: "A new release is live.",
    Exit.FAILED: "A step failed; nothing more was done.",
    Exit.REFUSED: "Refused: the live release is what it was.",
    Exit.ROLLED_BACK: "Published, and rolled back.",
}


@dataclass(frozen=True)
class Items:
    """The items that are new or that were lost: their number, and those with the most clicks."""

    count: int
    most_clicked: list[tuple[int, int]]


def write_report(shift: Shift, code: Exit, error: str) -> Path:
    """Write the page into the night's directory, and return its path.

    Args:
        shift: the shift of the night.
        code: how the night ended.
        error: why the night failed; empty if it did not.

    Raises:
        DataError, NightlyError: files of the night cannot be read.
    """
    found = read_comparison(shift) if (shift.directory / COMPARISON).exists() else None
    came, went = _changed(shift)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    steps = shift.night.state.steps
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        night=shift.night.state,
        headline=_ENDS[code],
        why=error or shift.night.state.fell,
        tiles=_tiles(shift, found),
        checks=[check for step in steps.values() for check in step.figures.get("checks", [])],
        found=found,
        rows=_rows(found) if found else [],
        before=shift.night.figures("check").get("compared_with"),
        changes=[("came", came), ("went", went)],
        top_n=TOP_N,
        name_of=_names(shift),
        user_of=_users(shift),
    )
    path = shift.directory / REPORT
    path.write_text(page, encoding="utf-8")
    return path


def _changed(shift: Shift) -> tuple[Items, Items]:
    earlier = shift.earlier()
    now = Catalogue.read(shift.directory)
    before = Catalogue.read(earlier.directory) if earlier else None
    if now is None or before is None:
        return Items(0, []), Items(0, [])
    return _missing_in(before, now), _missing_in(now, before)


def _missing_in(other: Catalogue, own: Catalogue) -> Items:
    alone = np.flatnonzero(~np.isin(own.item_id, other.item_id))
    most = alone[np.argsort(-own.clicks[alone], kind="stable")[:SHOWN]]
    return Items(len(alone), list(zip(own.item_id[most].tolist(), own.clicks[most].tolist(), strict=True)))


def _tiles(shift: Shift, found: Comparison | None) -> list[tuple[str, str]]:
    data = shift.night.figures("check")
    tiles = [(f"{data[name]:,}", name) for name in ("rows", "users", "items") if data]
    if found:
        tiles.append((_percent(found.candidate.recall.mean), f"recall@{TOP_N} of the candidate"))
    if found and found.difference:
        half = found.difference.half_width
        sure = "" if half is None else f" ± {100 * half:.1f}"
        tiles.append((f"{100 * found.difference.mean:+.1f}{sure}", "points over the live model"))
    return tiles


def _rows(found: Comparison) -> list[tuple[str, str, str]]:
    """Return the rows of the table of both models: name of the figure, candidate's value, live model's value."""
    figures: list[tuple[str, Callable[..., str]]] = [
        ("model", lambda side: side.model_version),
        ("items", lambda side: f"{side.items:,}"),
        (f"recall@{TOP_N}", lambda side: _percent(side.recall.mean)),
        (f"NDCG@{TOP_N}", lambda side: _percent(side.ndcg)),
        (f"HitRate@{TOP_N}", lambda side: _percent(side.hit_rate)),
        ("users with the popular list", lambda side: _percent(side.fallback)),
        ("catalogue in any list", lambda side: _percent(side.coverage)),
        ("interests of a user, mean", lambda side: f"{side.interests:.2f}"),
        ("cosine of a user's interests, median", lambda side: f"{side.cosine:.3f}"),
    ]
    return [(name, of(found.candidate), of(found.live) if found.live else "–") for name, of in figures]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%"


def _names(shift: Shift) -> Callable[[int], str]:
    """Return a function that gives the title of an item, or its id as in the data.

    Items of earlier nights keep their titles.
    """
    table = item_keys(shift.directory / DATA / "train")
    file = shift.config.report.titles
    kind = IdKind.TEXT if table else IdKind.INTEGER
    titles = read_titles(file, kind, option="the name item_id") if file else {}
    known = set() if table is None else set(table.ids.tolist())

    def name(item: int) -> str:
        return titles.get(item) or (table.name(item) if table and item in known else str(item))

    return name


def _users(shift: Shift) -> Callable[[int], str]:
    table = user_keys(shift.directory / DATA / "test")
    return lambda user: table.name(user) if table else str(user)
