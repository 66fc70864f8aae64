"""Writes what shadow channels were seen to answer as `ShadowSummary` of GetServerInfo."""

import asyncio
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import numpy as np

from protos.recall.v1 import recall_pb2
from server.channels import Channels
from server.edge.shadow import Shadow
from server.errors import NotReadyError
from server.release import Release
from server.serving.item_keys import ItemKeys

KEYS_S = 0.2
"""Time in which Milvus may tell the keys of items that the model does not know."""


async def summaries(shadow: Shadow, channels: Channels, keys: ItemKeys) -> list[recall_pb2.ShadowSummary]:
    """A summary for each shadow channel. `keys`: tells the keys of items."""
    live = channels.default
    found = []
    for channel, share in shadow.shares.items():
        summary = recall_pb2.ShadowSummary(channel=channel, share=share, live_channel=live.channel)
        for outcome, requests in shadow.outcomes[channel].items():
            summary.outcomes.add(outcome=outcome, requests=requests)
        with suppress(NotReadyError):  # then nothing was compared
            await _add_figures(summary, shadow, live.current, channels.of(channel).current, keys)
        found.append(summary)
    return found


async def _add_figures(
    summary: recall_pb2.ShadowSummary, shadow: Shadow, live: Release, release: Release, keys: ItemKeys
) -> None:
    """Add what was seen of two releases, if it was these that were compared last."""
    seen = shadow.seen.get(summary.channel)
    if seen is None or (seen.live, seen.shadow) != (live.collection, release.collection):
        return
    report = await asyncio.to_thread(seen.figures.report)
    figures: dict[str, Any] = {**report.counts}
    figures |= {name: recall_pb2.ShadowValues(**asdict(values)) for name, values in report.values.items()}
    told = recall_pb2.ShadowSummary(
        since_ms=int(report.since * 1000),
        live_model_version=live.model_version,
        live_collection=live.collection,
        model_version=release.model_version,
        collection=release.collection,
        score_difference=report.score_difference,
        gained=await _items(report.gained, release, keys),
        lost=await _items(report.lost, live, keys),
        **figures,
    )
    summary.MergeFrom(told)


async def _items(counts: list[tuple[int, int]], release: Release, keys: ItemKeys) -> list[recall_pb2.ShadowItem]:
    """Items with the number of lists, by id or, where ids are text, by key."""
    if not release.has_text_ids:
        return [recall_pb2.ShadowItem(item_id=item_id, lists=lists) for item_id, lists in counts]
    named = await keys.of(release, np.array([item_id for item_id, _ in counts], np.int64), KEYS_S)
    return [
        recall_pb2.ShadowItem(item_key=key, lists=lists)
        for key, (_, lists) in zip(named.keys, counts, strict=True)
        if key
    ]
