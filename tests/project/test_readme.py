"""README and the documentation tell the truth: option tables, commands, grpcurl lines, links."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from clients.gateway.settings import Settings as GatewaySettings
from indexer.nightly.config import Nightly
from mind.config import HyperParameters, Optimizer, Runner
from mind.events import Events
from tests import ROOT
from tests.artifacts import make_artifact, write_keyed
from tests.commands import run_here
from tests.reference import option_table, options
from tests.server.test_service import Server, running
from tests.server.test_store import build

FOLDERS = (
    ".",
    "mind",
    "indexer",
    "server",
    "clients",
    "tests/bench",
    "docker",
    "docker/kubernetes",
    "clients/examples",
)
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [*(ROOT / folder / "README.md" for folder in FOLDERS), *sorted((ROOT / "docs").rglob("*.md"))]
}
BIN = Path(sys.executable).parent
TEXT_IDS = ["KIT-1424", "GAR-1001", *(f"KIT-{number}" for number in range(100))]


def fields(model: type[BaseModel], prefix: str, skip: tuple[str, ...] = ()) -> list[tuple[str, object, str]]:
    return [
        (prefix + (field.alias or name), field.default, field.description or "")
        for name, field in model.model_fields.items()
        if name not in skip
    ]


def nightly() -> list[tuple[str, object, str]]:
    """The keys of the night shift's configuration."""
    sections = {name: field.annotation for name, field in Nightly.model_fields.items() if is_section(field.annotation)}
    rows = fields(Nightly, "", skip=tuple(sections))
    return rows + [row for name, section in sections.items() for row in fields(section, f"{name}.")]


def is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


@pytest.mark.parametrize(
    ("page", "table"),
    [
        ("docs/reference/gateway-options.md", option_table("option", options(GatewaySettings))),
        ("docs/reference/config-keys.md", option_table("key", fields(Runner, "runner."))),
        ("docs/reference/nightly-keys.md", option_table("key", nightly())),
        ("docs/reference/config-keys.md", option_table("key", fields(Events, "events."))),
        (
            "docs/reference/config-keys.md",
            option_table(
                "key",
                fields(Optimizer, "hyper_parameters.optimizer.")
                + fields(HyperParameters, "hyper_parameters.", skip=("optimizer",)),
            ),
        ),
    ],
)
def test_option_tables_are_the_codes(page: str, table: str) -> None:
    assert table in PAGES[page], f"{page} must hold this table:\n{table}"


def commands() -> Iterator[list[str]]:
    """Every command line in the pages' shell blocks, comments and continuations resolved."""
    for page in PAGES.values():
        for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    yield words


def test_every_option_that_a_page_uses_exists() -> None:
    helps: dict[tuple[str, ...], str] = {}
    for words in commands():
        program: tuple[str, ...]
        if "mind/train.py" in words:  # behind Paddle's launcher, whose own options Paddle tests
            words = [*words[:2], "mind.train", *words[words.index("mind/train.py") + 1 :]]
        if words[:2] == [".venv/bin/python", "-m"]:
            program = ("-m", words[2], *(words[3:4] if words[2] in ("indexer", "mind.models") else ()))
        elif words[0] == ".venv/bin/recall-client":
            program = ("-m", "clients", words[1], *(words[2:3] if words[1] in ("admin", "users") else ()))
        elif words[0] == ".venv/bin/recall-gateway":
            program = ("-m", "clients.gateway")
        else:
            continue
        if program not in helps:
            done = run_here(*program[1:], "--help", env={"COLUMNS": "200", "TERM": "dumb"})
            assert done.returncode == 0, f"{' '.join(words)}:\n{done.stderr}"
            helps[program] = done.stdout
        for word in words:
            if word.startswith("-") and word != "-m" and not word[1:2].isdigit():
                assert word in helps[program], f"{' '.join(words)}: no option {word}"
    assert len(helps) >= 10


@pytest.mark.parametrize("keyed", [False, True])
def test_grpcurl_lines_run_as_printed(tmp_path: Path, keyed: bool) -> None:
    path = write_keyed(tmp_path / "artifacts", TEXT_IDS) if keyed else make_artifact(tmp_path / "artifacts")
    lite = str(tmp_path / "milvus.db")
    attributes = tmp_path / "items.csv"
    item_ids = TEXT_IDS if keyed else range(1000, 2400, 7)
    rows = [f"{item_id},{1980 + row % 40},Drama" for row, item_id in enumerate(item_ids)]
    attributes.write_text("\n".join(["item_id,year,genres", *rows]))
    build(lite, path.parent, "--attributes", str(attributes), "--multi-valued", "genres")
    lines = [words for words in commands() if words[0].endswith("grpcurl") and ("_keys" in shlex.join(words)) == keyed]
    assert lines
    with running("--milvus-uri", lite, "--artifacts", str(tmp_path / "artifacts"), "--users") as server:
        server.wait_for("serving model")
        for words in lines:
            done = _run(words, server)
            assert done.returncode == 0, f"{shlex.join(words)}:\n{done.stdout}{done.stderr}"


def _run(words: list[str], server: Server) -> subprocess.CompletedProcess[str]:
    here = [word.replace("localhost:50051", server.address) for word in words[1:]]
    return subprocess.run([BIN / "grpcurl", *here], capture_output=True, text=True, check=False, timeout=30)


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in commands():
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), words


def anchors(page: str) -> set[str]:
    """What GitHub makes of the page's headings."""
    text = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for path, anchor in re.findall(r"\]\((?!https?://)([^)#]*)(?:#([^)]+))?\)", PAGES[page]):
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), f"{path}#{anchor}"
