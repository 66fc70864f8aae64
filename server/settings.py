"""The server's options: flag, then environment, then file, then default."""

import argparse
import os
import re
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    CliApp,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from mind.config import explain
from mind.errors import ConfigError
from mind.users import MAX_CAPACITY


class Settings(BaseSettings):
    """Serve candidates over gRPC from a trained model and its item collection in Milvus.

    Every option is also an environment variable, RECALL_ and its name in capitals (RECALL_MILVUS_URI), and a key of
    the YAML file that --config names (milvus_uri). A flag wins over the environment, that over the file.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="RECALL_",
        use_attribute_docstrings=True,
        cli_prog_name="python -m server",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    config: Path | None = None
    """YAML file with any of these options."""
    listen: str = "127.0.0.1:50051"
    """Address to listen on. 0.0.0.0:50051 admits other machines; port 0 takes a free one."""
    artifacts: Path = Path("artifacts")
    """Directory of models, one directory per version; the released one is loaded from it."""
    milvus_uri: str = "milvus.db"
    """Milvus: a .db path (Milvus Lite, embedded) or http(s)://host:19530 (Standalone, Distributed)."""
    milvus_token: SecretStr = SecretStr("")
    """Token or user:password for Milvus; prefer the environment, a flag shows in the process list."""
    milvus_db_name: str = ""
    """Milvus database; empty is the default one."""
    milvus_ca_cert: Path | None = None
    """PEM file that the certificate of an https:// Milvus is checked against; the system's authorities otherwise."""
    encoder: Literal["numpy", "paddle"] = "numpy"
    """What turns histories into interest vectors: numpy (CPU, needs no Paddle) or paddle (the network, CPU or GPU)."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where the encoder paddle computes; auto takes a GPU if there is one and Paddle's build can use it."""
    watch_interval_s: float = Field(default=5.0, gt=0)
    """Seconds between looks at the release alias."""
    search_timeout_ms: int = Field(default=5_000, gt=0)
    """Longest wait for Milvus; a caller's shorter deadline wins."""
    drain_timeout_s: float = Field(default=20.0, ge=0)
    """Seconds that calls in progress get to finish after SIGTERM."""
    max_users: int = Field(default=256, gt=0)
    """Users in one request."""
    max_top_k: int = Field(default=1_000, gt=0, le=10_000)
    """Candidates per user."""
    max_candidates: int = Field(default=150_000, gt=0)
    """Users times top_k of one request; the default keeps answers under gRPC's default limit of 4 MB."""
    max_history: int = Field(default=10_000, gt=0)
    """Ids in one user's history. The model looks at the newest few; the rest can only be excluded."""
    max_exclude: int = Field(default=1_000, ge=0)
    """Ids in one user's exclude_item_ids."""
    max_overfetch: int = Field(default=1_000, ge=0, le=6_000)
    """Extra hits per interest fetched to make up for exclusions; beyond it a user may get fewer candidates."""
    max_filter_chars: int = Field(default=2_000, gt=0)
    """Length of a filter."""
    max_request_bytes: int = Field(default=4 * 1024 * 1024, gt=0)
    """Size of a request message."""
    max_batch_users: int = Field(default=64, gt=0)
    """Users of different requests that are encoded and searched together, when they wait at the same time."""
    max_queued_users: int = Field(default=4_096, gt=0)
    """Users that may wait; more are turned away with RESOURCE_EXHAUSTED and a time to come back."""
    search_workers: int = Field(default=2, gt=0, le=64)
    """Batches in progress at once; a further one of the same kind starts when half a full one waits."""
    processes: int = Field(default=1, gt=0, le=256)
    """Servers behind the one address; more than one needs a Milvus server. Each has a queue and limits of its own."""
    max_concurrent_requests: int = Field(default=256, gt=0)
    """Requests in progress at once; more are turned away with RESOURCE_EXHAUSTED and a time to come back."""
    users: bool = False
    """Remember users: enables UpsertUsers, FindSimilarUsers, DeleteUsers and user_id in Recall, for every caller."""
    max_stored_history: int = Field(default=500, gt=0, le=MAX_CAPACITY)
    """Newest ids that are kept of a remembered user; as many as the model looks at are kept in any case."""
    max_similar: int = Field(default=20_000, gt=0, le=25_000)
    """Users times top_k of one FindSimilarUsers; keeps answers under gRPC's default limit of 4 MB."""
    admin_token_file: Path | None = None
    """File with the token that enables AdminService and that its callers must send."""
    reflection: bool = True
    """Let grpcurl and friends discover the service."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe messages to log."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.milvus_ca_cert and not (self.milvus_ca_cert.is_file() and self.milvus_uri.startswith("https://")):
            raise ValueError(
                f"milvus_ca_cert is {self.milvus_ca_cert}: it must be a file and go with an https:// address"
            )
        if not re.fullmatch(r".+\.db|https?://.+", self.milvus_uri):
            raise ValueError(
                f"milvus_uri is {self.milvus_uri!r}: expected a path that ends in .db, or http(s)://host:port"
            )
        if self.processes > 1 and self.milvus_uri.endswith(".db"):
            raise ValueError(f"processes is {self.processes}: a Milvus Lite file admits one process alone")
        host, colon, port = self.listen.rpartition(":")
        if not (host and colon and port.isdecimal() and int(port) < 65536):
            raise ValueError(f"listen is {self.listen!r}: expected host:port, port 0 to 65535")
        if self.max_top_k > self.max_candidates:
            raise ValueError(f"max_top_k is {self.max_top_k}, more than max_candidates, {self.max_candidates}")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The order of precedence; pydantic-settings puts the command line first."""
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls)


def load_settings(argv: list[str]) -> Settings:
    """Settings from a command line, the environment and the file either names.

    Raises:
        ConfigError: the file cannot be read, or an option has a wrong type or breaks a limit.
        SystemExit: an unknown flag (2), or --help (0).
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config", type=Path, default=os.environ.get("RECALL_CONFIG"))
    file: Path | None = early.parse_known_args(argv)[0].config
    if file is not None and not Path(file).is_file():
        raise ConfigError(f"--config {file}: no such file")

    class FromFile(Settings):
        __doc__ = Settings.__doc__
        model_config = SettingsConfigDict(yaml_file=file)

    try:
        return CliApp.run(FromFile, cli_args=argv)
    except ValidationError as error:
        raise ConfigError(explain(error)) from error
    except (yaml.YAMLError, TypeError, ValueError, OSError) as error:
        raise ConfigError(f"--config {file}: cannot be used: {error}") from error
