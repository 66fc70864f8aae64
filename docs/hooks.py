"""Brings files that pages link to outside docs/ into the site, so that one link works on GitHub and in the site.

A link from a page to `../docker/README.md` becomes a link to `repository/docker/README.md`. Links of these files are
followed likewise. A link to a directory becomes plain text.
"""

import re
from pathlib import Path
from posixpath import dirname, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]+)?\)")
"""A Markdown link to a file of the repository: its text, its path, and its anchor."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that the pages link to, and those that these link to."""
    waiting = [file.src_uri for file in files.documentation_pages()]
    while waiting:
        page = waiting.pop()
        text = source(page).read_text(encoding="utf-8")
        for _, path, _ in LINK.findall(text):
            place = in_site(target(page, path))
            if files.get_file_from_path(place) is None and source(place).is_file():
                files.append(File.generated(config, place, abs_src_path=str(source(place))))
                waiting += [place] if place.endswith(".md") else []
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links of a page to where their files are in the site."""
    here = page.file.src_uri

    def moved(link: re.Match[str]) -> str:
        text, path, anchor = link.groups()
        place = in_site(target(here, path))
        if source(place).is_dir():
            return str(text)
        return f"[{text}]({relpath(place, dirname(here) or '.')}{anchor or ''})"

    return LINK.sub(moved, markdown)


def source(place: str) -> Path:
    """The file of the repository that is at a place in the site."""
    return ROOT / place.removeprefix("repository/") if place.startswith("repository/") else ROOT / "docs" / place


def target(place: str, path: str) -> str:
    """The path in the repository that a link of the page at a place leads to."""
    return normpath(f"{source(place).parent.relative_to(ROOT).as_posix()}/{path}")


def in_site(path: str) -> str:
    """The place in the site of a file of the repository."""
    return path.removeprefix("docs/") if path.startswith("docs/") else f"repository/{path}"
