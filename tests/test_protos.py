"""The generated code is what the contract gives, and asks for what pyproject promises."""

import re
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "protos" / "recall" / "v1"
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
    buf = Path(sys.executable).parent / "buf"
    done = subprocess.run([buf, "lint"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


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
