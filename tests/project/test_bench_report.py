"""`make bench-report`: runs the benchmarks and keeps the sections of those that do not run."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.bench import report


def test_every_benchmark_exists_and_has_a_title_of_its_own() -> None:
    assert all(find_spec(f"tests.bench.{name}") for name in report.BENCHMARKS)
    titles = [title for title, _ in report.BENCHMARKS.values()]
    assert len(set(titles)) == len(titles)


def test_the_page_has_sections_of_known_benchmarks_only() -> None:
    known = {title for title, _ in report.BENCHMARKS.values()}
    assert report.sections(report.PAGE.read_text(encoding="utf-8")).keys() <= known


def test_a_run_replaces_its_section_and_keeps_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "PAGE", tmp_path / "figures.md")
    printed = iter(["second 1", "first 1", "second 2", None])

    def run(title: str, name: str, arguments: str) -> str | None:
        text = next(printed)
        return text and report.section(title, ["python", "-m", name], arguments, text)

    monkeypatch.setattr(report, "_run", run)
    monkeypatch.setattr(report, "BENCHMARKS", {"first": ("First", "here"), "second": ("Second", "there")})
    for name in ("second", "first", "second"):
        report.main([name])
    with pytest.raises(SystemExit, match="failed, their sections are as they were: first"):
        report.main(["first"])
    page = report.PAGE.read_text(encoding="utf-8")
    assert list(report.sections(page)) == ["First", "Second"]
    assert "second 2" in page
    assert "second 1" not in page
    assert "first 1" in page
