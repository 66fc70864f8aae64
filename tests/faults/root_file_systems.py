"""Runs what images have, from their own root file systems, the way a hardened container runs: as the user of the image,
without privileges, with a read-only root, in a network of its own. Needs root, util-linux and no container engine.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SET_UP = """
root=$1 hosts=$2; shift 2
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount --bind /proc "$root/proc"
mount --bind "$hosts" "$root/etc/hosts"
mount -t tmpfs tmpfs "$root/tmp"
while [ "$1" != -- ]; do
    mount --bind "$1" "$root$2"
    mount -o "remount,bind,$3" "$root$2"
    shift 3
done
shift
mount -o remount,bind,ro "$root"
exec chroot "$root" "$@"
"""
"""Mounts what a container has, and becomes the command that follows `--`, in the root file system.

Arguments: the root file system, a file of host names, and of each volume its source, its target, and `ro` or `rw`.
"""
ENTER = 'cd "$0"; exec "$@"'


def missing() -> str:
    """Why this machine cannot run root file systems; empty if it can."""
    if os.geteuid() != 0:
        return "it needs root"
    for program in ("chroot", "ip", "mount", "nsenter", "setpriv", "unshare"):
        if not shutil.which(program):
            return f"{program} is not installed"
    trial = subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, text=True, check=False)
    return f"`unshare --mount --net` failed: {trial.stderr.strip()}" if trial.returncode else ""


@contextmanager
def network() -> Iterator[list[str]]:
    """A network of its own, where every port is free. Gives the words that run a command in it."""
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-ec", "ip link set lo up; echo up; exec cat"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdin and holder.stdout
    try:
        assert holder.stdout.readline() == b"up\n"
        yield [str(shutil.which("nsenter")), f"--net=/proc/{holder.pid}/ns/net"]
    finally:
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()


@dataclass(frozen=True)
class Volume:
    """A directory of this machine inside a container."""

    source: Path
    target: str
    mode: str = "ro"
    """`ro` or `rw`."""


@dataclass(frozen=True)
class Image:
    """A built image: its root file system in a directory, and its configuration."""

    root: Path
    env: dict[str, str]
    user: str
    work_dir: str
    entrypoint: list[str]
    health_check: list[str]
    volumes: list[str]

    @classmethod
    def mounted(cls, name: str, environment: dict[str, str]) -> "Image":
        """The image of that name in Buildah's storage, as Buildah tells what is in it."""

        def buildah(*words: str) -> str:
            done = subprocess.run(["buildah", *words], env=environment, capture_output=True, text=True, check=True)
            return done.stdout.strip()

        config = json.loads(buildah("inspect", "--type", "image", name))["Docker"]["config"]
        return cls(
            root=Path(buildah("mount", buildah("from", name))),
            env=dict(variable.split("=", 1) for variable in config["Env"]),
            user=config["User"],
            work_dir=config["WorkingDir"],
            entrypoint=config["Entrypoint"],
            health_check=(config.get("Healthcheck") or {"Test": []})["Test"][1:],
            volumes=list(config.get("Volumes") or {}),
        )

    def megabytes(self) -> float:
        """What its files take on the disk, its base included."""
        told = subprocess.run(["du", "-sk", self.root], capture_output=True, text=True, check=True).stdout
        return int(told.split()[0]) * 1024 / 1e6

    def command(self, words: list[str], hosts: Path, volumes: list[Volume]) -> list[str]:
        """The words that run a command in it, with what `docker run --read-only --cap-drop ALL` takes away."""
        user, _, group = self.user.partition(":")
        mounts = [word for volume in volumes for word in (str(volume.source), volume.target, volume.mode)]
        drop = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
        return [
            str(shutil.which("unshare")), "--mount", "--propagation", "private",
            "sh", "-ec", SET_UP, "sh", str(self.root), str(hosts), *mounts, "--",
            *drop, "sh", "-ec", ENTER, self.work_dir, *words,
        ]  # fmt: skip
