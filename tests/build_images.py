"""`make images`: builds the container images with Docker, Podman or Buildah. `python -m tests.build_images --help`."""

import os
import shutil
import subprocess
import time
from typing import Annotated, Any

import typer

from tests import ROOT
from tests.images import DOCKERFILE, IMAGES

ENGINES = ("docker", "podman", "buildah")
"""The programs that can build, in the order in which they are tried."""
CPU_TARGETS = [image for image in IMAGES if image != "server-gpu"]
TAG = "local"
"""As in the compose files, so that `docker compose up` starts what was built here."""


class EngineError(Exception):
    """No program here can build images."""


def find_engine(wanted: str = "") -> str:
    """The first engine that is installed and ready, or the wanted one. Raises EngineError."""
    refused = []
    for engine in [wanted] if wanted else ENGINES:
        if not shutil.which(engine):
            refused.append(f"{engine} is not installed")
        elif said := _failure(engine):
            refused.append(f"`{engine} info` failed: {said}")
        else:
            return engine
    raise EngineError(f"{'; '.join(refused)}. Install one of {', '.join(ENGINES)}, or start its daemon")


def _failure(engine: str) -> str:
    """What an engine says when it is not ready; Docker without its daemon is not."""
    done = subprocess.run([engine, "info"], capture_output=True, text=True, check=False)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return "" if done.returncode == 0 else (lines[-1] if lines else f"exit code {done.returncode}")


def build_command(engine: str, target: str, arguments: dict[str, str]) -> list[str]:
    """The command that builds a target of the Dockerfile."""
    given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    # The format of Docker keeps the health checks, which that of OCI has no place for.
    format_ = [] if engine == "docker" else ["--format", "docker"]
    where = ["--file", str(DOCKERFILE), "--target", target, "--tag", f"mind-recall-{target}:{TAG}", str(ROOT)]
    return [engine, "build", *format_, *given, *where]


def build_arguments(base: str) -> dict[str, str]:
    """The arguments of the Dockerfile: the commit and its time where there is one, and the base unless it is empty."""
    arguments = {"PYTHON": base} if base else {}
    git = shutil.which("git")
    if git is None:
        return arguments
    for name, format_ in {"REVISION": "%H", "SOURCE_DATE_EPOCH": "%ct"}.items():
        told = subprocess.run(
            [git, "log", "-1", f"--format={format_}"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if told.returncode == 0:
            arguments[name] = told.stdout.strip()
    return arguments


def build(engine: str, target: str, base: str = "", **options: Any) -> float:
    """Build a target, and give the seconds that it took. Raises CalledProcessError. `options` are those of `run`."""
    started = time.monotonic()
    environment = os.environ | {"DOCKER_BUILDKIT": "1"} | options.pop("env", {})
    command = build_command(engine, target, build_arguments(base))
    subprocess.run(command, check=True, env=environment, **options)
    return time.monotonic() - started


def main(
    targets: Annotated[
        list[str] | None,
        typer.Argument(help=f"{', '.join(IMAGES)}. By default all but server-gpu.", show_default=False),
    ] = None,
    engine: Annotated[str, typer.Option(help="docker, podman or buildah; else the first that is ready.")] = "",
    base: Annotated[
        str, typer.Option(help="An image with Python 3.11 to build on, such as one that knows your package index.")
    ] = "",
) -> None:
    """Build the images as mind-recall-TARGET:local, the names in the compose files."""
    wanted = targets or CPU_TARGETS
    if unknown := [target for target in wanted if target not in IMAGES]:
        raise typer.BadParameter(f"{unknown[0]!r}: expected one of {', '.join(IMAGES)}", param_hint="TARGETS")
    try:
        chosen = find_engine(engine)
        took = {target: build(chosen, target, base) for target in wanted}
    except EngineError as error:
        raise typer.BadParameter(str(error), param_hint="--engine") from None
    except subprocess.CalledProcessError as error:
        typer.echo(f"error: {chosen} ended with exit code {error.returncode}; its last lines say why", err=True)
        raise typer.Exit(1) from None
    for target, seconds in took.items():
        typer.echo(f"mind-recall-{target}:{TAG} built with {chosen} in {seconds:.0f} s")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    app()
