"""Remembered users on a real Milvus server: `python -m tests.bench.users`, about six minutes on two cores.

Two servers of one release. Prints what UpsertUsers takes, whether the other server sees it at once, recall by user_id
beside recall with the history in the request, recall without what was shown, similar users and how many of the exact
ones they are, and how fast a release encodes all users anew.
"""

import argparse
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from clients import RecallClient
from indexer.users.encode import encode_users
from mind.artifact import Artifact, load_artifact, write_artifact
from mind.encoder import NumpyEncoder
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from mind.milvus.users import unit_interests
from mind.sequences import Sequences
from mind.transfer import Models
from protos.recall.v1 import recall_pb2
from tests.bench.machine import compare, console, describe
from tests.bench.serving.world import ROOT, build_and_publish, milvus, our_server, read_histories, write_data

ITEMS = 100_000
TIMEOUT_S = 60
SHOWN_TO = 16
"""Users who were shown something."""


def main() -> None:
    """Measure everything, in a temporary directory."""
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000, help="users to remember")
    parser.add_argument("--rounds", type=int, default=200, help="calls of a kind")
    options = parser.parse_args()
    console.print(f"{describe()}; {ITEMS:,} items x 64, {options.users:,} users, histories of 4 to 20")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        artifact = write_data(directory, ITEMS, options.users)
        model, histories = load_artifact(artifact), read_histories(directory)
        uri, _ = stack.enter_context(milvus(directory))
        build_and_publish(artifact, uri)
        servers = [stack.enter_context(our_server(directory, uri, "--users")) for _ in range(2)]
        a, b = (stack.enter_context(RecallClient(address, timeout_s=TIMEOUT_S)) for address, _ in servers)
        fill(a, histories)
        written(a, histories, options.rounds)
        freshness(a, b, options.rounds // 4)
        recalls(a, histories, options.rounds)
        without_shown(a, histories, options.rounds)
        similar(a, model, histories, options.rounds)
        encode_anew(uri, directory, model)


def fill(client: RecallClient, histories: Sequences) -> None:
    """All users through UpsertUsers, 256 a call, eight calls at once."""
    batches = [
        {str(user): histories[user].tolist() for user in range(start, min(start + 256, len(histories)))}
        for start in range(0, len(histories), 256)
    ]
    started = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client.upsert_users, batches))
    took = time.perf_counter() - started
    console.print(f"UpsertUsers, 256 a call, 8 callers: {len(histories) / took:,.0f} users/s")


def written(client: RecallClient, histories: Sequences, rounds: int) -> None:
    """One caller, one call after the other."""
    for users in (1, 64):
        clicks = {str(user): histories[user].tolist()[:1] for user in range(users)}
        timed(
            f"UpsertUsers, append 1 click, {users} users a call",
            lambda clicks=clicks: client.upsert_users(append_item_ids=clicks),  # type: ignore[misc]
            rounds // 4,
        )


def freshness(a: RecallClient, b: RecallClient, rounds: int) -> None:
    """Write through one server, recall through the other."""
    seen = 0
    waited = []
    for round_ in range(rounds):
        a.upsert_users({"fresh": [round_ + 1]})
        answered = time.perf_counter()
        tries = 1
        while list(b.recall(["fresh"], top_k=1).results[0].unknown_item_ids) != [
            round_ + 1
        ]:  # ids of items are greater
            tries += 1
        waited.append(time.perf_counter() - answered)
        seen += tries == 1
    console.print(
        f"after the answer the other server's first recall saw it in {seen} of {rounds} cases, "
        f"at most {max(waited) * 1000:.1f} ms after the answer"
    )


def recalls(client: RecallClient, histories: Sequences, rounds: int) -> None:
    """By history and by user_id in turn."""
    rng = np.random.default_rng(0)
    for users in (1, 64):

        def by_history() -> object:
            """history in the request"""
            chosen = rng.integers(0, len(histories), users)  # noqa: B023
            return client.recall([histories[user].tolist() for user in chosen], top_k=50)

        def by_user_id() -> object:
            """user_id"""
            return client.recall([str(user) for user in rng.integers(0, len(histories), users)], top_k=50)  # noqa: B023

        console.print(compare("Recall, top 50", users, by_history, by_user_id, rounds))


def without_shown(client: RecallClient, histories: Sequences, rounds: int) -> None:
    """With and without what users were shown, in turn; they were shown the best of their own lists."""
    everybody = [
        recall_pb2.User(user_id=f"shown {user}", hist_item=histories[user].tolist()) for user in range(SHOWN_TO)
    ]
    for shown in (50, 500, 5_000):
        for user in everybody:
            client.upsert_users(shown_item_ids={user.user_id: best(client, user, shown)})
        for users in (1, SHOWN_TO):

            def all_items() -> object:
                """all items"""
                return client.recall(everybody[:users], top_k=50)  # noqa: B023

            def exclude_shown() -> object:
                """exclude_shown"""
                return client.recall(everybody[:users], top_k=50, exclude_shown=True)  # noqa: B023

            console.print(compare(f"Recall, top 50, {shown:,} shown", users, all_items, exclude_shown, rounds))


def best(client: RecallClient, user: recall_pb2.User, count: int) -> list[int]:
    """The best items of a user, page by page."""
    size = min(count, 1_000)
    answer = client.recall([user], top_k=size, paged=True)
    items = list(answer.item_ids[0])
    while len(items) < count and answer.next_page_token:
        answer = client.recall([user], top_k=size, page_token=answer.next_page_token)
        items += answer.item_ids[0]
    return items


def similar(client: RecallClient, model: Artifact, histories: Sequences, rounds: int) -> None:
    """Similar users, and their share of the exact ones."""
    rng = np.random.default_rng(1)
    for users, top_k in ((1, 10), (1, 100), (64, 100)):
        timed(
            f"FindSimilarUsers, top {top_k}, {users} users a call",
            lambda users=users, top_k=top_k: client.find_similar_users(  # type: ignore[misc]
                [str(user) for user in rng.integers(64, len(histories), users)], top_k=top_k
            ),
            rounds // 2,
        )
    asked = rng.integers(64, len(histories), 50)  # the first 64 have other histories now
    encoder = NumpyEncoder(model.weights, model.hyper_parameters)
    everybody = [histories[user] for user in range(len(histories))]
    vectors = unit_interests(everybody, model.vocabulary, encoder, model.hyper_parameters)
    answer = client.find_similar_users([str(user) for user in asked], top_k=100)
    shares = []
    for user, found in zip(asked, answer.results, strict=True):
        scores = np.max([(vectors @ interest).max(axis=1) for interest in vectors[user]], axis=0)
        scores[[user, *range(64)]] = -2
        exact = set(np.argsort(-scores)[:100].tolist())
        shares.append(len(exact & set(map(int, filter(str.isdecimal, found.user_ids)))) / 100)
    console.print(f"of the exact 100 most similar users {np.mean(shares):.3f} were found")


def encode_anew(uri: str, directory: Path, model: Artifact) -> None:
    """What the release of another model does with all users."""
    weights = replace(model.weights, focus=np.array([3.0], np.float32))
    encoder = NumpyEncoder(weights, model.hyper_parameters)
    golden = encoder.encode(weights.golden_hist_index, weights.golden_seq_len)
    weights = replace(weights, golden_interest_vectors=golden)
    other = write_artifact(directory / "artifacts", model.hyper_parameters, weights, {}, {})
    command = [sys.executable, "-m", "indexer", "build", "--artifact", str(other), "--milvus-uri", uri]
    subprocess.run(command, cwd=ROOT, check=True)
    with Store(Connection(uri)) as store:
        for what in ("encoded anew", "looked over again"):
            started = time.perf_counter()
            encoded = encode_users(
                store, load_artifact(other).model_version, Models(other), lambda stage, done, total: None
            )
            took = time.perf_counter() - started
            assert encoded
            console.print(
                f"{encoded.users:,} users {what}, {encoded.encoded:,} written: {took:.1f} s, "
                f"{encoded.users / took:,.0f} users/s"
            )


def timed(what: str, call: Callable[[], object], rounds: int) -> None:
    """Percentiles of one caller's latency."""
    spent = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        spent.append(time.perf_counter() - started)
    p50, p95, p99 = np.percentile(spent, [50, 95, 99]) * 1000
    console.print(f"{what}: p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f} ms")


if __name__ == "__main__":
    main()
