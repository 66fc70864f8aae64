"""The ranked lists that an evaluation compares: a model's by exact search, three baselines', and given ones.

Knows nothing of the command line.
"""

import numpy as np

from mind.artifact import Artifact, Float32
from mind.config import Config
from mind.data.paddlerec import read_train
from mind.encoder import check_golden
from mind.encoders import EncoderName, encoder_maker
from mind.evaluation import baselines
from mind.evaluation.candidates import Served
from mind.evaluation.compared import Compared
from mind.evaluation.evaluate import EXACT, Lists, OnStep
from mind.evaluation.retrieval import encode_histories, item_ids, nearest_items
from mind.sequences import EvalCases, Int64


def make_lists(
    settings: Config,
    model: Artifact,
    encoder: EncoderName,
    users: Compared,
    top_n: int,
    on_step: OnStep,
) -> Lists:
    """All lists that an evaluation compares.

    Args:
        settings: names the training data, which the baselines count.
        model: whose interests are searched with, and whose item popularity ranks the most popular items.
        encoder: what encodes the histories.
        users: the test users that are compared, and the lists that were made elsewhere for them; the name of a file
            without its ending becomes the list's.
        top_n: items of a list.
        on_step: told of progress.
    """
    cases = users.cases
    ranked, notes = _baselines(settings, model, cases, top_n, on_step)
    baselines = tuple(ranked)
    vectors, ranked[EXACT] = _exact(settings, model, encoder, cases, top_n, on_step)
    served = _add_given(ranked, users)
    return Lists(ranked, baselines, vectors, served, users.left_out, users.notes + notes)


def lists_beside_exact(
    settings: Config, model: Artifact, encoder: EncoderName, users: Compared, top_n: int, on_step: OnStep
) -> Lists:
    """The lists that were made elsewhere and those of exact search, without baselines; as `make_lists`."""
    ranked: dict[str, Int64] = {}
    vectors, ranked[EXACT] = _exact(settings, model, encoder, users.cases, top_n, on_step)
    return Lists(ranked, (), vectors, _add_given(ranked, users), users.left_out, users.notes)


def _add_given(ranked: dict[str, Int64], users: Compared) -> dict[str, Served]:
    """Add the lists that were made elsewhere; tell which release gave those that a service gave."""
    served = {}
    for file, candidates in users.given.items():
        name = file.stem if file.stem not in ranked else str(file)
        ranked[name] = candidates.ranked
        if candidates.served:
            served[name] = candidates.served
    return served


def _baselines(
    settings: Config, model: Artifact, cases: EvalCases, top_n: int, on_step: OnStep
) -> tuple[dict[str, Int64], list[str]]:
    """The lists of the baselines, and sentences that a reader should know about them."""
    vocabulary, users = model.vocabulary, len(cases)
    ranked = {"most popular": baselines.most_popular(vocabulary, model.weights.popularity, cases.history, top_n)}
    train = read_train(settings.runner.train_data_dir)
    pairs = baselines.Pairs.of(vocabulary, train, settings.runner.seed)
    for name, method in (("item co-occurrence", baselines.co_occurrence), ("item-kNN, cosine", baselines.item_knn)):
        on_step(name, 0, users)
        ranked[name] = method(pairs, cases.history, top_n, settings.runner.infer_batch_size)
        on_step(name, users, users)
    if pairs.counted == len(train):
        return ranked, []
    return ranked, [
        f"Item co-occurrence and item-kNN count {pairs.counted:,} of {len(train):,} training users, drawn at random: "
        f"all have more than {baselines.MAX_PAIRS:,} pairs of items."
    ]


def _exact(
    settings: Config, model: Artifact, name: EncoderName, cases: EvalCases, top_n: int, on_step: OnStep
) -> tuple[Float32, Int64]:
    """Interest vectors, [U, K, D], and the nearest items to them, [U, top_n] item ids."""
    encoder = encoder_maker(name)(model)
    check_golden(encoder, model)
    batch, users = settings.runner.infer_batch_size, len(cases)
    vectors = encode_histories(encoder, model.vocabulary, cases.history, model.hyper_parameters.maxlen, batch)
    rows = np.zeros((users, top_n), np.int64)
    for start in range(0, users, batch):
        on_step(EXACT, start, users)
        some = slice(start, start + batch)
        rows[some] = nearest_items(vectors[some], model.weights.item_embedding, top_n, batch)
    on_step(EXACT, users, users)
    return vectors, item_ids(model.vocabulary, rows)
