"""The attributes of the benchmark's items: numbers to filter by, texts to show and to cap."""

import csv
import time
from pathlib import Path

import numpy as np

from mind.artifact import Artifact
from mind.sequences import Int64
from tests.bench.serving.world import SEED

VALUES = 1_000
"""Values of `RANDOM` and `CLUSTERS`, about equally frequent."""
RANDOM, CLUSTERS = "bucket", "shelf"
"""An attribute that is independent of the vectors, and one that items near to each other share."""
NEIGHBOURS = 200
"""Items in a row that have the same shelf: the benchmark's items are ordered by cluster."""
SHOWN = ("title", "price", "category")
"""Attributes to return with candidates: a title of its own for each item, a price and a category."""
YEAR_S = 365 * 86_400
"""Items were published at any time of the last year, in seconds."""
RACK_ITEMS = 50
"""Items of a rack, which lie beside one another, as near items of a shop may; a cluster of the model has four racks."""


def write_items(directory: Path, artifact: Artifact) -> dict[str, Int64]:
    """Write the attributes of all items where the indexer reads them; gives those to filter by."""
    rng = np.random.default_rng(SEED)
    item_id = artifact.weights.item_id
    row = np.arange(len(item_id))
    shelves = len(item_id) // NEIGHBOURS + 1
    shelf = rng.permutation(shelves) * VALUES // shelves
    numbers = {RANDOM: rng.integers(0, VALUES, len(item_id)), CLUSTERS: shelf[row // NEIGHBOURS]}
    texts = {
        "title": [f"Article {item} of the catalogue" for item in item_id.tolist()],
        "price": (row % 5_000 / 100).tolist(),
        "category": [f"category {value}" for value in (row % 200).tolist()],
        "brand": [f"brand {value}" for value in (row % 41).tolist()],
        "rack": [f"rack {value}" for value in (row // RACK_ITEMS).tolist()],
    }
    numbers["published_at"] = int(time.time()) - row * 104_729 % YEAR_S
    columns = {name: column.tolist() for name, column in numbers.items()} | texts
    with (directory / "items.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", *columns])
        writer.writerows(zip(item_id.tolist(), *columns.values(), strict=True))
    return numbers
