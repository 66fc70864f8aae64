"""The generated code is what the contract gives, and asks for what pyproject promises."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from tests import ROOT

BUF = Path(sys.executable).parent / "buf"
FOLDER = ROOT / "protos" / "recall" / "v1"
PACKAGES_PLUGIN = """
import sys
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
options = CodeGeneratorRequest.FromString(sys.stdin.buffer.read()).proto_file[0].options
told = " ".join([options.go_package, options.java_package, options.csharp_namespace])
made = CodeGeneratorResponse(file=[CodeGeneratorResponse.File(name="packages.txt", content=told)])
sys.stdout.buffer.write(made.SerializeToString())
"""
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_generated_code_has_not_drifted(tmp_path: Path) -> None:
    sources = sorted(str(file.relative_to(ROOT)) for file in FOLDER.glob("*.proto"))
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, *sources], cwd=ROOT, check=True)
    fresh = {file.name: file.read_bytes() for file in (tmp_path / "protos" / "recall" / "v1").iterdir()}
    checked_in = {file.name: file.read_bytes() for file in FOLDER.glob("*_pb2*.py*")}
    assert fresh == checked_in, "run `make protos`"


def test_floors_are_what_the_generated_code_demands() -> None:
    stub = (FOLDER / "recall_pb2_grpc.py").read_text(encoding="utf-8")
    messages = (FOLDER / "recall_pb2.py").read_text(encoding="utf-8")
    grpcio = re.search(r"GRPC_GENERATED_VERSION = '([\d.]+)'", stub)
    protobuf = re.search(r"Protobuf Python Version: ([\d.]+)", messages)
    assert grpcio and protobuf
    floors = dict(re.match(r"([a-z]+)>=([\d.]+),", line).groups() for line in PYPROJECT["project"]["dependencies"])  # type: ignore[union-attr]
    assert floors == {"grpcio": grpcio[1], "protobuf": protobuf[1]}


def test_lint() -> None:
    done = subprocess.run([BUF, "lint"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("", "", ""),  # the contract as it is
        ("int64 count = 1;", "int64 count = 1;\n  // More.\n  int64 more = 99;", ""),
        ("int64 count = 1;", "int32 count = 1;", 'Field "1"'),
        ("  // Items.\n  int64 count = 1;\n", "", 'Previously present field "1" with name "count"'),
        ("rpc CountItems(", "rpc NumberItems(", 'Previously present RPC "CountItems"'),
    ],
)
def test_the_released_contract_stays_usable(tmp_path: Path, before: str, after: str, told: str) -> None:
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    changed = tmp_path / "protos" / "recall" / "v1"
    shutil.copytree(FOLDER, changed, ignore=shutil.ignore_patterns("*.py*"))
    text = (changed / "recall.proto").read_text(encoding="utf-8")
    assert before in text
    (changed / "recall.proto").write_text(text.replace(before, after), encoding="utf-8")
    command = [BUF, "breaking", "--against", ROOT / "protos" / "released.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (told == ""), done.stdout + done.stderr
    assert told in done.stdout


def test_other_languages_get_packages_of_their_own(tmp_path: Path) -> None:
    template = yaml.safe_load((ROOT / "buf.gen.yaml").read_text(encoding="utf-8"))
    languages = {Path(plugin["out"]).name for plugin in template["plugins"]}
    assert languages == {"go", "java", "csharp", "typescript", "python"}
    plugin = [sys.executable, "-c", PACKAGES_PLUGIN]  # instead of those that run elsewhere
    template["plugins"] = [{"local": plugin, "out": ".", "strategy": "all"}]
    subprocess.run([BUF, "generate", "--template", json.dumps(template), "-o", tmp_path], cwd=ROOT, check=True)
    assert (tmp_path / "packages.txt").read_text(encoding="utf-8").split() == [
        "example.com/recall/gen/go/recall/v1;recallv1",
        "com.recall.v1",
        "Recall.V1",
    ]


def test_every_field_says_what_it_is() -> None:
    for file in FOLDER.glob("*.proto"):
        lines = file.read_text(encoding="utf-8").splitlines()
        for before, line in pairwise(lines):
            if re.match(r"\s+[\w.]+( \w+)* = \d+;|\s+rpc |message |enum |service ", line):
                assert before.strip().startswith("//"), f"{file.name}: {line.strip()} has no comment"


def test_no_download_address_is_locked() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in lock and "--index-url" not in lock
    assert re.search(r"^paddlepaddle==", lock, re.MULTILINE) and "sha256:" in lock
