"""`python -m mind.models`: what a directory of models holds, what their settings are worth, which is the best."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mind.artifact import MANIFEST, TENSORS, write_artifact
from mind.choice.comparison import differing, group, settings_of, shown_value, sparkline
from mind.choice.manifests import read_shelf
from mind.errors import ArtifactError
from mind.models import app
from tests.artifacts import hyper_parameters_of, make_artifact, make_weights

ONE = {"files": {"train.txt": "aa"}, "valid": {"valid.txt": "bb"}, "users": 10, "interactions": 1200}
OTHER = ONE | {"files": {"train.txt": "cc"}, "users": 11}
RUNNER = {"train_batch_size": 512, "epochs": 2, "seed": 1}


def model(
    directory: Path,
    recall: float,
    *,
    day: int = 1,
    data: dict[str, Any] = ONE,
    runner: dict[str, Any] = RUNNER,
    **hyper: Any,
) -> str:
    """Write a tiny model with these metrics; gives its version. The loss keeps models of equal metrics apart."""
    weights = make_weights(items=20, dim=4, maxlen=4)
    valid = {"recall@50": recall, "ndcg@50": recall / 2}
    metrics = {"epoch": 2, "loss": 5.0 + day, "valid": valid, "runner": runner}
    metrics["epochs"] = [
        {"epoch": 1, "loss": 6.0, "valid": {"recall@50": recall - 0.1}},
        {"epoch": 2, "loss": 5.0, "valid": valid},
    ]
    path = write_artifact(directory, hyper_parameters_of(weights, **hyper), weights, data, metrics)
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["created_at"] = f"2026-01-{day:02}T00:00:00+00:00"
    (path / MANIFEST).write_text(json.dumps(manifest))
    return path.name


def command(*arguments: str | Path) -> tuple[str, str]:
    """What it prints: (stdout, stderr); raises what it raises."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    if done.exception:
        raise done.exception
    return done.stdout, done.stderr


def test_models_that_differ_only_by_seed_are_one_row(tmp_path: Path) -> None:
    for seed, recall in ((1, 0.30), (2, 0.32), (3, 0.37)):
        model(tmp_path, recall, day=seed, runner=RUNNER | {"seed": seed})
    model(tmp_path, 0.31, day=4, dropout=0.1)
    model(tmp_path, 0.29, day=5, runner=RUNNER | {"train_batch_size": 128})
    seeds, dropout, batch = groups = group(read_shelf(tmp_path).models)
    assert [len(one.models) for one in groups] == [3, 1, 1]
    assert seeds.mean("recall@50") == pytest.approx(0.33)  # (0.30 + 0.32 + 0.37) / 3
    assert seeds.sd("recall@50") == pytest.approx((0.0026 / 2) ** 0.5)  # (0.03² + 0.01² + 0.04²) / (3 - 1)
    assert dropout.sd("recall@50") is None and batch.mean("recall@20") is None
    assert seeds.curve("recall@50") == pytest.approx([0.23, 0.33])
    assert differing(groups) == ["dropout", "runner.train_batch_size"]
    out, _ = command("compare", tmp_path)
    assert "33.00 ± 3.61" in out and "16.50 ± 1.80" in out and "31.00" in out
    assert out.index("33.00") < out.index("31.00") < out.index("29.00")


def test_a_copy_of_a_model_counts_once(tmp_path: Path) -> None:
    version = model(tmp_path, 0.3)
    (tmp_path / version).rename(tmp_path / "kept")
    model(tmp_path, 0.3)
    assert f"{version} in kept" in command("list", tmp_path)[0]
    (one,) = group(read_shelf(tmp_path).models)
    assert len(one.models) == 1


def test_older_manifests_say_what_they_do_not_know(tmp_path: Path) -> None:
    """Of a release without metrics.runner, metrics.epochs, data.valid and some hyper-parameters."""
    weights = make_weights(items=20, dim=4, maxlen=4)
    old = {"files": ONE["files"], "users": 10, "interactions": 1200}
    metrics = {"epoch": 7, "loss": 5.0, "valid": {"recall@50": 0.3}}
    path = write_artifact(tmp_path, hyper_parameters_of(weights), weights, old, metrics)
    manifest = json.loads((path / MANIFEST).read_text())
    del manifest["hyper_parameters"]["routing_softmax"]
    _rewrite(path, manifest)
    model(tmp_path, 0.31, day=2, routing_softmax="history")
    first, second = groups = group(read_shelf(tmp_path).models)
    if len(first.settings) > len(second.settings):
        first, second = second, first
    assert shown_value(first, "routing_softmax") == "interests (default)"
    assert shown_value(first, "runner.epochs") == "not recorded"
    assert shown_value(second, "runner.epochs") == "2" and "seed" not in str(second.settings)
    assert "routing_softmax" in differing(groups)
    out, err = command("compare", tmp_path)
    assert "validation data not recorded" in out and "were trained on different data" in err


def _rewrite(path: Path, manifest: dict[str, Any]) -> None:
    """Store a changed manifest under the version that it then has."""
    from mind.artifact import content_version

    manifest["model_version"] = content_version(manifest)
    (path / MANIFEST).write_text(json.dumps(manifest))
    path.rename(path.with_name(manifest["model_version"]))


def test_list_shows_every_model_and_reads_no_tensors(tmp_path: Path) -> None:
    old, new = model(tmp_path, 0.3, day=1), model(tmp_path, 0.31, day=2)
    out, _ = command("list", tmp_path)
    assert out.index(new) < out.index(old)
    assert "10 users, 1,200 interactions in train.txt; validated on valid.txt" in out
    rows = json.loads(command("list", tmp_path, "--format", "json")[0])
    assert [row["version"] for row in rows] == [new, old]
    assert rows[0]["items"] == 20 and rows[0]["embedding_dim"] == 4 and rows[0]["valid"]["recall@50"] == 0.31
    assert rows[0]["size_bytes"] == sum(file.stat().st_size for file in (tmp_path / new).iterdir())
    (script,) = (f"import sys, mind.models; mind.models.app(['list', {str(tmp_path)!r}], standalone_mode=False)",)
    code = f"{script}; print(sorted({{'paddle', 'optuna', 'matplotlib'}} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: (path / MANIFEST).write_text("{"), "not JSON"),
        (lambda path: (path / MANIFEST).write_text("[]"), "expected a JSON object, found list"),
        (lambda path: (path / MANIFEST).unlink(), "cannot be read: No such file"),
        (lambda path: (path / TENSORS).unlink(), "cannot be read: No such file"),
        (lambda path: (path / TENSORS).write_bytes((path / TENSORS).read_bytes()[:-5]), "damaged or incomplete"),
        (lambda path: (path / TENSORS).write_bytes(b"\xff" * 40), "not safetensors"),
        (lambda path: (path / TENSORS).write_bytes(b""), "not safetensors"),
        (lambda path: _change(path, '"epoch": 2', '"epoch": 3'), "changed since it was written"),
        (lambda path: _change(path, '"format_version": 4', '"format_version": 5'), "format_version is 5"),
    ],
)
def test_a_damaged_model_is_named_and_hides_no_other(tmp_path: Path, damage: Any, says: str) -> None:
    good, bad = model(tmp_path, 0.3), model(tmp_path, 0.9, day=2)
    damage(tmp_path / bad)
    out, _ = command("list", tmp_path)
    assert good in out and says in out and f"unusable: {bad}" in out
    rows = json.loads(command("list", tmp_path, "--format", "json")[0])
    assert rows[0]["version"] == good and says in rows[1]["unusable"]
    out, err = command("best", tmp_path)
    assert out == f"{tmp_path / good}\n" and bad in err
    with pytest.raises(ArtifactError, match=re.escape(says)):
        command("compare", tmp_path, bad[:6])


def _change(path: Path, old: str, new: str) -> None:
    text = (path / MANIFEST).read_text()
    assert old in text
    (path / MANIFEST).write_text(text.replace(old, new, 1))


def test_best_prints_the_path_alone_and_ties_go_to_the_older(tmp_path: Path) -> None:
    model(tmp_path, 0.3, day=1)
    newer, older = model(tmp_path, 0.4, day=3), model(tmp_path, 0.4, day=2)
    out, err = command("best", tmp_path)
    assert out == f"{tmp_path / older}\n"
    assert f"{older} has the best recall@50, 40.00% of epoch 2" in err
    assert f"next is {newer}, 40.00%, a tie that goes to the older one" in err
    assert command("best", tmp_path / newer)[0] == f"{tmp_path / newer}\n"
    with pytest.raises(ArtifactError, match=r"no model has recall@7; there is recall@50, ndcg@50"):
        command("best", tmp_path, "--metric", "recall@7")


def test_best_refuses_to_choose_among_different_data(tmp_path: Path) -> None:
    one, other = model(tmp_path, 0.3), model(tmp_path, 0.9, data=OTHER)
    with pytest.raises(ArtifactError, match="were trained on different data") as caught:
        command("best", tmp_path)
    found = {shelved.version: shelved.manifest.data.digest for shelved in read_shelf(tmp_path).models}
    assert found[one] in str(caught.value) and "11 users" in str(caught.value)
    assert command("best", tmp_path, "--data", found[one][:4])[0] == f"{tmp_path / one}\n"
    assert command("best", tmp_path, "--data", found[other])[0] == f"{tmp_path / other}\n"
    with pytest.raises(ArtifactError, match="--data nope: no model has such data"):
        command("best", tmp_path, "--data", "nope")
    out, err = command("compare", tmp_path)
    assert "warning: the models were trained on different data" in err and out.count("data ") == 2


def test_item_features_are_a_setting_and_not_other_data(tmp_path: Path) -> None:
    model(tmp_path, 0.3)
    model(tmp_path, 0.31, day=2, data=ONE | {"item_features": {"items.csv": "dd" * 32}})
    without, with_features = group(read_shelf(tmp_path).models)
    assert without.models[0].manifest.data.digest == with_features.models[0].manifest.data.digest
    assert differing([without, with_features]) == ["item_features_file"]
    assert settings_of(with_features.models[0])["item_features_file"] == "items.csv dddddddd"


def test_figures_with_and_without_the_history_are_never_compared(tmp_path: Path) -> None:
    kept, left_out = model(tmp_path, 0.3), model(tmp_path, 0.9, day=2, data=ONE | {"exclude_history": True})
    assert model(tmp_path, 0.31, day=3, data=ONE | {"exclude_history": False})  # as those that do not record it
    with pytest.raises(ArtifactError, match="were trained on different data") as caught:
        command("best", tmp_path)
    assert "; items of the history left out" in str(caught.value)
    found = {shelved.version: shelved.manifest.data.digest for shelved in read_shelf(tmp_path).models}
    assert len(set(found.values())) == 2 and found[kept] != found[left_out]
    out, _ = command("compare", tmp_path)
    assert out.count("data ") == 2 and out.count("items of the history left out") == 1


def test_lists_are_shown_as_they_are(tmp_path: Path) -> None:
    """Rich would take [genres, year] for markup."""
    model(tmp_path, 0.3, item_features=("genres", "year"))
    model(tmp_path, 0.4)
    assert "[genres, year]" in command("compare", tmp_path)[0]


def test_models_without_metrics_come_last(tmp_path: Path) -> None:
    make_artifact(tmp_path, items=20, dim=4, maxlen=4)
    with pytest.raises(ArtifactError, match="no model was validated"):
        command("best", tmp_path)
    assert "not recorded" in command("compare", tmp_path)[0]
    assert "not recorded" in command("list", tmp_path)[0]


def test_a_directory_without_models(tmp_path: Path) -> None:
    (tmp_path / ".incomplete-1").mkdir()
    (tmp_path / ".incomplete-1" / MANIFEST).write_text("{")
    (tmp_path / "notes").mkdir()
    with pytest.raises(ArtifactError, match="holds no model"):
        command("list", tmp_path)
    with pytest.raises(ArtifactError, match="/nowhere: cannot be read"):
        command("list", "/nowhere")


def test_versions_are_named_by_their_first_digits(tmp_path: Path) -> None:
    one, other = model(tmp_path, 0.3), model(tmp_path, 0.31, day=2, dropout=0.1)
    assert other not in command("compare", tmp_path, one[:6])[0]
    with pytest.raises(ArtifactError, match="model zz: no version begins with this"):
        command("compare", tmp_path, "zz")
    with pytest.raises(ArtifactError, match="model : several versions begin with this"):
        command("compare", tmp_path, "")
    with pytest.raises(ArtifactError, match="--metric mrr: no model has it; there is recall@50"):
        command("compare", tmp_path, "--metric", "mrr")


def test_the_page_is_one_file_without_scripts_or_other_hosts(tmp_path: Path) -> None:
    model(tmp_path, 0.3)
    model(tmp_path, 0.31, day=2, dropout=0.1)
    model(tmp_path, 0.9, day=3, data=OTHER)
    broken = model(tmp_path, 0.5, day=4)
    (tmp_path / broken / MANIFEST).write_text("<script>alert(1)</script>")
    page = tmp_path / "page <&.html"
    command("compare", tmp_path, "--html", page)
    html = page.read_text()
    assert html.count("<svg") == 4 + 3  # two plots for each data set, a line for each row
    assert "31.00" in html and "90.00" in html and broken in html and "dropout" in html
    assert "<script" not in html and "prefers-color-scheme: dark" in html
    assert not re.search(r'(src|href)="(?!#)', html) and not re.search(r"url\((?!#)|@import", html)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    with pytest.raises(ArtifactError, match="cannot be written"):
        command("compare", tmp_path, "--html", tmp_path)


def test_sparkline() -> None:
    assert sparkline([0.0, 0.5, 1.0], 0.0, 1.0) == "▁▅█"
    assert sparkline([0.3, 0.3], 0.3, 0.3) == "▁▁"
    assert sparkline([], 0.0, 0.0) == ""
