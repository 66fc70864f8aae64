"""Reads the AmazonBook data of ComiRec (Cen et al., arXiv 2005.09347), which PaddleRec publishes too, already split.

The archives hold only lines of clicks, also for held-out users. This module makes their histories and targets.
"""

from pathlib import Path

import numpy as np

from mind.data.paddlerec import read_train
from mind.data.split import Split, SplitKind, hold_out
from mind.data.unpack import unpacked
from mind.errors import DataError
from mind.sequences import EvalCases, Sequences

MEMBERS = ("book_data/book_train.txt", "book_data/book_valid.txt", "book_data/book_test.txt")


def read_amazon_book(path: Path) -> Split:
    """Read PaddleRec's or ComiRec's archive.

    Raises:
        DataError: the archive is neither of the two, or it is damaged.
    """
    with unpacked(path, MEMBERS) as folder:
        files = [folder / Path(member).name for member in MEMBERS]
        for member, file in zip(MEMBERS, files, strict=True):
            if not file.is_file():
                raise DataError(
                    f"{path}: holds no AmazonBook: {member} is missing; expected AmazonBook.tar.gz of PaddleRec or "
                    "data.tar.gz of ComiRec"
                )
        train, valid, test = map(read_train, files)
        return Split(train, _hold_out_all(valid), _hold_out_all(test), 0, {"split": SplitKind.USERS})


def _hold_out_all(sequences: Sequences) -> EvalCases:
    return hold_out(sequences, np.arange(len(sequences)))
