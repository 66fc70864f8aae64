"""The directory that `mind.prepare` writes: train/, valid/ and test/, and the items where the data describe them."""

from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mind.data.files import replacing
from mind.data.paddlerec import write_eval, write_train
from mind.data.split import Split


def write_split(output: Path, parts: Split, items: pa.Table | None) -> None:
    """Write all files, then let them take their places.

    Raises:
        DataError: the disk refused one; files that were there before are unharmed.
    """
    with ExitStack() as files:
        train, valid, test = (
            files.enter_context(replacing(output / part / f"{part}.txt")) for part in ("train", "valid", "test")
        )
        write_train(train, parts.train)
        write_eval(valid, parts.valid)
        write_eval(test, parts.test)
        if items is not None:
            pq.write_table(items, files.enter_context(replacing(output / "items.parquet")))
