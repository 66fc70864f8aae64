"""Watches the metrics of servers after a release: the sampled recall, failed calls, and whether each server answers."""

import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from http.client import HTTPException
from urllib.request import urlopen

from indexer.errors import ServersError
from indexer.nightly.config import Watch

TIMEOUT_S = 5
FAULTS = ("INTERNAL", "UNAVAILABLE", "FAILED_PRECONDITION", "DEADLINE_EXCEEDED")
"""Statuses of calls that failed by a fault of the service, as the alert RecallErrors counts them."""
_LINE = re.compile(r"^(\w+)(?:\{([^}]*)\})? (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Counts:
    """The counters of one or more servers."""

    calls: float = 0
    failed: float = 0
    recall: float = 0
    """The sum of the recall of all samples."""
    samples: float = 0

    def plus(self, other: "Counts") -> "Counts":
        """Return the sum of two sets of counters."""
        return Counts(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(Counts)))

    def since(self, before: "Counts") -> "Counts":
        """Return the counts since an earlier reading. A server that was restarted counts from 0."""
        if self.calls < before.calls or self.samples < before.samples:
            return self
        return Counts(*(getattr(self, one.name) - getattr(before, one.name) for one in fields(Counts)))


def parse(text: str) -> Counts:
    """Read the counters from the metrics text of one server process."""
    calls = failed = recall = samples = 0.0
    for name, labels, value in _LINE.findall(text):
        if name == "recall_request_duration_seconds_count":
            calls += float(value)
        elif name == "recall_request_failures_total" and any(f'status="{fault}"' in labels for fault in FAULTS):
            failed += float(value)
        elif name == "recall_sampled_recall_ratio_sum":
            recall += float(value)
        elif name == "recall_sampled_recall_ratio_count":
            samples += float(value)
    return Counts(calls, failed, recall, samples)


class Watched:
    """The servers that are watched since this object was made."""

    def __init__(self, watch: Watch) -> None:
        """Read the metrics of each server for the first time. Raises ServersError if a server does not answer."""
        self._watch = watch
        self._last = {address: _read(address) for address in _addresses(watch.metrics)}
        self._heard = dict.fromkeys(self._last, time.monotonic())
        self.counted = Counts()

    def look(self) -> str:
        """Read the metrics again. Return why the release must be rolled back, or an empty text if it need not be."""
        silent = ""
        for address, before in self._last.items():
            try:
                now = _read(address)
            except ServersError as error:
                silence_s = time.monotonic() - self._heard[address]
                if silence_s > self._watch.max_silence_s:
                    silent = (
                        f"{error} for {silence_s:.0f} s, at most {self._watch.max_silence_s:g} s (watch.max_silence_s)"
                    )
                continue
            self.counted = self.counted.plus(now.since(before))
            self._last[address], self._heard[address] = now, time.monotonic()
        return silent or self._judge()

    def _judge(self) -> str:
        watch, counted = self._watch, self.counted
        if counted.calls >= watch.min_calls and counted.failed > watch.max_errors * counted.calls:
            return (
                f"{counted.failed:,.0f} of {counted.calls:,.0f} calls failed ({counted.failed / counted.calls:.2%}), "
                f"at most {watch.max_errors:.2%} may (watch.max_errors)"
            )
        if counted.samples >= watch.min_samples and counted.recall < watch.min_recall * counted.samples:
            return (
                f"the sampled recall is {counted.recall / counted.samples:.3f} over {counted.samples:,.0f} users, "
                f"at least {watch.min_recall:g} is asked for (watch.min_recall)"
            )
        return ""

    def figures(self) -> dict[str, float | int | None]:
        """Return the counts since the release, for the line of the step."""
        counted = self.counted
        return {
            "servers": len(self._last),
            "calls": int(counted.calls),
            "errors": round(counted.failed / counted.calls, 6) if counted.calls else None,
            "samples": int(counted.samples),
            "recall": round(counted.recall / counted.samples, 4) if counted.samples else None,
        }


def watch_release(watch: Watch) -> tuple[str, dict[str, float | int | None]]:
    """Watch until the time is over or a limit is broken.

    Returns:
        Why the release must be rolled back (empty if it need not be), and the counts.
    """
    try:
        watched = Watched(watch)
    except ServersError as error:
        return f"{error} after the release", {}
    until = time.monotonic() + 60 * watch.minutes
    while True:
        time.sleep(max(0.0, min(watch.every_s, until - time.monotonic())))
        if (fell := watched.look()) or time.monotonic() >= until:
            return fell, watched.figures()


def _addresses(targets: Sequence[str]) -> list[str]:
    """Return all IP addresses of each host:port. Raises ServersError."""
    found: dict[str, None] = {}
    for target in targets:
        host, _, port = target.rpartition(":")
        try:
            known = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        except (OSError, ValueError, OverflowError) as error:
            raise ServersError(f"watch.metrics {target}: {error}") from error
        for family, *_, address in known:
            found[f"[{address[0]}]:{port}" if family == socket.AF_INET6 else f"{address[0]}:{port}"] = None
    return list(found)


def _read(address: str) -> Counts:
    try:
        with urlopen(f"http://{address}/metrics", timeout=TIMEOUT_S) as answer:
            return parse(answer.read().decode())
    except (OSError, HTTPException, ValueError) as error:
        raise ServersError(f"{address} does not answer with metrics") from error
