"""Histories of external ids become rows that an encoder takes."""

import numpy as np

from mind.vocabulary import Vocabulary

VOCABULARY = Vocabulary(np.array([10, 20, 30, 40]))


def test_unknown_items_are_dropped_before_the_newest_are_kept() -> None:
    item_id = np.array([10, 99, 20, 30, 98, 99, 40])  # histories of 5, 0, 1 and 1 items
    hist_index, seq_len, known = VOCABULARY.look_up(item_id, np.array([0, 5, 5, 6, 7]), 2)
    assert hist_index.tolist() == [[2, 3], [0, 0], [0, 0], [4, 0]]
    assert seq_len.tolist() == [2, 0, 0, 1]
    assert known.tolist() == [True, False, True, True, False, False, True]


def test_no_items_and_no_histories() -> None:
    hist_index, seq_len, known = VOCABULARY.look_up(np.zeros(0, np.int64), np.array([0, 0]), 3)
    assert (hist_index.tolist(), seq_len.tolist(), known.tolist()) == ([[0, 0, 0]], [0], [])
    hist_index, seq_len, known = VOCABULARY.look_up(np.zeros(0, np.int64), np.array([0]), 3)
    assert (hist_index.shape, seq_len.tolist()) == ((0, 3), [])
