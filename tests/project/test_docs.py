"""The documentation site builds without a warning: every page is listed, every link and anchor leads somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import ROOT, reference


def build(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Build the site into a directory, as `make docs` does. A warning fails the build."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(directory), *options]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    directory = tmp_path_factory.mktemp("site")
    done = build(directory)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def test_every_page_is_in_the_site(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs")).with_suffix(".html").is_file(), page


def test_files_outside_docs_that_pages_link_to_are_in_the_site(site: Path) -> None:
    home = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="repository/index.html"' in home
    readme = (site / "repository/index.html").read_text(encoding="utf-8")
    for link in ("SECURITY.html", "docker/index.html"):
        assert f'href="{link}' in readme and (site / "repository" / link).is_file()
    assert 'href="../reference/glossary.html"' in readme
    contract = (site / "reference/contract.html").read_text(encoding="utf-8")
    assert 'href="../repository/protos/recall/v1/recall.proto"' in contract
    assert (site / "repository/protos/recall/v1/recall.proto").is_file()


@pytest.mark.parametrize("link", ["index.md#nowhere", "nowhere.md", "../nowhere.md"])
def test_a_broken_link_fails_the_build(tmp_path: Path, link: str) -> None:
    (docs := tmp_path / "docs").mkdir()
    (docs / "index.md").write_text(f"# Home\n\n[Somewhere]({link})\n", encoding="utf-8")
    config = {"INHERIT": str(ROOT / "mkdocs.yml"), "docs_dir": str(docs), "hooks": [], "nav": [{"Home": "index.md"}]}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    done = build(tmp_path / "site", "--config-file", str(tmp_path / "mkdocs.yml"))
    assert done.returncode == 1 and link in done.stderr


def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|link|img)[^>]* (?:src|href)="https?://', html), page


@pytest.mark.parametrize("page", reference.PAGES)
def test_reference_pages_are_the_codes(page: str) -> None:
    written = (reference.FOLDER / page).read_text(encoding="utf-8")
    assert written == reference.PAGES[page](), "`make reference` writes it anew"
