"""Dashboard, alerts and Prometheus' configuration name what exists, and a page says what to do about each alert."""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import yaml

from indexer.nightly.metrics import METRICS, render
from indexer.nightly.run import Exit
from indexer.nightly.state import Done, Night, State
from server.instrumentation import make_metrics
from tests import ROOT

DOCKER = ROOT / "docker"
PAGE = (ROOT / "docs/reference/alerts.md").read_text(encoding="utf-8")
DASHBOARD = json.loads((DOCKER / "grafana" / "recall.json").read_text(encoding="utf-8"))
RULES = [
    rule
    for group in yaml.safe_load((DOCKER / "prometheus" / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
OF_PROMETHEUS = {"up"}


def exported() -> dict[str, set[str]]:
    """Names of all series that a server can have, and their labels."""
    metrics = make_metrics()
    metrics.count_request("Recall", "UNAVAILABLE", "NOT_READY", 0.1)
    metrics.set_file("--token-file", usable=True)
    metrics.shadow.start("b", ["compared"])
    metrics.follow_channels(["live"])
    metrics.set_release("live", "0123456789ab", "items_0123456789ab_01234567", miscounted=False)
    found: dict[str, set[str]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def expressions() -> Iterator[str]:
    """Every PromQL expression."""
    yield from (rule["expr"] for rule in RULES)
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))
    yield from (note["expr"] for note in DASHBOARD["annotations"]["list"])
    yield from re.findall(r"label_values\((\w+),", DASHBOARD["templating"]["list"][1]["definition"])


def of_nights() -> dict[str, set[str]]:
    """Names of the metrics of the night shift, and their labels."""
    data = {"rows": 1, "users": 1, "items": 1, "checks": [{"name": "rows", "passed": True}]}
    steps = {"check": Done(seconds=1, figures=data), "evaluate": Done(seconds=1, figures={"recall": 0.5})}
    night = Night(Path("nights"), State(date=date(2026, 1, 1), began_at=datetime(2026, 1, 1, tzinfo=UTC), steps=steps))
    found: dict[str, set[str]] = {}
    for name, label in re.findall(r"^(\w+)(?:\{(\w+)=.*\})? ", render(night, Exit.RELEASED, 0, 0), re.MULTILINE):
        found.setdefault(name, set()).update({label} - {""})
    assert found.keys() == METRICS.keys()
    return found


def test_every_metric_and_label_exists() -> None:
    served = exported() | {rule["record"]: set() for rule in RULES if "record" in rule}
    known = served | of_nights()
    named = set()
    for expression in expressions():
        for name, selector in re.findall(r"\b((?:recall|process)[\w:]+)(?:\{([^}]*)\})?", expression):
            assert name in known, f"{name} in {expression}"
            labels = set(re.findall(r"(\w+)\s*[=!]~?", selector)) - {"instance", "job"}
            assert labels <= known[name], f"{labels} of {name} in {expression}"
            named.add(name)
    assert {name for name in served if name.startswith("recall_")} - named == {
        "recall_request_duration_seconds_sum",  # its mean says less than its quantiles
        "recall_loop_lag_seconds_sum",
        "recall_loop_lag_seconds_count",
        "recall_sampled_recall_ratio_bucket",
        "recall_feedback_lines_total",  # only servers with --feedback-log have any
    }


def test_expressions_are_closed() -> None:
    for expression in expressions():
        for opening, closing in ("()", "{}", "[]"):
            assert expression.count(opening) == expression.count(closing), expression


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_what_to_do(alert: str) -> None:
    annotations = ALERTS[alert]["annotations"]
    assert annotations["summary"] and annotations["action"]
    assert ALERTS[alert]["labels"]["severity"] in ("critical", "warning")
    file, _, anchor = annotations["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert f"| `{alert}` |" in PAGE


def test_panels_that_alerts_name_exist() -> None:
    titles = {panel["title"] for panel in DASHBOARD["panels"]}
    named = {name for rule in ALERTS.values() for name in re.findall(r'panel "([^"]+)"', rule["annotations"]["action"])}
    assert named and named <= titles


def test_panels_do_not_overlap_and_have_an_id_each() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells


def test_files_name_each_other() -> None:
    prometheus = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    assert all((DOCKER / "prometheus" / file).is_file() for file in prometheus["rule_files"])
    (scraped,) = prometheus["scrape_configs"]
    assert f'job="{scraped["job_name"]}"' in ALERTS["RecallServerDown"]["expr"]
    (discovered,) = scraped["dns_sd_configs"]
    assert set(discovered["names"]) <= set(yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"])
    for file in (DOCKER / "grafana" / "provisioning").rglob("*.yaml"):
        assert yaml.safe_load(file.read_text(encoding="utf-8"))["apiVersion"] == 1


@pytest.fixture(scope="module")
def promtool() -> str:
    """The program, or that of Debian's package, which is unpacked into build/ and needs no installation."""
    if installed := shutil.which("promtool"):
        return installed
    unpacked = ROOT / "build" / "prometheus"
    if not unpacked.is_dir():
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            pytest.skip("promtool is not installed: it comes with Prometheus")
        unpacked.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=unpacked.parent) as folder:
            subprocess.run(
                ["apt-get", "-q", "download", "prometheus"], cwd=folder, capture_output=True, check=False, timeout=120
            )
            for package in Path(folder).glob("prometheus_*.deb"):
                subprocess.run(["dpkg", "-x", package, "unpacked"], cwd=folder, check=True, timeout=60)
                with suppress(OSError):  # another process of the same tests was faster
                    Path(folder, "unpacked").rename(unpacked)
    if not unpacked.is_dir():
        pytest.skip("promtool is not installed, and Debian's package prometheus cannot be downloaded")
    return str(unpacked / "usr/bin/promtool")


@pytest.mark.parametrize(
    "command",
    [
        ("check", "config", "docker/prometheus/prometheus.yml"),
        ("test", "rules", "tests/alerts_test.yaml"),
    ],
)
def test_promtool(promtool: str, command: tuple[str, ...]) -> None:
    done = subprocess.run([promtool, *command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
