"""`python -m mind.infer` as a user types it: what it prints and writes, beside lists that a running service gave."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from clients.cli import app as recall_client
from mind.artifact import load_artifact
from mind.data.paddlerec import digests, read_eval, write_eval, write_train
from mind.encoder import NumpyEncoder
from mind.errors import DataError, MindError
from mind.evaluation import baselines
from mind.evaluation.candidates import read_candidates
from mind.evaluation.retrieval import encode_histories, item_ids, nearest_items
from mind.infer import app
from mind.sequences import EvalCases
from protos.recall.v1 import recall_pb2
from tests import ROOT
from tests.artifacts import make_artifact
from tests.canned_recall import INFO, CannedRecall, running
from tests.commands import run_here
from tests.server.test_metrics import sequences

CANDIDATES = 8


@dataclass(frozen=True)
class Data:
    """A random model, and data that fit it."""

    directory: Path
    artifact: Path

    def options(self) -> list[str]:
        keys = {
            "train_data_dir": self.directory / "train",
            "test_data_dir": self.directory / "test",
            "model_save_path": self.artifact,
        }
        overrides = [word for key, path in keys.items() for word in ("-o", f"runner.{key}={path}")]
        return ["-m", str(ROOT / "mind" / "config.yaml"), *overrides]

    def infer(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_here("mind.infer", *self.options(), *arguments)

    def ask(self, address: str, output: Path, top_k: int) -> Path:
        """Write the lists of a service for the test users to a file, with our command-line client."""
        users = str(self.directory / "test" / "test.txt")
        words = ["recall", "--server", address, "--input", users, "--output", str(output), "--top-k", str(top_k)]
        done = CliRunner().invoke(recall_client, words)
        assert done.exit_code == 0, done.output
        return output


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    directory = tmp_path_factory.mktemp("infer")
    rng = np.random.default_rng(0)
    ids = np.arange(200) * 7 + 1000

    def rows(users: int, least: int, most: int) -> list[list[int]]:
        return [rng.choice(ids, rng.integers(least, most + 1)).tolist() for _ in range(users)]

    write_train(directory / "train" / "train.txt", sequences(*rows(60, 3, 12)))
    histories = sequences([], [5, 6], *rows(28, 1, 15))  # one user is new, one clicked only unknown items
    write_eval(directory / "test" / "test.txt", EvalCases(histories, sequences(*rows(30, 1, 6))))
    return Data(directory, make_artifact(directory / "artifacts"))


class ExactRecall(CannedRecall):
    """A service that answers with exact search, and says so of a model of our choice."""

    def __init__(self, artifact: Path, model_version: str | None = None) -> None:
        super().__init__()
        self.artifact = load_artifact(artifact)
        self.model_version = model_version or self.artifact.model_version

    def Recall(self, request: Any, context: Any) -> recall_pb2.RecallResponse:  # noqa: N802
        model = self.artifact
        histories = sequences(*(list(user.hist_item) for user in request.users))
        encoder = NumpyEncoder(model.weights, model.hyper_parameters)
        vectors = encode_histories(encoder, model.vocabulary, histories, model.hyper_parameters.maxlen, 64)
        found = item_ids(model.vocabulary, nearest_items(vectors, model.weights.item_embedding, request.top_k))
        found[~vectors.any(axis=(1, 2))] = model.weights.item_id[100 : 100 + request.top_k]  # anything else
        results = [
            recall_pb2.UserCandidates(item_ids=ids, scores=[0] * len(ids), interest=[0] * len(ids))
            for ids in found.tolist()
        ]
        return recall_pb2.RecallResponse(
            results=results, model_version=self.model_version, collection=f"items_{self.model_version}"
        )

    def GetServerInfo(self, request: Any, context: Any) -> recall_pb2.GetServerInfoResponse:  # noqa: N802
        info = recall_pb2.GetServerInfoResponse()
        info.CopyFrom(INFO)
        info.model_version = self.model_version
        info.limits.max_top_k = 20
        return info


def table_of(output: str) -> dict[str, list[float]]:
    """The rows of the printed table."""
    rows = re.findall(r"│ ([^│]+?) +│(.*)", output)
    return {name: [float(cell) for cell in re.findall(r"\d+\.\d\d", cells)] for name, cells in rows}


def test_everything_at_once(data: Data, tmp_path: Path) -> None:
    titles = tmp_path / "titles.csv"
    titles.write_text("item_id,title\n" + "".join(f"{1000 + 7 * n},<script>{n}\n" for n in range(200)))
    html, figures = tmp_path / "new" / "report.html", tmp_path / "figures.json"
    with running(ExactRecall(data.artifact)) as address:
        served = data.ask(address, tmp_path / "MIND, served.jsonl", CANDIDATES)
    done = data.infer(
        "-top_n", "3", "-top_n", str(CANDIDATES), "--candidates", str(served),
        "--html", str(html), "--json", str(figures), "--titles", str(titles),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"written: {html}, {figures}" in done.stdout
    assert f"MIND, served came from items_{data.artifact.name}" in done.stdout
    assert f"100.00 % of the exact top 3 and 100.00 % of the exact top {CANDIDATES}" in done.stdout

    numbers = json.loads(figures.read_text())
    names = ["most popular", "item co-occurrence", "item-kNN, cosine", "EASE", "MIND, exact search", "MIND, served"]
    assert list(numbers["metrics"]) == names
    printed = table_of(done.stdout)
    for name in names:
        assert printed[name] == [round(100 * value, 2) for value in numbers["metrics"][name].values()]
        curves, at = numbers["curves"][name], numbers["metrics"][name]
        assert len(curves["recall"]) == CANDIDATES and curves["ndcg"][2] == at["ndcg@3"]
        buckets = zip(numbers["length_recall"][name], numbers["length_buckets"], strict=True)
        assert sum(one["mean"] * bucket["users"] for one, bucket in buckets) / 28 == pytest.approx(curves["recall"][-1])
    assert numbers["agreement"] == {"MIND, served": {"found": {"3": 1, str(CANDIDATES): 1}, "identical": 1}}
    release = {"model_version": data.artifact.name, "collection": f"items_{data.artifact.name}"}
    assert numbers["served"] == {"MIND, served": release}
    assert numbers["users"] == numbers["interests"]["users"] == 28 and numbers["left_out"] == 2
    assert "examples" not in numbers

    page = html.read_text()
    assert "&lt;script&gt;" in page and "<script" not in page
    assert "Served against exact search" in page
    assert not list(tmp_path.rglob(".*incomplete*"))


def test_items_of_the_history_are_in_all_lists_or_in_none(data: Data, tmp_path: Path) -> None:
    with running(ExactRecall(data.artifact)) as address:
        served = data.ask(address, tmp_path / "served.jsonl", CANDIDATES)
    seen = {}
    for option, heading in (("--exclude-history", "left out"), ("--keep-history", "kept in the lists")):
        figures, html = tmp_path / "figures.json", tmp_path / "report.html"
        files = ["--candidates", str(served), "--json", str(figures), "--html", str(html)]
        done = data.infer("-top_n", str(CANDIDATES), option, *files)
        assert done.returncode == 0, done.stderr
        assert f"items of the history {heading}" in " ".join(done.stdout.split())
        numbers = json.loads(figures.read_text())
        seen[option] = {name: one["seen"] for name, one in numbers["spread"].items()}
        assert numbers["exclude_history"] == (option == "--exclude-history")
        assert f"items of the history {heading.split()[0]}" in html.read_text()
        told = "had items of the history. They are left out here as in the other lists" in " ".join(numbers["notes"])
        assert told == (option == "--exclude-history")
    assert set(seen["--exclude-history"].values()) == {0}, "in no row, the given lists included"
    assert seen["--keep-history"]["MIND, exact search"] > 0 and seen["--keep-history"]["served"] > 0


def test_lists_without_history_beside_others_are_pointed_out(data: Data, tmp_path: Path) -> None:
    users = read_eval(data.directory / "test").history.user_id.tolist()
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"user_id": user, "item_ids": [3]}) + "\n" for user in users))
    done = data.infer("-top_n", "5", "--keep-history", "--candidates", str(file))
    assert "mine has no item of anybody's history, unlike the other lists" in " ".join(done.stdout.split())


def test_the_model_tells_how_its_epoch_was_chosen_and_the_lists_follow(data: Data, tmp_path: Path) -> None:
    figures = {"users": 9, "returning": 0.02, "without": 0.3, "within": 0.2}
    for recorded, heading in (
        ({"exclude_history": True, "returns": figures}, "items of the history left out"),
        ({"exclude_history": False}, "items of the history kept in the lists"),
        ({}, "items of the history kept in the lists"),
    ):
        mine = Data(data.directory, make_artifact(tmp_path / str(len(recorded)), data=recorded))
        done = mine.infer("-top_n", "5")
        assert done.returncode == 0, done.stderr
        said = " ".join(done.stdout.split())
        assert heading in said
        assert ("2.0 % of the later clicks of 9 validation users are on items of their history." in said) == (
            "returns" in recorded
        )
        assert ("no validation users tell whether people return to items" in said) == (not recorded)


def test_validation_users_beside_the_training_data_decide_for_a_model_that_records_nothing(
    data: Data, tmp_path: Path
) -> None:
    for part in ("train", "test"):
        copytree(data.directory / part, tmp_path / part)
    cases = read_eval(data.directory / "test")
    write_eval(tmp_path / "valid" / "valid.txt", EvalCases(cases.history, cases.target))
    done = Data(tmp_path, data.artifact).infer("-top_n", "5", "-o", f"runner.valid_data_dir={tmp_path / 'valid'}")
    said = " ".join(done.stdout.split())
    assert done.returncode == 0 and "of the later clicks of 28 validation users are on items of their history" in said
    assert re.search(r"EASE has lambda \d+ and recency [\d.]+, chosen by 30 validation users", said)
    assert "EASE has lambda 300 and recency 0.8, not chosen, for there are no validation users" in " ".join(
        data.infer("-top_n", "5").stdout.split()
    )


def test_a_line_says_whether_the_model_is_worth_it(data: Data) -> None:
    done = data.infer("-top_n", "5", "--exclude-history")
    said = re.search(
        r"(MIND is worth it on these data|MIND is not worth it on these data|Whether MIND is worth it on these data is "
        r"open): its Recall@5 is ([\d.]+) points (above|below) that of (.+), the best baseline \(95 % interval "
        r"([+-][\d.]+) to ([+-][\d.]+), paired bootstrap over 28 users\)\.",
        done.stdout,
    )
    assert said, done.stdout
    rows = table_of(done.stdout)
    best = max(rows[name][0] for name in ("most popular", "item co-occurrence", "item-kNN, cosine", "EASE"))
    assert rows[said[4]][0] == best
    sign = 1 if said[3] == "above" else -1
    assert sign * float(said[2]) == pytest.approx(rows["MIND, exact search"][0] - best, abs=0.011)
    low, high = float(said[5]), float(said[6])
    assert low < sign * float(said[2]) < high
    assert ("is open" in said[1]) == (low <= 0 <= high)


def test_a_service_with_another_model_is_told_apart(data: Data, tmp_path: Path) -> None:
    with running(ExactRecall(data.artifact, "ffff00001111")) as address:
        served = data.ask(address, tmp_path / "served.jsonl", 5)
    done = data.infer("-top_n", "5", "--candidates", str(served))
    assert done.returncode == 0, done.stderr
    assert f"it was served by model ffff00001111, not {data.artifact.name}" in done.stdout


def test_what_bulk_wrote_counts_as_the_json_lines_do(data: Data, tmp_path: Path) -> None:
    history = read_eval(data.directory / "test").history
    lists = pa.ListArray.from_arrays(pa.array(history.offsets.astype(np.int32)), pa.array(history.item_id))
    users, bulk = tmp_path / "users.parquet", tmp_path / "bulk.parquet"
    pq.write_table(pa.table({"user_id": history.user_id, "hist_item": lists}), users)
    with running(ExactRecall(data.artifact)) as address:
        lines = data.ask(address, tmp_path / "lines.jsonl", 5)
        words = ["bulk", "--server", address, "--input", str(users), "--output", str(bulk), "--top-k", "5"]
        assert CliRunner().invoke(recall_client, words).exit_code == 0
    figures = tmp_path / "figures.json"
    done = data.infer("-top_n", "5", "--candidates", str(lines), "--candidates", str(bulk), "--json", str(figures))
    assert done.returncode == 0, done.stderr
    numbers = json.loads(figures.read_text())
    for what in ("metrics", "agreement"):
        assert numbers[what]["bulk"] == numbers[what]["lines"]
    assert f"bulk came from model {data.artifact.name}; its lists have 100.00 %" in done.stdout


def test_a_user_who_is_in_the_test_data_twice_has_two_lists(tmp_path: Path) -> None:
    cases = EvalCases(sequences([1], [2], [3]), sequences([4], [5], [6]))
    cases.history.user_id[:] = [7, 8, 7]
    file = tmp_path / "lists.jsonl"
    rows = [{"user_id": user, "item_ids": [item]} for user, item in ((7, 4), (8, 5), (7, 6))]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_candidates(file, cases, 2, 100).ranked.tolist() == [[4, -1], [5, -1], [6, -1]]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    assert read_candidates(file, cases, 2, 100).ranked.tolist() == [[4, -1], [5, -1], [4, -1]]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"user": [0], "item_ids": [[1]]}, "x.parquet: no column 'user_id'; there are: user, item_ids"),
        ({"user_id": [0], "item_ids": [5]}, "x.parquet: row 1: expected an integer user_id and a list item_ids"),
        ({"user_id": ["anna"], "item_ids": [[5]]}, "x.parquet: row 1: expected an integer user_id"),
        ({"user_id": [0], "item_ids": [[5, 5]]}, "item_ids has repeats"),
    ],
)
def test_a_parquet_file_of_other_columns_is_refused(tmp_path: Path, columns: dict[str, Any], says: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=re.escape(says)):
        read_candidates(tmp_path / "x.parquet", EvalCases(sequences([1]), sequences([2])), 5, 100)


def test_two_candidate_files_of_one_name(data: Data, tmp_path: Path) -> None:
    users = read_eval(data.directory / "test").history.user_id.tolist()
    files = [tmp_path / part / "mine.jsonl" for part in "ab"]
    for file in files:
        file.parent.mkdir()
        file.write_text("".join(json.dumps({"user_id": user, "item_ids": [5]}) + "\n" for user in users))
    done = data.infer(
        "-top_n", "5", "--candidates", str(files[0]), "--candidates", str(files[1]), "--json", str(tmp_path / "x.json")
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "x.json").read_text())["metrics"]
    assert list(metrics)[-2:] == ["mine", str(files[1])] and metrics["mine"]["recall@5"] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--html", "/proc/report.html"], "/proc/report.html: cannot be written"),
        (["--json", "/dev/null/x.json"], "/dev/null/x.json: cannot be written: File exists"),
        (["--json", "{tmp}"], "{tmp}: cannot be written: it is a directory"),
        (["--json", "{tmp}/one", "--html", "{tmp}/one"], "{tmp}/one: given for two outputs"),
        (["--titles", "{tmp}/t.csv"], "--titles {tmp}/t.csv: titles are shown in the report alone"),
        (
            ["--html", "{tmp}/r.html", "--titles", "{tmp}/nowhere.csv"],
            "{tmp}/nowhere.csv: cannot be read: No such file",
        ),
        (
            ["--html", "{tmp}/r.html", "--titles", "{tmp}/t.csv"],
            "{tmp}/t.csv: no column 'title'; there are: item_id, name",
        ),
        (["--html", "{tmp}/r.html", "--titles", "{tmp}/u.csv"], "{tmp}/u.csv: line 2: item_id is 'x', not an integer"),
        (["--html", "{tmp}/r.html", "--titles", "{tmp}/v.csv"], "{tmp}/v.csv: line 2: expected 2 columns, found 3"),
        (
            ["--server", "127.0.0.1:1", "-top_n", "7"],
            "--server 127.0.0.1:1: mind.infer no longer asks a service; run `recall-client recall --server 127.0.0.1:1 "
            "--input FILE --top-k 7 --output served.jsonl`",
        ),
    ],
)
def test_one_clear_line_before_the_work(data: Data, tmp_path: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "t.csv").write_text("item_id,name\n1,one\n")
    (tmp_path / "u.csv").write_text("item_id,title\nx,one\n")
    (tmp_path / "v.csv").write_text("item_id,title\n1,one,two\n")
    broken = ["-o", "runner.train_data_dir=/nowhere"]  # what would be read once the work begins
    with pytest.raises(MindError) as error:
        app([*data.options(), *broken, *(word.format(tmp=tmp_path) for word in arguments)], standalone_mode=False)
    assert str(error.value).startswith(says.format(tmp=tmp_path)) and "\n" not in str(error.value)
    assert not (tmp_path / "r.html").exists()


def test_a_service_that_was_asked_for_too_few(data: Data, tmp_path: Path) -> None:
    with running(ExactRecall(data.artifact)) as address:
        served = data.ask(address, tmp_path / "served.jsonl", 20)
    done = data.infer("-top_n", "21", "--candidates", str(served))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {served}: its longest list has 20 items, -top_n is 21: ask for more")
    assert done.stderr.count("\n") == 1


def test_a_release_meanwhile_is_an_error(data: Data, tmp_path: Path) -> None:
    class Moving(ExactRecall):
        def Recall(self, request: Any, context: Any) -> recall_pb2.RecallResponse:  # noqa: N802
            response = super().Recall(request, context)
            self.model_version = "ffff00001111"
            return response

    many = Data(tmp_path, data.artifact)
    lines = (data.directory / "test" / "test.txt").read_text()
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "test.txt").write_text(lines * 10)  # more users than one request takes
    with running(Moving(data.artifact)) as address:
        served = many.ask(address, tmp_path / "served.jsonl", 5)
    done = many.infer("-top_n", "5", "--candidates", str(served))
    assert done.returncode == 1
    assert f"items_{data.artifact.name} and items_ffff00001111" in done.stderr
    assert "a release changed meanwhile" in done.stderr and done.stderr.count("\n") == 1
    first = json.loads(served.read_text().splitlines()[0])
    parted = first | {"model_version": "aa, bb", "collection": "items_aa, items_bb"}  # one request, two releases
    served.write_text(json.dumps(parted) + "\n")
    with pytest.raises(DataError, match="its lists come from items_aa, items_bb"):
        read_candidates(served, EvalCases(sequences([1]), sequences([2])), 5, 100)


def test_other_data_than_the_model_was_made_with_are_refused(data: Data, tmp_path: Path) -> None:
    own = {"files": digests(data.directory / "train"), "test": digests(data.directory / "test")}
    for part in ("train", "test"):  # the same data in another place
        copytree(data.directory / part, tmp_path / "copy" / part)
    done = Data(tmp_path / "copy", make_artifact(tmp_path / "mine", data=own)).infer("-top_n", "5")
    assert (done.returncode, done.stderr) == (0, "")

    html, figures = tmp_path / "report.html", tmp_path / "figures.json"
    others = {"files": {"train.txt": "00", "gone.txt": "11"}}, own | {"test": {"test.txt": "00"}}
    for number, recorded in enumerate(others):
        other = Data(data.directory, make_artifact(tmp_path / f"other{number}", data=recorded))
        says = [
            f"{data.directory / 'train'}: model {other.artifact.name} was trained with another gone.txt, train.txt.",
            f"{data.directory / 'test'}: beside the training data of model {other.artifact.name} lay another test.txt.",
        ][number]
        done = other.infer("-top_n", "5")
        assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith(f"error: {says}")
        assert "to --data, or pass --other-data" in done.stderr and done.stderr.count("\n") == 1
        done = other.infer("-top_n", "5", "--other-data", "--html", str(html), "--json", str(figures))
        assert done.returncode == 0 and done.stderr.startswith(f"warning: {says}") and done.stderr.count("\n") == 1
        assert says in html.read_text() and json.loads(figures.read_text())["notes"][0].startswith(says)


def test_a_model_that_does_not_know_its_data_is_evaluated_with_a_warning(data: Data) -> None:
    done = data.infer("-top_n", "5")
    assert done.returncode == 0
    assert done.stderr.startswith(f"warning: model {data.artifact.name} does not record what it was trained on")


def test_pairs_of_some_users_only_are_said(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MAX_PAIRS", 1000)
    figures = tmp_path / "figures.json"
    done = CliRunner().invoke(app, [*data.options(), "-top_n", "5", "--json", str(figures)])
    assert done.exit_code == 0
    note = json.loads(figures.read_text())["notes"][-1]
    assert re.match(r"Item co-occurrence, item-kNN and EASE count \d+ of 60 training users, drawn at random", note)
    assert note in " ".join(done.stdout.split())


def test_plots_are_loaded_for_a_report_alone() -> None:
    script = "import sys, mind.infer; print({'matplotlib', 'jinja2', 'paddle', 'grpc', 'pymilvus'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_row_is_over_the_same_users(data: Data, tmp_path: Path) -> None:
    """Users without a known history have no list of their own: not by exact search, and not from a service."""
    popular = list(range(1000, 1035, 7))
    cases = read_eval(data.directory / "test")
    wanted = [cases.target[user].tolist()[:1] for user in range(30)]
    answers: list[dict[str, Any]] = [{"item_ids": wanted[user], "status": "OK"} for user in range(30)]
    answers[0] = {"item_ids": popular, "status": "USER_STATUS_EMPTY_HISTORY"}
    answers[1] = {"item_ids": popular, "status": "ALL_UNKNOWN"}
    answers[7] = {"item_ids": [], "status": "INVALID", "detail": "hist_item has 13000 ids, the limit is 10000"}
    file, figures, html = tmp_path / "mine.jsonl", tmp_path / "x.json", tmp_path / "x.html"
    users = cases.history.user_id.tolist()
    file.write_text("".join(json.dumps({"user_id": user} | answers[user]) + "\n" for user in users))
    done = data.infer("-top_n", "5", "--candidates", str(file), "--json", str(figures), "--html", str(html))
    assert done.returncode == 0, done.stderr
    numbers = json.loads(figures.read_text())
    assert (numbers["users"], numbers["left_out"]) == (27, 3)
    assert "on 27 test users" in done.stdout
    note = (
        "Users in no row: 3 of 30; the model knows no item of the history of 2 (without any history: 1), "
        "and a service gives them the popular list; mine.jsonl has no personal list for 1 "
        "(1 INVALID: hist_item has 13000 ids, the limit is 10000)."
    )
    assert note in " ".join(done.stdout.split()) and note in html.read_text() and note in numbers["notes"]
    assert numbers["metrics"]["mine"]["hit_rate@5"] == 1, "each of the 27 has one right candidate"
    alone = tmp_path / "alone.json"
    assert data.infer("-top_n", "5", "--json", str(alone)).returncode == 0
    kept = [user for user in range(2, 30) if user != 7]
    exact = NumpyEncoder(load_artifact(data.artifact).weights, load_artifact(data.artifact).hyper_parameters)
    model = load_artifact(data.artifact)
    own = cases.take(np.array(kept))
    vectors = encode_histories(exact, model.vocabulary, own.history, model.hyper_parameters.maxlen, 64)
    ranked = item_ids(model.vocabulary, nearest_items(vectors, model.weights.item_embedding, 5))
    found = [len(set(ranked[n].tolist()) & set(own.target[n].tolist())) > 0 for n in range(27)]
    assert numbers["metrics"]["MIND, exact search"]["hit_rate@5"] == pytest.approx(sum(found) / 27)
    assert json.loads(alone.read_text())["users"] == 28, "without the file user 7 is compared"


def test_a_file_without_any_list_of_its_own_is_no_row_of_zeros(data: Data, tmp_path: Path) -> None:
    users = read_eval(data.directory / "test").history.user_id.tolist()
    row = {"item_ids": [], "status": "INVALID", "detail": "hist_item has 13000 ids", "model_version": "ab12"}
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps({"user_id": user} | row) + "\n" for user in users))
    done = data.infer("-top_n", "5", "--candidates", str(tmp_path / "mine.jsonl"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: none of 30 test users can be compared: the model knows no item of")
    assert "mine.jsonl has no personal list for 28 (28 INVALID: hist_item has 13000 ids)" in done.stderr
