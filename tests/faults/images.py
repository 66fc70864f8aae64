"""Builds the images for CPUs, and runs the demo of the compose files in them, beside a real Milvus.

    python -m tests.faults.images

Needs root, Buildah, debootstrap and a package index, and no container engine. Everything runs from the root file
systems of the images, with their commands, as their user, with a read-only root and without privileges, under the names
and ports of the compose files. Milvus is the one of the PyPI package. Everything is deleted at the end: 5 GB.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.table import Table

from tests import ROOT
from tests.build_images import TAG, build
from tests.faults.base_image import make_base
from tests.faults.ground import console, say
from tests.faults.root_file_systems import Image, Volume, missing, network
from tests.project.test_docker import DEMO, variables
from tests.shop import write_shop

BASE = "localhost/python:3.11-stand-in"
BUILDERS = (("trainer",), ("server", "gateway", "indexer"))
"""Targets that are built at the same time; those of one tuple after each other."""
MOST_MB = {"server": 450, "gateway": 350, "indexer": 600}
"""Largest size of an image with its base, in megabytes."""
START_S, LEAVE_S, COMMAND_S = 60, 30, 180
HISTORY = "KIT-1003,KIT-1004,KIT-1005"
CONFINED = """
import os
assert (os.getuid(), os.getgid(), os.getgroups()) == (10001, 10001, [])
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status"))
assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0 and int(status["NoNewPrivs"]) == 1, status
open("/tmp/written", "w").close()
for place in ("/", "/etc", "/opt/recall", "/usr"):
    assert os.statvfs(place).f_flag & os.ST_RDONLY, place
"""
ASK_GATEWAY = """
import json, sys, urllib.request as r
body = json.dumps({"users": [{"hist_item": sys.argv[1].split(",")}], "top_k": 5}).encode()
request = r.Request("http://gateway:8000/v1/recall", body, {"Content-Type": "application/json"})
try:
    print(r.urlopen(request, timeout=10).read().decode())
except r.HTTPError as error:
    sys.exit(error.read().decode())
"""


@dataclass
class Row:
    """What is measured of an image."""

    megabytes: float
    build_s: float
    start_s: float | None = None
    """From the start of its service until its health check succeeds."""


@dataclass
class Stack:
    """The services of the compose files in a network of their own."""

    directory: Path
    images: dict[str, Image]
    inside: list[str]
    """Words that run a command in the network."""
    rows: dict[str, Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the volumes, with the clicks and items of a small shop in `data`."""
        names = "localhost milvus server gateway"
        (self.directory / "hosts").write_text(f"127.0.0.1 {names}\n", encoding="utf-8")
        write_shop(self.directory / "data")
        for image in self.images:
            (self.directory / "homes" / image).mkdir(parents=True)
        (self.directory / "artifacts").mkdir()
        for path in (*self.directory.rglob("*"),):
            os.chown(path, 10001, 10001)

    def start(
        self, image: str, words: list[str], *, write: bool = False, printed: bool = True
    ) -> subprocess.Popen[str]:
        """Start a command in an image.

        Args:
            image: its target.
            words: the command.
            write: whether it may write to the volumes of models and data.
            printed: whether the caller reads what it prints, which else goes to the log.
        """
        built = self.images[image]
        volumes = [Volume(self.directory / name, f"/{name}", "rw" if write else "ro") for name in ("artifacts", "data")]
        if "/home/recall" in built.volumes:
            volumes.append(Volume(self.directory / "homes" / image, "/home/recall", "rw"))
        given = {} if image == "trainer" else variables(image)
        with self.log(image).open("a", encoding="utf-8") as log:
            return subprocess.Popen(
                self.inside + built.command(words, self.directory / "hosts", volumes),
                env=built.env | given | {"HOME": "/home/recall"},
                stdout=subprocess.PIPE if printed else log,
                stderr=log,
                text=True,
            )

    def log(self, image: str) -> Path:
        """Where an image's commands log."""
        return self.directory / f"{image}.log"

    def run(self, image: str, *words: str, write: bool = False) -> str:
        """What a command in an image prints. It must end well."""
        output, _ = (process := self.start(image, list(words), write=write)).communicate(timeout=COMMAND_S)
        assert process.returncode == 0, f"{image}: {' '.join(words)}\n{output}\n{self.log(image).read_text()}"
        return output

    def healthy(self, image: str) -> bool:
        """Whether an image's own health check succeeds."""
        check = self.start(image, self.images[image].health_check)
        check.communicate(timeout=COMMAND_S)
        return check.returncode == 0

    @contextmanager
    def service(self, image: str) -> Iterator[None]:
        """An image's entry point, healthy; ends at SIGTERM."""
        assert not self.healthy(image), "somebody else answers"
        started = time.monotonic()
        process = self.start(image, self.images[image].entrypoint, printed=False)
        try:
            while not self.healthy(image):
                assert process.poll() is None, self.log(image).read_text()
                assert time.monotonic() - started < START_S, self.log(image).read_text()
            self.rows[image].start_s = time.monotonic() - started
            yield
            process.terminate()
            assert process.wait(LEAVE_S) in (0, -15), self.log(image).read_text()  # uvicorn ends by the signal
        finally:
            process.kill()
            process.communicate()


@contextmanager
def milvus(inside: list[str], directory: Path) -> Iterator[None]:
    """A real Milvus in the network, on the port of the compose files."""
    command = [sys.executable, "-m", "tests.milvus", "--port", "19530", "--data", str(directory)]
    process = subprocess.Popen([*inside, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        for line in process.stdout:
            if "answers at" in line:
                break
        else:
            raise AssertionError(f"Milvus ended with exit code {process.wait()}")
        yield
    finally:
        process.terminate()
        process.communicate()


@contextmanager
def built_images(directory: Path) -> Iterator[tuple[dict[str, Image], dict[str, Row]]]:
    """The base and the images, built in a storage of their own in a directory, and mounted."""
    (directory / "tmp").mkdir()
    environment = os.environ | {"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(directory / "tmp")}
    environment["CONTAINERS_STORAGE_CONF"] = str(directory / "storage.conf")
    _choose_storage(directory, environment)
    say("make a base image with debootstrap")
    make_base(directory / "tmp", BASE, environment)

    def one_by_one(targets: tuple[str, ...]) -> dict[str, float]:
        return {target: _built(target, directory / f"{target}.log", environment) for target in targets}

    with ThreadPoolExecutor() as pool:
        took = {target: seconds for each in pool.map(one_by_one, BUILDERS) for target, seconds in each.items()}
    images = {target: Image.mounted(f"mind-recall-{target}:{TAG}", environment) for target in took}
    try:
        yield images, {target: Row(image.megabytes(), took[target]) for target, image in images.items()}
    finally:
        subprocess.run(["buildah", "rm", "--all"], env=environment, capture_output=True, check=True)


def _choose_storage(directory: Path, environment: dict[str, str]) -> None:
    """Have Buildah keep images in layers if the kernel can, else in copies."""
    for driver in ("overlay", "vfs"):
        (directory / "storage.conf").write_text(
            f'[storage]\ndriver = "{driver}"\ngraphroot = "{directory}/{driver}"\nrunroot = "{directory}/run"\n',
            encoding="utf-8",
        )
        if subprocess.run(["buildah", "info"], env=environment, capture_output=True, check=False).returncode == 0:
            return
    raise AssertionError("Buildah can use neither overlay nor vfs")


def _built(target: str, log: Path, environment: dict[str, str]) -> float:
    """Build a target; gives the seconds."""
    with log.open("w", encoding="utf-8") as output:
        try:
            seconds = build("buildah", target, BASE, env=environment, stdout=output, stderr=output)
        except subprocess.CalledProcessError:
            raise AssertionError(f"{target} was not built:\n{log.read_text()[-4000:]}") from None
    say(f"{target} built in {seconds:.0f} s")
    return seconds


def demo(stack: Stack) -> None:
    """Prepare, train, build and publish, serve and call, each in its image."""
    for image in stack.images:
        stack.run(image, "python", "-c", CONFINED)
    trainer, train = stack.images["trainer"].entrypoint, DEMO["services"]["trainer"]["command"]
    prepared = "data/movielens-100k"  # where the next command, that of the compose file, looks
    stack.run("trainer", *trainer, "mind.prepare", "/data/clicks.csv", "--output", prepared, write=True)
    stack.run("trainer", *trainer, *train, "-o", "runner.epochs=2", write=True)
    say("trained")
    options = ["--artifact", "/artifacts", "--attributes", "/data/items.csv", "--id-column", "sku", "--publish"]
    assert "live " in stack.run("indexer", *stack.images["indexer"].entrypoint, "build", *options)
    say("indexed")
    with stack.service("server"), stack.service("gateway"):
        question = ["recall", "--hist-item", HISTORY, "--top-k", "5", "--format", "json"]
        called = json.loads(stack.run("server", "recall-client", *question))
        asked = json.loads(stack.run("gateway", "python", "-c", ASK_GATEWAY, HISTORY))
        found = json.dumps(asked)
        assert called and "KIT-" in found and "KIT-" in json.dumps(called), f"{called}\n{found}"


def drill() -> dict[str, Row]:
    """Build all, run all, delete all; gives what was measured. Raises AssertionError at the first fault."""
    with TemporaryDirectory(prefix="recall-images-") as name, ExitStack() as last:
        place = Path(name)
        (place / "build").mkdir()
        (place / "run").mkdir()
        images, rows = last.enter_context(built_images(place / "build"))
        inside = last.enter_context(network())
        last.enter_context(milvus(inside, place / "milvus"))
        say("Milvus is up")
        demo(Stack(place / "run", images, inside, rows))
    for image, most in MOST_MB.items():
        assert rows[image].megabytes <= most, f"{image} takes {rows[image].megabytes:.0f} MB, expected {most} at most"
    return rows


def why_not() -> str:
    """Why the drill cannot run here; empty if it can."""
    absent = [program for program in ("buildah", "debootstrap") if not shutil.which(program)]
    return f"{absent[0]} is not installed" if absent else missing()


def main() -> None:
    """Print a table of the images."""
    if reason := why_not():
        sys.exit(f"error: {reason}")
    table = Table("image", "size", "build", "start to healthy", box=None)
    for image, row in drill().items():
        start = "" if row.start_s is None else f"{row.start_s:.1f} s"
        table.add_row(image, f"{row.megabytes:.0f} MB", f"{row.build_s:.0f} s", start)
    console.print(table)


if __name__ == "__main__":
    main()
