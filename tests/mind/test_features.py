"""Item features: read, numbered, pooled into the item vectors; and what they give to items nobody has clicked yet."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mind.artifact import Artifact
from mind.config import Config
from mind.data.features import FeatureTable, read_features
from mind.encoder import NumpyEncoder, check_golden
from mind.errors import ConfigError, DataError
from mind.evaluation.retrieval import encode_histories, item_ids, nearest_items
from mind.item_table import ItemTable
from mind.paddle_runtime import paddle
from mind.sequences import EvalCases
from mind.training.inputs import read_inputs
from mind.training.loop import train
from mind.vocabulary import Vocabulary
from tests.mind.test_training import GROUPS, PER_GROUP, clustered
from tests.server.test_metrics import sequences

CSV = "item_id,genres,brand\n7,Comedy|Drama,B\n1,Drama,A\n5,,\n9, War | Drama ,A\n"


@pytest.fixture
def table(tmp_path: Path) -> FeatureTable:
    (tmp_path / "items.csv").write_text(CSV)
    return read_features(tmp_path / "items.csv", ["genres", "brand"])


def test_values_are_numbered_and_lined_up_with_rows(table: FeatureTable) -> None:
    features = table.align(Vocabulary(np.array([1, 5, 7, 8])), np.ones(5, np.bool_))  # the file lacks 8, 9 is nobody's
    genres, brand = features.columns
    assert genres.values == ("Comedy", "Drama") and brand.values == ("A", "B")
    assert genres.value_index.tolist() == [[0, 0], [2, 0], [0, 0], [1, 2], [0, 0]]
    assert brand.value_index.tolist() == [[0], [1], [0], [2], [0]]


def test_parquet_with_lists_says_the_same(tmp_path: Path, table: FeatureTable) -> None:
    lists = [["Comedy", "Drama"], ["Drama"], None, ["War", "Drama"]]
    columns = {"item_id": [7, 1, 5, 9], "genres": lists, "brand": ["B", "A", None, "A"]}
    pq.write_table(pa.table(columns), tmp_path / "items.parquet", row_group_size=2)
    again = read_features(tmp_path / "items.parquet", ["genres", "brand"])
    vocabulary, trained = Vocabulary(np.array([1, 5, 7, 9])), np.ones(5, np.bool_)
    for one, other in zip(
        table.align(vocabulary, trained).columns, again.align(vocabulary, trained).columns, strict=True
    ):
        assert one.values == other.values
        np.testing.assert_array_equal(one.value_index, other.value_index)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("item_id,brand\n1,A\n", "no column 'genres'; there are: item_id, brand"),
        ("item_id,genres\nx,A\n", "line 2: item_id is 'x', not an integer of 64 bits"),
        ("item_id,genres\n\n3,A\nx,B\n", "line 4: item_id is 'x', not an integer of 64 bits"),
        ("item_id,genres\n3,A\n4,A,B\n", "line 3: expected 2 columns, found 3"),
        ("item_id,genres\n3,A\n3,B\n", "item_id 3 occurs more than once"),
        ("item_id,genres\n3," + "|".join(map(str, range(65))) + "\n", "genres: an item has 65 values, the limit is 64"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "items.csv").write_text(content)
    with pytest.raises(DataError, match=says):
        read_features(tmp_path / "items.csv", ["genres"])


def test_features_need_a_file() -> None:
    with pytest.raises(ValueError, match=r"needs runner\.item_features_file, which is not"):
        Config.model_validate({"hyper_parameters": {"item_features": ["genres"]}})


def test_a_column_of_another_name_holds_the_ids(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,sku,brand\n1,7,A\n2,5,B\n")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "one.txt").write_text("1,5,0\n1,7,1\n")
    runner = {
        "train_data_dir": tmp_path / "train",
        "item_features_file": tmp_path / "items.csv",
        "valid_data_dir": None,
    }
    ids = {}
    for column in ("item_id", "sku"):
        settings = {"runner": runner | {"item_features_id": column}, "hyper_parameters": {"item_features": ["brand"]}}
        inputs = read_inputs(Config.model_validate(settings))
        assert inputs.features is not None
        ids[column] = inputs.features.item_id.tolist(), list(inputs.fingerprint["item_features"])
    assert ids == {"item_id": ([1, 2], ["items.csv"]), "sku": ([5, 7], ["items.csv, ids in sku"])}


def test_an_items_vector_is_the_sum_of_its_parts(table: FeatureTable) -> None:
    paddle.seed(1)
    trained = np.array([False, True, True, True, False])  # item 9 was never clicked
    layer = ItemTable(4, 3, table.align(Vocabulary(np.array([1, 5, 7, 9])), trained), id_dropout=0.5)
    layer.eval()
    ids = layer.embedding.weight.numpy()
    genres, brand = (values.weight.numpy() for values in layer.values)  # 1 Comedy, 2 Drama, 3 War; 1 A, 2 B
    expected = [
        np.zeros(3),
        ids[1] + genres[2] + brand[1],
        ids[2],
        ids[3] + (genres[1] + genres[2]) / 2 + brand[2],
        (genres[3] + genres[2]) / 2 + brand[1],
    ]
    np.testing.assert_allclose(layer.dense(batch_size=2), expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(layer(paddle.to_tensor([[3, 0]])).numpy()[0], [expected[3], expected[0]], rtol=1e-5)


def test_training_hides_ids_but_only_where_features_can_stand_in(table: FeatureTable) -> None:
    paddle.seed(1)
    layer = ItemTable(4, 3, table.align(Vocabulary(np.array([1, 5, 7, 9])), np.ones(5, np.bool_)), id_dropout=0.5)
    batches = np.array([layer(paddle.to_tensor([1, 2])).numpy() for _ in range(40)])
    assert len(np.unique(batches[:, 0], axis=0)) == 2  # with and without the id
    assert len(np.unique(batches[:, 1], axis=0)) == 1  # item 5 has no features


def test_an_item_nobody_clicked_is_found_by_its_features() -> None:
    """Two items of every group are kept out of training; the users who would click them are the test."""
    ids = np.random.default_rng(99).permutation(GROUPS * PER_GROUP).reshape(GROUPS, PER_GROUP) * 1_000 + 10**12
    cold = ids[:, :2]
    warm = [[item for item in row if item not in cold] for row in clustered(400, 1)]
    cases = [row for row in clustered(300, 2) if set(row[8:]) & set(cold.ravel())]
    valid = EvalCases(
        sequences(*([item for item in row[:8] if item not in cold] for row in cases)),
        sequences(*([item for item in row[8:] if item in cold] for row in cases)),
    )
    groups = pa.chunked_array([pa.array([[str(group)] for group in range(GROUPS) for _ in range(PER_GROUP)])])
    order = np.argsort(ids.ravel())
    table = FeatureTable(ids.ravel()[order], {"group": groups.take(pa.array(order))})
    settings = Config.model_validate(
        {
            "runner": {"epochs": 3, "train_batch_size": 64, "item_features_file": "unused"},
            "hyper_parameters": {
                "embedding_dim": 16, "hidden_size": 16, "maxlen": 8, "item_features": ["group"],
                "optimizer": {"learning_rate": 0.02},
            },
        }
    )  # fmt: skip
    weights = train(settings, sequences(*warm), None, features=table).weights
    assert len(weights.item_id) == GROUPS * PER_GROUP
    vocabulary = Vocabulary(weights.item_id)
    assert (weights.popularity[vocabulary.item_index(cold.ravel()) - 1] == 0).all()
    encoder = NumpyEncoder(weights, settings.hyper_parameters)
    check_golden(encoder, Artifact("test", settings.hyper_parameters, weights))
    vectors = encode_histories(encoder, vocabulary, valid.history, 8, 256)
    found = item_ids(vocabulary, nearest_items(vectors, weights.item_embedding, 50))
    hits = [bool(set(valid.target[user].tolist()) & set(found[user].tolist())) for user in range(len(valid))]
    assert np.mean(hits) > 0.8  # two groups of 20 fit into 50; at random it would be a quarter


def test_the_command_reports_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_features(tmp_path / "nowhere.csv", ["genres"])
    assert issubclass(ConfigError, Exception)
