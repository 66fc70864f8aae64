"""Documentation and docstrings are in plain English: short sentences, and none of the phrases that puzzled readers."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT
from tests.project.test_readme import FOLDERS

PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / folder / "README.md" for folder in FOLDERS),
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
]
GENERATED = ("contract.md",)
"""Pages whose sentences are comments of the code."""
FOLDERS_OF_CODE = (
    *("clients", "clients/bench", "clients/commands", "clients/gateway"),
    *("indexer", "indexer/commands", "indexer/doctor", "indexer/items", "indexer/nightly", "indexer/rollout"),
    *("indexer/tuning", "indexer/users"),
    *("mind", "mind/choice", "mind/data", "mind/evaluation", "mind/milvus", "mind/milvus/filter", "mind/paddlerec"),
    *("mind/spark", "mind/training"),
    *("server", "server/edge", "server/serving", "server/serving/rules", "server/users", "server/watching"),
)
"""Folders whose docstrings are checked, without the folders in them."""
MOST_WORDS = 40
"""Most words of a sentence."""
PUZZLES = {
    r"\b[Ww]ho (?:is|has|wants|gets|knows|comes|asks|sends)\b(?![^.]*\?)": "name the person: users who, callers that",
    r"\b(?:all|half|none) of it\b": "say what it is",
    r"\blikewise\b": "say what is done",
    r"\b(?:so|nor) (?:does|do)\b(?! not)": "repeat the verb",
    r"\bbut for\b": "except",
    r"\banew\b": "again",
    r"\bheeds?\b|\bheeded\b": "reads, obeys",
    r"\bheld to\b": "checked against",
    r"\bseldom\b": "rarely",
    r"\bfor ever\b": "forever",
    r"(?<!not )\bat all\b": "leave it out",
    r"(?:^|(?<=[.:;] ))Of (?:every|all|each|a)\b": "begin with the subject",
}
"""Turns of phrase that readers stumbled over, and what to write instead."""


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of Markdown, without code, addresses of links and headings. Items and cells stand alone."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "code", text))
    for paragraph in re.split(r"\n\s*\n|\n\s*(?:[-*]|\d+\.) |\n?\|", text):
        if not paragraph.lstrip().startswith("#"):
            yield from re.split(r"(?<=[.!?;:])\**\s", " ".join(paragraph.split()))


def faults(text: str, most_words: int = MOST_WORDS) -> list[str]:
    """Return what is wrong with the sentences of a text."""
    found = []
    for sentence in sentences(text):
        found += [f"{sentence!r}: {better}" for puzzle, better in PUZZLES.items() if re.search(puzzle, sentence)]
        if len(sentence.split()) > most_words:
            found.append(f"{sentence!r}: has more than {most_words} words")
    return found


def docstrings(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the docstrings of a file with their lines: those of modules, classes, functions, fields and constants."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, inspect.cleandoc(text)


def docstring_faults(text: str) -> list[str]:
    """Return what is wrong with a docstring. Tables in it, which are aligned with spaces, are not checked."""
    first = re.split(r"(?<=[.!?])\s", text)[0]
    whole = len(first.split()) > 2 and first.endswith((".", "?", "!"))
    found = [] if whole else [f"{first!r}: begin with a sentence of three words or more, and end it with a full stop"]
    prose = [line for line in text.splitlines() if not re.search(r"\S {2,}\S|[├└]", line)]
    return found + faults(re.sub(r"\n +(?=[\w, ]+: )", "\n\n", "\n".join(prose)))


@pytest.mark.parametrize("page", [page.relative_to(ROOT).as_posix() for page in PAGES])
def test_pages_are_in_plain_english(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = faults(text, 1_000 if page.endswith(GENERATED) else MOST_WORDS)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("folder", FOLDERS_OF_CODE)
def test_docstrings_are_in_plain_english(folder: str) -> None:
    found = [
        f"{file.relative_to(ROOT)}:{line}: {fault}"
        for file in sorted((ROOT / folder).glob("*.py"))
        for line, text in docstrings(file)
        for fault in docstring_faults(text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("docstring", "fault"),
    [
        ("Of every user.", "begin with the subject"),
        ("Insert rows.", "three words or more"),
        ("The rows of a collection", "end it with a full stop"),
        ("Return " + "very " * MOST_WORDS + "much.", f"more than {MOST_WORDS} words"),
        ("Read it all.\n\nArgs:\n    path: nobody looks at it at all.", "leave it out"),
    ],
)
def test_faults_of_docstrings_are_found(docstring: str, fault: str) -> None:
    assert any(fault in found for found in docstring_faults(docstring))
