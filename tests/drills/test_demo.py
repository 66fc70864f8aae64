"""`make demo`, shortened: it shows what it promises, works a second time, and leaves nothing behind after Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from milvus_lite import MilvusLite

from tests import ROOT


def start(directory: Path, *more: str | Path) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "tests.demo",
        "--directory",
        str(directory),
        "-o",
        "runner.epochs=1",
        *map(str, more),
    ]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=os.environ | {"COLUMNS": "120", "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def processes_about(directory: Path) -> list[str]:
    """Command lines of running processes that name the directory."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(directory) in line:
            found.append(line)
    return found


@pytest.mark.timeout(300)
def test_it_shows_the_whole_path(tmp_path: Path) -> None:
    demo = start(tmp_path)
    output, _ = demo.communicate(timeout=200)
    assert demo.returncode == 0, output
    rows = {
        name: [float(cell) for cell in re.findall(r"\d+\.\d+", cells)]
        for name, cells in re.findall(r"│ (most popular|MIND, exact search) +│(.*)", output)
    }
    assert all(mine > popular for mine, popular in zip(rows["MIND, exact search"], rows["most popular"], strict=True))
    told = " ".join(output.split())
    assert told.startswith(
        "The demo takes 7 steps with movielens-100k, about 2 minutes on two cores: 1 Prepare the clicks"
    )
    assert "its lists have 100.00 % of the exact top 20 and 100.00 % of the exact top 50" in told, "Lite is exact"
    chosen, final = (next((tmp_path / name).iterdir()).name for name in ("chosen", "artifacts"))
    assert f"model {final} was trained on all data, so its accuracy cannot be measured; that of model {chosen}" in told
    assert "943 users, 100,000 interactions to train on; ends after epoch 1" in told
    for told in ("loss", "vectors equal bit for bit", "SERVING", "● ", "exclude_history", "filter year >= 1995"):
        assert told in output, told
    assert f"recall-gateway --titles {tmp_path}" in output
    assert output.count("Go on with") == 1
    assert not processes_about(tmp_path)
    assert "1,Toy Story" in (tmp_path / "titles.csv").read_text().splitlines()
    assert len(json.loads((tmp_path / "map.json").read_text())["item_ids"]) > 1600
    lines = (tmp_path / "MIND, served.jsonl").read_text().splitlines()
    assert len(lines) == 95 and len(json.loads(lines[0])["item_ids"]) == 50


def write_shop(directory: Path) -> tuple[Path, Path]:
    """Clicks and items of a small shop, with text ids: people stay mostly within one of three departments."""
    rng = np.random.default_rng(3)
    skus = np.array([[f"{name}-{number:03d}" for number in range(30)] for name in ("KIT", "GAR", "0O7")])
    rows = []
    for user, at in np.ndindex(200, 10):
        sku = skus[(user + (rng.random() < 0.1)) % 3, rng.integers(30)]
        rows.append(f"cust_{user},{sku},2026-08-{1 + user % 28:02d}T10:{at:02d}:00Z")
    (clicks := directory / "clicks.csv").write_text("\n".join(["customer_id,sku,clicked_at", *rows]))
    items = [f'{sku},"A thing, {sku}",{number}.50,{sku[:3]}|All' for number, sku in enumerate(skus.flat)]
    (catalogue := directory / "items.csv").write_text("\n".join(["sku,title,price,category", *items]))
    return clicks, catalogue


@pytest.mark.timeout(300)
def test_a_shop_sees_its_own_files_in_its_own_ids_twice(tmp_path: Path) -> None:
    clicks, items = write_shop(tmp_path)
    for attempt in ("first", "second"):
        demo = start(tmp_path / "own", "--data", clicks, "--items", items)
        output, _ = demo.communicate(timeout=200)
        assert demo.returncode == 0, output
        assert "its lists have 100.00 % of the exact top 20" in " ".join(output.split())
        for told in ("sku: text ids, such as", "user cust_", "A thing, KIT-0", "filter price <= ", "--hist-item KIT-"):
            assert told in output.replace("GAR-", "KIT-").replace("0O7-", "KIT-"), told
        assert ("existed already" in output) == (attempt == "second")
        assert not processes_about(tmp_path)
    line = json.loads((tmp_path / "own" / "MIND, served.jsonl").read_text().splitlines()[0])
    assert line["user_id"].startswith("cust_") and line["item_ids"][0][:4] in ("KIT-", "GAR-", "0O7-")


def test_columns_that_nobody_knows_are_asked_for(tmp_path: Path) -> None:
    (clicks := tmp_path / "clicks.csv").write_text("who,what,since\n1,2,3\n")
    output, _ = (demo := start(tmp_path / "own", "--data", clicks)).communicate(timeout=60)
    told = " ".join(output.split())
    assert demo.returncode == 1
    assert "no column is called user_id or alike; say with --user which one holds the users; there are: who" in told
    assert "NAMES=user,item,time` if they were not found" in told


def test_a_held_index_is_found_before_anything_is_trained(tmp_path: Path) -> None:
    held = MilvusLite(str(tmp_path / "milvus.db"))
    try:
        output, _ = (demo := start(tmp_path)).communicate(timeout=60)
    finally:
        held.close()
    assert demo.returncode == 1
    assert f"the demo stopped: {tmp_path}/milvus.db: another process holds this Milvus Lite file" in " ".join(
        output.split()
    )
    assert "mind.prepare" not in output and not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize("step", ["mind.prepare", "epoch", "indexer build", "serving model"])
def test_ctrl_c_at_any_step_leaves_nothing_running(tmp_path: Path, step: str) -> None:
    clicks, items = write_shop(tmp_path)
    demo = start(tmp_path / "own", "--data", clicks, "--items", items)
    assert demo.stdout
    seen = ""
    while step not in seen:
        line = demo.stdout.readline()
        assert line, f"the demo ended before {step!r}:\n{seen}"
        seen += line
    os.killpg(demo.pid, signal.SIGINT)  # as a terminal does: to everyone in the foreground
    output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130, f"{step} was over before Ctrl-C came, or it was not heeded:\n{output}"
    assert "everything the demo started has been stopped" in output and "Traceback" not in output
    deadline = time.monotonic() + 5
    while processes_about(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_about(tmp_path)
    assert not list(tmp_path.glob("own/artifacts/.incomplete-*"))
