"""The watch after a release: what servers count, and which counts take the release back."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from indexer.nightly.config import Watch
from indexer.nightly.watch import Counts, Watched, parse, watch_release
from server.instrumentation import make_metrics
from server.watching.metrics import Metrics


@contextmanager
def server() -> Iterator[tuple[Metrics, str]]:
    """The metrics of a server, and where they are read."""
    metrics = make_metrics()
    endpoint, port = metrics.serve("127.0.0.1:0")
    try:
        yield metrics, f"127.0.0.1:{port}"
    finally:
        endpoint.shutdown()
        endpoint.server_close()


@pytest.fixture
def served() -> Iterator[tuple[Metrics, str]]:
    with server() as found:
        yield found


def count(metrics: Metrics, calls: int = 0, failed: int = 0, recall: tuple[float, ...] = ()) -> None:
    for _ in range(calls):
        metrics.count_request("Recall", "OK", "", 0.01)
    for _ in range(failed):
        metrics.count_request("Recall", "UNAVAILABLE", "STORE_UNAVAILABLE", 0.01)
    for value in recall:
        metrics.count_recall(value)


def watch(address: str, **limits: float) -> Watch:
    return Watch.model_validate({"metrics": (address,), "minutes": 0.001, "every_s": 0.02} | limits)


def test_counts_are_those_since_the_release(served: tuple[Metrics, str]) -> None:
    metrics, address = served
    count(metrics, calls=50, failed=50, recall=(0.1,))  # of the release before
    metrics.count_request("Recall", "INVALID_ARGUMENT", "BAD_REQUEST", 0.01)  # a fault of the caller
    watched = Watched(watch(address))
    assert (watched.look(), watched.figures()["calls"]) == ("", 0)
    count(metrics, calls=9, failed=1, recall=(1.0, 0.9))
    assert watched.look() == ""  # 10 calls and 2 samples are too few to judge
    assert watched.figures() == {"servers": 1, "calls": 10, "errors": 0.1, "samples": 2, "recall": 0.95}


def test_failed_calls_take_the_release_back(served: tuple[Metrics, str]) -> None:
    metrics, address = served
    watched = Watched(watch(address))
    count(metrics, calls=98, failed=2)
    assert watched.look() == "2 of 100 calls failed (2.00%), at most 1.00% may (watch.max_errors)"
    assert Watched(watch(address)).look() == ""  # nothing since


def test_a_low_recall_takes_the_release_back(served: tuple[Metrics, str]) -> None:
    metrics, address = served
    watched = Watched(watch(address))
    count(metrics, recall=(0.8,) * 20)
    assert "the sampled recall is 0.800 over 20 users, at least 0.9 is asked for" in watched.look()


def test_a_server_that_falls_silent_takes_the_release_back() -> None:
    with server() as (_, address):
        watched = Watched(watch(address, max_silence_s=1e-6))
        assert watched.look() == ""
    assert f"{address} does not answer with metrics for" in watched.look()
    fell, figures = watch_release(watch(address))
    assert (fell, figures) == (f"{address} does not answer with metrics after the release", {})


def test_the_watch_ends_when_its_time_is_over(served: tuple[Metrics, str]) -> None:
    fell, figures = watch_release(watch(served[1]))
    assert (fell, figures["servers"], figures["recall"]) == ("", 1, None)


def test_a_server_that_was_started_anew_counts_from_zero() -> None:
    before = Counts(calls=100, failed=3, recall=9, samples=10)
    assert Counts(5, 1, 2, 2).since(before) == Counts(5, 1, 2, 2)
    assert Counts(110, 4, 10, 11).since(before) == Counts(10, 1, 1, 1)
    assert parse("nothing that we know 3\n") == Counts()
