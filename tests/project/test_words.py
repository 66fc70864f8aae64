"""The documentation is in plain English: short sentences, and none of the phrases that puzzled readers."""

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


def sentences(page: Path) -> Iterator[str]:
    """The sentences of a page, without code, addresses of links and headings. Each item and cell stands alone."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "code", text))
    for paragraph in re.split(r"\n\s*\n|\n\s*(?:[-*]|\d+\.) |\n?\|", text):
        if not paragraph.lstrip().startswith("#"):
            yield from re.split(r"(?<=[.!?;:])\**\s", " ".join(paragraph.split()))


@pytest.mark.parametrize("page", [page.relative_to(ROOT).as_posix() for page in PAGES])
def test_pages_are_in_plain_english(page: str) -> None:
    found = []
    for sentence in sentences(ROOT / page):
        found += [f"{sentence!r}: {better}" for puzzle, better in PUZZLES.items() if re.search(puzzle, sentence)]
        if len(sentence.split()) > MOST_WORDS and not page.endswith(GENERATED):
            found.append(f"{sentence!r}: has more than {MOST_WORDS} words")
    assert not found, "\n".join(found)
