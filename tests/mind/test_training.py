"""Training learns what there is to learn, keeps the best epoch, and gives the same model for the same seed."""

import json
from pathlib import Path

import numpy as np
import pytest

from mind.artifact import Artifact
from mind.config import Config, HyperParameters, Runner
from mind.encoder import NumpyEncoder, check_golden
from mind.errors import ArtifactError, ConfigError, DataError
from mind.sequences import EvalCases, Sequences
from mind.training.checkpoint import Checkpoint
from mind.training.loop import GOLDEN_HISTORIES, Epoch, Trained, train
from mind.training.parallel import Ranks
from mind.training.sampler import TrainingSampler, log_frequency
from mind.vocabulary import Vocabulary
from tests.server.test_metrics import sequences

GROUPS, PER_GROUP = 10, 20


def clustered(users: int, seed: int) -> list[list[int]]:
    """Every user clicks within one or two of ten groups of items; ids are far apart and not ordered by group."""
    rng = np.random.default_rng(seed)
    item_id = np.random.default_rng(99).permutation(GROUPS * PER_GROUP).reshape(GROUPS, PER_GROUP) * 1_000 + 10**12
    return [
        item_id[rng.choice(rng.choice(GROUPS, 2), 12), rng.integers(0, PER_GROUP, 12)].tolist() for _ in range(users)
    ]


def held_out(users: int, seed: int) -> EvalCases:
    rows = clustered(users, seed)
    return EvalCases(sequences(*(row[:8] for row in rows)), sequences(*(row[8:] for row in rows)))


def config(**changes: object) -> Config:
    hyper = {"embedding_dim": 16, "hidden_size": 16, "maxlen": 8, "neg_samples": 100} | {
        key: value for key, value in changes.items() if key in ("item_count", "num_interests")
    }
    runner = {"epochs": 4, "train_batch_size": 64, "seed": 7} | {
        key: value for key, value in changes.items() if key in Runner.model_fields
    }
    hyper["optimizer"] = {"learning_rate": 0.02}
    return Config.model_validate({"runner": runner, "hyper_parameters": hyper})


Step = tuple[int, int, int, float | None]


def run(settings: Config, valid: EvalCases | None = None) -> tuple[Trained, list[Epoch], list[Step]]:
    epochs: list[Epoch] = []
    steps: list[Step] = []
    trained = train(settings, sequences(*clustered(300, 1)), valid, lambda *step: steps.append(step), epochs.append)
    return trained, epochs, steps


def test_it_learns_the_groups_and_keeps_the_best_epoch() -> None:
    trained, epochs, steps = run(config(), held_out(100, 2))
    assert trained.best.metrics["recall@50"] > 0.7  # 50 of 200 items at random would be 0.25
    assert trained.best.metrics["recall@50"] == max(epoch.metrics["recall@50"] for epoch in epochs)
    assert epochs[-1].loss < epochs[0].loss
    last_step = -(-300 * 11 // 64)
    assert steps[-1][:3] == (len(epochs), last_step, last_step)
    hyper = config().hyper_parameters
    check_golden(NumpyEncoder(trained.weights, hyper), Artifact("test", hyper, trained.weights))
    assert len(trained.weights.golden_seq_len) == GOLDEN_HISTORIES
    assert trained.weights.popularity.sum() == 300 * 12


def test_the_steps_of_an_epoch_are_told_before_the_first_is_done() -> None:
    _, epochs, steps = run(config(epochs=2, print_interval=1_000))
    total = -(-300 * 11 // 64)
    assert [step[:3] for step in steps] == [(1, 0, total), (1, total, total), (2, 0, total), (2, total, total)]
    assert [step[3] for step in steps] == [None, pytest.approx(epochs[0].loss), None, pytest.approx(epochs[1].loss)]


def test_held_out_users_whom_the_model_knows_nothing_of_do_not_count() -> None:
    known = held_out(30, 2)
    strangers = EvalCases(sequences([], [5], [6, 7]), sequences([1], [2], [3]))
    rows = [known.history[user].tolist() for user in range(30)], [known.target[user].tolist() for user in range(30)]
    mixed = EvalCases(sequences([], [5], *rows[0]), sequences([1], [2], *rows[1]))
    alone, together = run(config(epochs=1), known)[0], run(config(epochs=1), mixed)[0]
    assert together.best.metrics == alone.best.metrics and together.valid_users == alone.valid_users == 30
    with pytest.raises(DataError, match="none of 3 validation users has an item of the training data"):
        run(config(epochs=1), strangers)


def test_validation_leaves_out_the_history_if_it_shall() -> None:
    rows = clustered(30, 2)
    again = EvalCases(sequences(*(row[:8] for row in rows)), sequences(*(row[:2] for row in rows)))
    settings, data = config(epochs=1), sequences(*clustered(300, 1))
    kept = train(settings, data, again).best.metrics["recall@50"]
    assert kept > 0.5 and train(settings, data, again, exclude_history=True).best.metrics["recall@50"] == 0


def test_the_same_seed_gives_the_same_weights() -> None:
    one, other, third = (run(config(epochs=1, seed=seed))[0].weights for seed in (7, 7, 8))
    np.testing.assert_array_equal(one.item_embedding, other.item_embedding)
    assert (one.item_embedding != third.item_embedding).any()


def test_it_stops_when_patience_runs_out() -> None:
    _, epochs, _ = run(config(epochs=40, patience=1), held_out(30, 2))
    assert len(epochs) < 40
    assert epochs[-1].metrics["recall@50"] <= epochs[-2].metrics["recall@50"]


class StoppedError(Exception):
    """Somebody pulled the plug."""


@pytest.mark.parametrize("stop_at", [(1, 20), (2, 40), (3, 10)])
def test_a_run_taken_up_at_a_checkpoint_ends_as_if_it_had_not_stopped(tmp_path, stop_at: tuple[int, int]) -> None:  # type: ignore[no-untyped-def]
    settings = config(epochs=3, print_interval=5, checkpoint_interval_s=0)
    rows, valid = sequences(*clustered(300, 1)), held_out(30, 2)
    whole = train(settings, rows, valid)

    def pull_the_plug(epoch: int, step: int, steps: int, loss: float | None) -> None:
        if (epoch, step) == stop_at:
            raise StoppedError

    checkpoint = Checkpoint(tmp_path, "run")
    with pytest.raises(StoppedError):
        train(settings, rows, valid, pull_the_plug, checkpoint=checkpoint)
    steps: list[Step] = []
    resumed = train(settings, rows, valid, lambda *step: steps.append(step), checkpoint=checkpoint)
    taken_up, first = steps[:2]  # what came after the last checkpoint is done again, nothing before it
    assert taken_up == (stop_at[0], stop_at[1] - 5, taken_up[2], None) and first[:2] == stop_at
    assert [(e.number, e.loss, e.metrics) for e in resumed.epochs] == [
        (e.number, e.loss, e.metrics) for e in whole.epochs
    ]
    for name, tensor in whole.weights.tensors().items():
        np.testing.assert_array_equal(tensor, resumed.weights.tensors()[name])
    again = train(settings, rows, valid, pull_the_plug, checkpoint=checkpoint)  # done, and nothing is trained anew
    np.testing.assert_array_equal(again.weights.item_embedding, whole.weights.item_embedding)
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


def whole_and_resumed(file: Path) -> None:
    """What each of two processes does for the next test: train, and train with a stop; rank 0 notes how it went.

    The 24 full batches of an epoch leave one example, too few for two.
    """
    ranks, every = Ranks.join(use_gpu=False), sequences(*clustered(299, 1))
    rows = every.take(np.array_split(np.arange(len(every)), ranks.world)[ranks.rank])
    settings = config(epochs=2, train_batch_size=137, print_interval=5, checkpoint_interval_s=0)
    checkpoint, steps = Checkpoint(file.parent, "run"), []

    def pull_the_plug(epoch: int, step: int, steps: int, loss: float | None) -> None:
        if (epoch, step) == (2, 15):
            raise StoppedError

    whole = train(settings, rows, None, lambda *step: steps.append(step[:3]), ranks=ranks)
    with pytest.raises(StoppedError):
        train(settings, rows, None, pull_the_plug, checkpoint=checkpoint, ranks=ranks)
    resumed = train(settings, rows, None, checkpoint=checkpoint, ranks=ranks)
    if ranks.leads:
        losses = [[epoch.loss for epoch in trained.epochs] for trained in (whole, resumed)]
        file.write_text(json.dumps({"losses": losses, "last_step": steps[-1]}))


def test_fewer_rows_in_a_batch_than_processes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"runner\.train_batch_size is 2, too few for 3 processes"):
        train(config(train_batch_size=2), sequences(*clustered(300, 1)), None, ranks=Ranks(0, 3))


def test_a_damaged_checkpoint_is_named_and_not_used(tmp_path) -> None:  # type: ignore[no-untyped-def]
    checkpoint = Checkpoint(tmp_path, "run")
    checkpoint.path.write_bytes(b"not a checkpoint")
    with pytest.raises(ArtifactError, match=r"checkpoint-run.npz: damaged .* delete it"):
        train(config(), sequences(*clustered(300, 1)), None, checkpoint=checkpoint)
    unwanted = Checkpoint(tmp_path, "run", resume=False)
    assert unwanted.load() is None


def test_two_processes_at_one_run_keep_their_checkpoints_apart(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    mine, others = Checkpoint(tmp_path, "run"), Checkpoint(tmp_path, "run")
    write = np.savez

    def meanwhile(*arguments, **arrays) -> None:  # type: ignore[no-untyped-def]
        with monkeypatch.context() as alone:
            alone.setattr(np, "savez", write)
            others.save({}, {"step": 1})
        write(*arguments, **arrays)

    monkeypatch.setattr(np, "savez", meanwhile)
    mine.save({}, {"step": 2})
    assert others.load() == ({}, {"step": 2})
    (tmp_path / ".checkpoint-run.npz.0123.incomplete").touch()  # of a process that was killed
    mine.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_pickle_in_a_checkpoint_is_not_read(tmp_path) -> None:  # type: ignore[no-untyped-def]
    checkpoint = Checkpoint(tmp_path, "run")
    np.savez(checkpoint.path, allow_pickle=True, weights=np.array([print], dtype=object))
    with pytest.raises(ArtifactError, match="allow_pickle=False"):
        checkpoint.load()


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    settings = config()
    hyper = settings.hyper_parameters
    faster = hyper.model_copy(update={"optimizer": hyper.optimizer.model_copy(update={"learning_rate": 1e30})})
    with pytest.raises(ConfigError, match=r"learning_rate is 1e\+30, try less"):
        run(settings.model_copy(update={"hyper_parameters": faster}))


def test_without_validation_the_last_epoch_is_kept() -> None:
    trained, epochs, _ = run(config(epochs=2))
    assert trained.best is epochs[-1] and trained.best.metrics == {}


def test_item_count_is_checked() -> None:
    with pytest.raises(DataError, match="item_count is 7, the training data have 200 items"):
        run(config(item_count=7))


def sampler(rows: Sequences, **sizes: int) -> TrainingSampler:
    batch_size, world = sizes.pop("batch_size", 2), sizes.pop("world", 1)
    hyper = HyperParameters(**({"maxlen": 3} | sizes))  # type: ignore[arg-type]
    return TrainingSampler(rows, Vocabulary(np.unique(rows.item_id)), hyper, batch_size, 0, world)


def test_every_position_but_the_first_is_a_target_with_what_came_before() -> None:
    examples = sampler(sequences([10, 20, 30, 40, 50], [20, 10]))
    batch = examples.batch(np.arange(examples.examples), [0])
    assert batch.candidates.tolist() == [2, 3, 4, 5, 1]
    assert batch.hist_index.tolist() == [[1, 0, 0], [1, 2, 0], [1, 2, 3], [2, 3, 4], [2, 0, 0]]
    assert batch.seq_len.tolist() == [1, 2, 3, 3, 1]


def test_golden_histories_are_the_newest_of_users() -> None:
    examples = sampler(sequences([10], [10, 20, 30, 40, 50], [30], [20, 10]))  # two users have nothing to predict
    batch = examples.latest(5, np.random.default_rng(0))
    assert sorted(batch.hist_index.tolist()) == [[2, 0, 0], [2, 3, 4]]
    assert len(examples.latest(1, np.random.default_rng(0)).seq_len) == 1


def test_an_epoch_is_every_example_once_in_a_new_order() -> None:
    examples = sampler(sequences(list(range(40))), batch_size=7)
    first, second = ([t for batch in examples.epoch(number) for t in batch.candidates] for number in (1, 2))
    assert sorted(first) == sorted(second) == list(range(2, 41))
    assert first != second
    assert examples.steps == len(list(examples.epoch(1))) == 6


def test_a_rest_that_is_too_small_for_all_processes_is_no_step() -> None:
    for batch_size, steps in ((13, 3), (19, 2), (18, 3)):  # 39 examples: none, 1 and 3 are left over
        examples = sampler(sequences(list(range(40))), batch_size=batch_size, world=2)
        assert examples.steps == len(list(examples.epoch(1))) == steps


def test_an_epoch_can_be_taken_up_where_it_was_left() -> None:
    examples = sampler(sequences(list(range(40))), batch_size=7, neg_samples=5)
    whole, rest = list(examples.epoch(3)), list(examples.epoch(3, done=4))
    assert [batch.candidates.tolist() for batch in rest] == [batch.candidates.tolist() for batch in whole[4:]]


def parts_of(rows: list[list[int]], world: int, **sizes: int) -> list[TrainingSampler]:
    """The samplers of processes that have the users one after the other; each is told what the others have."""
    every = sequences(*rows)
    vocabulary, hyper = Vocabulary(np.unique(every.item_id)), HyperParameters(**({"maxlen": 3} | sizes))  # type: ignore[arg-type]
    shares = [every.take(users) for users in np.array_split(np.arange(len(every)), world)]
    alone = [TrainingSampler(share, vocabulary, hyper, 8, 0) for share in shares if share.lengths.max() > 1]
    assert len(alone) == world
    told: list[list[np.ndarray]] = [[], [], []]  # what each process says in its turn, in the order of the calls
    for one in alone:
        told[0].append(np.array([one.examples]))
        told[1].append(np.array([len(one.item_index)]))
    found = []
    for rank, share in enumerate(shares):
        answers = iter(np.concatenate(said) for said in told[:2])
        found.append(TrainingSampler(share, vocabulary, hyper, 8, 0, world, None, rank, lambda _, it=answers: next(it)))
    return found


def test_processes_with_different_users_make_the_batches_of_one() -> None:
    rows = [list(range(start, start + length)) for start, length in ((0, 9), (50, 2), (10, 7), (30, 12), (5, 5))]
    alone = list(sampler(sequences(*rows), batch_size=8, neg_samples=5).epoch(1))
    shares = [list(part.epoch(1)) for part in parts_of(rows, 2, neg_samples=5)]
    assert len(shares[0]) == len(shares[1]) == len(alone) == 4  # 30 examples: the last batch has 6
    for whole, one, other in zip(alone, *shares, strict=True):
        assert (one.seq_len > 0).any() or (other.seq_len > 0).any()
        assert not ((one.seq_len > 0) & (other.seq_len > 0)).any()
        for name in ("hist_index", "seq_len", "candidates"):
            total = getattr(one, name) + getattr(other, name)
            assert total.tolist() == getattr(whole, name).tolist(), name


def test_negatives_come_by_item_frequency() -> None:
    examples = sampler(sequences([10] * 90 + [20] * 10), neg_samples=20_000)
    drawn = examples.batch(np.array([0]), [0]).candidates[1:]
    assert np.mean(drawn == 1) == pytest.approx(0.9, abs=0.01)
    np.testing.assert_allclose(np.exp(log_frequency(np.array([90, 10]))[1:]), [0.9, 0.1], rtol=1e-6)


def test_nothing_to_predict() -> None:
    with pytest.raises(DataError, match="no user has 2 items or more"):
        sampler(sequences([10], [20]))
