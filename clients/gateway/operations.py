"""The operations view: a few figures out of what recall servers tell Prometheus at `/metrics`.

All counts are since a server started. The page computes rates from two readings.
"""

import asyncio
import math
import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from typing import Annotated, Any
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from clients.gateway.problems import ProblemError

MAX_BYTES = 4 * 1024 * 1024
"""Most bytes of metrics that are read; a server has a twentieth of it."""
TIMEOUT_S = 2.0
"""Longest wait for the metrics of a server."""
KEPT_S = 1.0
"""Metrics are not read more often than this, however many pages are open."""
_SAMPLE = re.compile(r"(recall_\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_SECONDS, _RECALL = "recall_request_duration_seconds", "recall_sampled_recall_ratio"

Labels = dict[str, str]
Samples = Mapping[str, Sequence[tuple[Labels, float]]]
"""The values of each metric with their labels."""

router = APIRouter(include_in_schema=False)


class Operations:
    """Reads the metrics of servers."""

    def __init__(self, urls: Sequence[str]) -> None:
        """`urls`: of the metrics of each server process."""
        self.urls = urls
        self._opener = build_opener(ProxyHandler({}))  # metrics are on the same network
        self._lock = asyncio.Lock()
        self._read_at = 0.0
        self._found: list[dict[str, Any]] = []

    async def read(self) -> list[dict[str, Any]]:
        """The figures of each server; `error` if its metrics cannot be read."""
        async with self._lock:
            if not self._found or time.monotonic() - self._read_at > KEPT_S:
                self._found = await asyncio.gather(*(asyncio.to_thread(self._of, url) for url in self.urls))
                self._read_at = time.monotonic()
            return self._found

    def _of(self, url: str) -> dict[str, Any]:
        server = urlsplit(url).netloc
        try:
            with self._opener.open(url, timeout=TIMEOUT_S) as answer:
                text = answer.read(MAX_BYTES).decode(errors="replace")
        except (OSError, HTTPException) as error:
            return {"server": server, "error": str(getattr(error, "reason", error))}
        samples = parse(text)
        if "recall_serving" not in samples:
            return {"server": server, "error": "these are no metrics of a recall server"}
        return {"server": server} | figures(samples)


def parse(text: str) -> Samples:
    """Read the text format of Prometheus; lines of other programs are left out."""
    samples: dict[str, list[tuple[Labels, float]]] = defaultdict(list)
    for line in text.splitlines():
        if found := _SAMPLE.fullmatch(line):
            name, labels, value = found.groups()
            samples[name].append((dict(_LABEL.findall(labels or "")), _finite(value)))
    return samples


def _finite(value: str) -> float:
    """A value; 0 for what is no number, which other programs may send."""
    try:
        return float(value) if math.isfinite(float(value)) else 0.0
    except ValueError:
        return 0.0


def figures(samples: Samples) -> dict[str, Any]:
    """The figures of one server."""
    default = next((labels.get("channel", "") for labels, _ in samples.get("recall_serving", ())), "")
    releases = {labels.get("channel", ""): labels for labels, value in samples.get("recall_release_info", ()) if value}
    release = releases.get(default, {})
    failures = [labels | {"count": int(value)} for labels, value in samples.get("recall_request_failures_total", ())]
    return {
        "serving": _one(samples, "recall_serving") == 1,
        "model_version": release.get("model_version", ""),
        "collection": release.get("collection", ""),
        "channels": [
            {"name": name, "collection": releases.get(name, {}).get("collection", ""), "serving": value == 1}
            for name, value in ((labels.get("channel", ""), value) for labels, value in samples["recall_serving"])
        ],
        "taken_over_at": _one(samples, "recall_release_taken_over_timestamp_seconds"),
        "refused": _one(samples, "recall_release_refused") == 1,
        "miscounted": _one(samples, "recall_release_miscounted") == 1,
        "in_progress": int(_one(samples, "recall_requests_in_progress")),
        "queued_users": int(_one(samples, "recall_queued_users")),
        "latency": _histogram(samples, _SECONDS, {"method": "Recall", "status": "OK"}),
        "requests": int(sum(value for _, value in samples.get(_SECONDS + "_count", ()))),
        "shed": sum(each["count"] for each in failures if each.get("status") == "RESOURCE_EXHAUSTED"),
        "failures": sorted(failures, key=lambda each: -each["count"]),
        "sampled_recall": _histogram(samples, _RECALL, {}),
        "users": {labels.get("status", ""): int(value) for labels, value in samples.get("recall_users_total", ())},
        "milvus_errors": int(sum(value for _, value in samples.get("recall_milvus_errors_total", ()))),
        "shadows": _shadows(samples),
    }


def _shadows(samples: Samples) -> list[dict[str, Any]]:
    """The figures of each shadow channel."""
    outcomes: dict[str, dict[str, int]] = defaultdict(dict)
    for labels, value in samples.get("recall_shadow_requests_total", ()):
        outcomes[labels.get("channel", "")][labels.get("outcome", "")] = int(value)
    return [
        {
            "channel": channel,
            "outcomes": outcomes[channel],
            "overlap": _histogram(samples, "recall_shadow_overlap_ratio", {"channel": channel}),
            "rbo": _histogram(samples, "recall_shadow_rbo_ratio", {"channel": channel}),
            "latency_ratio": _histogram(samples, "recall_shadow_latency_ratio", {"channel": channel}),
        }
        for channel in sorted(outcomes)
    ]


def _one(samples: Samples, name: str) -> float:
    return next((value for _, value in samples.get(name, ())), 0.0)


def _histogram(samples: Samples, name: str, wanted: Labels) -> dict[str, Any]:
    """Count, sum and buckets, each with its upper bound as text and the count up to it, of the series with labels."""
    buckets: dict[str, float] = {}
    for labels, value in samples.get(name + "_bucket", ()):
        if wanted.items() <= labels.items():
            le = labels.get("le", "")
            buckets[le] = buckets.get(le, 0) + value
    count, total = (
        sum(value for labels, value in samples.get(name + end, ()) if wanted.items() <= labels.items())
        for end in ("_count", "_sum")
    )
    return {"count": int(count), "sum": total, "buckets": [[le, int(value)] for le, value in buckets.items()]}


def operations_of(request: Request) -> Operations:
    """Return the reader of metrics of the application, for `Depends`."""
    operations: Operations = request.app.state.operations
    return operations


OperationsOf = Annotated[Operations, Depends(operations_of)]


@router.get("/explorer/operations")
async def operations(operations: OperationsOf) -> JSONResponse:
    """Return the figures of each server whose metrics the gateway reads."""
    if not operations.urls:
        detail = "the gateway reads no metrics; its option --metrics names their URL"
        raise ProblemError(404, "Not found", detail, "NOT_FOUND")
    return JSONResponse({"servers": await operations.read()})
