"""Finds out why the file of Milvus Lite, the embedded engine, cannot be opened."""

from pathlib import Path

from mind.milvus.errors import FileInUseError, StoreError, StoreUnavailableError
from mind.milvus.translation import bounded


def lite_failure(path: str) -> StoreError:
    """Return why a Milvus Lite file could not be opened. Lite only logs the reason, so this opens the file again."""
    if not Path(path).exists():
        return StoreUnavailableError(f"{path}: could not be opened as a Milvus Lite file")
    from milvus_lite import DataDirLockedError, MilvusLite  # only where Milvus Lite is used

    try:
        MilvusLite(str(Path(path).absolute())).close()
    except DataDirLockedError:
        return FileInUseError(
            f"{path}: another process holds this Milvus Lite file; stop it, or let one process serve the file to all "
            f"(milvus-lite server --host 127.0.0.1 --data-dir {path}) and pass its address with --milvus-uri http://..."
        )
    except Exception as cause:  # any error that Lite raises for a damaged file
        return StoreUnavailableError(f"{path}: cannot be opened as a Milvus Lite file: {bounded(str(cause))}")
    return StoreUnavailableError(f"{path}: could not be opened a moment ago; try again")
