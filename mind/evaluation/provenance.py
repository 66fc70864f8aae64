"""Checks whether data are those that a model was made with, by the contents of the files."""

from pathlib import Path

from mind.artifact import Artifact
from mind.data.paddlerec import digests


def other_data(model: Artifact, train_data_dir: Path, test_data_dir: Path) -> str | None:
    """Compare the data with those that the model was made with. Return what differs, or None if nothing differs.

    Raises:
        DataError: the data cannot be read.
    """
    version, recorded = model.model_version, model.data
    if chosen := recorded.get("final_of"):
        return (
            f"model {version} was trained on all data, the test users included (--final). Model {chosen} "
            "has the same settings and did not see them; use that one."
        )
    if named := _differing(recorded.get("files"), train_data_dir):
        return (
            f"{train_data_dir}: model {version} was trained with another {named}. The baselines count other clicks "
            "than the model learnt from, and if users were split again, it may have been trained on test users."
        )
    if named := _differing(recorded.get("test"), test_data_dir):
        return f"{test_data_dir}: beside the training data of model {version} lay another {named}."
    return None


def unrecorded(model: Artifact) -> str | None:
    """Return a warning if a model does not record its data, as models of earlier releases and of PaddleRec do not."""
    if model.data.get("files"):
        return None
    return (
        f"model {model.model_version} does not record what it was trained on, so nobody can tell whether these are its "
        "data, and whether it was trained on test users."
    )


def valid_data(model: Artifact, train_data_dir: Path, valid_data_dir: Path | None) -> Path | None:
    """Return the validation data if they chose the epoch of a model, or are beside its training data.

    Return None otherwise.
    """
    if valid_data_dir is None or not valid_data_dir.exists():
        return None
    recorded = model.data.get("valid")
    beside = valid_data_dir.absolute().parent == train_data_dir.absolute().parent
    return valid_data_dir if (digests(valid_data_dir) == recorded if recorded else beside) else None


def _differing(recorded: dict[str, str] | None, directory: Path) -> str:
    """Return the names of the files of a directory that differ from the recorded files; "" if none differs."""
    if not recorded:
        return ""
    found = digests(directory)
    others = [name for name in sorted(found | recorded) if found.get(name) != recorded.get(name)]
    return ", ".join(others[:3]) + (f" and {len(others) - 3:,} files more" if len(others) > 3 else "")
