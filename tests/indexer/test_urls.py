"""Files of items, ids and interactions may be URLs of fsspec, and messages do not tell the secrets in them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from indexer.errors import AttributesError
from indexer.items.attributes import find_id_column, read_attributes
from indexer.items.clicks import read_clicks
from indexer.items.item_files import ItemFile, read_ids
from mind.data.sources import source_of
from mind.milvus.schemas import Column

ITEMS = "sku,price,stock\n7,1.5,3\n8,2.5,0\n"


@pytest.fixture
def memory() -> Iterator[Any]:
    """Fsspec's file system in memory, whose files are gone afterwards."""
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


@pytest.mark.parametrize("url", ["memory://shop/items.csv", "memory://shop/", "memory://shop", "memory://shop/*.csv"])
def test_attributes(memory: Any, url: str) -> None:
    memory.pipe_file("/shop/items.csv", ITEMS.encode())
    source = source_of(url)
    found = read_attributes(source, np.array([7, 8]), find_id_column(source))
    assert [(column.name, column.type) for column in found.columns] == [("price", "DOUBLE"), ("stock", "INT64")]
    assert found.missing == 0


def test_changed_attributes_and_ids(memory: Any) -> None:
    memory.pipe_file("/shop/items.csv", ITEMS.encode())
    memory.pipe_file("/shop/gone.txt", b"item_id\n8\n7\n")
    kinds = {"price": Column("DOUBLE", 0, 0), "stock": Column("INT64", 0, 0)}
    file = ItemFile(source_of("memory://shop/items.csv"), "sku", kinds)
    assert file.check().tolist() == [7, 8]
    assert [values for *_, values in file.batches()] == [{"price": [1.5, 2.5], "stock": [3, 0]}]
    assert [text for text, _ in read_ids(source_of("memory://shop/gone.txt"))] == ["8", "7"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("clicks.txt", "1,7,1\n1,8,2\n"),
        ("clicks.csv", "user_id,item_id,timestamp\n1,8,2\n1,7,1\n"),
        (
            "clicks.jsonl",
            '{"user_id": 1, "item_id": 7, "timestamp": 1}\n{"user_id": 1, "item_id": 8, "timestamp": 2}\n',
        ),
    ],
)
def test_interactions(memory: Any, tmp_path: Path, name: str, content: str) -> None:
    memory.pipe_file(f"/new/{name}", content.encode())
    (tmp_path / name).write_text(content)
    for where in (f"memory://new/{name}", str(tmp_path / name)):
        sequences, keys = read_clicks(source_of(where), has_text_ids=False)
        assert sequences.item_id.tolist() == [7, 8] and keys is None


def test_messages_show_no_credentials(memory: Any) -> None:
    for read in (find_id_column, read_ids, lambda source: read_attributes(source, np.array([7]), "sku")):
        with pytest.raises(AttributesError, match=r"memory://host/gone\.csv") as error:
            read(source_of("memory://me:secret@host/gone.csv?token=secret"))
        assert "secret" not in str(error.value)
    with pytest.raises(AttributesError, match=r"expected a file that ends in \.csv") as error:
        find_id_column(source_of("memory://me:secret@host/items.doc?token=secret"))
    assert "secret" not in str(error.value)
