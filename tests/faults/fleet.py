"""Three servers that come and go, and the troubles of their files; every answer is held against the exact one.

Two of them fetch models into a cache that they share; the third, which wants a token, reads a directory of its own.
"""

import asyncio
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

from clients import AsyncRecallClient, RecallError, UnauthenticatedError
from mind.artifact import MANIFEST, TENSORS, Artifact, Float32
from mind.encoder import NumpyEncoder
from protos.recall.v1 import recall_pb2
from tests.faults.expected import Built, Expected, Fault
from tests.faults.ground import DIM, say
from tests.server.test_service import Server

SERVERS, TOP_K, USERS = 3, 10, 8
WATCH_S, FOLLOW_S = 0.3, 60.0
"""Between looks at the alias; and in which a server must serve what is live, and find what was changed."""
TOLERANCE = 1e-3
"""Of a score: Milvus sums in another order than we do."""
ADMIN = "administrator of the drill"
SMALL_BYTES = 512
"""What a file may have at most while the disk is full."""


def vector_of(item: int) -> Float32:
    """The vector that is given for a new item."""
    return np.random.default_rng(item).normal(size=DIM).astype(np.float32)


class Fleet:
    """The servers. `stop` ends them."""

    def __init__(self, uri: str, models: Sequence[Artifact], directory: Path, rng: random.Random) -> None:
        """Nothing is started yet. `directory` has the models, in `models`; all other files come beside them."""
        self._uri, self._models, self._directory, self._rng = uri, list(models), directory, rng
        self._remote, self._own, self._cache = (directory / name for name in ("remote", "own", "cache"))
        shutil.copytree(directory / "models", self._remote)
        shutil.copytree(directory / "models", self._own)
        self._token_file, self._token = directory / "tokens", ""
        (directory / "admin").write_text(ADMIN)
        self._servers: list[Server | None] = [None] * SERVERS
        self._clients: list[AsyncRecallClient | None] = [None] * SERVERS
        longest = models[0].hyper_parameters.maxlen
        known = models[0].weights.item_id.tolist()
        self._histories = [rng.sample(known, rng.randint(1, longest)) for _ in range(USERS)]
        self._vectors = [self._encoded(model) for model in models]
        self.tally: Counter[str] = Counter()

    def _encoded(self, model: Artifact) -> Float32:
        rows = np.zeros((USERS, model.hyper_parameters.maxlen), np.int64)
        for row, history in zip(rows, self._histories, strict=True):
            row[: len(history)] = model.vocabulary.item_index(np.array(history))
        lengths = np.array([len(history) for history in self._histories])
        return np.asarray(NumpyEncoder(model.weights, model.hyper_parameters).encode(rows, lengths))

    async def start(self) -> None:
        """Start all servers that do not run."""
        if not self._token:
            await self._rotate()
        for number, server in enumerate(self._servers):
            if server is None:
                await self._start(number)

    async def stop(self) -> None:
        """End all servers."""
        for number in range(SERVERS):
            await self._end(number, signal.SIGTERM)

    # Troubles.

    async def trouble(self, publish: Callable[[], Awaitable[str]]) -> None:
        """Do something to servers or their files. `publish` releases another collection."""
        troubles: list[Callable[[Callable[[], Awaitable[str]]], Awaitable[None]]] = [
            self._come_or_go,
            self._come_or_go,
            self._rotate_again,
            self._fill_disk,
            self._damage,
        ]
        await self._rng.choice(troubles)(publish)

    async def _come_or_go(self, _: object) -> None:
        number = self._rng.randrange(SERVERS)
        if self._servers[number] is None:
            await self._start(number)
        else:
            await self._end(number, self._rng.choice((signal.SIGTERM, signal.SIGKILL)))

    async def _rotate_again(self, _: object) -> None:
        old = self._token
        await self._rotate()
        client = self._clients[SERVERS - 1]
        if client is None:
            return
        async with AsyncRecallClient(self._address(SERVERS - 1), timeout_s=10, token=old) as before:
            deadline = time.monotonic() + FOLLOW_S
            with suppress(UnauthenticatedError):
                while time.monotonic() < deadline:
                    await before.count_items()
                    await asyncio.sleep(0.1)
                raise Fault(f"a token is valid {FOLLOW_S:g} s after it was replaced")
        self.tally["tokens replaced"] += 1

    async def _rotate(self) -> None:
        """Replace the token file: it is empty, half and whole in turn, as an editor or a mount may leave it."""
        self._token = f"token {self._rng.getrandbits(64):016x}"
        if self._clients[SERVERS - 1]:
            say("replace the token")
            for part in ("", self._token[:8]):
                self._token_file.write_text(part)
                await asyncio.sleep(self._rng.uniform(0, 1.2))
        self._token_file.write_text(self._token)
        await self._connect(SERVERS - 1)

    async def _fill_disk(self, publish: Callable[[], Awaitable[str]]) -> None:
        """Let the disk of the servers' cache be full while another collection is released."""
        running = [psutil.Process(server.process.pid) for server in self._servers[:2] if server]
        say("the disk of the cache is full")
        shutil.rmtree(self._cache, ignore_errors=True)  # what servers need now is fetched anew
        for process in running:
            process.rlimit(psutil.RLIMIT_FSIZE, (SMALL_BYTES, psutil.RLIM_INFINITY))
        try:
            await publish()
            await asyncio.sleep(3 * WATCH_S)
            await self._answer_as_one()
        finally:
            for process in running:
                process.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
        await self._reload()
        self.tally["disk full"] += 1

    async def _damage(self, publish: Callable[[], Awaitable[str]]) -> None:
        """Have other files in the place of all models while another collection is released, then the right ones."""
        say("the models are being replaced")
        shutil.rmtree(self._cache, ignore_errors=True)
        stop = asyncio.Event()
        replacing = asyncio.create_task(self._replace(stop))
        try:
            await publish()
            await asyncio.sleep(3 * WATCH_S)
            await self._answer_as_one()
        finally:
            stop.set()
            await replacing
        await self._reload()
        self.tally["models replaced"] += 1

    async def _replace(self, stop: asyncio.Event) -> None:
        whole = [self._directory / "models" / model.model_version for model in self._models]
        while not stop.is_set():
            for place in (self._remote, self._own):
                target, other = self._rng.choice(whole), self._rng.choice(whole)
                name = self._rng.choice((MANIFEST, TENSORS))
                content = (other / name).read_bytes()
                _put(place / target.name / name, content[: self._rng.choice((0, len(content) // 2, None))])
            await asyncio.sleep(0.01)
        for place in (self._remote, self._own):
            for each in whole:
                for name in (MANIFEST, TENSORS):
                    _put(place / each.name / name, (each / name).read_bytes())

    async def _reload(self) -> None:
        """Have the servers look again at once, which may have to wait minutes after several refusals."""
        for number, server in enumerate(self._servers):
            if server:
                async with AsyncRecallClient(self._address(number), timeout_s=30, token=ADMIN) as admin:
                    with suppress(RecallError):
                        await admin.reload()

    async def _start(self, number: int) -> None:
        say(f"start server {number}")
        places = [f"file://{self._remote}"] * 2 + [str(self._own)]
        options = ["--milvus-uri", self._uri, "--artifacts", places[number], "--artifact-cache", str(self._cache)]
        options += ["--watch-interval-s", str(WATCH_S), "--admin-token-file", str(self._directory / "admin")]
        if number == SERVERS - 1:
            options += ["--token-file", str(self._token_file)]
        self._servers[number] = server = Server(*options)
        await asyncio.to_thread(server.wait_for, "listening on")
        await self._connect(number)

    async def _end(self, number: int, how: signal.Signals) -> None:
        server, client = self._servers[number], self._clients[number]
        self._servers[number] = self._clients[number] = None
        if client:
            await client.close()
        if server:
            say(f"end server {number} by {how.name}")
            code = await asyncio.to_thread(server.stop, how)
            log = "".join(server.log)
            if "Traceback" in log or (how is signal.SIGTERM and code):
                raise Fault(f"server {number} ended with {code}:\n{log}")

    async def _connect(self, number: int) -> None:
        old, server = self._clients[number], self._servers[number]
        if old:
            await old.close()
        token = self._token if number == SERVERS - 1 else None
        self._clients[number] = AsyncRecallClient(server.address, timeout_s=20, token=token) if server else None

    def _address(self, number: int) -> str:
        server = self._servers[number]
        assert server
        return server.address

    # Promises.

    async def check(self, expected: Expected) -> set[str]:
        """All servers serve what is live, and answer exactly; gives the collections that they use. Raises Fault."""
        await self.start() if not any(self._servers) else None
        clients = {number: client for number, client in enumerate(self._clients) if client}
        await asyncio.gather(*(self._check(number, client, expected) for number, client in clients.items()))
        infos = await asyncio.gather(*(client.get_server_info() for client in clients.values()))
        return {name for info in infos for name in (info.collection, info.previous_collection) if name}

    async def _check(self, number: int, client: AsyncRecallClient, expected: Expected) -> None:
        """Ask until the answers are exact; until then they must be those of one release."""
        built, deadline, wrong = expected.there[expected.live], time.monotonic() + FOLLOW_S, "it did not answer"
        changed = sorted(built.changes, key=lambda item: built.changes[item].at)[-1:]
        year = next((built.items[item] for item in changed if item in built.items), 1990)
        user = self._rng.randrange(USERS)
        for filter_ in ("", f"year == {year}"):
            while True:
                try:
                    answer = await client.recall([self._histories[user]], top_k=TOP_K, filter=filter_)
                except RecallError as error:
                    wrong = str(error)
                else:
                    self._check_one(answer.results[0], user, answer.model_versions[0], answer.collections[0])
                    wrong = self._inexact(answer.results[0], user, built, year if filter_ else None)
                    if answer.collections[0] == expected.live and not wrong:
                        break
                    wrong = wrong or f"it serves {answer.collections[0]}"
                if time.monotonic() > deadline:
                    server = self._servers[number]
                    log = "".join(server.log[-20:]) if server else ""
                    raise Fault(f"server {number}, {filter_!r}, {expected.live} is live: {wrong}\n{log}")
                await asyncio.sleep(0.05)
            self.tally["answers"] += 1

    async def _answer_as_one(self) -> None:
        """Whatever release each server has, its answer must be of that one."""
        for client in self._clients:
            if client is None:
                continue
            for user in range(USERS):
                with suppress(RecallError):  # one that was started just now has no release
                    answer = await client.recall([self._histories[user]], top_k=TOP_K)
                    self._check_one(answer.results[0], user, answer.model_versions[0], answer.collections[0])

    def _check_one(self, answer: recall_pb2.UserCandidates, user: int, version: str, collection: str) -> None:
        """Each score is that of the model which the answer names. Raises Fault."""
        if answer.status != recall_pb2.USER_STATUS_OK or not collection.startswith(f"items_{version}_"):
            raise Fault(f"status {answer.status}, model {version}, collection {collection}")
        number = next(number for number, model in enumerate(self._models) if model.model_version == version)
        own = self._scores(number, user, list(answer.item_ids))
        if len(own) and np.abs(own - np.array(answer.scores)).max() > TOLERANCE:
            raise Fault(f"model {version}: scores are {list(answer.scores)}, expected {own.tolist()}")

    def _inexact(self, answer: recall_pb2.UserCandidates, user: int, built: Built, year: int | None) -> str:
        """What is wrong with the items of an answer; empty if nothing is. Equal scores may change places."""
        items = [item for item, its in built.items.items() if year in (None, its)]
        if not set(answer.item_ids) <= set(items):
            return f"{set(answer.item_ids) - set(items)} are in the answer"
        best = -np.sort(-self._scores(built.model, user, items))[:TOP_K]
        found = np.array(answer.scores)
        if len(best) == len(found) and np.abs(best - found).max(initial=0) <= TOLERANCE:
            return ""
        return f"scores are {found.tolist()}, the best are {best.tolist()}"

    def _scores(self, number: int, user: int, items: Sequence[int]) -> Float32:
        model = self._models[number]
        rows = model.vocabulary.item_index(np.array(items, np.int64))
        vectors = [
            model.weights.item_embedding[row] if row else vector_of(item) for item, row in zip(items, rows, strict=True)
        ]
        interests = self._vectors[number][user]
        interests = interests[np.any(interests, axis=1)]
        return np.asarray((interests @ np.array(vectors).reshape(-1, DIM).T).max(axis=0), np.float32)


def _put(path: Path, content: bytes) -> None:
    """Give a file another content, as those do who know that servers have the old one mapped."""
    staging = path.with_name(f".{path.name}")
    staging.write_bytes(content)
    staging.replace(path)
