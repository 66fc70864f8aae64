"""PaddleRec's two MIND networks, written anew from their description, against artifacts made of their checkpoints."""

import hashlib
import pickle
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.csv import write_csv

from mind.artifact import Artifact, Float32, load_artifact, newest_artifact
from mind.encoder import NumpyEncoder, check_golden
from mind.errors import ConfigError, DataError
from mind.import_paddlerec import main
from mind.keys import key_ids
from mind.paddle_encoder import PaddleEncoder
from mind.paddle_runtime import paddle
from mind.paddlerec.convert import count_popularity, read_item_ids
from tests.commands import run_here

layers, functional = paddle.nn, paddle.nn.functional
K, L, D, ROWS = 4, 12, 16, 301


class Routing(layers.Layer):
    """`capsual_layer`: behaviours [B, L, D] to interest vectors [B, K, D] in PaddleRec's two ways."""

    def __init__(self, earlier: bool, over_interests: bool = False, rounds: int = 3) -> None:
        super().__init__()
        self.earlier, self.over_interests, self.rounds = earlier, over_interests, rounds
        normal = layers.initializer.Normal(0, 1)
        fixed = paddle.ParamAttr(trainable=False)
        self.routing_logits = self.create_parameter([1, K, L], attr=fixed, default_initializer=normal)
        self.bilinear_mapping_matrix = self.create_parameter([D, D], default_initializer=normal)
        if earlier:
            self.relu_layer = layers.Linear(D, D)

    def softmax(self, logits: paddle.Tensor, seq_len: paddle.Tensor, last: bool) -> paddle.Tensor:
        padding = paddle.arange(L).reshape([1, 1, L]) >= seq_len.reshape([-1, 1, 1])
        logits = paddle.where(padding.expand_as(logits), paddle.full_like(logits, -(2.0**32)), logits)
        over_interests = self.over_interests or (self.earlier and last)
        return functional.softmax(logits, axis=1 if over_interests else 2)

    def squash(self, vector: paddle.Tensor) -> paddle.Tensor:
        square = (vector**2).sum(-1, keepdim=True)
        return vector * (square / (1 + square) / paddle.sqrt(square + 1e-8))

    def forward(self, behaviour: paddle.Tensor, seq_len: paddle.Tensor) -> paddle.Tensor:
        low = behaviour @ self.bilinear_mapping_matrix
        logits = paddle.tile(self.routing_logits, [behaviour.shape[0], 1, 1])
        for _ in range(self.rounds - 1):
            high = self.squash(self.softmax(logits, seq_len, last=False) @ low)
            update = high @ low.transpose([0, 2, 1])
            if not self.earlier:
                update = update / paddle.maximum(update.norm(p=2, axis=-1, keepdim=True), paddle.to_tensor(1.0))
            logits = logits + update
        high = self.squash(self.softmax(logits, seq_len, last=True) @ low)
        return functional.relu(self.relu_layer(high)) if self.earlier else high


class PaddleRecMind(layers.Layer):
    """PaddleRec's parameters under PaddleRec's names."""

    def __init__(self, scale: float = 0.5, seed: int = 1, **routing: Any) -> None:
        super().__init__()
        paddle.seed(seed)
        start = layers.initializer.Normal(0, scale)
        self.item_emb = layers.Embedding(ROWS, D, padding_idx=0, weight_attr=paddle.ParamAttr(initializer=start))
        self.embedding_bias = self.create_parameter([ROWS], is_bias=True, attr=paddle.ParamAttr(trainable=False))
        self.capsual_layer = Routing(**routing)

    def vectors(self, hist_item: np.ndarray, seq_len: np.ndarray) -> Float32:
        with paddle.no_grad():
            return self.capsual_layer(self.item_emb(paddle.to_tensor(hist_item)), paddle.to_tensor(seq_len)).numpy()


def histories(count: int = 600) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    seq_len = 1 + np.arange(count) % L
    return rng.integers(1, ROWS, (count, L)) * (np.arange(L) < seq_len[:, None]), seq_len


def save(directory: Path, state: dict[str, Any], name: str = "rec.pdparams") -> Path:
    path = directory / name
    paddle.save(state, str(path))
    return path


def imported(checkpoint: Path, directory: Path, **options: Any) -> Artifact:
    main(checkpoint, output=directory, **options)
    return load_artifact(newest_artifact(directory))


def largest_difference(artifact: Artifact, network: PaddleRecMind) -> float:
    """Of both encoders against the network, over all histories."""
    hist_item, seq_len = histories()
    hist_index = artifact.vocabulary.item_index(hist_item) * (hist_item > 0)
    expected = network.vectors(hist_item, seq_len)
    encoders = (NumpyEncoder(artifact.weights, artifact.hyper_parameters), PaddleEncoder.from_artifact(artifact))
    return max(float(np.abs(encoder.encode(hist_index, seq_len) - expected).max()) for encoder in encoders)


@pytest.mark.parametrize("scale", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("earlier", [False, True])
def test_interest_vectors_are_paddlerecs(tmp_path: Path, earlier: bool, seed: int, scale: float) -> None:
    network = PaddleRecMind(scale, seed, earlier=earlier)
    artifact = imported(save(tmp_path, network.state_dict()), tmp_path)
    hyper = artifact.hyper_parameters
    assert (hyper.item_count, hyper.embedding_dim, hyper.num_interests, hyper.maxlen) == (ROWS - 1, D, K, L)
    assert (hyper.projection, hyper.bounded_update) == (("relu", False) if earlier else ("none", True))
    assert artifact.weights.item_id.tolist() == list(range(1, ROWS)) and not artifact.weights.popularity.any()
    assert largest_difference(artifact, network) < 1e-5
    check_golden(NumpyEncoder(artifact.weights, hyper), artifact)


def test_the_options_matter(tmp_path: Path) -> None:
    """What the test above proves: any other choice is far off."""
    network = PaddleRecMind(earlier=False)
    path = save(tmp_path, network.state_dict())
    for wrong in ("routing_softmax=history_then_interests", "bounded_update=false", "routing_iterations=2"):
        artifact = imported(path, tmp_path / wrong, override=[wrong])
        assert largest_difference(artifact, network) > 0.01, wrong


def test_what_the_weights_do_not_show_can_be_said(tmp_path: Path) -> None:
    network = PaddleRecMind(earlier=True, over_interests=True, rounds=2)
    options = ["hyper_parameters.routing_softmax=interests", "routing_iterations=2", "pow_p=2"]
    artifact = imported(save(tmp_path, network.state_dict()), tmp_path, override=options)
    assert largest_difference(artifact, network) < 1e-5
    assert artifact.hyper_parameters.pow_p == 2
    for wrong, message in (
        (
            "residual=true",
            "expected KEY=VALUE with a key of routing_softmax, bounded_update, routing_iterations, pow_p",
        ),
        ("pow_p", "override 'pow_p': expected KEY=VALUE"),
        ("pow_p=[", "override 'pow_p=.': the value is not YAML"),
        ("routing_iterations=0", "routing_iterations: .*greater than 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            imported(tmp_path / "rec.pdparams", tmp_path, override=[wrong])


def test_checkpoints_of_other_trainers(tmp_path: Path) -> None:
    network = PaddleRecMind(earlier=True)
    state = network.state_dict()
    static = {
        "item_emb": state["item_emb.weight"],
        "embedding_bias": state["embedding_bias"],
        "routing_logits": state["capsual_layer.routing_logits"],
        "bilinear_mapping_matrix": state["capsual_layer.bilinear_mapping_matrix"],
        "linear_0.w_0": state["capsual_layer.relu_layer.weight"],
        "linear_0.b_0": state["capsual_layer.relu_layer.bias"],
    }
    for name, saved in (
        ("parallel", {f"_layers.{key}": value for key, value in state.items()}),
        ("wrapped", {"model": state, "epoch": 5}),
        ("static", static),
        ("without-bias", {key: value for key, value in state.items() if key != "embedding_bias"}),
        ("with-sampler", {**state, "sampled_softmax.log_q": paddle.ones([ROWS])}),
    ):
        artifact = imported(save(tmp_path, saved, f"{name}.pdparams"), tmp_path / name)
        assert largest_difference(artifact, network) < 1e-5, name


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_become_item_ids(tmp_path: Path, suffix: str) -> None:
    network = PaddleRecMind(earlier=False)
    item_id = np.random.default_rng(5).permutation(10**12 + np.arange(ROWS - 1) * 3)
    table = pa.table({"item_id": item_id, "row": np.arange(1, ROWS), "title": ["x"] * (ROWS - 1)})
    file = tmp_path / f"ids.{suffix}"
    write_csv(table, file) if suffix == "csv" else pq.write_table(table, file)
    train = tmp_path / "train.txt"
    train.write_text("1,7,0\n1,300,1\n2,7,0\n")
    artifact = imported(save(tmp_path, network.state_dict()), tmp_path, item_ids=file, train_data=train)
    weights = artifact.weights
    assert weights.item_id.tolist() == sorted(item_id.tolist())

    hist_item, seq_len = histories()
    external = np.append(0, item_id)[hist_item]
    hist_index = artifact.vocabulary.item_index(external) * (hist_item > 0)
    found = NumpyEncoder(weights, artifact.hyper_parameters).encode(hist_index, seq_len)
    assert np.abs(found - network.vectors(hist_item, seq_len)).max() < 1e-5
    seen = weights.popularity > 0
    counted = dict(zip(weights.item_id[seen].tolist(), weights.popularity[seen].tolist(), strict=True))
    assert counted == {item_id[6]: 2, item_id[299]: 1}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1,10", "2,11", "2,12"], "row 2 occurs more than once"),
        (["1,10", "2,10", "3,12"], "item_id 10 occurs more than once"),
        (["1,10", "2,11", "4,12"], "row 4 is outside 1 to 3, the rows of the checkpoint; 0 is padding"),
        (["0,9", "1,10", "2,11"], "row 0 is outside 1 to 3"),
        (["1,10", "3,11"], "1 of 3 rows have no item_id, such as row 2"),
        (["1,10", "x,B001", "3,11"], "line 3: row is 'x', not an integer of 64 bits"),
        (["1,B001", "2,B001", "3,11"], "item_id B001 occurs more than once"),
        (["1,10", "2,11,5", "3,11"], "line 3: expected 2 columns, found 3"),
    ],
)
def test_item_ids_must_be_one_to_one(tmp_path: Path, lines: list[str], message: str) -> None:
    file = tmp_path / "ids.csv"
    file.write_text("\n".join(["row,item_id", *lines]))
    with pytest.raises(DataError, match=message):
        read_item_ids(file, 3)


def test_training_data_of_another_model_are_refused(tmp_path: Path) -> None:
    train = tmp_path / "train.txt"
    train.write_text("1,3,0\n1,4,1\n")
    with pytest.raises(DataError, match="item 4 is outside 1 to 3"):
        count_popularity(train, 3)


def changed(name: str, value: Any) -> Any:
    def change(state: dict[str, Any]) -> None:
        state[name] = paddle.to_tensor(np.asarray(value, np.float32))

    return change


PADDING = np.zeros((ROWS, D), np.float32)
PADDING[0, 3], PADDING[5:] = 2, 1
REFUSED = {
    "item_emb": (lambda state: state.pop("item_emb.weight"), "not PaddleRec's MIND: misses item_emb; it has emb"),
    "half a projection": (lambda state: state.pop("capsual_layer.relu_layer.bias"), "misses relu_layer.bias"),
    "more layers": (
        lambda state: state.update({"country_emb.weight": paddle.ones([2, D])}),
        "has parameters that PaddleRec's MIND has not, .*: country_emb.weight; --ignore LAYER",
    ),
    "two networks": (
        lambda state: state.update({"ema.item_emb.weight": state["item_emb.weight"]}),
        "has item_emb more than once, such as ema.item_emb.weight",
    ),
    "user features": (
        changed("capsual_layer.relu_layer.weight", np.ones((2 * D, D))),
        r"relu_layer.weight has the shape \[32, 16\], expected \[16, 16\]",
    ),
    "hidden_size": (
        changed("capsual_layer.bilinear_mapping_matrix", np.ones((D, 8))),
        "embedding_dim is 16 and hidden_size 8",
    ),
    "logits": (
        changed("capsual_layer.routing_logits", np.ones(L)),
        r"routing_logits has the shape \[12\], expected \[1, max_k, maxlen\]",
    ),
    "many interests": (changed("capsual_layer.routing_logits", np.ones((1, 65, L))), "num_interests: .*64"),
    "only padding": (
        changed("item_emb.weight", np.zeros((1, D))),
        r"item_emb has the shape \[1, 16\], expected \[2, 16\]",
    ),
    "untrained": (changed("item_emb.weight", np.zeros((ROWS, D))), "item_emb is zero, the network was never trained"),
    "padding": (changed("item_emb.weight", PADDING), r"row 0 of item_emb has the length 2; .*padding_idx=0"),
    "bias": (changed("embedding_bias", np.arange(ROWS)), "embedding_bias is 1 for item 1"),
    "nan": (changed("capsual_layer.bilinear_mapping_matrix", np.full((D, D), np.nan)), "has NaN or infinite values"),
    "bfloat16": (
        lambda state: state.update({"item_emb.weight": state["item_emb.weight"].astype("bfloat16")}),
        "item_emb is uint16, which is how Paddle saves bfloat16",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_give_other_vectors_is_refused(tmp_path: Path, case: str) -> None:
    change, message = REFUSED[case]
    state = dict(PaddleRecMind(earlier=True).state_dict())
    change(state)
    with pytest.raises((ConfigError, DataError), match=message):
        imported(save(tmp_path, state), tmp_path / "artifacts")
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_layers_that_do_not_matter_can_be_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = PaddleRecMind(earlier=False)
    state = {**network.state_dict(), "output_softmax_linear.bias": paddle.ones([3])}
    artifact = imported(save(tmp_path, state), tmp_path, ignore=["output_softmax_linear"])
    assert largest_difference(artifact, network) < 1e-5
    assert "output_softmax_linear.bias" in capsys.readouterr().out


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_here("mind.import_paddlerec", *arguments)


def test_the_command(tmp_path: Path) -> None:
    path = save(tmp_path, PaddleRecMind(earlier=True).state_dict())
    done = command(path, "--output", tmp_path / "artifacts", "-o", "pow_p=2")
    assert done.returncode == 0, done.stderr
    written = newest_artifact(tmp_path / "artifacts")
    assert f"model {written.name} written to {written}" in done.stdout
    assert "all items count 0" in done.stdout and "history_then_interests" in done.stdout
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_artifact(written).data == {"imported_from": "rec.pdparams", "sha256": digest}


def test_a_checkpoint_that_carries_code_is_refused_by_name(tmp_path: Path) -> None:
    path, ran = tmp_path / "rec.pdparams", tmp_path / "ran"
    path.write_bytes(b"\x80\x02}cposix\nsystem\n" + pickle.dumps(f"touch {ran}", 2)[2:-1] + b"\x85R.")
    done = command(path, "--output", tmp_path / "artifacts")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(
        f"error: {path}: refused, and nothing in it was run: it names 'posix.system'; all that"
    )
    assert done.stderr.count("\n") == 1
    assert not ran.exists() and list((tmp_path / "artifacts").iterdir()) == []


def test_item_ids_may_be_text(tmp_path: Path) -> None:
    file = tmp_path / "ids.csv"
    file.write_text("row,item_id\n2,B001\n1,007\n")
    rows, item_id, keys = read_item_ids(file, 2)
    assert keys
    assert dict(zip(rows.tolist(), keys.at(np.arange(2)), strict=True)) == {2: "B001", 1: "007"}
    assert item_id.tolist() == key_ids(keys.at(np.arange(2))).tolist()
