"""Writes the evaluation as one self-contained HTML page. A sentence made from the numbers says what each plot shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mind.evaluation import figures, metrics
from mind.evaluation.analysis import TOP_SHARE
from mind.evaluation.evaluate import EXACT, SHOWN_ITEMS, Evaluation, Example
from mind.evaluation.figures import DASHES, Series, Style
from mind.evaluation.words import typical_words

TEMPLATE = Path(__file__).with_name("report.html.j2")

INTEREST_COLOURS = (0, 1, 2, 5, 3, 6, 7, 4)
_BASELINE_STYLES = (Style(4, "2 2"), Style(3, "7 2 2 2"), Style(2, "7 3"), Style(7, "4 2"))
_OTHER_COLOURS = (5, 6, 7)


@dataclass(frozen=True)
class Table:
    """A table of texts. The first column names the row, and the row with the name `strong` is bold."""

    head: list[str]
    rows: list[list[str]]
    strong: str = EXACT


@dataclass(frozen=True)
class Section:
    """A question of the report, a sentence that answers it, plots, and their numbers."""

    title: str
    says: str
    plots: list[Markup] = field(default_factory=list)
    table: Table | None = None
    legend: list[tuple[Style, str]] = field(default_factory=list)
    note: str = ""


def render(evaluation: Evaluation, titles: Mapping[int, str], users: Mapping[int, str] | None = None) -> str:
    """Return the page as HTML text.

    Args:
        evaluation: the evaluation to show.
        titles: the titles of items, by id. An item without a title is shown by its id.
        users: the text ids of users, by id. A user without a text id is shown by the integer.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    styles = method_styles(evaluation)
    interests = [Style(INTEREST_COLOURS[k % len(INTEREST_COLOURS)]) for k in range(len(evaluation.interests.found))]
    sections = [
        _accuracy(evaluation, styles),
        _training(evaluation),
        _history_length(evaluation, styles),
        _popularity(evaluation, styles),
        _spread(evaluation, styles),
        _interests(evaluation, interests),
        *_served(evaluation),
    ]
    return template.render(
        evaluation=evaluation,
        headline=_headline(evaluation),
        tiles=_tiles(evaluation),
        sections=sections,
        interests=interests,
        groups=list(dict.fromkeys(example.group for example in evaluation.examples)),
        shown=min(SHOWN_ITEMS, evaluation.cutoffs[-1]),
        title_of=lambda item: titles.get(item, str(item)),
        name_of=lambda user: (users or {}).get(user, str(user)),
        interests_of=lambda example: interests_in_words(example, titles),
    )


def interests_in_words(example: Example, titles: Mapping[int, str]) -> str:
    """Describe the interests of an example user by the titles of candidates, and say how similar they are."""
    numbers = sorted({one.interest for one in example.candidates})
    found = [
        [titles.get(one.item_id, "") for one in example.candidates if one.interest == number] for number in numbers
    ]
    said = [
        f"{number}: {', '.join(words)}" for number, words in zip(numbers, typical_words(found), strict=True) if words
    ]
    if example.cosine is not None:
        said.append(f"mean cosine between interests {example.cosine:.2f}")
    return "; ".join(said)


def method_styles(evaluation: Evaluation) -> dict[str, Style]:
    """Return the style of each method: the first colour for the model, dashes if served, thin lines for baselines."""
    styles = dict(zip(evaluation.baselines, _BASELINE_STYLES, strict=False)) | {EXACT: Style(0, "", 2.4)}
    for name in list(evaluation.served)[:1]:
        styles[name] = Style(1, "3 3")
    for name in evaluation.curves:
        number = len(styles) - len(evaluation.baselines)
        styles.setdefault(name, Style(_OTHER_COLOURS[number % len(_OTHER_COLOURS)], DASHES[number % len(DASHES)]))
    return {name: styles[name] for name in evaluation.curves}


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share in per cent as text; a dash for None."""
    return "–" if share is None else f"{100 * share:.{digits}f}\u00a0%"


def _quoted(name: str) -> str:
    return f"“{name}”"


def _headline(evaluation: Evaluation) -> str:
    n, best = evaluation.cutoffs[-1], evaluation.best_baseline
    mine, theirs = (evaluation.curves[name].recall[-1] for name in (EXACT, best))
    return (
        f"Among {n} candidates MIND has {percent(mine)} of what a user clicked afterwards; "
        f"the best baseline, {_quoted(best)}, has {percent(theirs)}."
    )


def _tiles(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Return the key figures at the top of the page, each with its value and its name."""
    n, lead = evaluation.cutoffs[-1], evaluation.lead
    mine = evaluation.curves[EXACT]
    return [
        (percent(mine.recall[-1]), f"Recall@{n}"),
        (percent(mine.ndcg[-1]), f"NDCG@{n}"),
        (percent(mine.hit_rate[-1]), f"HitRate@{n}"),
        (
            f"{100 * lead.mean:+.1f}",
            f"points of Recall@{n} over {evaluation.best_baseline}, {100 * lead.low:+.1f} to {100 * lead.high:+.1f}",
        ),
    ]


def _plus_minus(half_width: float | None) -> str:
    return "" if half_width is None else f" ± {100 * half_width:.1f}"


def _accuracy(evaluation: Evaluation, styles: dict[str, Style]) -> Section:
    curves = evaluation.curves
    length = evaluation.cutoffs[-1]
    names = list(metrics.TITLES.items())
    plots = []
    for key, name in names:
        series = [Series(styles[method], range(1, length + 1), getattr(curves[method], key)) for method in curves]
        plots.append(figures.lines(f"curve-{key}", f"{name}@k", "k, candidates", series))
    rivals = [max(curves[name].recall[k] for name in evaluation.baselines) for k in range(length)]
    ahead = sum(mine > rival for mine, rival in zip(curves[EXACT].recall, rivals, strict=True))
    says = (
        f"{evaluation.verdict} "
        f"Its recall is the highest at {'every k' if ahead == length else f'{ahead:,} of {length:,} values of k'}."
    )
    heads = [f"{name}@{n}" for n in evaluation.cutoffs for _, name in names]
    rows = [[name, *(percent(value, 2) for value in row.values())] for name, row in evaluation.metrics.items()]
    return Section("Accuracy", says, plots, Table(["", *heads], rows), _legend(styles))


def _training(evaluation: Evaluation) -> Section:
    epochs: list[dict[str, Any]] = evaluation.training.get("epochs") or []
    kept = evaluation.training.get("epoch")
    if not epochs:
        says = "The model holds no training curves: it was trained before they were kept, or not by mind.train."
        return Section("Training", says)
    x = [epoch["epoch"] for epoch in epochs]
    loss = [epoch["loss"] for epoch in epochs]
    plots = [figures.lines("training-loss", "Loss", "epoch", [_dotted(0, x, loss)], percent=False, mark=kept)]
    names = list(epochs[0].get("valid") or {})
    cutoffs = list(dict.fromkeys(name.partition("@")[2] for name in names))
    for key, title in metrics.TITLES.items():
        found = [(number, f"{key}@{n}") for number, n in enumerate(cutoffs) if f"{key}@{n}" in names]
        series = [_dotted(number, x, [epoch["valid"][name] for epoch in epochs]) for number, name in found]
        if series:
            plots.append(figures.lines(f"valid-{key}", f"{title}, validation users", "epoch", series, mark=kept))
    says = f"The loss fell from {loss[0]:.3f} to {loss[-1]:.3f} in {len(x)} epochs"
    if names:
        last = next((name for name in reversed(names) if name.startswith("recall")), names[-1])
        curve = {epoch["epoch"]: epoch["valid"][last] for epoch in epochs}
        best = max(curve, key=lambda epoch: curve[epoch])
        after = curve[best] - min(list(curve.values())[list(curve).index(best) :])
        says += f"; validation {last} was highest, {percent(curve[best])}, in epoch {best}"
        says += f" and at most {100 * after:.1f} points lower in the epochs after it" if best != x[-1] else ", the last"
    says += f". Epoch {kept} was kept (the dotted line)."
    head = ["epoch", "loss", *names]
    rows = [
        [str(one["epoch"]), f"{one['loss']:.4f}", *(percent(one["valid"][name], 2) for name in names)] for one in epochs
    ]
    legend = [(Style(number, DASHES[number]), f"@{n}") for number, n in enumerate(cutoffs[: len(DASHES)])]
    return Section("Training", says, plots, Table(head, rows, strong=str(kept)), legend)


def _dotted(number: int, x: list[float], y: list[float]) -> Series:
    return Series(Style(number, DASHES[number % len(DASHES)]), x, y, marker="o")


def _history_length(evaluation: Evaluation, styles: dict[str, Style]) -> Section:
    buckets, recall = evaluation.length_buckets, evaluation.length_recall
    n, count = evaluation.cutoffs[-1], len(buckets)
    names = [f"{one.low:,}–{one.high:,}" if one.low < one.high else f"{one.low:,}" for one in buckets]
    series = [
        Series(
            style,
            range(count),
            [one.mean for one in recall[name]],
            [one.half_width or 0 for one in recall[name]] if name == EXACT else None,
            marker="o",
        )
        for name, style in styles.items()
    ]
    plot = figures.lines("history-length", f"Recall@{n}", "items in the history", series, x_names=names)
    mine = [one.mean for one in recall[EXACT]]
    ahead = sum(mine[b] > max(recall[name][b].mean for name in evaluation.baselines) for b in range(count))
    best, worst = (choose(range(count), key=lambda b: mine[b]) for choose in (max, min))
    says = (
        f"MIND finds most for histories of {names[best]} items ({percent(mine[best])}) and least for {names[worst]} "
        f"({percent(mine[worst])}); it is ahead of every baseline in {ahead} of {count} groups."
        if count > 1
        else f"All histories have about the same length: {names[0]} items."
    )
    rows = [
        [name, *(f"{100 * one.mean:.1f}{_plus_minus(one.half_width)}" for one in means)]
        for name, means in recall.items()
    ]
    rows.append(["users", *(f"{one.users:,}" for one in buckets)])
    note = "Groups are fifths of the test users; bars, and ± in the table, are 95 % intervals."
    return Section("By history length", says, [plot], Table(["per cent", *names], rows), _legend(styles), note)


def _popularity(evaluation: Evaluation, styles: dict[str, Style]) -> Section:
    buckets, recall = evaluation.popularity_buckets, evaluation.popularity_recall
    names = [one.name for one in buckets]
    series = [(style, [share or 0 for share in recall[name]]) for name, style in styles.items()]
    plot = figures.bars("popularity", "Share of later clicks found", "popularity of the item", names, series)
    rivals = {name: [recall[name][b] or 0 for name in evaluation.baselines] for b, name in enumerate(names)}
    parts = []
    for number, name in enumerate(names):
        if (mine := recall[EXACT][number]) is not None:
            rival = max(range(len(evaluation.baselines)), key=lambda b: rivals[name][b])
            parts.append(
                f"{percent(mine)} of the clicks on {name} items "
                f"({_quoted(evaluation.baselines[rival])}, the best baseline there: {percent(rivals[name][rival])})"
            )
    says = f"MIND finds {_list(parts)}."
    rows = [[name, *map(percent, shares)] for name, shares in recall.items()]
    rows.append(["items", *(f"{one.items:,}" for one in buckets)])
    rows.append(["later clicks", *(f"{one.targets:,}" for one in buckets)])
    note = (
        "Head, torso and tail have a third of the training interactions each. "
        f"{evaluation.unknown_targets:,} of {evaluation.targets:,} later clicks are on items that nobody clicked in "
        "the training data; nothing here can find those."
    )
    return Section("By item popularity", says, [plot], Table(["", *names], rows), _legend(styles), note)


def _spread(evaluation: Evaluation, styles: dict[str, Style]) -> Section:
    spread, n = evaluation.spread, evaluation.cutoffs[-1]
    x = range(1, n + 1)
    reached = [Series(style, x, spread[name].coverage) for name, style in styles.items()]
    top = f"{100 * TOP_SHARE:.0f} %"
    plots = [
        figures.lines("coverage", "Share of the catalogue in any top k", "k, candidates", reached),
        figures.single_bars(
            "concentration",
            f"Places taken by the {top} most popular",
            "method, in the order of the legend",
            [str(number + 1) for number in range(len(styles))],
            [spread[name].top_share for name in styles],
            list(styles.values()),
        ),
    ]
    mine, best = spread[EXACT], spread[evaluation.best_baseline]
    says = (
        f"MIND's lists of {n} bring {percent(mine.coverage[-1])} of {evaluation.items:,} items to somebody, those of "
        f"{_quoted(evaluation.best_baseline)} {percent(best.coverage[-1])}; the {top} most popular items take "
        f"{percent(mine.top_share)} of its places against {percent(best.top_share)}, and {percent(mine.seen)} go to "
        "items that the user had clicked before."
    )
    head = ["", f"catalogue in any top {n}", f"places of the top {top}", "Gini", "places of the user's own history"]
    rows = [
        [name, percent(one.coverage[-1]), percent(one.top_share), f"{one.gini:.3f}", percent(one.seen)]
        for name, one in spread.items()
    ]
    note = "Gini: 0 if all items are recommended equally often, near 1 if a few take everything."
    return Section("Catalogue coverage", says, plots, Table(head, rows), _legend(styles), note)


def _interests(evaluation: Evaluation, styles: list[Style]) -> Section:
    data, n, count = evaluation.interests, evaluation.cutoffs[-1], len(styles)
    names = [str(number) for number in range(count)]
    several = [str(number + 1) for number in range(count)]
    plain = [Style(0)] * count
    plots = [
        figures.histogram(
            "cosine", "Users by cosine of their interests", "mean cosine between two interests", data.histogram_edges,
            data.histogram_users, Style(0),
        ),
        figures.single_bars("found", "Candidates found by each interest", "interest", names, data.found, styles),
        figures.single_bars(
            "contributing", "Users by interests in their list", "interests with a candidate", several,
            data.contributing, plain,
        ),
        figures.matrix("overlap", f"Own top {n} in common, %", "interest", data.overlap, Style(0)),
    ]  # fmt: skip
    if count == 1 or not data.users:
        return Section("Interests", "There is one interest to a user." if count == 1 else "No user has a history.")
    mean = sum((number + 1) * share for number, share in enumerate(data.having))
    says = f"Users have {mean:.2f} interests on average, {percent(data.having[0])} of them have one"
    if data.having[0] < 1:
        low, median, high = data.cosine_quartiles
        pairs = [(i, j) for i in range(count) for j in range(i) if data.overlap[i][j]]
        common = sum(data.overlap[i][j] for i, j in pairs) / max(len(pairs), 1)
        alike = "almost the same way" if median > 0.95 else "much the same way" if median > 0.7 else "different ways"
        says += (
            f". Where there are several they point {alike}: their mean cosine is {median:.3f} at the median, "
            f"{low:.3f} to {high:.3f} for the middle half of the users, and the nearest {n} items of two have "
            f"{percent(common)} in common. One of them gives {percent(data.largest_part)} of a list on average. Alone, "
            f"the best interest has a recall of {percent(max(data.own_recall))}, merged they have "
            f"{percent(data.merged_recall)}"
        )
    says += "."
    head = ["interest", "found", f"recall@{n} alone", *(f"cosine with {name}" for name in names)]
    rows = [
        [name, percent(data.found[k]), percent(data.own_recall[k]), *(f"{value:.3f}" for value in data.cosine[k])]
        for k, name in enumerate(names)
    ]
    note = (
        "An interest found a candidate if it scores it highest. Items in common and recall alone are means over "
        f"{data.sampled_users:,} of {data.users:,} users."
    )
    legend = [(style, f"interest {name}") for style, name in zip(styles, names, strict=True)]
    return Section("Interests", says, plots, Table(head, rows, strong=""), legend, note)


def _served(evaluation: Evaluation) -> list[Section]:
    if not evaluation.agreement:
        return []
    n = evaluation.cutoffs[-1]
    says = []
    for name, agreement in evaluation.agreement.items():
        served = evaluation.served[name]
        says.append(
            f"{_quoted(name)} came from {served.collection or 'Milvus'} through gRPC; its lists have "
            f"{percent(agreement.found[n], 2)} of the exact top {n}, and for {percent(agreement.identical)} of the "
            "users the whole list is the same, in the same order."
        )
        if served.model_version != evaluation.model_version:
            says.append(f"It was served by another model, {served.model_version}.")
    rows = [
        [name, *(percent(share, 2) for share in agreement.found.values())]
        for name, agreement in evaluation.agreement.items()
    ]
    head = ["exact items that were served", *(f"top {cutoff}" for cutoff in evaluation.cutoffs)]
    return [Section("Served against exact search", " ".join(says), [], Table(head, rows, strong=""))]


def _legend(styles: dict[str, Style]) -> list[tuple[Style, str]]:
    return [(style, name) for name, style in styles.items()]


def _list(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts) or "nothing to be found"
