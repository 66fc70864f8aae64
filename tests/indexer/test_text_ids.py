"""Items with text ids, from the build through changes to the next release, on both engines."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.build import build, choose_index
from indexer.errors import AttributesError
from indexer.items.attributes import Attributes, read_attributes
from indexer.items.changes import Proposal, Upsert
from indexer.items.clicks import read_clicks
from indexer.items.item_files import ItemFile, parse_ids, read_ids
from indexer.items.journal import Journal
from indexer.rollout import rollout
from mind.artifact import Artifact, load_artifact
from mind.data.clicks import read_interactions
from mind.data.ids import IdKind
from mind.data.prepared import write_split
from mind.data.split import split
from mind.errors import DataError
from mind.keys import key_ids
from mind.milvus.collection import ITEM_KEY, VECTOR_SOURCE
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from mind.transfer import Models
from tests.artifacts import make_artifact
from tests.commands import run_here
from tests.indexer.test_changes import Released
from tests.releases import publish


def id_of(key: str) -> int:
    return int(key_ids([key])[0])


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def catalogue(directory: Path, model: Artifact) -> Attributes:
    """A price and a category for every item of the model."""
    assert model.weights.keys
    keys = model.weights.keys.at(np.arange(len(model.weights.item_id)))
    lines = [f"{key},{number % 50},{number % 3}" for number, key in enumerate(keys)]
    path = written(directory / "items.csv", "\n".join(["sku,price,category", *lines]))
    return read_attributes(path, model.weights.item_id, "sku", keys=model.weights.keys)


@pytest.fixture
def shop(milvus_uri: str, tmp_path: Path) -> Iterator[Released]:
    """A live collection of the items KIT-0 to KIT-199."""
    model = load_artifact(make_artifact(tmp_path / "models", keyed=True))
    with Store(Connection(milvus_uri)) as store:
        index = choose_index(store.connection.is_lite, None, {}, {})
        collection = build(store, model, catalogue(tmp_path, model), index).collection
        publish(store, collection)
        yield Released(store, model, collection, tmp_path)


def upserted(shop: Released, text: str, uri: str, *options: object) -> str:
    """What `upsert --attributes` prints."""
    file = written(shop.directory / "change.csv", text)
    places = ["--milvus-uri", uri, "--artifact", shop.directory / "models"]
    done = run_here("indexer", "upsert", *places, "--attributes", file, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_item_has_its_text_id_in_the_collection(shop: Released) -> None:
    row = shop.item(id_of("KIT-7"))
    assert row
    assert row[ITEM_KEY] == "KIT-7"
    rows = shop.store.rows(shop.collection, f'{ITEM_KEY} in ["KIT-3", "KIT-140", "kit-3"]', 99)
    assert {row[ITEM_KEY] for row in rows} == {"KIT-3", "KIT-140"}


def test_items_are_changed_added_and_deleted_by_their_text_ids(shop: Released, milvus_uri: str) -> None:
    printed = upserted(shop, "sku,price,category\nKIT-7,99,\n007,5,1\nNEW-1,,\n", milvus_uri)
    assert "3 rows, 0 blank; ids in sku" in printed
    assert "added      1 items, vectors attributes" in printed
    assert "changed    1 items" in printed
    assert "1 items (NEW-1): no vector is given" in printed
    known, fresh = shop.item(id_of("KIT-7")), shop.item(id_of("007"))
    assert known and fresh
    assert (known["price"], known[ITEM_KEY], known[VECTOR_SOURCE]) == (99, "KIT-7", "trained")
    assert (fresh["price"], fresh[ITEM_KEY], fresh[VECTOR_SOURCE]) == (5, "007", "attributes")
    assert "unchanged  2 items" in upserted(
        shop, "sku,price,category\nKIT-7,99,\n007,5,1\n", milvus_uri, "--id-column", "sku"
    )
    done = run_here("indexer", "delete", "--milvus-uri", milvus_uri, "--ids", "KIT-7,007,7")
    assert "deleted    2 items" in done.stdout
    assert "1 items (7): they are not in the collection" in done.stdout
    assert shop.item(id_of("KIT-7")) is None
    upserted(shop, "name,price\nKIT-7,1\n007,2\n", milvus_uri, "--id-column", "name")
    again = shop.item(id_of("007"))
    assert again
    assert again[ITEM_KEY] == "007"


def test_new_items_come_from_clicks_with_text_ids(shop: Released, milvus_uri: str) -> None:
    clicks = "".join(f"u{user},{item},{time}\n" for user in range(3) for time, item in enumerate(["KIT-1", "NEW-2"]))
    places = ["--milvus-uri", milvus_uri, "--artifact", shop.directory / "models"]
    for name, text in (("since.txt", clicks), ("since.csv", "user_id,item_id,timestamp\n" + clicks)):
        file = written(shop.directory / name, text)
        done = run_here("indexer", "upsert", *places, "--interactions", file)
        assert done.returncode == 0, done.stderr
        row = shop.item(id_of("NEW-2"))
        assert row
        assert (row[ITEM_KEY], row[VECTOR_SOURCE]) == ("NEW-2", "neighbours")


def test_changes_are_carried_over_with_their_text_ids(shop: Released, tmp_path: Path) -> None:
    journal = shop.journal
    given = ItemFile(
        written(tmp_path / "new.csv", "item_id,price,category\nNEW-3,7,1\n"),
        "item_id",
        {name: column for name, column in journal.columns.items() if name in ("price", "category")},
        has_text_ids=True,
    )
    stage = Upsert(journal, shop.model, (summary := shop.delete(id_of("KIT-9"))))
    for ids, keys, columns in given.batches():
        assert isinstance(columns, dict)
        values = {name: column[0] for name, column in columns.items()}
        stage.stage([Proposal(int(ids[0]), values, key=keys[0])])
    journal.apply(lambda *_: None)
    assert summary.deleted == 1
    other = load_artifact(make_artifact(tmp_path / "models", keyed=True, seed=1))
    index = choose_index(shop.store.connection.is_lite, None, {}, {})
    new = build(shop.store, other, catalogue(tmp_path, other), index).collection
    rollout.publish(shop.store, Models(tmp_path / "models"), new, with_changes=True)
    there = Journal(shop.store, new)
    assert there.items([id_of("KIT-9")]) == {}
    assert there.items([id_of("NEW-3")])[id_of("NEW-3")][ITEM_KEY] == "NEW-3"


def test_nothing_is_carried_over_to_ids_of_another_kind(shop: Released, tmp_path: Path) -> None:
    shop.delete(id_of("KIT-9"))
    other = load_artifact(make_artifact(tmp_path / "models", seed=1))
    index = choose_index(shop.store.connection.is_lite, None, {}, {})
    new = build(shop.store, other, Attributes(), index).collection
    done = rollout.publish(shop.store, Models(tmp_path / "models"), new, with_changes=True)
    assert (done.live, done.carried) == (new, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sku,price\nKIT-1,1\nKIT-1,2\n", "row 2: sku KIT-1 is in row 1 already; keep one row for each item"),
        ("sku,price\n,1\n", "row 1: sku is empty"),
        (f"sku,price\n{'x' * 257},1\n", "row 1: sku has 257 bytes; the limit is 256"),
        ("sku,price\nZZZ,1\n", "the model knows none of the 1 item ids, such as ZZZ"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    model = load_artifact(make_artifact(tmp_path / "models", keyed=True))
    path = written(tmp_path / "items.csv", text)
    with pytest.raises(AttributesError, match=message):
        read_attributes(path, model.weights.item_id, "sku", keys=model.weights.keys)


def test_two_keys_with_one_hash_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_artifact(make_artifact(tmp_path / "models", keyed=True))
    taken = int(model.weights.item_id[0])
    monkeypatch.setattr("indexer.items.attributes.key_ids", lambda keys: np.full(len(keys), taken, np.int64))
    path = written(tmp_path / "items.csv", "sku,price\nZZZ,1\n")
    with pytest.raises(AttributesError, match=r"'ZZZ' has the same hash as 'KIT-[0-9]+', another item; rename"):
        read_attributes(path, model.weights.item_id, "sku", keys=model.weights.keys)
    path = written(tmp_path / "two.csv", "sku,price\nZZZ,1\nYYY,1\n")
    with pytest.raises(AttributesError, match="row 2: 'YYY' has the same hash as 'ZZZ'"):
        read_attributes(path, model.weights.item_id, "sku", keys=model.weights.keys)


def test_an_upsert_never_gives_an_item_to_another_key(shop: Released) -> None:
    stage = Upsert(shop.journal, shop.model, shop.delete())
    with pytest.raises(AttributesError, match="'ZZZ' has the same hash as 'KIT-4', another item"):
        stage.stage([Proposal(id_of("KIT-4"), {"price": 1}, key="ZZZ")])


@pytest.mark.parametrize(
    ("text", "is_text", "message"),
    [
        ("1,x", False, "--ids: 'x' is not an item id; ids are integers from -2^63 + 1 to 2^63 - 1"),
        ("1" * 5_000, False, "is not an item id; ids are integers from -2^63 + 1 to 2^63 - 1"),
        ("-9223372036854775808", False, "'-9223372036854775808' is not an item id"),
        ("KIT-1,,", True, "--ids: '' is not an item id; ids are texts of 1 to 256 bytes"),
        ("x" * 257, True, "ids are texts of 1 to 256 bytes"),
    ],
)
def test_ids_that_cannot_be_read(text: str, is_text: bool, message: str) -> None:
    with pytest.raises(AttributesError) as error:
        parse_ids([(one, "--ids") for one in text.split(",")], is_text)
    assert message in str(error.value)


def test_a_file_of_ids_names_the_line(tmp_path: Path) -> None:
    file = written(tmp_path / "ids.txt", "item_id\n 007 \n\nKIT-1\n")
    assert set(parse_ids(read_ids(file), True).values()) == {"007", "KIT-1"}
    with pytest.raises(AttributesError, match="line 4: 'KIT-1' is not an item id"):
        parse_ids(read_ids(file), False)


def test_prepared_data_of_the_other_kind_are_refused(tmp_path: Path) -> None:
    rows = [f"{user},KIT-{item},{item}" for user in range(10) for item in range(6)]
    clicks = written(tmp_path / "clicks.csv", "\n".join(["user_id,item_id,timestamp", *rows]))
    found, _ = read_interactions(clicks)
    write_split(tmp_path / "data", split(found), None, (found.user_keys, found.item_keys))
    for part in (tmp_path / "data" / "train", tmp_path / "data" / "train" / "train.txt"):
        sequences, keys = read_clicks(part, True)
        assert keys
        assert keys.of(sequences[0]).at(np.arange(6)) == [f"KIT-{item}" for item in range(6)]
    with pytest.raises(DataError, match="its items have text ids, but those of the collection are integers"):
        read_clicks(tmp_path / "data" / "train", False)
    integers, _ = read_interactions(clicks, ids=IdKind.TEXT)
    assert replace(integers, item_keys=None).item_id.tolist() == found.item_id.tolist()


@pytest.mark.parametrize("has_text_ids", [False, True])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.parquet", "since/a.jsonl", "bare.txt"])
def test_interactions_in_any_shape(tmp_path: Path, has_text_ids: bool, name: str) -> None:
    items = ["7", "9"] if not has_text_ids else ["KIT-7", "KIT-9"]
    table = {"customer_id": [1, 1], "sku": items if has_text_ids else [7, 9], "clicked_at": [5, 6]}
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    lines = [json.dumps(dict(zip(table, row, strict=True))) for row in zip(*table.values(), strict=True)]
    text = "\n".join([",".join(table), *(f"1,{item},{5 + at}" for at, item in enumerate(items))])
    if name == "a.parquet":
        pq.write_table(pa.table(table), path)
    elif "json" in name:
        path.write_text("\n".join(lines))
    elif name == "bare.txt":
        path.write_text(text.split("\n", 1)[1] + "\n")
    else:
        path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    sequences, keys = read_clicks(path if "/" not in name else path.parent, has_text_ids)
    found = keys.of(sequences.item_id).at(np.arange(2)) if keys else sequences.item_id.tolist()
    assert found == (items if has_text_ids else [7, 9])
