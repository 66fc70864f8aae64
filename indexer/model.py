"""The model of a collection that is there already."""

from indexer.errors import RefusedError
from mind.artifact import Artifact, load_artifact
from mind.errors import ArtifactError
from mind.transfer import Models


def load_model(models: Models, version: str) -> Artifact:
    """Load the model that a collection was built from.

    Raises:
        RefusedError: it is not there, damaged, or another one.
    """
    try:
        model = load_artifact(models.version(version))
    except ArtifactError as error:
        raise RefusedError(f"--artifact {models}: model {version} cannot be used: {error}") from error
    if model.model_version != version:
        raise RefusedError(f"--artifact {models}: is model {model.model_version}, the collection needs {version}")
    return model
