"""How a shadow channel differs from the default channel, laid out for a terminal. Judges and prints nothing itself."""

from collections.abc import Sequence
from datetime import UTC, datetime

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from protos.recall.v1 import recall_pb2

OUTCOMES = {
    "busy": "not asked, to leave the time to live requests",
    "attributes": "name attributes that the channel's release does not have",
    "refused": "break a limit of the channel's release",
    "page": "continue a list, which is not compared",
    "id_type": "not asked, as the ids of the releases are of different types",
    "same": "not asked, as both channels have the same release",
    "not_ready": "not asked, as the channel has no release",
    "timeout": "timed out in the channel",
    "failed": "failed in the channel",
}
"""What a table says of each outcome of a request but `compared`."""


def shadow_view(summary: recall_pb2.ShadowSummary, info: recall_pb2.GetServerInfoResponse) -> RenderableType:
    """How the answers of a shadow channel differ from those of the default channel."""
    requests = {each.outcome: each.requests for each in summary.outcomes}
    drawn = sum(requests.values())
    asked = f", asked {summary.share:.1%} of the requests to {summary.live_channel}"
    head = [Text.assemble((f"channel {summary.channel}", "bold"), asked)]
    if info.processes > 1:
        head.append(Text(f"of process {info.instance}, one of {info.processes}", style="yellow"))
    parts: list[RenderableType] = [*head, _requests(requests, drawn)]
    if not summary.since_ms:
        return Group(*parts, Text("no requests were compared with these releases yet", style="yellow"))
    since = datetime.fromtimestamp(summary.since_ms / 1000, UTC)
    releases = Table.grid(padding=(0, 2))
    releases.add_row(Text("compared", style="bold"), f"since {since:%Y-%m-%d %H:%M:%S} UTC")
    for name, model, collection in (
        (summary.live_channel, summary.live_model_version, summary.live_collection),
        (summary.channel, summary.model_version, summary.collection),
    ):
        releases.add_row(Text(name, style="bold"), f"model {model}, {collection}")
    return Group(*parts, releases, Text(), _users(summary), _values(summary), *_items(summary))


def _requests(requests: dict[str, int], drawn: int) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_row(Text("drawn", style="bold"), _counted(drawn, "requests"))
    grid.add_row("", f"{requests.get('compared', 0):,} compared")
    for outcome, count in requests.items():
        if count and outcome != "compared":
            grid.add_row("", Text(f"{count:,} {OUTCOMES.get(outcome, outcome)}", style="yellow"))
    return grid


def _users(summary: recall_pb2.ShadowSummary) -> RenderableType:
    name, live = summary.channel, summary.live_channel
    users = {
        "in both": summary.users_both,
        f"in {live} alone": summary.users_live,
        f"in {name} alone": summary.users_shadow,
        "in neither": summary.users_neither,
    }
    total = sum(users.values())
    said = ", ".join(f"{count:,} {where} ({_share(count, total)})" for where, count in users.items())
    short = (
        f"{live} {summary.live_short:,}, of which {summary.live_empty:,} are empty; "
        f"{name} {summary.shadow_short:,}, of which {summary.shadow_empty:,} are empty"
    )
    share = _share(summary.new_candidates, summary.candidates)
    new = f"{share} of the candidates of {name} are unknown to the model of {live}"
    grid = Table.grid(padding=(0, 2))
    for heading, value in (
        ("users whose interests found candidates", said),
        ("lists with fewer than top_k candidates", short),
        ("new items", new),
    ):
        grid.add_row(Text(heading, style="bold"), value)
    return grid


def _values(summary: recall_pb2.ShadowSummary) -> RenderableType:
    name, live = summary.channel, summary.live_channel
    table = _table()
    table.add_column("")
    for heading in ("mean", "5 %", "median", "95 %", "of"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = (
        ("overlap", summary.overlap, "users"),
        ("rank-biased overlap", summary.rbo, "users"),
        (f"ms in {live}", summary.live_ms, "requests"),
        (f"ms in {name}", summary.shadow_ms, "requests"),
        (f"ms in {name} / {live}", summary.latency_ratio, "requests"),
        (f"score in {name} / {live}", summary.score_ratio, "users"),
    )
    for heading, values, of in rows:
        figures = (f"{value:.3g}" for value in (values.mean, values.p05, values.p50, values.p95))
        table.add_row(heading, *figures, _counted(values.count, of))
    told = f"scores differ by {summary.score_difference:+.2f} standard deviations of users"
    return Group(table, Text(told, style="dim"))


def _items(summary: recall_pb2.ShadowSummary) -> list[RenderableType]:
    views: list[RenderableType] = []
    for title, items in (("more", summary.gained), ("fewer", summary.lost)):
        if items:
            views += [Text(), _item_table(f"items in {title} lists of {summary.channel}", items)]
    return views


def _item_table(heading: str, items: Sequence[recall_pb2.ShadowItem]) -> Table:
    table = _table()
    table.add_column(heading, justify="left" if items[0].item_key else "right", no_wrap=True)
    table.add_column("lists", justify="right", no_wrap=True)
    for item in items:
        table.add_row(item.item_key or str(item.item_id), f"{item.lists:+,}")
    return table


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))


def _counted(count: int, of: str) -> str:
    return f"{count:,} {of if count != 1 else of.removesuffix('s')}"


def _share(part: int, whole: int) -> str:
    return f"{part / max(whole, 1):.1%}"
