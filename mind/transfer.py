"""Trained models in their place: a directory, or a URL that fsspec opens (s3://bucket/models, gs://...), with a cache.

The manifest is uploaded last and read first, and what was downloaded is held to its hashes before it gets its name in
the cache: half a model is never seen, neither there nor here.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mind.artifact import MANIFEST, TENSORS, content_version, load_artifact, newest_artifact, read_manifest
from mind.errors import ArtifactError

CACHE = Path("~/.cache/mind-recall")
"""Where models from URLs are kept by default."""
CACHED = 4
"""The number of models that the cache keeps: those that were used last."""
_LONGEST_REASON = 300


class Models:
    """A place that has one directory per model version: a local directory or a URL."""

    def __init__(self, where: str | Path, cache: Path = CACHE) -> None:
        """Name a place; nothing is opened before it is needed.

        Args:
            where: a directory or a URL.
            cache: directory for models from a URL; made when needed. Processes may share it.
        """
        self._where = str(where)
        self._cache = cache.expanduser()
        self._remote = "://" in self._where

    def __str__(self) -> str:
        """The place, without credentials."""
        if not self._remote:
            return self._where
        parts = urlsplit(self._where)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()

    def version(self, model_version: str) -> Path:
        """Local directory of a model, which may be the place itself; whoever loads it checks what it is.

        Raises:
            ArtifactError: it cannot be had.
        """
        if self._remote:
            return self._fetch(model_version)
        here = Path(self._where)
        return here if (here / MANIFEST).is_file() else here / model_version

    def newest(self) -> Path:
        """Local directory of the model that was written last. Raises ArtifactError if there is none."""
        if not self._remote:
            return newest_artifact(Path(self._where))
        with self._opened() as (files, root):
            found = files.cat(files.glob(f"{root}/*/{MANIFEST}")) if files.exists(root) else {}
        if not found:
            raise ArtifactError(f"{self}: holds no model; `python -m mind.models push` brings one there")
        created = [(_parsed(content, path).get("created_at", ""), path) for path, content in found.items()]
        return self._fetch(max(created)[1].split("/")[-2])

    def push(self, path: Path) -> bool:
        """Copy a model to the place, whole or not at all.

        Returns:
            Whether it had to be copied; otherwise it was there already.

        Raises:
            ArtifactError: it is not a whole model, or the place cannot be written to.
        """
        version = load_artifact(path).model_version
        with self._opened() as (files, root):
            target = f"{root}/{version}"
            if files.exists(f"{target}/{MANIFEST}"):
                return False
            files.makedirs(target, exist_ok=True)
            files.put_file(str(path / TENSORS), f"{target}/{TENSORS}")
            files.pipe_file(f"{target}/{MANIFEST}", (path / MANIFEST).read_bytes())
        return True

    def _fetch(self, version: str) -> Path:
        target = self._cache / version
        if (target / MANIFEST).is_file():
            target.touch()
            return target
        staging: Path | None = None
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".incomplete-", dir=self._cache))
            with self._opened() as (files, root):
                for name in (MANIFEST, TENSORS):
                    files.get_file(f"{root}/{version}/{name}", str(staging / name))
            self._check(staging, version)
            staging.rename(target)
        except OSError as error:
            if not target.is_dir():  # or another process was faster
                raise ArtifactError(f"{target}: the cache cannot be written: {error.strerror}") from error
        finally:
            if staging is not None:
                shutil.rmtree(staging, ignore_errors=True)
        self._forget_old()
        return target

    def _check(self, staging: Path, version: str) -> None:
        """Hold a download to its name and hash. Raises ArtifactError."""
        manifest = read_manifest(staging)
        if content_version(manifest) != version:
            raise ArtifactError(f"{self}/{version}/{MANIFEST}: is that of model {content_version(manifest)}")
        with (staging / TENSORS).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != manifest["files"].get(TENSORS):
            raise ArtifactError(f"{self}/{version}/{TENSORS}: incomplete, or changed since it was written")

    def _forget_old(self) -> None:
        kept = []
        for file in self._cache.glob(f"[!.]*/{MANIFEST}"):
            with suppress(FileNotFoundError):  # another process forgot it
                kept.append((file.parent.stat().st_mtime, file.parent))
        for _, model in sorted(kept)[:-CACHED]:
            shutil.rmtree(model, ignore_errors=True)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, str]]:
        """The file system and the place's path in it; whatever goes wrong there is an ArtifactError."""
        import fsspec  # most models are in a directory

        try:
            yield fsspec.core.url_to_fs(self._where)
        except FileNotFoundError as error:
            raise ArtifactError(f"{self}: misses {error.args[-1] if error.args else 'a file'}") from error
        except Exception as error:  # every file system has errors of its own
            reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
            raise ArtifactError(f"{self}: cannot be used: {reason}") from error


def _parsed(content: bytes, path: str) -> dict[str, Any]:
    try:
        manifest = json.loads(content)
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict):
        raise ArtifactError(f"{path}: not a JSON object")
    return manifest
