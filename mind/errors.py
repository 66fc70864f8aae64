"""The errors of the model package. Their messages are for users.

MindError
├── ConfigError      a YAML file or an override has a wrong key, type or value
├── DataError        a data file cannot be used
└── ArtifactError    a model directory is damaged, incomplete or has another format
"""


class MindError(Exception):
    """An error whose message names the file or field, the value and the limit."""


class ConfigError(MindError):
    """A configuration has a wrong key, type or value."""


class DataError(MindError):
    """A data file cannot be used."""


class ArtifactError(MindError):
    """A model directory is damaged, incomplete or has another format."""
