"""A base image for machines that can pull none: Debian with its Python 3.11, in the place of python:3.11-slim-bookworm.

Debootstrap makes it from the Debian mirror that this machine uses. The builds on it need a package index, so it has the
certificates and the package indexes that pip knows on this machine. It is for this machine alone: never publish it.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

SUITE = "bookworm"
PACKAGES = ("ca-certificates", "python3.11", "python3.11-venv", "python3-pip")
SUPERFLUOUS = (
    "dev/*", "usr/share/doc/*", "usr/share/locale/*", "usr/share/man/*", "var/cache/apt/*", "var/lib/apt/lists/*",
)  # fmt: skip
"""What slim images do not have either; devices are the container's."""
PIP_SETTINGS = ("extra-index-url", "index-url", "proxy", "trusted-host")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
"""Certificates that Debian's programs trust."""
DOCKERFILE = """FROM scratch
ADD base.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
"""


def make_base(directory: Path, name: str, environment: dict[str, str]) -> None:
    """Make the base image with debootstrap and Buildah, as root.

    Args:
        directory: an empty one for what it is made from, 300 MB.
        name: of the image.
        environment: variables of Buildah.
    """
    root, context = directory / "root", directory / "context"
    context.mkdir()
    with (directory / "debootstrap.log").open("wb") as log:
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root), *_mirror()]
        subprocess.run(command, check=True, stdout=log, stderr=log)
    for pattern in SUPERFLUOUS:
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    (root / "usr/bin/python").symlink_to("python3.11")
    (root / "etc/pip.conf").write_text(_pip_settings(), encoding="utf-8")
    if CERTIFICATES.exists():
        shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
    subprocess.run(["tar", "--create", "--file", context / "base.tar", "--directory", root, "."], check=True)
    shutil.rmtree(root)
    (context / "Dockerfile").write_text(DOCKERFILE, encoding="utf-8")
    build = ["buildah", "build", "--format", "docker", "--tag", name, str(context)]
    subprocess.run(build, check=True, env=environment, capture_output=True)
    shutil.rmtree(context)


def _mirror() -> list[str]:
    """The mirror that apt uses for the suite, if it tells."""
    command = ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return re.findall(rf"^{SUITE} (\S+)$", told, re.MULTILINE)[:1]


def _pip_settings() -> str:
    """The package indexes that pip knows here, except those on this machine's disk."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = ["[global]", f"cert = {CERTIFICATES}"]
    for name in PIP_SETTINGS:
        if values := re.findall(rf"^\S+\.{name}='(.*)'$", told, re.MULTILINE):
            kept = [word for word in values[-1].split() if not word.startswith("file:")]
            lines += [f"{name} = {' '.join(kept)}"] if kept else []
    return "\n".join(lines) + "\n"
