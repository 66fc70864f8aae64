"""`python -m indexer tune`: the index that it chooses, on the real server."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pymilvus import MilvusClient
from typer.testing import CliRunner

from indexer.__main__ import app
from indexer.build import Index
from indexer.errors import RefusedError, TuningError
from indexer.tuning.candidates import DEFAULT, ladders, plans, rungs_from
from indexer.tuning.index_file import read_index
from indexer.tuning.measure import exact_recall, prepare, read_histories
from indexer.tuning.tune import tune, worthwhile_cosines
from mind.artifact import Artifact, load_artifact, write_artifact
from mind.encoder import NumpyEncoder
from mind.errors import DataError
from mind.evaluation.retrieval import encode_histories
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from tests.artifacts import hyper_parameters_of, make_artifact, make_weights
from tests.conftest import remove_item_collections

ITEMS, KINDS, USERS = 5_000, 200, 150
LIVE = "items_00000000000a_0000000a"


def ignore(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 5,000 items of 200 kinds, and evaluation lines of users who like one kind or two."""
    directory = tmp_path_factory.mktemp("tune")
    rng = np.random.default_rng(1)
    weights = make_weights(items=ITEMS)
    kind = rng.integers(0, KINDS, ITEMS)
    weights.item_embedding[1:] = rng.normal(size=(KINDS, 16))[kind] + 0.35 * rng.normal(size=(ITEMS, 16))
    hyper_parameters = hyper_parameters_of(weights)
    encoder = NumpyEncoder(weights, hyper_parameters)
    weights.golden_interest_vectors[:] = encoder.encode(weights.golden_hist_index, weights.golden_seq_len)
    write_artifact(directory / "models", hyper_parameters, weights, {}, {})
    lines = []
    for user in range(USERS):
        liked = np.flatnonzero(np.isin(kind, rng.integers(0, KINDS, 1 + user % 2)))
        history = weights.item_id[rng.choice(liked, rng.integers(1, 9))].tolist()
        lines.append(f"user_id:{user} target_item:0{''.join(f' hist_item:{item}' for item in history)} eval_item:1000")
    (directory / "valid.txt").write_text("\n".join(lines) + "\n")
    return directory


@pytest.fixture
def model(data: Path) -> Artifact:
    (directory,) = (data / "models").iterdir()
    return load_artifact(directory)


@pytest.fixture
def server(milvus_server_uri: str) -> Iterator[str]:
    """A real server that has a release, which must stay as it is, and no trial collections afterwards."""
    remove_item_collections(milvus_server_uri)
    with Store(Connection(milvus_server_uri)) as store:
        store.create(LIVE, 16, {})
        store.point_alias(LIVE)
        yield milvus_server_uri
        assert store.alias() == LIVE
        assert LIVE in store.collections()
        assert not [name for name in store.collections() if name.startswith("tune_")]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """The command line, which measures each speed once and briefly."""
    monkeypatch.setattr("indexer.commands.choose_index.tune", functools.partial(tune, seconds=0))
    return CliRunner()


def found_by_hand(uri: str, collection: str, model: Artifact, histories: Path, file: dict) -> float:
    """Recall@50 of all interests' hits, with the public client and the plainest NumPy."""
    weights, client = model.weights, MilvusClient(uri)
    encoder = NumpyEncoder(weights, model.hyper_parameters)
    vectors = encode_histories(encoder, model.vocabulary, read_histories(histories), 8, 64)[:40]
    shares = []
    for own in vectors:
        scores = (weights.item_embedding[1:] @ own.T).max(axis=1)
        params = {"metric_type": "IP", "params": file["search_params"]}
        hits = client.search(collection, list(own), limit=50, search_params=params)
        best = {hit["item_id"] if "item_id" in hit else hit["id"] for row in hits for hit in row}
        exact = weights.item_id[np.argsort(-scores)[:50]]
        shares.append(len(best & set(exact.tolist())) / 50)
    client.close()
    return float(np.mean(shares))


def test_the_choice_reaches_the_target_and_a_build_takes_it(
    server: str, data: Path, model: Artifact, command: CliRunner, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "index.json"
    where = ["--artifact", str(data / "models"), "--milvus-uri", server]
    histories = ["--histories", str(data / "valid.txt")]
    result = command.invoke(app, ["tune", *where, *histories, "--index-type", "HNSW", "--output", str(output)])
    assert result.exit_code == 0, result.output
    assert f"build --artifact {data / 'models'} --index {output} --publish" in result.stdout
    lines = result.stdout.splitlines()
    table = lines[1 : next(row for row, text in enumerate(lines) if text.startswith("compared"))]
    assert max(map(len, table)) <= 100
    assert "…" not in result.stdout
    assert sum(line.startswith("*") for line in table) == 1
    assert any("HNSW M=32" in line and "ef=128" in line and line.split()[-1] == "1.00" for line in table)

    file = json.loads(output.read_text())
    assert list(tmp_path.rglob("*incomplete*")) == []
    assert file["measured"]["recall"] >= 0.99
    assert file["measured"]["users"] == USERS
    assert file["measured"]["model_version"] == model.model_version

    built = command.invoke(app, ["build", *where, "--index", str(output)])
    assert built.exit_code == 0, built.output
    listed = json.loads(command.invoke(app, ["status", "--format", "json", "--milvus-uri", server]).stdout)
    (fingerprint,) = [row["fingerprint"] for row in listed if row["collection"] != LIVE]
    assert (fingerprint["index_type"], fingerprint["index_params"]) == (file["type"], file["build_params"])
    for key in ("search_params", "interest_cosine"):
        assert fingerprint[key] == file[key]
    collection = next(row["collection"] for row in listed if row["collection"] != LIVE)
    assert found_by_hand(server, collection, model, data / "valid.txt", file) >= 0.97


def test_an_inverted_file_is_chosen_and_what_milvus_lacks_is_skipped(
    server: str, data: Path, model: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = Index("HNSW", {"M": 1_000_000, "efConstruction": 200}, {})
    monkeypatch.setattr("indexer.tuning.tune.plans", lambda items, types: [lacking, *plans(items, types)])
    with Store(Connection(server)) as store:
        histories = read_histories(data / "valid.txt")
        tuned = tune(store, model, histories, 0.95, 40, ["IVF_FLAT"], seconds=0)
    index = tuned.best.index
    assert tuned.best.recall >= 0.95
    assert index.build_params == {"nlist": 128}
    assert index.search_params["nprobe"] < 128
    assert tuned.rungs[0].measured.index == tuned.default.index == DEFAULT
    (failed,) = tuned.failures
    assert (failed.type, failed.build_params) == ("HNSW", lacking.build_params)
    assert "cannot index tune_" in failed.reason


@pytest.mark.parametrize("moment", ["insert", "compare"])
def test_an_interruption_leaves_nothing(server: str, data: Path, model: Artifact, moment: str) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == moment:  # "compare" has two trial collections
            raise KeyboardInterrupt

    with Store(Connection(server)) as store:
        store.create(f"tune_{model.model_version}", 8, {})  # as kill -9 leaves it
        with pytest.raises(KeyboardInterrupt):
            tune(store, model, read_histories(data / "valid.txt"), 0.9, 40, ["IVF_FLAT"], 0, interrupt)


def test_a_target_that_nothing_reaches(server: str, data: Path, command: CliRunner, tmp_path: Path) -> None:
    where = ["--artifact", str(data / "models"), "--milvus-uri", server, "--histories", str(data / "valid.txt")]
    output = tmp_path / "index.json"
    arguments = ["tune", *where, "--index-type", "IVF_SQ8", "--min-recall", "1", "--output", str(output)]
    result = command.invoke(app, arguments)
    assert result.exit_code == 1, result.output
    assert len(result.stderr.splitlines()) == 1
    assert "error: no index reaches recall@50 1: the best is 0.9" in result.stderr
    assert "with IVF_SQ8 nprobe=" in result.stderr
    assert not output.exists()


def test_milvus_lite_is_refused(data: Path, tmp_path: Path) -> None:
    arguments = ["tune", "--artifact", str(data / "models"), "--histories", str(data / "valid.txt")]
    result = CliRunner().invoke(app, [*arguments, "--milvus-uri", str(tmp_path / "milvus.db")])
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "milvus.db: `choose-index` needs a Milvus server" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_exact_search_is_exact(data: Path, model: Artifact) -> None:
    workload = prepare(model, read_histories(data / "valid.txt"), 30, ignore)
    for user, own in enumerate(workload.vectors):
        scores = (model.weights.item_embedding[1:] @ own.T).max(axis=1)
        best = np.argsort(-scores, kind="stable")[:50] + 1
        assert workload.share(user, best) == 1
        assert workload.share(user, best[:40]) == 0.8
        assert workload.share(user, np.argsort(scores)[-100:-50] + 1) < 0.1
    shares, searches = exact_recall(workload, 1)
    assert (shares == 1).all() and searches == 4.0


def test_only_cosines_that_save_searches_and_find_enough_are_tried(data: Path, model: Artifact) -> None:
    workload = prepare(model, read_histories(data / "valid.txt"), 100, ignore)
    cosines = worthwhile_cosines(workload, 0.99)
    assert cosines[0] == 1
    assert 2 <= len(cosines) <= 3
    for cosine in cosines[1:]:
        shares, searches = exact_recall(workload, cosine)
        recall = shares.mean()
        assert recall >= 0.99
        assert searches < 4
    assert len(worthwhile_cosines(workload, 0)) == 3


def test_equally_good_items_are_equally_right(tmp_path: Path) -> None:
    weights = make_weights(items=200)
    weights.item_embedding[1:] = weights.item_embedding[1]  # all alike: any 50 are the best
    encoder = NumpyEncoder(weights, hyper_parameters_of(weights))
    weights.golden_interest_vectors[:] = encoder.encode(weights.golden_hist_index, weights.golden_seq_len)
    model = load_artifact(write_artifact(tmp_path, hyper_parameters_of(weights), weights, {}, {}))
    lines = tmp_path / "train.txt"
    lines.write_text("".join(f"{user},{1000 + 7 * user},0\n" for user in range(20)))
    workload = prepare(model, read_histories(lines), 512, ignore)
    assert workload.share(3, np.arange(120, 170)) == 1


def test_histories_are_evaluation_or_training_lines(tmp_path: Path) -> None:
    (tmp_path / "eval").write_text("user_id:7 target_item:0 hist_item:5 hist_item:6 eval_item:9\n")
    (tmp_path / "train").write_text("7,5,0\n7,6,1\n")
    for name in ("eval", "train"):
        histories = read_histories(tmp_path / name)
        assert (histories.user_id.tolist(), histories[0].tolist()) == ([7], [5, 6])
    (tmp_path / "neither").write_text("a\tb\n")
    with pytest.raises(
        DataError, match=r"neither: line 1: expected user_id.*training lines.* expected uid,item_id,time"
    ):
        read_histories(tmp_path / "neither")
    with pytest.raises(DataError, match="missing: cannot be read"):
        read_histories(tmp_path / "missing")


def test_too_few_users(tmp_path: Path) -> None:
    model = load_artifact(make_artifact(tmp_path / "a"))
    lines = tmp_path / "train.txt"
    lines.write_text("".join(f"{user},{1000 + 7 * user if user < 19 else 3},0\n" for user in range(60)))
    with pytest.raises(TuningError, match=r"knows an item in 19 of 60 histories, .* the minimum is 20"):
        prepare(model, read_histories(lines), 512, ignore)


def test_what_is_tried() -> None:
    lists = {items: plans(items, ["IVF_FLAT"])[0].build_params["nlist"] for items in (100, 5_000, 368_000, 10**9)}
    assert lists == {100: 2, 5_000: 128, 368_000: 2048, 10**9: 65_536}
    hnsw, ivf, scann = DEFAULT, Index("IVF_FLAT", {"nlist": 1000}, {"nprobe": 64}), Index("SCANN", {"nlist": 4}, {})
    assert [rung["ef"] for rung in ladders(hnsw, 50)[0]] == [50, 64, 96, 128, 192, 256, 384, 512]
    assert [rung["ef"] for rung in ladders(hnsw, 100)[0]] == [100, 128, 192, 256, 384, 512]
    assert [rung["nprobe"] for rung in ladders(ivf, 50)[0]] == [4, 8, 16, 32, 64, 128, 256]
    assert [rung["nprobe"] for rung in rungs_from(ivf)] == [64, 128, 256]
    assert ladders(scann, 50) == [[{"nprobe": 4, "reorder_k": reorder}] for reorder in (100, 200, 400)]


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_text('{"type": "HNSW", "search_params": {"ef": 64}, "filter_search_params": {"ef": 512}}')
    assert read_index(path).model_dump(exclude_defaults=True) == {"type": "HNSW", "search_params": {"ef": 64}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"type": "HNSW", "M": 16}', "M: unknown key"),
        ('{"type": "HNSW", "interest_cosine": 1.5}', r"interest_cosine: .* less than or equal to 1 \(value: 1.5\)"),
        ('{"type": "HNSW", "search_params": {"ef": [1]}}', r"search_params.ef.*\(value: \[1\]\)"),
        ('{"search_params": {}}', "type: Field required"),
        ("HNSW", "Invalid JSON"),
    ],
)
def test_a_broken_index_file(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "index.json"
    path.write_text(content)
    with pytest.raises(RefusedError, match=f"index.json: .*{message}") as caught:
        read_index(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "exit_code", "message"),
    [
        (["--index", "{file}", "--search-param", "ef=64"], 2, "--index cannot be combined with --index-type"),
        (["--index", "{file}", "--interest-cosine", "1"], 2, "--index cannot be combined with --index-type"),
        (["--index", "{file}.missing"], 1, "index.json.missing: --index cannot be read: No such file"),
        (["--interest-cosine", "0"], 1, "--interest-cosine 0: the value must be above 0 and at most 1"),
        (["--index-type", "HNSW", "--search-param", "ef=9"], 1, "--search-param ef=9: ef must be at least 50"),
    ],
)
def test_options_of_build(data: Path, tmp_path: Path, options: list[str], exit_code: int, message: str) -> None:
    file = tmp_path / "index.json"
    file.write_text('{"type": "FLAT"}')
    arguments = ["build", "--artifact", str(data / "models"), "--milvus-uri", str(tmp_path / "milvus.db")]
    result = CliRunner().invoke(app, [*arguments, *(option.format(file=file) for option in options)])
    assert result.exit_code == exit_code, result.output
    assert message in " ".join(result.stderr.replace("│", " ").split())
