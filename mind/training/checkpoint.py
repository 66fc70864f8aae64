"""Stores the state of a training run in one file of plain arrays. A run that was killed continues from it.

The file is an .npz of arrays without pickle; one array holds JSON. It is written beside the old one, then replaces it.
"""

import json
import secrets
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mind.errors import ArtifactError

Arrays = dict[str, npt.NDArray[Any]]
_PROGRESS = "progress.json"


class Checkpoint:
    """The checkpoint file of one run. Its name identifies the run."""

    def __init__(self, directory: Path, run: str, resume: bool = True) -> None:
        """Choose the file of a run.

        Args:
            run: identifies configuration and data; another run has another file.
            resume: whether `load` reads a checkpoint that is there.
        """
        self.path = directory / f"checkpoint-{run}.npz"
        self.resumes = resume

    def save(self, arrays: Arrays, progress: dict[str, Any]) -> None:
        """Replace the stored checkpoint by these arrays and progress. To save memory, it writes one array at a time.

        Raises:
            ArtifactError: the disk refused the file; the checkpoint that was stored before is unharmed.
        """
        incomplete = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.incomplete")
        text = np.frombuffer(json.dumps(progress).encode(), np.uint8)
        try:
            with incomplete.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays, **{_PROGRESS: text})
            incomplete.replace(self.path)
        except OSError as error:
            incomplete.unlink(missing_ok=True)
            raise ArtifactError(f"{self.path}: the checkpoint cannot be written: {error.strerror}") from error

    def load(self) -> tuple[Arrays, dict[str, Any]] | None:
        """Return what was saved last. Return None if nothing was saved, or if the run does not resume.

        Raises:
            ArtifactError: the file is damaged.
        """
        if not self.resumes:
            return None
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = dict(file)
            return arrays, json.loads(arrays.pop(_PROGRESS).tobytes())
        except FileNotFoundError:
            return None
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ArtifactError(f"{self.path}: damaged ({error}); delete it and training starts anew") from error

    def remove(self) -> None:
        """Remove the checkpoint, and what a killed process left of one, because the run is done."""
        for path in (self.path, *self.path.parent.glob(f".{self.path.name}.*.incomplete")):
            path.unlink(missing_ok=True)
