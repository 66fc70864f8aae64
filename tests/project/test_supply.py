"""The supply chain: the page of licences, the audit's exit code, the SBOM, and a wheel of the same bytes."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT, supply
from tests.supply import THIRD_PARTY, locked, shipped

PAGE = THIRD_PARTY.read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\S+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)[1:]


def test_third_party_is_the_locks() -> None:
    rows = [tuple(row[:3]) for row in supply.rows()]  # which part needs a package may depend on the version of Python
    assert [row[:3] for row in ROWS] == rows, "`make third-party` writes it anew"
    assert [name for name, *_ in ROWS] == sorted(locked())


def test_every_licence_is_known_and_none_of_the_product_asks_for_our_source() -> None:
    assert not [name for name, _, licence, _ in ROWS if licence == "unknown" or len(licence) > 80]
    assert not [name for name, _, licence, part in ROWS if "GPL" in licence and part != "development"]


def test_what_is_shipped_is_locked() -> None:
    assert shipped().keys() <= locked().keys()
    assert shipped()["grpcio"] >= {"client", "server"} and "pytest" not in shipped()


@pytest.mark.parametrize(
    ("packages", "code", "says"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], 0, "1 packages checked, 0 known vulnerabilities"),
        (
            [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}],
            1,
            "a 1: CVE-1, fixed in 2",
        ),
        ([{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "x"}], 1, "not checked: b"),
        ([], 0, "without a report, so nothing was checked"),
    ],
)
def test_a_known_vulnerability_fails_the_audit(
    packages: list[dict[str, Any]], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert supply.judge(packages, 1) == code
    assert says in capsys.readouterr().out


def test_an_audit_without_a_network_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(supply, "ADVISORIES", ("127.0.0.1", 9))
    supply.audit()
    assert capsys.readouterr().out == "audit: 127.0.0.1 cannot be reached from here, so nothing was checked\n"


def test_the_sbom_lists_what_the_product_installs(tmp_path: Path) -> None:
    for name in ("one", "two"):
        supply.sbom(tmp_path / f"{name}.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    bom = json.loads((tmp_path / "one.json").read_text())
    assert (bom["bomFormat"], bom["metadata"]["component"]["name"]) == ("CycloneDX", "mind-recall")
    components = {each["name"]: each for each in bom["components"]}
    assert {"grpcio", "numpy", "pymilvus", "paddlepaddle"} <= components.keys() <= locked().keys()
    assert not {"pytest", "milvus"} & components.keys()
    grpcio = components["grpcio"]
    assert grpcio["purl"] == f"pkg:pypi/grpcio@{grpcio['version']}"
    assert {each["content"] for each in grpcio["hashes"]} == set(locked()["grpcio"].hashes[grpcio["version"]])
    assert grpcio["licenses"] == [{"license": {"id": "Apache-2.0"}}]


def test_the_same_commit_gives_the_same_wheel(tmp_path: Path) -> None:
    clone = tmp_path / "elsewhere" / "clone"
    commands = (["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)],)
    subprocess.run(*commands, check=True, umask=0o077)
    digests = set()
    for place in (ROOT, clone):
        output = tmp_path / f"dist-{place.name}"
        command = [sys.executable, "-m", "tests.supply", "wheel", "--output", str(output)]
        subprocess.run(command, cwd=place, check=True, umask=0o077 if place == clone else 0o022)
        (built,) = output.glob("*.whl")
        digests.add(hashlib.sha256(built.read_bytes()).hexdigest())
    assert len(digests) == 1
