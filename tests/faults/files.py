"""The files that our commands read, damaged in seeded ways, and what reading each must come to.

A file is read, or refused in one bounded message; and what is read is what stands there.
"""

import hashlib
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clients.bulk_input import open_histories
from clients.titles import read_titles
from clients.user_files import FileError, read_users
from indexer.errors import IndexerError
from indexer.items.attributes import read_attributes
from indexer.tuning.index_file import read_index
from mind.artifact import FORMAT_VERSION, content_version, load_artifact
from mind.config import load_config
from mind.data.clicks import read_interactions
from mind.data.features import read_features
from mind.data.paddlerec import read_eval, read_train
from mind.encoder import NumpyEncoder, check_golden
from mind.errors import MindError
from mind.interests import leading
from mind.vocabulary import Vocabulary
from tests.artifacts import hyper_parameters_of, make_weights
from tests.faults.damage import damaged

REFUSED = (MindError, IndexerError, FileError)
LONGEST_MESSAGE = 1_500
_ODD = (
    b'"\x00\xef\xbb\xbf\r\n9223372036854775808,-1,1e400,NaN,2024-02-30T25:00:00Z,\xff\xfe|;\t{"a":[[[[[]]]]]} user_id:'
)


class WrongError(Exception):
    """A file was read as something that does not stand there."""


@dataclass(frozen=True)
class Target:
    """One kind of file."""

    name: str
    write: Callable[[random.Random, Path], None]
    """Writes a damaged one to a path."""
    read: Callable[[Path], Any]
    """What a command does with it; raises `WrongError` for what no file says."""


def judge(target: Target, path: Path, seed: str) -> tuple[str, str, str]:
    """Outcome, problem (see `Tally.add`) and what to say, of one damaged file."""
    target.write(random.Random(seed), path)
    try:
        with np.errstate(all="ignore"):  # weights near the end of float32 are asked for
            target.read(path)
    except REFUSED as error:
        message = str(error)
        if str(path.name) in message and len(message) < LONGEST_MESSAGE:
            return "refused", "", ""
        return "refused", "wrong", f"{seed}: {message[:LONGEST_MESSAGE]!r}"
    except WrongError as error:
        return "read", "wrong", f"{seed}: {error}"
    except Exception as error:
        return type(error).__name__, "failed", f"{seed}: {type(error).__name__}: {str(error)[:300]}"
    return "read", "", ""


def _clicks() -> list[tuple[int, int, int]]:
    return [(user, 1000 + 7 * ((user * 13 + step * 5) % 200), step) for user in range(40) for step in range(8)]


_TRAIN = "".join(f"{user},{item},{time}\n" for user, item, time in _clicks()).encode()
_CSV = b"user_id,item_id,timestamp\n" + _TRAIN
_EVAL = "".join(f"user_id:{u} target_item:0 hist_item:{1000 + u} eval_item:{1007 + u}\n" for u in range(60)).encode()
_ATTRIBUTES = "item_id,title,year,genres\n" + "".join(
    f'{1000 + 7 * row},"Title, {row}",{1990 + row % 10},Drama|Comedy\n' for row in range(200)
)
_INDEX = json.dumps({"type": "HNSW", "build_params": {"M": 32}, "search_params": {"ef": 128}, "interest_cosine": 0.9})
_USERS = b'user_id:7 target_item:0 hist_item:43 eval_item:65\n{"user_id": 7, "hist_item": [43, 23]}\n' * 20
_TITLES = "".join(f"{1000 + row},Title {row}\n" for row in range(50)).encode()
_YAML = Path("mind/config.yaml")


def _text(good: bytes) -> Callable[[random.Random, Path], None]:
    def write(rng: random.Random, path: Path) -> None:
        start = rng.randrange(len(_ODD))
        path.write_bytes(damaged(rng, good, _ODD[start:]))

    return write


def _parquet(columns: dict[str, list[Any]], odd: dict[str, list[Any]]) -> Callable[[random.Random, Path], None]:
    """Bytes of a good file damaged, or a whole file with odd columns."""

    def write(rng: random.Random, path: Path) -> None:
        if rng.random() < 0.4:
            name = rng.choice(list(columns))
            values = columns | {name: rng.choice(list(odd.values()))[: len(columns[name])]}
            rows = min(len(column) for column in values.values())
            pq.write_table(pa.table({key: column[:rows] for key, column in values.items()}), path)
            return
        pq.write_table(pa.table(columns), path)
        path.write_bytes(damaged(rng, path.read_bytes()))

    return write


_ROWS = 40
_ODD_COLUMNS: dict[str, list[Any]] = {
    "floats": [0.5, float("nan"), float("inf"), -1e300] * 10,
    "texts": ["", "a", " 12 ", "9" * 40] * 10,
    "nulls": [None] * _ROWS,
    "lists": [[1, None], [], None, [2**63 - 1]] * 10,
    "nested": [[[1]], [[]], [None], []] * 10,
    "maps": [{"a": 1}] * _ROWS,
    "bytes": [b"\xff\xfe"] * _ROWS,
    "bools": [True, False] * 20,
    "none": [],
}
_CLICK_COLUMNS = {
    "user_id": [row // 4 for row in range(_ROWS)],
    "item_id": [1000 + 7 * row for row in range(_ROWS)],
    "timestamp": list(range(_ROWS)),
}
_ITEM_COLUMNS = {
    "item_id": [1000 + 7 * row for row in range(_ROWS)],
    "genres": [["a", "b"]] * _ROWS,
    "year": [1] * _ROWS,
}
_HISTORY_COLUMNS = {"user_id": list(range(_ROWS)), "hist_item": [[1000, 1007]] * _ROWS}
_SIZES = {"items": 30, "dim": 8, "maxlen": 8}
_ITEM_IDS = np.arange(200) * 7 + 1000


def _read_train(path: Path) -> None:
    found = read_train(path)
    lines = [line for line in re.split(rb"\r\n|\r|\n", path.read_bytes()) if line]
    rows = sorted(
        ((int(u), int(t), place, int(i)) for place, (u, i, t) in enumerate(line.split(b",") for line in lines))
    )
    if found.item_id.tolist() != [row[-1] for row in rows] or found.user_id.tolist() != sorted(
        {row[0] for row in rows}
    ):
        raise WrongError("the sequences are not those of the lines")


def _read_eval(path: Path) -> None:
    found = read_eval(path)
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    for kind, sequences in (("hist_item", found.history), ("eval_item", found.target)):
        ids = [int(item) for line in lines for item in re.findall(rf"{kind}:(-?\d+)", line)]
        if sequences.item_id.tolist() != ids:
            raise WrongError(f"{kind} is not what the lines say")


def _read_features(path: Path) -> None:
    read_features(path, ["genres", "year"]).align(Vocabulary(_ITEM_IDS), np.ones(len(_ITEM_IDS) + 1, np.bool_))


def _read_histories(path: Path) -> None:
    histories = open_histories(path, "user_id", "hist_item", None)
    rows = sum(len(rows.hist_item.sizes) for rows in histories.read(0, 16))
    if rows != histories.rows:
        raise WrongError(f"{rows} rows of {histories.rows}")


def _read_users(path: Path) -> None:
    with path.open("rb") as lines:
        for user in read_users(lines, str(path)):
            np.array(user.hist_item, np.int64)


def _write_artifact(rng: random.Random, path: Path) -> None:
    """A model with a damaged file, or with arrays that do not go together; half of them with hashes that fit."""
    path.mkdir(exist_ok=True)
    tensors, hyper = _tensors(), hyper_parameters_of(make_weights(**_SIZES)).model_dump(mode="json", by_alias=True)
    manifest: dict[str, Any] = {"format_version": FORMAT_VERSION, "hyper_parameters": hyper, "data": {}, "metrics": {}}
    if rng.random() < 0.5:
        _bend(rng, tensors)
    if rng.random() < 0.3:
        key = rng.choice(list(hyper))
        hyper[key] = rng.choice([None, -1, 0, 2**31, 2**63, 1e308, "x" * 500, [], {}, True, [[[]]]])
    content = _safetensors(rng, tensors)
    if rng.random() < 0.4:
        content = damaged(rng, content)
    manifest["files"] = {"model.safetensors": hashlib.sha256(content).hexdigest()}
    if rng.random() < 0.2:
        manifest[rng.choice(list(manifest))] = rng.choice([None, 3, "x", [], {}, {"model.safetensors": 5}])
    manifest |= {"model_version": content_version(manifest), "created_at": "2024-01-01T00:00:00+00:00"}
    text = json.dumps(manifest, indent=2).encode()
    if rng.random() < 0.2:
        text = damaged(rng, text, _ODD)
    if rng.random() < 0.02:
        text = b"[" * 200_000  # nested deeper than a stack
    (path / "manifest.json").write_bytes(text)
    (path / "model.safetensors").write_bytes(content)


def _tensors() -> dict[str, Any]:
    return dict(make_weights(**_SIZES).tensors())


def _bend(rng: random.Random, tensors: dict[str, Any]) -> None:
    """Make one array wrong: other values, another type, another shape, or gone."""
    name = rng.choice(list(tensors))
    array = np.array(tensors[name])
    match rng.randrange(5):
        case 0:
            array.flat[rng.randrange(array.size)] = (
                rng.choice([np.nan, np.inf, 1e38, -1.0])
                if array.dtype.kind == "f"
                else rng.choice([2**63 - 1, -(2**63), -1, 0, 10**9])
            )
        case 1:
            array = array.astype(rng.choice(["float64", "int32", "uint8", "float16", "bool"]))
        case 2:
            array = array.ravel()[: rng.randint(0, array.size)]
        case 3:
            array = array[::-1].copy()
        case 4:
            del tensors[name]
            return
    tensors[rng.choice([name, name, name, "extra"])] = array


def _safetensors(rng: random.Random, tensors: dict[str, Any]) -> bytes:
    """The format written by hand, so that headers can lie: about types, shapes, places and their own length."""
    names = {
        "float32": "F32",
        "int64": "I64",
        "float64": "F64",
        "int32": "I32",
        "uint8": "U8",
        "float16": "F16",
        "bool": "BOOL",
    }
    header: dict[str, Any] = {}
    data = b""
    for name, array in tensors.items():
        header[name] = {
            "dtype": names[str(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + array.nbytes],
        }
        data += array.tobytes()
    if rng.random() < 0.2:
        entry = header[rng.choice(list(header))]
        lie = rng.choice(["dtype", "shape", "data_offsets"])
        entry[lie] = {
            "dtype": rng.choice(["BF16", "F8_E4M3", "F8_E5M2", "U64", "F4", "C64", "X", ""]),
            "shape": rng.choice([[2**62, 4], [2**40], [0, 2**63], [-1], [], [1] * 70]),
            "data_offsets": rng.choice([[0, 2**40], [2**63, 0], [8, 4], [0, 0]]),
        }[lie]
    text = json.dumps(header).encode()
    length = len(text) if rng.random() < 0.95 else rng.choice([0, 2**63, 2**40, 100_000_001, len(text) - 1])
    return length.to_bytes(8, "little") + text + data


def _read_artifact(path: Path) -> None:
    artifact = load_artifact(path)
    weights = artifact.weights
    encoder = NumpyEncoder(weights, artifact.hyper_parameters)
    check_golden(encoder, artifact)
    vectors = encoder.encode(np.array([[1, 2, 3, 0, 0, 0, 0, 0]]), np.array([3]))
    leading(vectors, 0.9)
    if not np.isfinite(vectors).all():
        raise WrongError("interests are not finite")
    if weights.item_embedding[0].any() or (weights.popularity < 0).any() or (np.diff(weights.item_id) <= 0).any():
        raise WrongError("padding is not zero, a popularity is negative, or ids do not ascend")


TARGETS = (
    Target("model", _write_artifact, _read_artifact),
    Target("clicks.csv", _text(_CSV), read_interactions),
    Target("clicks.parquet", _parquet(_CLICK_COLUMNS, _ODD_COLUMNS), read_interactions),
    Target("train.txt", _text(_TRAIN), _read_train),
    Target("eval.txt", _text(_EVAL), _read_eval),
    Target(
        "attributes.csv",
        _text(_ATTRIBUTES.encode()),
        lambda path: read_attributes(path, _ITEM_IDS, multi_valued=["genres"]).digest,
    ),
    Target(
        "attributes.parquet",
        _parquet(_ITEM_COLUMNS, _ODD_COLUMNS),
        lambda path: read_attributes(path, _ITEM_IDS).digest,
    ),
    Target("features.csv", _text(_ATTRIBUTES.encode()), _read_features),
    Target("features.parquet", _parquet(_ITEM_COLUMNS, _ODD_COLUMNS), _read_features),
    Target("index.json", _text(_INDEX.encode()), read_index),
    Target("histories.parquet", _parquet(_HISTORY_COLUMNS, _ODD_COLUMNS), _read_histories),
    Target("users.txt", _text(_USERS), _read_users),
    Target("titles.csv", _text(_TITLES), read_titles),
    Target("config.yaml", _text(_YAML.read_bytes()), load_config),
)
"""All of them."""
