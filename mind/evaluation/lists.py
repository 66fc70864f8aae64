"""Makes the ranked lists that an evaluation compares: a model's by exact search, the baselines', and given lists.

This module knows nothing of the command line.
"""

from dataclasses import dataclass

import numpy as np

from mind.artifact import Artifact, Float32
from mind.config import Config
from mind.data.paddlerec import read_train
from mind.encoder import check_golden
from mind.encoders import EncoderName, encoder_maker
from mind.evaluation import analysis, baselines
from mind.evaluation.candidates import Served
from mind.evaluation.compared import Compared
from mind.evaluation.ease import MAX_ITEMS, ease
from mind.evaluation.evaluate import ALONE, EXACT, Lists, OnStep
from mind.evaluation.metrics import Hits
from mind.evaluation.retrieval import LeftOut, encode_histories, item_ids, near_histories, nearest_items
from mind.neighbours import Near
from mind.sequences import EvalCases, Int64


@dataclass(frozen=True)
class _Asked:
    """The inputs from which all lists are made."""

    settings: Config
    model: Artifact
    cases: EvalCases
    top_n: int
    left_out: LeftOut | None
    near: Near | None
    """The neighbours of the newest clicks; None if they are not candidates."""
    on_step: OnStep

    @classmethod
    def of(
        cls,
        settings: Config,
        model: Artifact,
        users: Compared,
        top_n: int,
        exclude_history: bool,
        neighbours: bool,
        on_step: OnStep,
    ) -> "_Asked":
        """Prepare the inputs: without or with the items of the histories, and with or without neighbours."""
        history = users.cases.history
        left_out = LeftOut.history(model.vocabulary, history) if exclude_history else None
        near = None
        if neighbours and model.weights.neighbours:
            near = near_histories(model.weights.neighbours, model.vocabulary, history, model.hyper_parameters.maxlen)
        return cls(settings, model, users.cases, top_n, left_out, near, on_step)

    @property
    def batch(self) -> int:
        """Return the number of users of a batch."""
        return self.settings.runner.infer_batch_size


def make_lists(
    settings: Config,
    model: Artifact,
    encoder: EncoderName,
    users: Compared,
    top_n: int,
    on_step: OnStep,
    *,
    valid: EvalCases | None = None,
    exclude_history: bool = False,
    neighbours: bool = False,
) -> Lists:
    """Make all lists that an evaluation compares.

    Args:
        settings: the configuration, which names the training data for the baselines.
        model: the model, whose interests are searched for, and whose item popularity ranks the most popular items.
        encoder: the encoder of the histories.
        users: the test users that are compared, and the lists that other programs made for them. A list gets the name
            of its file without the ending.
        top_n: the number of items of a list.
        on_step: called with the progress.
        valid: held-out users that choose the settings of EASE.
        exclude_history: whether lists leave out items of the user's history.
        neighbours: whether neighbours of the newest clicks are candidates. If so, the list without them is also made.
    """
    asked = _Asked.of(settings, model, users, top_n, exclude_history, neighbours, on_step)
    ranked, notes = _baselines(asked, valid)
    names = tuple(ranked)
    vectors, exact = _exact(asked, encoder)
    ranked |= exact
    served, told = _add_given(ranked, users, exclude_history)
    return Lists(ranked, names, vectors, served, exclude_history, users.left_out, users.notes + notes + told)


def lists_beside_exact(
    settings: Config,
    model: Artifact,
    encoder: EncoderName,
    users: Compared,
    top_n: int,
    on_step: OnStep,
    *,
    exclude_history: bool = False,
    neighbours: bool = False,
) -> Lists:
    """Make the lists of exact search beside the lists of other programs, without baselines. See `make_lists`."""
    ranked: dict[str, Int64] = {}
    asked = _Asked.of(settings, model, users, top_n, exclude_history, neighbours, on_step)
    vectors, exact = _exact(asked, encoder)
    ranked |= exact
    served, told = _add_given(ranked, users, exclude_history)
    return Lists(ranked, (), vectors, served, exclude_history, users.left_out, users.notes + told)


def _add_given(ranked: dict[str, Int64], users: Compared, exclude_history: bool) -> tuple[dict[str, Served], list[str]]:
    """Add the lists that other programs made.

    Return the releases of those that a service returned, and notes about them.
    """
    notes: list[str] = []
    histories = users.cases.history
    served = {}
    for file, candidates in users.given.items():
        name = file.stem if file.stem not in ranked else str(file)
        ranked[name] = candidates.ranked
        seen = analysis.hit_matrix(candidates.ranked, histories)
        if exclude_history and seen.any():
            ranked[name] = _without(candidates.ranked, seen)
            notes.append(
                f"{100 * seen.sum() / (candidates.ranked >= 0).sum():.1f} % of the places of {name} had items of the "
                "history. They are left out here as in the other lists, so its lists are shorter: ask for them with "
                "recall-client's --exclude-history."
            )
        elif not exclude_history and not seen.any() and analysis.hit_matrix(ranked[EXACT], histories).any():
            notes.append(
                f"{name} has no item of anybody's history, unlike the other lists. If it was asked for with "
                "--exclude-history, give --exclude-history here too."
            )
        if candidates.served:
            served[name] = candidates.served
    return served, notes


def _without(ranked: Int64, seen: Hits) -> Int64:
    """Return lists without the places in `seen`, [U, N] bool. Later items move up: [U, N], -1 at the end."""
    order = np.argsort(seen, axis=1, kind="stable")
    left = np.where(seen, -1, ranked)
    return np.take_along_axis(left, order, axis=1)


def _baselines(asked: _Asked, valid: EvalCases | None) -> tuple[dict[str, Int64], list[str]]:
    """Make the lists of the baselines. Return them with sentences that a reader needs to know about them."""
    model, histories, users = asked.model, asked.cases.history, len(asked.cases)
    popular = baselines.most_popular(model.vocabulary, model.weights.popularity, histories, asked.top_n, asked.left_out)
    ranked, notes = {"most popular": popular}, []
    train = read_train(asked.settings.runner.train_data_dir)
    pairs = baselines.Pairs.of(model.vocabulary, train, asked.settings.runner.seed)
    for name, method in (("item co-occurrence", baselines.co_occurrence), ("item-kNN, cosine", baselines.item_knn)):
        asked.on_step(name, 0, users)
        ranked[name] = method(pairs, histories, asked.top_n, asked.batch, asked.left_out)
        asked.on_step(name, users, users)
    if len(model.vocabulary) <= MAX_ITEMS:
        ranked["EASE"], note = _ease(asked, pairs, valid)
        notes.append(note)
    else:
        notes.append(
            f"EASE is left out: it needs a matrix of items by items, and there are {len(model.vocabulary):,}; up to "
            f"{MAX_ITEMS:,} are compared with it."
        )
    if pairs.counted < len(train):
        notes.append(
            f"Item co-occurrence, item-kNN and EASE count {pairs.counted:,} of {len(train):,} training users, drawn at "
            f"random: all have more than {baselines.MAX_PAIRS:,} pairs of items."
        )
    return ranked, notes


def _ease(asked: _Asked, pairs: baselines.Pairs, valid: EvalCases | None) -> tuple[Int64, str]:
    """Make the lists of EASE. Return them with a sentence that says how its settings were chosen."""
    found = ease(
        pairs,
        valid,
        asked.cases.history,
        asked.top_n,
        asked.batch,
        asked.left_out is not None,
        lambda done, of: asked.on_step("EASE, matrices", done, of),
    )
    how = f"chosen by {len(valid):,} validation users" if valid else "not chosen, for there are no validation users"
    return found.ranked, f"EASE has lambda {found.regularisation:g} and recency {found.recency:g}, {how}."


def _exact(asked: _Asked, name: EncoderName) -> tuple[Float32, dict[str, Int64]]:
    """Return the interest vectors, [U, K, D], and lists of the best items, [U, top_n] item ids."""
    model, batch, users = asked.model, asked.batch, len(asked.cases)
    encoder = encoder_maker(name)(model)
    check_golden(encoder, model)
    vectors = encode_histories(encoder, model.vocabulary, asked.cases.history, model.hyper_parameters.maxlen, batch)
    rows, alone = np.zeros((users, asked.top_n), np.int64), np.zeros((users, asked.top_n), np.int64)
    for start in range(0, users, batch):
        asked.on_step(EXACT, start, users)
        end = start + batch
        left_out = asked.left_out.part(start, end) if asked.left_out else None
        near = asked.near.part(start, end) if asked.near else None
        of_batch = vectors[start:end], model.weights.item_embedding, asked.top_n, batch, left_out
        rows[start:end] = nearest_items(*of_batch, near)
        if asked.near:
            alone[start:end] = nearest_items(*of_batch)
    asked.on_step(EXACT, users, users)
    found = {EXACT: item_ids(model.vocabulary, rows)}
    return vectors, found | ({ALONE: item_ids(model.vocabulary, alone)} if asked.near else {})
