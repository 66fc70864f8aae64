"""`python -m mind.tune`: the space is checked, trials are chosen on validation, and a search outlives its process."""

import re
import threading
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from mind.artifact import load_artifact
from mind.choice.search import Search
from mind.choice.space import FIXED, Choice, Range, as_overrides, check_space, parse_space, unsearched
from mind.choice.study import Outcome, Study, best_of
from mind.choice.trials import Blocked, EpochDone, Failed, Message, Pruned, Worker, Written, serve
from mind.config import Config, Effect, load_config, runner_keys
from mind.data.paddlerec import write_eval, write_train
from mind.errors import ArtifactError, ConfigError, DataError
from tests.commands import run_here
from tests.mind.test_train import CONFIG
from tests.mind.test_training import clustered, held_out
from tests.server.test_metrics import sequences

DIM, RATE = "hyper_parameters.embedding_dim", "hyper_parameters.optimizer.learning_rate"
SPACE = parse_space([f"{DIM}=[8, 16, 32]", f"{RATE}=0.001..0.05", "hyper_parameters.dropout=0.0..0.5"])


@pytest.mark.parametrize(
    ("text", "values", "log"),
    [
        ("[32, 64]", Choice((32, 64)), None),
        ("[relu, none]", Choice(("relu", "none")), None),
        ("[true, false]", Choice((True, False)), None),
        ("2..8", Range(2, 8), False),
        ("0.1..0.5", Range(0.1, 0.5), False),
        ("0.001..0.01", Range(0.001, 0.01), True),
        ("1e-4..1", Range(1e-4, 1.0), True),
        ("0..0.9", Range(0.0, 0.9), False),
    ],
)
def test_lists_and_ranges(text: str, values: Choice | Range, log: bool | None) -> None:
    (found,) = parse_space([f"a.b={text}"]).values()
    assert found == values
    if isinstance(values, Range) and isinstance(found, Range):
        assert (found.log, found.whole) == (log, isinstance(values.low, int))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (RATE, "expected KEY=[a, b, c] or KEY=low..high"),
        (f"{RATE}=0.1", "expected KEY=[a, b, c] or KEY=low..high"),
        (f"{RATE}=", "expected KEY=[a, b, c] or KEY=low..high"),
        (f"{RATE}=[]", "the list is empty"),
        (f"{RATE}=[1, 2", "the list is not YAML"),
        (f"{RATE}=[1, 1]", "a value is given twice"),
        (f"{RATE}=[2020-01-01]", "date is not JSON serializable"),
        (f"{RATE}=0.5..0.1", "goes from a number to a larger one"),
        (f"{RATE}=1..1", "goes from a number to a larger one"),
        (f"{RATE}=1..inf", "goes from a number to a larger one"),
        (f"{RATE}=nan..1", "goes from a number to a larger one"),
        (f"{RATE}=small..1", "the ends of a range are numbers"),
        (f"{RATE}=0..0.1", "learning_rate: Input should be greater than 0 (value: 0.0)"),
        ("hyper_parameters.dropout=0.1..1.0", "dropout: Input should be less than 1"),
        ("hyper_parameters.maxlen=10.0..20.0", "maxlen: Input should be a valid integer"),
        (f"{DIM}=[16, many]", "embedding_dim: Input should be a valid integer"),
        ("hyper_parameters.embeding_dim=[16]", "hyper_parameters.embeding_dim: unknown key"),
        ("hyper_parameters.residual=[true, maybe]", "residual: Input should be a valid boolean"),
        ("hyper_parameters.hidden_size=[16, 32]", f"always equals {DIM}"),
        ("runner.model_save_path=[a, b]", "it is not a setting of the model"),
        ("hyper_parameters.pow_p=1..3", "hyper_parameters.pow_p is also overridden by -o"),
    ],
)
def test_spaces_that_cannot_be_searched(spec: str, says: str) -> None:
    overrides = ["hyper_parameters.pow_p=2"]
    with pytest.raises(ConfigError) as caught:
        check_space(parse_space([spec]), CONFIG, overrides)
    assert says in str(caught.value) and str(caught.value).startswith("--space ")


def test_a_space_names_each_key_once_and_at_least_one() -> None:
    with pytest.raises(ConfigError, match="is given twice"):
        parse_space([f"{DIM}=[8]", f"{DIM}=[16]"])
    with pytest.raises(ConfigError, match="nothing to search"):
        check_space({}, CONFIG, [])


def test_hidden_size_follows_embedding_dim() -> None:
    settings = load_config(CONFIG, as_overrides({DIM: 16, RATE: 1e-05, "hyper_parameters.projection": "relu"}))
    hyper = settings.hyper_parameters
    assert (hyper.embedding_dim, hyper.hidden_size, hyper.projection) == (16, 16, "relu")
    assert hyper.optimizer.learning_rate == 1e-05
    same = unsearched(settings, SPACE)
    assert "hyper_parameters.hidden_size" not in same and RATE not in same and "runner.model_save_path" not in same
    assert same["hyper_parameters.optimizer.decay"] == "linear" and same["runner.seed"] == 2024


def test_lists_of_lists_survive_the_study(tmp_path: Path) -> None:
    key = "hyper_parameters.item_features"
    space = parse_space([f"{key}=[[genres], [genres, year], []]"])
    overrides = ["runner.item_features_file=items.csv"]
    check_space(space, CONFIG, overrides)
    study = Study(tmp_path / "study.jsonl", {}, space, seed=1)
    tried = {
        load_config(CONFIG, overrides + as_overrides(study.ask().params)).hyper_parameters.item_features
        for _ in range(20)
    }
    study.close()
    assert tried == {("genres",), ("genres", "year"), ()}


def test_what_training_does_not_depend_on_cannot_be_searched() -> None:
    assert {f"runner.{key}" for key in runner_keys(Effect.NOTHING)} <= FIXED
    assert {"runner.train_data_dir", "runner.model_save_path", "runner.print_interval"} <= FIXED
    assert "runner.seed" not in FIXED and "runner.epochs" not in FIXED


Train = Callable[[Config], Iterator[Message]]


def worker(train: Train) -> Worker:
    """A thread in place of a process, and a function in place of training."""
    ours, theirs = Pipe()

    def work() -> None:
        with theirs:
            try:
                while True:
                    for message in train(theirs.recv()):
                        theirs.send(message)
                        if isinstance(message, EpochDone) and theirs.recv():
                            theirs.send(Pruned())
                            break
            except (EOFError, OSError, KeyboardInterrupt):
                return

    threading.Thread(target=work, daemon=True).start()
    return Worker(ours, ours.close)


def good(settings: Config) -> Iterator[Message]:
    """The larger the better; a model is named by its settings."""
    hyper = settings.hyper_parameters
    value = hyper.embedding_dim / 100 + hyper.optimizer.learning_rate
    for epoch in (1, 2, 3):
        yield EpochDone(epoch, {"recall@50": value * epoch / 3})
    yield Written(f"{hyper.embedding_dim}-{hyper.optimizer.learning_rate:.4f}", {"recall@50": value})


def search(
    file: Path, trials: int, train: Train = good, *, space: str | None = None, jobs: int = 1, stop_after: int = 10**9
) -> list[Outcome]:
    """Run a search without training; gives the outcomes that are new."""
    searched = parse_space(space.split(" ")) if space else SPACE
    study = Study(file, {"metric": "recall@50", "settings": {"runner.epochs": 3}}, searched, seed=1)
    new: list[Outcome] = []

    def on_end(outcome: Outcome) -> None:
        new.append(outcome)
        if len(new) >= stop_after:
            raise KeyboardInterrupt

    configure = lambda chosen: load_config(CONFIG, as_overrides(chosen))  # noqa: E731
    try:
        Search(study, "recall@50", configure, start_worker=lambda: worker(train)).run(trials, jobs, on_end=on_end)
    except KeyboardInterrupt:
        pass
    finally:
        study.close()
    return new


def test_trials_that_are_worse_than_the_median_are_stopped(tmp_path: Path) -> None:
    outcomes = search(tmp_path / "study.jsonl", 30)
    assert len(outcomes) == 30 and {one.ended for one in outcomes} == {"complete", "pruned"}
    assert all(one.ended == "complete" for one in outcomes[:5])
    pruned = next(one for one in outcomes if one.ended == "pruned")
    assert pruned.note == "worse than the median after epoch 2"
    best = best_of(outcomes)
    assert best[0].settings[DIM] == 32 and best[0].value == max(one.value or 0 for one in outcomes)
    assert best[0].settings[RATE] > 0.02  # the search found where it is best
    assert not list(tmp_path.glob("*.lock"))


@pytest.mark.parametrize("stop_after", [1, 3, 11])
def test_a_stopped_search_goes_on_as_if_it_had_not_been(tmp_path: Path, stop_after: int) -> None:
    whole = search(tmp_path / "whole.jsonl", 14)
    parts = search(tmp_path / "parts.jsonl", 14, stop_after=stop_after)
    parts += search(tmp_path / "parts.jsonl", 14)
    assert [one.settings for one in parts] == [one.settings for one in whole]
    assert [(one.ended, one.value) for one in parts] == [(one.ended, one.value) for one in whole]
    assert search(tmp_path / "parts.jsonl", 14) == []
    assert len(search(tmp_path / "parts.jsonl", 16)) == 2


def test_a_trial_in_the_middle_of_which_the_process_died_is_run_again(tmp_path: Path) -> None:
    file = tmp_path / "study.jsonl"
    study = Study(file, {}, SPACE, seed=1)
    first, second = study.ask().params, study.ask().params
    study.close()  # as kill -9 leaves it: two trials running, half a line, Optuna's lock
    with file.open("a") as log:
        log.write('{"op_code": 6, "wor')
    (tmp_path / "study.jsonl.lock").symlink_to(file)
    again = Study(file, {}, SPACE, seed=1)
    assert again.interrupted == 2 and again.outcomes() == []
    assert [again.ask().params, again.ask().params] == [first, second]
    again.close()
    third = Study(file, {}, SPACE, seed=1)  # and once more
    assert third.interrupted == 2 and [third.ask().params, third.ask().params] == [first, second]
    third.close()


def test_what_failed_is_noted_and_the_search_goes_on(tmp_path: Path) -> None:
    def train(settings: Config) -> Iterator[Message]:
        match settings.hyper_parameters.embedding_dim:
            case 8:
                yield Failed("the loss became nan")
            case 16:
                raise EOFError  # the process dies
            case _:
                yield from good(settings)

    outcomes = search(tmp_path / "study.jsonl", 9, train)
    by_dim = {one.settings[DIM]: one for one in outcomes}
    assert (by_dim[8].ended, by_dim[8].note) == ("failed", "the loss became nan")
    assert by_dim[16].ended == "failed" and "died" in by_dim[16].note
    assert by_dim[32].ended == "complete"


def test_settings_that_were_tried_are_not_trained_again(tmp_path: Path) -> None:
    trained: list[int] = []

    def train(settings: Config) -> Iterator[Message]:
        trained.append(settings.hyper_parameters.embedding_dim)
        return good(settings)

    outcomes = search(tmp_path / "study.jsonl", 8, train, space=f"{DIM}=[8,16]")
    assert sorted(trained) == [8, 16] and len(outcomes) == 8
    assert sum(one.repeats is not None for one in outcomes) == 6 and len(best_of(outcomes)) == 2


def test_settings_in_training_are_waited_for(tmp_path: Path) -> None:
    trained: list[int] = []

    def train(settings: Config) -> Iterator[Message]:
        trained.append(settings.hyper_parameters.embedding_dim)
        return good(settings)

    only = f"{DIM}=[8]"
    outcomes = search(tmp_path / "study.jsonl", 4, train, space=only, jobs=3)
    assert trained == [8] and [one.repeats for one in outcomes] == [None, 0, 0, 0]
    assert len({(one.ended, one.value, one.note) for one in outcomes}) == 1
    parts = search(tmp_path / "parts.jsonl", 4, space=only, jobs=3, stop_after=1)  # two still wait
    parts += search(tmp_path / "parts.jsonl", 4, space=only, jobs=3)
    assert [one.repeats for one in parts] == [None, 0, 0, 0]


def test_a_full_disk_ends_the_search_and_keeps_the_trial_for_later(tmp_path: Path) -> None:
    file = tmp_path / "study.jsonl"
    with pytest.raises(ArtifactError, match="No space left"):
        search(file, 3, lambda _: iter([Blocked("No space left on device")]))
    assert [one.settings for one in search(file, 2)] == [one.settings for one in search(tmp_path / "other.jsonl", 2)]


def test_several_trials_at_a_time(tmp_path: Path) -> None:
    outcomes = search(tmp_path / "study.jsonl", 12, jobs=3)
    assert sorted(one.number for one in outcomes) == list(range(12))


@pytest.mark.parametrize(
    ("identity", "space", "says"),
    [
        ({"metric": "ndcg@50"}, SPACE, "metric was recall@50, is ndcg@50"),
        ({"data": {"digest": "bb"}}, SPACE, "data digest was aa, is bb"),
        ({"settings": {"runner.epochs": 9}}, SPACE, "settings runner.epochs was 3, is 9"),
        ({}, SPACE | {DIM: Choice((8, 64))}, f"space {DIM} was [8, 16, 32], is [8, 64]"),
        ({}, {DIM: SPACE[DIM], RATE: SPACE[RATE]}, "space hyper_parameters.dropout was 0.0..0.5, is absent"),
    ],
)
def test_a_study_of_something_else_is_refused(tmp_path: Path, identity: Any, space: Any, says: str) -> None:
    same: dict[str, Any] = {"metric": "recall@50", "data": {"digest": "aa"}, "settings": {"runner.epochs": 3}}
    Study(tmp_path / "study.jsonl", same, SPACE, seed=1).close()
    with pytest.raises(ConfigError, match="this search has other settings") as caught:
        Study(tmp_path / "study.jsonl", same | identity, space, seed=1)
    assert says in str(caught.value)


def test_one_process_at_a_time_and_no_foreign_files(tmp_path: Path) -> None:
    file = tmp_path / "study.jsonl"
    study = Study(file, {}, SPACE, seed=1)
    with pytest.raises(ConfigError, match="another search is using this file"):
        Study(file, {}, SPACE, seed=1)
    study.close()
    for content in ("no study", "not\na\nstudy\n", '{"a": 1}\n', '{"op_code":99}\n'):
        (tmp_path / "poem.txt").write_text(content)
        with pytest.raises(DataError, match=r"poem\.txt: not the file of a search"):
            Study(tmp_path / "poem.txt", {}, SPACE, seed=1)
        assert (tmp_path / "poem.txt").read_text() == content
    with pytest.raises(DataError, match="cannot be written"):
        Study(tmp_path, {}, SPACE, seed=1)


def short_runs(directory: Path) -> list[str]:
    """Write tiny data, and give the overrides that train on them; the test users do not exist, so nobody reads them."""
    write_train(directory / "train" / "train.txt", sequences(*clustered(300, 1)))
    write_eval(directory / "valid" / "valid.txt", held_out(40, 2))
    keys = {
        "train_data_dir": directory / "train",
        "valid_data_dir": directory / "valid",
        "test_data_dir": "/nowhere",
        "epochs": 2,
        "train_batch_size": 64,
    }
    return [f"runner.{key}={value}" for key, value in keys.items()]


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return short_runs(tmp_path_factory.mktemp("data"))


def talk(connection: Connection, settings: Config, stop_after: int = 99) -> list[Message]:
    """What a worker says about one trial."""
    connection.send(settings)
    said: list[Message] = []
    while not said or isinstance(said[-1], EpochDone):
        said.append(connection.recv())
        if isinstance(said[-1], EpochDone):
            connection.send(said[-1].number >= stop_after)
    return said


def test_a_worker_trains_and_writes_the_model(tmp_path: Path, overrides: list[str]) -> None:
    ours, theirs = Pipe()
    thread = threading.Thread(target=serve, args=(theirs,))
    thread.start()
    save = f"runner.model_save_path={tmp_path}"
    settings = load_config(CONFIG, [*overrides, save, *as_overrides({DIM: 8, RATE: 0.02})])
    *epochs, written = talk(ours, settings)
    assert [one.number for one in epochs if isinstance(one, EpochDone)] == [1, 2]
    assert isinstance(written, Written)
    artifact = load_artifact(tmp_path / written.model_version)
    assert artifact.metrics["valid"] == written.metrics and artifact.hyper_parameters.embedding_dim == 8
    assert artifact.metrics["runner"]["seed"] == 2024 and set(artifact.data["valid"]) == {"valid.txt"}

    assert talk(ours, load_config(CONFIG, [*overrides, save, "runner.seed=1"]), stop_after=1)[1:] == [Pruned()]
    mad = load_config(CONFIG, [*overrides, save, f"{RATE}=1e30"])
    assert re.match("the loss became nan", talk(ours, mad)[-1].reason)  # type: ignore[union-attr]
    assert [path.name for path in tmp_path.iterdir()] == [written.model_version]  # no checkpoint is left
    ours.close()
    thread.join(timeout=10)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing to search: give --space at least once"),
        (["--space", f"{DIM}=[8]", "--metric", "mrr"], "--metric mrr: expected one of recall@20"),
        (["--space", f"{DIM}=[8]", "-o", "runner.valid_data_dir=null"], "a search needs validation data"),
    ],
)
def test_one_clear_line_and_no_traceback(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = run_here("mind.tune", "-m", CONFIG, "-o", f"runner.model_save_path={tmp_path}", *arguments)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and says in done.stderr
    assert "Traceback" not in done.stderr and list(tmp_path.iterdir()) == []
