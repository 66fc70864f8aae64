"""Computes how many servers and how much Milvus a load needs, from measured figures. It asks no server."""

import math
import re
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

MEASURED_ITEMS = 3_700_000
"""Items of the largest catalogue."""
MEASURED_DIM = 64
MEASURED_TOP_K = 50
SERVER_S_ALONE = 0.25
"""Processor seconds of a server for 1,000 users in requests of one user."""
SERVER_S_TOGETHER = 0.07
"""Processor seconds of a server for 1,000 users in requests of 64 users."""
MILVUS_S = 0.8
"""Processor seconds of Milvus for 1,000 users with four interests each, 367,982 items; we measured 0.6 to 0.8."""
SEARCH_COST = {12_000: 0.4, 367_982: 1.0, 1_230_000: 1.9}
"""Cost of searching a segment of so many items (HNSW, ef=128) over one of 367,982; the last is one of three."""
SERVED_BY_TOP_K = {10: 2_060, 50: 1_900, 200: 1_400, 1_000: 310}
"""Users per second of one machine, by candidates per user."""
SERVER_GB, SERVER_GB_PER_MILLION = 0.2, 0.28
"""Memory of a server process, and of a machine per million items of a model that its servers have mapped."""
MILVUS_GB, MILVUS_GB_PER_MILLION = 0.25, 0.6
"""Memory of Milvus, and per million items (HNSW, M=32)."""

SERVER_MODELS = 2
"""Models in a machine's memory: the served one, and one that is being loaded."""
FULL = 0.9
"""Share of a query node's memory above which Milvus loads nothing more, by its defaults."""
FLOAT_BYTES, ID_BYTES = 4, 8

_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}


class SizeError(ValueError):
    """A load or machine that cannot be. The message names the option, the value and the limit."""


@dataclass(frozen=True)
class Load:
    """The load to serve, and the machines to serve it."""

    items: float
    users_per_s: float
    """Users per second at the peak."""
    top_k: int = 50
    users_per_request: int = 1
    dim: int = 64
    """Numbers in an item's vector."""
    replicas: int = 2
    """Copies of a collection in Milvus' memory. One may be lost, and searches are spread over them."""
    collections: int = 3
    """Collections in Milvus' memory: the live one, the previous one and the one that is being built."""
    headroom: float = 0.4
    """Share of the processors that is idle at the peak."""
    node_cores: int = 16
    """Cores of a query node."""
    node_gb: float = 64
    """Memory of a query node, GB."""
    segment_mb: float = 1024
    """The default of Milvus for dataCoord.segment.maxSize."""
    milvus_cpu_s: float | None = None
    """Processor seconds of Milvus for 1,000 users, measured at this size; it replaces the estimate."""

    def __post_init__(self) -> None:
        """Refuse impossible values. Raises SizeError."""
        for name, value in vars(self).items():
            if value is not None and name != "headroom" and not 0 < value < math.inf:
                raise SizeError(f"{name} is {value:g}: it must be above 0")
        if not 0 <= self.headroom < 1:
            raise SizeError(f"headroom is {self.headroom:g}: it must be at least 0 and below 1")
        if self.top_k > max(SERVED_BY_TOP_K):
            raise SizeError(f"top_k is {self.top_k}: measured up to {max(SERVED_BY_TOP_K):,}")


@dataclass(frozen=True)
class Servers:
    """Processes of `python -m server`, one core each."""

    processes: int
    cores: float
    """Cores that they use at the peak, all together."""
    gb_each: float


@dataclass(frozen=True)
class Milvus:
    """Query nodes of Milvus Distributed."""

    query_nodes: int
    cores: float
    """Cores that they use at the peak, all together."""
    gb: float
    """Memory that they fill, all together."""
    segments: int
    """Segments of one collection. Every search reads all of them."""


@dataclass(frozen=True)
class Assumption:
    """One step from the measured figures to the result."""

    says: str
    extrapolated: bool
    """Whether it goes beyond what we measured."""


@dataclass(frozen=True)
class Size:
    """What a load needs, and why."""

    servers: Servers
    milvus: Milvus
    assumptions: tuple[Assumption, ...]


def amount(text: str) -> float:
    """Read 20k as 20,000, 100M as 100,000,000, and 1.5G or 1.5B as 1,500,000,000. Raises SizeError."""
    found = re.fullmatch(r"(\d[\d,_]*\.?\d*)([kmgb]?)", text.strip().lower())
    if not found:
        raise SizeError(f"{text!r} is not an amount such as 20000, 20k or 100M")
    return float(re.sub("[,_]", "", found[1])) * _UNITS[found[2]]


def size(load: Load) -> Size:
    """Return the smallest size that serves the load with the wanted headroom."""
    top_k_cost = _top_k_cost(load.top_k)
    segments, search_cost = _searching(load)
    server_s = _server_s(load.users_per_request) * top_k_cost
    milvus_s = load.milvus_cpu_s or MILVUS_S * top_k_cost * search_cost
    servers, milvus = _servers(load, server_s), _milvus(load, milvus_s, segments)
    return Size(servers, milvus, _assumptions(load, server_s, milvus_s, top_k_cost, search_cost, segments))


def _server_s(users_per_request: int) -> float:
    """Return processor seconds for 1,000 users: a cost per user and one per request, by the two measurements."""
    per_request = (SERVER_S_ALONE - SERVER_S_TOGETHER) / (1 - 1 / 64)
    per_user = SERVER_S_ALONE - per_request
    return per_user + per_request / users_per_request


def _top_k_cost(top_k: int) -> float:
    """Return the cost of a user with `top_k` candidates over one with 50."""
    return _between({k: SERVED_BY_TOP_K[MEASURED_TOP_K] / served for k, served in SERVED_BY_TOP_K.items()}, top_k)


def _searching(load: Load) -> tuple[int, float]:
    """Return the segments of a collection, and the cost of searching all of them over one segment of 367,982 items.

    Beyond the largest measured segment, the cost grows with the depth of the graph, which is an assumption.
    """
    segments = math.ceil(load.items / (load.segment_mb * 2**20 / (FLOAT_BYTES * load.dim + ID_BYTES)))
    rows, largest = load.items / segments, max(SEARCH_COST)
    cost = math.exp(_between({math.log(k): math.log(cost) for k, cost in SEARCH_COST.items()}, math.log(rows)))
    deeper = max(1.0, math.log(rows) / math.log(largest))
    return segments, segments * cost * deeper * load.dim / MEASURED_DIM


def _between(measured: Mapping[float, float], x: float) -> float:
    """Interpolate between the two nearest measured points; beyond the first and the last, return their values."""
    known = sorted(measured)
    x = min(max(x, known[0]), known[-1])
    after = max(bisect_left(known, x), 1)
    low, high = known[after - 1], known[after]
    return measured[low] + (x - low) / (high - low) * (measured[high] - measured[low])


def _gb_per_million(measured: float, dim: int) -> float:
    """Return the memory of a million items whose vectors have another length than the measured ones."""
    return measured + (dim - MEASURED_DIM) * FLOAT_BYTES / 1_000


def _servers(load: Load, server_s: float) -> Servers:
    cores = load.users_per_s / 1_000 * server_s
    processes = max(2, math.ceil(cores / (1 - load.headroom)))
    million = load.items / 1e6
    return Servers(
        processes, cores, SERVER_GB + SERVER_MODELS * million * _gb_per_million(SERVER_GB_PER_MILLION, load.dim)
    )


def _milvus(load: Load, milvus_s: float, segments: int) -> Milvus:
    cores = load.users_per_s / 1_000 * milvus_s
    data_gb = load.replicas * load.collections * load.items / 1e6 * _gb_per_million(MILVUS_GB_PER_MILLION, load.dim)
    room_gb = load.node_gb * FULL - MILVUS_GB
    if room_gb <= 0:
        raise SizeError(f"node_gb is {load.node_gb:g}: Milvus alone takes {MILVUS_GB:g} GB of {FULL:.0%} of it")
    nodes = max(load.replicas, math.ceil(cores / (1 - load.headroom) / load.node_cores), math.ceil(data_gb / room_gb))
    return Milvus(nodes, cores, data_gb + nodes * MILVUS_GB, segments)


def _assumptions(
    load: Load, server_s: float, milvus_s: float, top_k_cost: float, search_cost: float, segments: int
) -> tuple[Assumption, ...]:
    other_vectors = load.dim != MEASURED_DIM
    other_size = other_vectors or load.items > MEASURED_ITEMS
    rows = load.items / segments
    other_segments = other_size or rows > max(SEARCH_COST)
    other_requests = load.users_per_request not in (1, 64) or load.top_k not in SERVED_BY_TOP_K
    estimate = (
        f"{MILVUS_S} at 367,982 items (HNSW, ef=128), times {top_k_cost:.2f} for the top {load.top_k}, "
        f"times {search_cost:.2f} for {segments} segments (at most {load.segment_mb:g} MB) of {rows:,.0f} items and "
        f"{load.dim} numbers per vector"
    )
    return (
        Assumption(
            f"1,000 users cost a server {server_s:.2f} s of processor time: {SERVER_S_ALONE} one by one and "
            f"{SERVER_S_TOGETHER} in requests of 64, here {load.users_per_request} per request, times "
            f"{top_k_cost:.2f} for the top {load.top_k}",
            other_requests,
        ),
        Assumption(
            f"1,000 users cost Milvus {milvus_s:.2f} s of processor time: "
            f"{'as given' if load.milvus_cpu_s else estimate}",
            other_segments and not load.milvus_cpu_s,
        ),
        Assumption(
            f"a server takes {SERVER_GB} GB, and its machine has {SERVER_MODELS} models in memory, "
            f"{SERVER_GB_PER_MILLION} GB per million items of {MEASURED_DIM} numbers, which its servers share",
            other_size,
        ),
        Assumption(
            f"Milvus holds {load.replicas} replicas of {load.collections} collections, {MILVUS_GB_PER_MILLION} GB per "
            f"million items, and fills a node to {FULL:.0%}",
            other_size,
        ),
        Assumption(
            "several machines are as fast per core as one (AMD EPYC), and "
            f"{load.headroom:.0%} of their processors are idle at the peak",
            extrapolated=True,
        ),
        Assumption(
            "the estimate leaves out index builds, and the proxies, coordinators, message queue and object storage of "
            "Milvus",
            extrapolated=True,
        ),
    )
