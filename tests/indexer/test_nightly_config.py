"""The configuration of the night shift: checked key by key, and explained in full by the example."""

from datetime import date
from pathlib import Path

import pytest
import yaml

from indexer.nightly.config import Nightly, Prepare, load_nightly, on
from mind.config import flatten
from mind.errors import ConfigError
from tests import ROOT
from tests.commands import run_here

EXAMPLE = ROOT / "indexer" / "nightly.yaml"
SMALLEST = "prepare: {input: clicks.csv}\n"


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "nightly.yaml"
    file.write_text(text)
    return file


def test_the_example_has_every_key_with_its_default_and_says_what_it_is(tmp_path: Path) -> None:
    shown = flatten(load_nightly(EXAMPLE).model_dump(mode="json"))
    defaults = flatten(load_nightly(written(tmp_path, SMALLEST)).model_dump(mode="json"))
    assert shown | {"prepare.options": []} == defaults
    assert flatten(yaml.safe_load(EXAMPLE.read_text())).keys() == defaults.keys()
    for section in (Nightly, *(field.annotation for field in Nightly.model_fields.values())):
        for name, field in getattr(section, "model_fields", {}).items():
            assert field.description, f"{section}.{name}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SMALLEST + "gate: {max_dorp: 0.1}", "gate.max_dorp: unknown key; did you mean gate.max_drop?"),
        (SMALLEST + "watchh: {}", "watchh: unknown key; did you mean watch?"),
        (SMALLEST + "gate: {max_drop: 2}", "gate.max_drop: Input should be less than or equal to 1 (value: 2)"),
        ("artifacts: here", "prepare: Field required"),
        ("- a", "expected a mapping of keys, found list"),
        ("a: [", "not YAML"),
        ('prepare: {input: "{day}.csv"}', "{day}: expected a date such as {date} or {date-1d}"),
        ('prepare: {input: a.csv, options: ["{date-1w}"]}', "{date-1w}: expected a date"),
        ("prepare: {input: a.csv, options: [--output=here]}", "--output=here: the night shift sets this option itself"),
        (
            SMALLEST + "build: {options: [--publish]}",
            "build.options: --publish: the night shift sets this option itself",
        ),
    ],
)
def test_a_configuration_that_cannot_be_used_is_exit_code_2(tmp_path: Path, text: str, says: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_nightly(file)
    assert says in str(caught.value) and str(file) in str(caught.value)
    done = run_here("indexer", "nightly", "--config", file, "--milvus-uri", "http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --config")


def test_dates_are_those_of_the_night() -> None:
    night = date(2026, 3, 1)
    assert on("clicks/day={date-1d}/{date}.csv {date+1d}", night) == "clicks/day=2026-02-28/2026-03-01.csv 2026-03-02"
    assert Prepare(input="s3://{date}", options=("{date-14d}",)).options == ("{date-14d}",)


def test_a_dry_run_shows_steps_and_commands_and_does_nothing(tmp_path: Path) -> None:
    file = written(tmp_path, f"work_dir: {tmp_path}/work\nprepare: {{input: '{{date}}.csv'}}\ntrain: {{final: true}}\n")
    options = ["--config", file, "--dry-run", "--date", "2026-03-01", "--milvus-uri", "http://127.0.0.1:9"]
    done = run_here("indexer", "nightly", *options)
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stdout.split())
    assert f"python -m mind.prepare 2026-03-01.csv --output {tmp_path}/work/2026-03-01/data" in words
    assert "--warm-start LIVE_MODEL --warm-epochs 4" in words
    assert f"--final {tmp_path}/work/2026-03-01/models" in words
    assert "python -m indexer build --artifact" in words
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--from-step", "trian", "--milvus-uri", "http://a:1"], "--from-step trian: no such step; they are prepare,"),
        (["--milvus-uri", "milvus.db"], "use a Milvus server"),
        (["--milvus-uri", "http://a:1", "--date", "yesterday"], "'yesterday' does not match the format"),
    ],
)
def test_wrong_usage_is_exit_code_2(tmp_path: Path, options: list[str], says: str) -> None:
    done = run_here("indexer", "nightly", "--config", written(tmp_path, SMALLEST), *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in " ".join(done.stderr.split())
