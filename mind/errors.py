"""What can go wrong in the model package, for people to read.

MindError
├── ConfigError      a YAML file or an override with a wrong key, type or value
├── DataError        a data file that cannot be used
└── ArtifactError    a model directory that is damaged, incomplete or from another format
"""


class MindError(Exception):
    """The message names the file or field, the value and the limit; it is all a user needs to see."""


class ConfigError(MindError):
    """A configuration with a wrong key, type or value."""


class DataError(MindError):
    """A data file that cannot be used."""


class ArtifactError(MindError):
    """A model directory that is damaged, incomplete or from another format."""
