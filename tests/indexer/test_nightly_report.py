"""The page of a night: what came and went, both models, the lists side by side; it stands alone."""

import json
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np

from indexer.nightly.config import load_nightly
from indexer.nightly.data import Catalogue
from indexer.nightly.report import write_report
from indexer.nightly.run import Exit
from indexer.nightly.shift import COMPARISON, Shift
from indexer.nightly.state import Done, Night, State
from mind.artifact import load_artifact
from mind.evaluation.side_by_side import compare
from mind.milvus.connection import Connection
from mind.sequences import EvalCases
from tests.artifacts import make_artifact
from tests.server.test_metrics import sequences

CHECKS = [{"name": "rows", "value": 5, "limit": 9, "passed": False, "says": "5, at least 9 <are> asked for"}]


def shift_of(tmp_path: Path) -> Shift:
    """A night after one that released, which had an item that is gone now."""
    (tmp_path / "titles.csv").write_text("item_id,title\n7000,Came & stays\n8000,Went\n")
    config = tmp_path / "nightly.yaml"
    config.write_text(
        f"work_dir: {tmp_path}/work\nprepare: {{input: a.csv}}\nreport: {{titles: {tmp_path}/titles.csv}}\n"
    )
    began = datetime(2026, 3, 1, tzinfo=UTC)
    push = {"push": Done(seconds=1, figures={"model_version": "a"}), "rollback": Done(seconds=0)}
    before = Night(tmp_path / "work" / "2026-03-01", State(date=date(2026, 3, 1), began_at=began, steps=push))
    before.save()
    figures = {"rows": 1234, "users": 12, "items": 3, "checks": CHECKS, "compared_with": "2026-03-01"}
    steps = {"check": Done(seconds=1.5, figures=figures), "watch": Done(seconds=0, figures={"skipped": "no server"})}
    now = Night(tmp_path / "work" / "2026-03-02", State(date=date(2026, 3, 2), began_at=began, steps=steps))
    now.save()
    Catalogue(np.array([1000, 8000]), np.array([5, 31])).write(before.directory)
    Catalogue(np.array([1000, 7000]), np.array([5, 41])).write(now.directory)
    (now.directory / "data").mkdir()
    return Shift(load_nightly(config), now, Connection("http://127.0.0.1:9"), None, {})


def test_a_page_of_both_models(tmp_path: Path) -> None:
    shift = shift_of(tmp_path)
    models = [load_artifact(make_artifact(tmp_path / "models", seed=seed)) for seed in (0, 1)]
    items = models[0].weights.item_id.tolist()
    cases = EvalCases(
        sequences(*([items[k], items[k + 1]] for k in range(9))), sequences(*([items[k]] for k in range(9)))
    )
    found = compare(cases, *models, examples=3)
    (shift.directory / COMPARISON).write_text(json.dumps(asdict(found)))
    page = write_report(shift, Exit.RELEASED, "").read_text()
    assert "A new release is live." in page
    for text in ("1,234", "1 came since 2026-03-01", "1 went since 2026-03-01", "Came &amp; stays", "Went", "31", "41"):
        assert text in page, text
    for model in models:
        assert model.model_version in page
    assert page.count('<article class="user">') == 3
    assert "5, at least 9 &lt;are&gt; asked for" in page
    assert "skipped: no server" in page
    assert "http" not in page and "<script" not in page


def test_a_page_of_a_night_that_was_refused_early(tmp_path: Path) -> None:
    page = write_report(shift_of(tmp_path), Exit.REFUSED, "rows: 5, at least 9").read_text()
    assert "Refused: the live release is what it was." in page and "rows: 5, at least 9" in page
    assert "Candidate and live model" not in page
