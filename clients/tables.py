"""Answers of the service laid out for a terminal. Prints nothing itself."""

import base64
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from clients.attributes import attributes_of
from clients.ids import has_text_ids, ids_of
from clients.size import Size
from clients.titles import TITLE
from protos.recall.v1 import recall_pb2

_INTEREST_COLORS = ("cyan", "magenta", "yellow", "green")
Titles = Mapping[Any, str]
"""By item id, integer or text."""


def candidates_view(candidates: recall_pb2.UserCandidates, titles: Titles) -> RenderableType:
    """One user's candidates, best first, with what the reader must know about them."""
    table, item_ids, attributes = _item_table(candidates, titles)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("interest", no_wrap=True)
    if candidates.source:
        table.add_column("source", no_wrap=True)
    if candidates.added:
        table.add_column("added", justify="right", no_wrap=True)
    sources = [[_words(recall_pb2.Source, each) if each else "popular"] for each in candidates.source]
    added = [[f"{each:+.4f}"] for each in candidates.added] or [[]] * len(item_ids)
    rows = zip(item_ids, candidates.scores, candidates.interest, sources or [[]] * len(item_ids), added, strict=True)
    for rank, (item_id, score, interest, source, gets) in enumerate(rows, start=1):
        shown = [_value(values[rank - 1]) for values in attributes.values()]
        shown_score = f"{score:.3%}" if candidates.fallback else f"{score:.4f}"
        table.add_row(str(rank), _shown(item_id), *shown, shown_score, _interest(interest), *source, *gets)
    return Group(*_remarks(candidates), table if item_ids else Text("no candidates", style="yellow"))


def similar_items_view(similar: recall_pb2.SimilarItems, titles: Titles) -> RenderableType:
    """The items most similar to those of a query, best first."""
    remarks = []
    if similar.status != recall_pb2.ITEM_STATUS_OK:
        remarks.append(Text(_words(recall_pb2.ItemStatus, similar.status), style="bold yellow"))
    if similar.detail:
        remarks.append(Text(similar.detail, style="yellow"))
    if similar.status == recall_pb2.ITEM_STATUS_OK and similar.unknown:
        places = ", ".join(str(place + 1) for place in similar.unknown)
        remarks.append(Text(f"unknown: number {places} of the given items", style="yellow"))
    table, item_ids, attributes = _item_table(similar, titles)
    table.add_column("cosine", justify="right", no_wrap=True)
    if similar.weights:
        table.add_column("weight", justify="right", no_wrap=True)
        table.add_column("source", no_wrap=True)
    for place, item_id in enumerate(item_ids):
        shown = [_value(values[place]) for values in attributes.values()]
        near = [f"{weight:.4f}" for weight in similar.weights[place : place + 1]]
        near += [_words(recall_pb2.Source, similar.source[place])] if near else []
        table.add_row(str(place + 1), _shown(item_id), *shown, f"{similar.scores[place]:.4f}", *near)
    return Group(*remarks, table if item_ids else Text("no similar items", style="yellow"))


def _item_table(
    found: recall_pb2.UserCandidates | recall_pb2.SimilarItems, titles: Titles
) -> tuple[Table, list[Any], dict[str, list[Any]]]:
    """A table that begins with rank, item and attributes; the items; and the attributes, titles among them."""
    table = _table()
    table.add_column("", justify="right", style="dim", no_wrap=True)
    item_ids = ids_of(found, "item_ids")
    table.add_column("item", justify="left" if found.item_keys else "right", no_wrap=True)
    attributes = attributes_of(found)
    if titles:
        attributes = {TITLE: [titles.get(item_id) for item_id in item_ids]} | attributes
    for name, values in attributes.items():
        numbers = any(isinstance(value, int | float) for value in values)
        table.add_column(name, justify="right" if numbers else "left", max_width=50)
    return table, item_ids, attributes


def origin_line(
    response: recall_pb2.RecallResponse | recall_pb2.ExplainResponse | recall_pb2.SimilarItemsResponse,
) -> RenderableType:
    """Which release answered, and where the time went."""
    timings = response.timings
    detail = response.attributes_detail
    token = base64.b64encode(getattr(response, "next_page_token", b"")).decode()
    return Text.assemble(
        (f"next page: --page-token {token}\n" if token else "", ""),
        (f"attributes are left out: {detail}\n" if detail else "", "yellow"),
        (
            _channel_of(response.channel)
            + f"model {response.model_version} · {response.collection} · {timings.total_ms:.1f} ms in the server "
            f"(queue {timings.queue_ms:.1f}, encode {timings.encode_ms:.1f}, search {timings.search_ms:.1f}, "
            f"merge {timings.merge_ms:.1f})",
            "dim",
        ),
    )


def explain_view(response: recall_pb2.ExplainResponse, titles: Titles) -> RenderableType:
    """Show which clicks made each interest, what it found, why its hits were dropped, and the candidates."""
    reasons = sorted({hit.reason for hit in response.dropped})
    table = _table()
    table.add_column("interest", no_wrap=True)
    neighbours = ["neighbours"] if any(interest.neighbour_scores for interest in response.interests) else []
    for heading in (
        "hits",
        *neighbours,
        "best",
        "kept",
        *(_words(recall_pb2.DropReason, reason) for reason in reasons),
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("nearest")
    kept = Counter(response.candidates.interest)
    dropped = Counter((hit.interest, hit.reason) for hit in response.dropped)
    for number, interest in enumerate(response.interests):
        item_ids = ids_of(interest, "item_ids")
        table.add_row(
            _interest(number),
            str(len(item_ids)),
            *(_neighbours(interest) for _ in neighbours),
            f"{interest.scores[0]:.4f}" if interest.scores else "",
            str(kept[number]),
            *(str(dropped[number, reason]) for reason in reasons),
            _one_line(", ".join(_named(item_id, titles) for item_id in item_ids[:3])),
        )
    capped = Counter(name for hit in response.dropped for name in hit.at_most)
    told = ", ".join(f"{name} {hits:,}" for name, hits in capped.most_common())
    return Group(
        *([_clicks(response, titles)] if ids_of(response, "used_hist_item") else []),
        *([table] if response.interests else []),
        *([Text.assemble(("at most  ", "bold"), f"hits dropped by attribute: {told}")] if told else []),
        candidates_view(response.candidates, titles),
    )


def _neighbours(interest: recall_pb2.Interest) -> str:
    """The number of an interest's neighbours, and of those that were added after the build."""
    added = sum(interest.neighbour_fresh)
    return f"{len(interest.neighbour_scores)}" + (f", {added} new" if added else "")


def items_view(response: recall_pb2.GetItemsResponse) -> RenderableType:
    """Items and their attributes."""
    table = _table()
    table.add_column("item", justify="left" if response.item_keys else "right", no_wrap=True)
    attributes = attributes_of(response)
    _add_columns(table, attributes)
    for place, item_id in enumerate(ids_of(response, "item_ids")):
        table.add_row(_shown(item_id), *(_value(values[place]) for values in attributes.values()))
    bare = [
        _shown(item_id).plain
        for place, item_id in enumerate(ids_of(response, "item_ids"))
        if attributes and all(values[place] is None for values in attributes.values())
    ]
    remarks = [f"attributes are left out: {response.attributes_detail}"] if response.attributes_detail else []
    remarks += [f"not in the collection, or without these attributes: {', '.join(bare)}"] if bare else []
    return Group(*(Text(remark, style="yellow") for remark in remarks), table)


def similar_view(similar: recall_pb2.SimilarUsers) -> RenderableType:
    """The users most similar to one user, best first."""
    if not similar.user_ids:
        words = "nobody" if similar.status == recall_pb2.USER_STATUS_OK else status_words(similar.status)
        return Text(f"{words}: {similar.detail}" if similar.detail else words, style="yellow")
    table = _table()
    table.add_column("", justify="right", style="dim", no_wrap=True)
    table.add_column("user")
    table.add_column("cosine", justify="right", no_wrap=True)
    for rank, (user_id, score) in enumerate(zip(similar.user_ids, similar.scores, strict=True), start=1):
        table.add_row(str(rank), _shown(user_id), f"{score:.4f}")
    return table


def _channel_of(channel: str) -> str:
    """What is told of the channel that answered: nothing of `live`, and of servers that know no channels."""
    return f"channel {channel} · " if channel not in ("", "live") else ""


def _channels(info: recall_pb2.GetServerInfoResponse) -> str:
    """The channels of a server, each with its release, or why it has none."""
    told = []
    for each in info.channels:
        release = each.collection or f"no release: {each.refused_release}"
        refused = f", refuses {each.refused_collection}" if each.collection and each.refused_collection else ""
        share = f", {each.split:.4g} of the split" if len(info.channels) > 1 and 0 < each.split < 1 else ""
        told.append(f"{each.name}: {release}{share}{refused}")
    return "\n".join(told)


def info_view(info: recall_pb2.GetServerInfoResponse, counted: int | str) -> RenderableType:
    """What is being served, and the limits.

    Args:
        info: what the server told.
        counted: the items that are there now, or why they cannot be counted. Between two builds items come and go.
    """
    limits = info.limits
    items = f"{counted:,} items" if isinstance(counted, int) else f"items cannot be counted now: {counted}"
    if counted != info.item_count:
        items += f" ({info.item_count:,} when it was built)"
    rows = {
        "server": info.server_version,
        "model": f"{info.model_version}, {info.num_interests} interests x {info.embedding_dim}, "
        f"newest {info.maxlen} known items of a history",
        "encoder": info.encoder,
        "collection": f"{info.collection}, {items}, metric {info.metric}",
        "before": info.previous_collection or "none",
        "item ids": "text" if has_text_ids(info) else "integers",
        "neighbours": _words(recall_pb2.Neighbours, info.neighbours) if info.neighbours else "none in this model",
        "attributes": ", ".join(f"{attribute.name} {attribute.type}" for attribute in info.attributes) or "none",
        "rules": info.release_rules or "none in this release",
        "limits": f"{limits.max_users:,} users, top_k {limits.max_top_k:,}, {limits.max_candidates:,} candidates, "
        f"{limits.max_request_bytes:,} bytes in a request; {limits.max_concurrent_requests:,} requests at once",
        "per user": f"{limits.max_history:,} history items, {limits.max_exclude:,} exclusions; "
        f"filter {limits.max_filter_chars:,} characters, {limits.max_filter_depth} deep",
        "admin": "enabled" if info.admin_enabled else "disabled",
        "users": f"remembered, the newest {limits.max_stored_history:,} items of each"
        if info.users_enabled
        else "not remembered",
    }
    if len(info.channels) > 1:
        rows = {"channel": info.channel} | rows | {"channels": _channels(info)}
    grid = Table.grid(padding=(0, 2))
    for heading, value in rows.items():
        grid.add_row(Text(heading, style="bold"), Text(value))
    if info.refused_release:
        grid.add_row(Text("refused", style="bold red"), Text(info.refused_release, style="red"))
    return grid


def size_view(size: Size) -> RenderableType:
    """What a load needs, and what that rests on."""
    servers, milvus = size.servers, size.milvus
    table = _table()
    for heading, justify in (("", "left"), ("how many", "right"), ("busy cores", "right"), ("memory", "right")):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_row(
        "server processes", f"{servers.processes:,}", f"{servers.cores:,.1f}", f"{servers.gb_each:,.1f} GB each"
    )
    table.add_row(
        "Milvus query nodes", f"{milvus.query_nodes:,}", f"{milvus.cores:,.1f}", f"{milvus.gb:,.1f} GB in all"
    )
    said = Table.grid(padding=(0, 2))
    for each in size.assumptions:
        said.add_row(Text("extrapolated", style="yellow") if each.extrapolated else Text("measured"), Text(each.says))
    return Group(table, said)


def status_words(status: int) -> str:
    """`USER_STATUS_EMPTY_HISTORY` as `empty history`."""
    return _words(recall_pb2.UserStatus, status)


def _remarks(candidates: recall_pb2.UserCandidates) -> list[Text]:
    remarks = []
    if candidates.status != recall_pb2.USER_STATUS_OK:
        popular = ": popular items instead" if candidates.fallback and ids_of(candidates, "item_ids") else ""
        remarks.append(Text(status_words(candidates.status) + popular, style="bold yellow"))
    if candidates.detail:
        remarks.append(Text(candidates.detail, style="yellow"))
    if candidates.unknown_count:
        listed = ", ".join(_shown(item_id).plain for item_id in ids_of(candidates, "unknown_item_ids"))
        remarks.append(
            Text(f"the model does not know {candidates.unknown_count} of the history: {listed}", style="yellow")
        )
    return remarks


def _interest(number: int) -> Text:
    if number < 0:
        return Text("popular", style="dim")
    return Text(f"● {number}", style=_INTEREST_COLORS[number % len(_INTEREST_COLORS)])


def _shown(item_id: int | str) -> Text:
    """An id that a terminal can show: one that is text may have control characters, or look like markup."""
    text = str(item_id)
    return Text(text if text.isprintable() else repr(text))


def _named(item_id: int | str, titles: Titles) -> str:
    shown = _shown(item_id).plain
    return f"{shown} {_harmless(titles[item_id])}" if item_id in titles else shown


def _clicks(response: recall_pb2.ExplainResponse, titles: Titles) -> RenderableType:
    """Show the history, and for each interest up to three clicks with a weight of 10 % or more, such as `KIT-1 93%`."""
    used = ids_of(response, "used_hist_item")
    grid = Table.grid(padding=(0, 2))
    grid.add_row(Text("history", style="bold"), Text(", ".join(_named(item_id, titles) for item_id in used)))
    for number, interest in enumerate(response.interests):
        clicks = sorted(zip(used, interest.weights, strict=False), key=lambda click: -click[1])
        makers = [f"{_named(item_id, titles)} {weight:.0%}" for item_id, weight in clicks[:3] if weight >= 0.1]
        if makers:
            grid.add_row(_interest(number), Text(f"made by {', '.join(makers)}"))
    return grid


def _value(value: Any) -> Text:
    """The value of an attribute; nothing for None."""
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return _one_line("" if value is None else _harmless(str(value)))


def _harmless(title: str) -> str:
    """A title without control characters, with which a file could change the terminal."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in title)


def _one_line(text: str) -> Text:
    """Text that is cut where its column ends; the column itself stays the one that gives way in a narrow terminal."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def _words(enum: Any, value: int) -> str:
    known = enum.DESCRIPTOR.values_by_number.get(value)
    if not known:
        return str(value)  # a newer server may know more
    name = str(known.name)
    for prefix in ("USER_STATUS_", "ITEM_STATUS_", "DROP_REASON_", "SOURCE_", "NEIGHBOURS_"):
        name = name.removeprefix(prefix)
    return name.replace("_", " ").lower()


def _add_columns(table: Table, attributes: Mapping[str, list[Any]]) -> None:
    """Add a column for each attribute; numbers stand on the right."""
    for name, values in attributes.items():
        numbers = any(isinstance(value, int | float) for value in values)
        table.add_column(name, justify="right" if numbers else "left", max_width=50)


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False)
