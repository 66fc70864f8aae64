"""Reads and writes trained models in a directory, or at a URL that fsspec opens (s3://bucket/models), with a cache.

The manifest is uploaded last and read first. A download is checked against its hashes before it gets its name in the
cache. So an incomplete model is never visible, neither at the URL nor in the cache.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mind.artifact import (
    MANIFEST,
    TENSORS,
    content_version,
    created_at,
    load_artifact,
    newest_artifact,
    read_manifest,
    tensors_hash,
)
from mind.errors import ArtifactError

CACHE = Path("~/.cache/mind-recall")
"""The default directory of models that were downloaded from URLs."""
CACHED = 4
"""Maximum number of models in the cache. Those that were used last are kept."""
FETCHED = ".fetched"
"""The empty file that marks a model which this cache downloaded. A model without it is never deleted."""
_LONGEST_REASON = 300

logger = logging.getLogger(__name__)


class Models:
    """A place that has one directory per model version: a local directory or a URL."""

    def __init__(self, where: str | Path, cache: Path = CACHE) -> None:
        """Name a place of models. Nothing is opened before it is needed.

        Args:
            where: a directory or a URL.
            cache: directory for models from a URL, created when needed. Several processes may share it.
        """
        self._where = str(where)
        self._cache = cache.expanduser()
        self._remote = "://" in self._where

    def __str__(self) -> str:
        """Return the directory or URL, without credentials."""
        if not self._remote:
            return self._where
        parts = urlsplit(self._where)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()

    def version(self, model_version: str) -> Path:
        """Return the local directory of a model, which may be the place itself. The caller must check the loaded model.

        Raises:
            ArtifactError: the model cannot be read or downloaded.
        """
        if self._remote:
            return self._fetch(model_version)
        here = Path(self._where)
        return here if (here / MANIFEST).is_file() else here / model_version

    def newest(self) -> Path:
        """Return the local directory of the model that was written last. Raises ArtifactError if there is none."""
        if not self._remote:
            return newest_artifact(Path(self._where))
        with self._opened() as (files, root):
            found = files.cat(files.glob(f"{root}/*/{MANIFEST}")) if files.exists(root) else {}
        if not found:
            raise ArtifactError(f"{self}: holds no model; `python -m mind.models push` brings one there")
        created: list[tuple[str, str]] = []
        damaged: ArtifactError | None = None
        for path, content in found.items():
            try:
                created.append((created_at(_parsed(content, path)), path))
            except ArtifactError as error:
                logger.warning("%s; this model is left out", error)
                damaged = error
        if damaged and not created:
            raise damaged
        return self._fetch(max(created)[1].split("/")[-2])

    def push(self, path: Path) -> bool:
        """Copy a model to the place, whole or not at all.

        Returns:
            Whether the model was copied. If not, it was there already.

        Raises:
            ArtifactError: the model is incomplete, or the place cannot be written.
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
        if self._is_whole(target, version):
            with suppress(OSError):  # the cache of another user can be read, but not changed
                os.utime(target)
            return target
        if target.exists():
            logger.warning("%s: damaged; it is fetched again", target)
        staging: Path | None = None
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".incomplete-", dir=self._cache))
            with self._opened() as (files, root):
                for name in (MANIFEST, TENSORS):
                    files.get_file(f"{root}/{version}/{name}", str(staging / name))
            self._check(staging, version, f"{self}/{version}")
            (staging / FETCHED).touch()
            for name in (MANIFEST, TENSORS, FETCHED):
                _sync(staging / name)
            self._replace(target, staging, version)
        except OSError as error:
            raise ArtifactError(f"{target}: the cache cannot be written: {error.strerror}") from error
        finally:
            if staging is not None:
                shutil.rmtree(staging, ignore_errors=True)
        self._forget_old()
        return target

    def _is_whole(self, target: Path, version: str) -> bool:
        """Return whether the cache has this model undamaged. The disk may have changed it since the download."""
        if not target.exists():
            return False
        try:
            self._check(target, version, str(target))
        except ArtifactError:
            return False
        return True

    def _replace(self, target: Path, staging: Path, version: str) -> None:
        """Give a download its name in the cache. A damaged model that was downloaded before is removed.

        Raises:
            ArtifactError: this cache did not download the model with that name, so it is not deleted.
            OSError: the cache cannot be written.
        """
        if target.exists() and not self._is_whole(target, version):  # otherwise another process was faster
            if target.is_symlink():
                raise ArtifactError(f"{target}: damaged, and a link, so it stays; remove it yourself")
            if not (target / FETCHED).exists():
                raise ArtifactError(
                    f"{target}: damaged, and not put there by this cache, so it stays; remove it yourself"
                )
            shutil.rmtree(target)
        try:
            staging.rename(target)
        except OSError:
            if not self._is_whole(target, version):
                raise

    @staticmethod
    def _check(path: Path, version: str, name: str) -> None:
        """Check the name and the hash of a model. Raises ArtifactError, which calls the model `name`."""
        manifest = read_manifest(path)
        if content_version(manifest) != version:
            raise ArtifactError(f"{name}/{MANIFEST}: is that of model {content_version(manifest)}")
        try:
            with (path / TENSORS).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ArtifactError(f"{name}/{TENSORS}: cannot be read: {error.strerror}") from error
        if digest != tensors_hash(manifest, path):
            raise ArtifactError(f"{name}/{TENSORS}: incomplete, or changed since it was written")

    def _forget_old(self) -> None:
        """Delete the models that were used longest ago, of those that this cache downloaded."""
        kept = []
        for file in self._cache.glob(f"[!.]*/{FETCHED}"):
            with suppress(FileNotFoundError):  # another process forgot it
                kept.append((file.parent.stat().st_mtime, file.parent))
        for _, model in sorted(kept)[:-CACHED]:
            shutil.rmtree(model, ignore_errors=True)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, str]]:
        """Yield the file system, and the path of the place in it. Turn every error there into an ArtifactError."""
        import fsspec  # most models are in a directory

        try:
            yield fsspec.core.url_to_fs(self._where)
        except FileNotFoundError as error:
            raise ArtifactError(f"{self}: misses {error.args[-1] if error.args else 'a file'}") from error
        except Exception as error:  # every file system has its own errors
            reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
            raise ArtifactError(f"{self}: cannot be used: {reason}") from error


def _sync(path: Path) -> None:
    """Make the disk store a file. Raises OSError."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _parsed(content: bytes, path: str) -> dict[str, Any]:
    try:
        manifest = json.loads(content)
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict):
        raise ArtifactError(f"{path}: not a JSON object")
    return manifest
