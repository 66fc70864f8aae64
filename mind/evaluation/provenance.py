"""Whether data are those that a model was made with: told by what is in the files, wherever they lie."""

from pathlib import Path

from mind.artifact import Artifact
from mind.data.paddlerec import digests


def other_data(model: Artifact, train_data_dir: Path, test_data_dir: Path) -> str | None:
    """What is wrong if the data are not those that the model was made with; None if they are, or nothing is recorded.

    Raises:
        DataError: they cannot be read.
    """
    version, recorded = model.model_version, model.data
    if chosen := recorded.get("final_of"):
        return (
            f"model {version} was trained on all data, the test users included (--final); evaluate model {chosen}, "
            "whose settings it has."
        )
    if named := _differing(recorded.get("files"), train_data_dir):
        return (
            f"{train_data_dir}: model {version} was trained with another {named}. The baselines count other clicks "
            "than the model learnt from, and if users were split anew, it may have been trained on test users."
        )
    if named := _differing(recorded.get("test"), test_data_dir):
        return f"{test_data_dir}: beside the training data of model {version} lay another {named}."
    return None


def unrecorded(model: Artifact) -> str | None:
    """A warning if a model does not know its data: earlier releases, and PaddleRec, recorded none."""
    if model.data.get("files"):
        return None
    return (
        f"model {model.model_version} does not record what it was trained on, so nobody can tell whether these are its "
        "data, and whether it was trained on test users."
    )


def valid_data(model: Artifact, train_data_dir: Path, valid_data_dir: Path | None) -> Path | None:
    """The validation data if they belong to a model: those that chose its epoch, or those beside its training data."""
    if valid_data_dir is None or not valid_data_dir.exists():
        return None
    recorded = model.data.get("valid")
    beside = valid_data_dir.absolute().parent == train_data_dir.absolute().parent
    return valid_data_dir if (digests(valid_data_dir) == recorded if recorded else beside) else None


def _differing(recorded: dict[str, str] | None, directory: Path) -> str:
    """The files of a directory that differ from the recorded ones, by name; "" if none does."""
    if not recorded:
        return ""
    found = digests(directory)
    others = [name for name in sorted(found | recorded) if found.get(name) != recorded.get(name)]
    return ", ".join(others[:3]) + (f" and {len(others) - 3:,} files more" if len(others) > 3 else "")
