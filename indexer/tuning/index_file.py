"""The JSON file that carries an index from `choose-index` to `build`. It is written completely or not at all."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from indexer.build import Index
from indexer.errors import RefusedError
from indexer.tuning.tune import Tuned
from mind.config import explain
from mind.data.files import replacing


class IndexFile(BaseModel):
    """How to index and search. `Fingerprint` documents each field."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str = Field(min_length=1)
    build_params: dict[str, int | float | str] = {}
    search_params: dict[str, int | float | str] = {}
    filter_search_params: Annotated[dict[str, int | float | str], Field(exclude=True)] = {}
    """Not used any more; earlier versions wrote it."""
    interest_cosine: float = Field(1, gt=0, le=1)
    measured: dict[str, Any] = {}
    """The measurements behind the choice, for people. A build does not read them."""


def read_index(path: Path) -> IndexFile:
    """Read a file that `write_index` or a person wrote.

    Raises:
        RefusedError: the file cannot be read, or it is not an index file.
    """
    try:
        return IndexFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RefusedError(f"{path}: --index cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise RefusedError(f"{path}: {'; '.join(explain(error).splitlines())}") from error


def write_index(path: Path, tuned: Tuned, model_version: str, milvus_version: str) -> None:
    """Write the chosen index and its measurements to a file.

    Raises:
        DataError: the file cannot be written. An earlier file at this path stays as it was.
    """
    index: Index = tuned.best.index
    content = IndexFile(
        type=index.type,
        build_params=dict(index.build_params),
        search_params=dict(index.search_params),
        interest_cosine=index.interest_cosine,
        measured={
            "recall": round(tuned.best.recall, 5),
            "users_per_s": round(tuned.best.users_per_s, 1),
            "ratio": round(tuned.ratio, 3),
            "users": tuned.users,
            "min_recall": tuned.min_recall,
            "model_version": model_version,
            "milvus_version": milvus_version,
        },
    )
    with replacing(path) as file:
        file.write_text(json.dumps(content.model_dump(), indent=2) + "\n", encoding="utf-8")
