"""Loads the model that an existing collection was built from."""

from indexer.errors import RefusedError
from mind.artifact import Artifact, load_artifact
from mind.errors import ArtifactError
from mind.transfer import Models


def load_model(models: Models, version: str) -> Artifact:
    """Load the model that a collection was built from.

    Raises:
        RefusedError: the model is missing or damaged, or `models` holds another version.
    """
    try:
        model = load_artifact(models.version(version))
    except ArtifactError as error:
        raise RefusedError(f"--artifact {models}: model {version} cannot be used: {error}") from error
    if model.model_version != version:
        raise RefusedError(
            f"--artifact {models}: this is model {model.model_version}, but the collection was built from {version}; "
            "name the directory that holds it"
        )
    return model
