"""The training configuration: a YAML file in PaddleRec's terms, checked key by key.

This module knows nothing of training. The hyper-parameters are stored in the artifact and are checked again on load.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mind.errors import ConfigError
from mind.events import Events

MAX_BONUS = 1_000
"""Maximum of what neighbours get on top of their score."""


class Effect(Enum):
    """What changes if a key of `runner` has another value. A key without an `Effect` is a setting of the model."""

    NOTHING = 1
    """The model stays the same. A model records its data by their content, not by their path."""
    ROUNDING = 2
    """The model stays the same except for rounding. It records the value."""
    CHANCE = 3
    """The model is another one with the same settings. It records the value."""


@dataclass(frozen=True)
class Follows:
    """Marks a hyper-parameter that always equals another one, so the two are one setting."""

    leader: str


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Optimizer(_Section):
    """The section `hyper_parameters.optimizer`: how the weights are learnt."""

    class_: Literal["Adam"] = Field(default="Adam", alias="class")
    """Adam, with moments updated only for the rows of the item table that a batch touches (lazy mode)."""
    learning_rate: float = Field(default=0.005, gt=0)
    """Step size at the start."""
    decay: Literal["linear", "none"] = "linear"
    """Linear: the step size falls to 0 over runner.epochs, so the last epochs refine instead of overfitting."""


class HyperParameters(_Section):
    """The section `hyper_parameters`: what defines the model; an artifact keeps it."""

    optimizer: Optimizer = Optimizer()
    """How the weights are learnt."""
    item_count: int | None = Field(default=None, gt=0)
    """Number of items. The default is the number in the training data, and a given number must equal it."""
    embedding_dim: int = Field(default=64, gt=0, le=4096)
    """Length of an item embedding."""
    hidden_size: Annotated[int, Follows("embedding_dim")] = Field(default=64, gt=0, le=4096)
    """Length of an interest vector. Items are found by inner product, so it equals embedding_dim."""
    neg_samples: int = Field(default=0, ge=0)
    """Negatives to draw by item frequency, besides the targets of the batch. Batches of 512 need none."""
    correct_frequency: bool = True
    """Subtract the log frequency in the softmax. Otherwise popular items, which are drawn more often, score too low."""
    min_history: int = Field(default=1, gt=0)
    """Minimum number of clicks before a target. 1 trains on every click but the first."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Share of the values of history embeddings that training drops. It reduces overfitting of rare items."""
    item_init: Literal["cooccurrence", "random"] = "cooccurrence"
    """Start of item embeddings. cooccurrence: items that users clicked together start close together."""
    bilinear_init: Literal["identity", "normal"] = "identity"
    """Start of the bilinear map. identity: items and interests start in the same space. normal: N(0, 1)."""
    residual: bool = True
    """Add a mean of the history, weighted by learned recency, to every interest. Routing learns the differences."""
    focus: bool = True
    """Also weigh that mean by the part of the history that belongs to the interest, to a learned power."""
    length_weight: float | None = Field(default=None, ge=0)
    """Weight of the squared lengths of embeddings in the loss. null: 0.15 if the median user has under 12 clicks, or 0.
    """
    readout: Literal["logsumexp", "label_aware"] = "logsumexp"
    """How training scores an item. logsumexp: softly by the best interest, as in serving. label_aware: as in MIND."""
    half_life_days: float | None = Field(default=None, gt=0)
    """Days in which the weight of a target halves; null: old clicks count as much as new ones. Needs --keep-ages."""
    trending_days: float | None = Field(default=None, gt=0)
    """Days before the newest training click that the popular fallback counts; null: all. Needs --keep-ages."""
    maxlen: int = Field(default=20, gt=0, le=10_000)
    """Number of newest history items that the model uses."""
    pow_p: float = Field(default=1.0, gt=0)
    """Power of the label-aware readout. Small values average the interests, large values choose the best one."""
    num_interests: int = Field(default=4, gt=0, le=64)
    """Maximum number of interests of a user (K)."""
    join_cosine: float | None = Field(default=None, ge=-1, le=1)
    """Cosine from which two interests of a user become one. null: validation users choose it. 1: joins none."""
    neighbour_bonus: float | None = Field(default=None, ge=0, le=MAX_BONUS)
    """What neighbours of the newest clicks get on top of their score. null: validation users choose it. 0: none."""
    routing_init: Literal["history", "random"] = "history"
    """Start of the interests. history: at items of the history that are far apart. random: as in the paper."""
    routing_iterations: int = Field(default=3, gt=0, le=20)
    """Rounds of dynamic routing."""
    routing_softmax: Literal["interests", "history", "history_then_interests"] = "interests"
    """What the softmax of routing sums to 1 over. interests: as in the paper. The others are those of PaddleRec."""
    bounded_update: bool = False
    """Divide the agreement of a round by its length if it is above 1, as PaddleRec's later network does."""
    projection: Literal["none", "relu"] = "none"
    """relu adds a linear layer and a ReLU after the interests, as in PaddleRec's first network."""
    item_features: tuple[str, ...] = ()
    """Columns of runner.item_features_file, such as genres. Their embeddings are added to that of the item."""
    id_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Chance that training hides the id of an item with item_features, so that the features alone are useful too."""

    @model_validator(mode="after")
    def _same_space(self) -> "HyperParameters":
        if self.hidden_size != self.embedding_dim:
            raise ValueError(
                f"hidden_size is {self.hidden_size} and embedding_dim {self.embedding_dim}: interests and items "
                "are compared by inner product and need the same length"
            )
        return self


class Runner(_Section):
    """The section `runner`: where data lies and how long to train."""

    train_data_dir: Annotated[Path, Effect.NOTHING] = Path("data/movielens-100k/train")
    """Directory of training files with lines `uid,item_id,time`."""
    valid_data_dir: Annotated[Path | None, Effect.NOTHING] = Path("data/movielens-100k/valid")
    """Directory of evaluation files, which choose the best epoch. null trains all epochs and keeps the last."""
    test_data_dir: Annotated[Path, Effect.NOTHING] = Path("data/movielens-100k/test")
    """Directory of evaluation files that `mind.infer` reports on."""
    exclude_history: Annotated[bool | None, Effect.NOTHING] = None
    """Measure lists without items of the history (true) or with them (false). null: validation users decide."""
    item_features_file: Annotated[Path | None, Effect.NOTHING] = None
    """CSV or Parquet file with item ids and the columns that hyper_parameters.item_features names."""
    item_features_id: Annotated[str, Effect.NOTHING] = "item_id"
    """Column of runner.item_features_file that holds the item id."""
    model_save_path: Annotated[Path, Effect.NOTHING] = Path("artifacts")
    """Directory that receives one artifact directory per model version."""
    train_batch_size: int = Field(default=512, gt=0)
    """Training examples per step. The targets of a batch are each other's negatives."""
    infer_batch_size: Annotated[int, Effect.ROUNDING] = Field(default=256, gt=0)
    """Users per evaluation batch."""
    epochs: int = Field(default=5, gt=0)
    """Maximum number of passes over all training examples."""
    patience: int = Field(default=3, gt=0)
    """Training stops after this many epochs without a better validation metric."""
    print_interval: Annotated[int, Effect.NOTHING] = Field(default=50, gt=0)
    """Steps between updates of the loss on the progress bar."""
    checkpoint_interval_s: Annotated[float, Effect.NOTHING] = Field(default=600, ge=0)
    """Seconds between checkpoints, besides one per epoch. A killed run continues from the last. 0 writes none."""
    use_gpu: Annotated[bool, Effect.ROUNDING] = False
    """Train on the GPU. This needs the paddlepaddle-gpu build."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of matrix products. Weights stay float32. bfloat16 needs use_gpu and an Ampere GPU or newer."""
    seed: Annotated[int, Effect.CHANCE] = Field(default=2024, ge=0, lt=2**31)
    """Seed of everything random. The same seed, data and machine give the same artifact."""

    @model_validator(mode="after")
    def _bfloat16_needs_a_gpu(self) -> "Runner":
        if self.precision == "bfloat16" and not self.use_gpu:
            raise ValueError("precision is bfloat16 and use_gpu is false: bfloat16 needs use_gpu: true")
        return self


class Config(_Section):
    """One training run."""

    runner: Runner = Runner()
    """Where data lies and how long to train."""
    hyper_parameters: HyperParameters = HyperParameters()
    """What defines the model."""
    events: Annotated[Events, Field(exclude=True)] = Events()  # no part of what training depends on
    """What clicks of each kind are for, for `mind.prepare`."""

    @model_validator(mode="after")
    def _features_have_a_file(self) -> "Config":
        if self.hyper_parameters.item_features and self.runner.item_features_file is None:
            raise ValueError("hyper_parameters.item_features is set and needs runner.item_features_file, which is not")
        return self


def runner_keys(*effects: Effect) -> set[str]:
    """Return the keys of `runner` that have one of these effects."""
    return {name for name, field in Runner.model_fields.items() if set(effects) & set(map(_effect, field.metadata))}


def _effect(metadata: object) -> Effect | None:
    return metadata if isinstance(metadata, Effect) else None


FOLLOWERS = {
    mark.leader: name
    for name, field in HyperParameters.model_fields.items()
    for mark in field.metadata
    if isinstance(mark, Follows)
}
"""Hyper-parameters that other ones follow, with those that follow them."""


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested sections by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def data_overrides(directory: Path | None) -> list[str]:
    """Return the overrides that use the three parts that `mind.prepare` wrote to a directory; none if it is None."""
    parts = ("train", "valid", "test") if directory else ()
    return [f"runner.{part}_data_dir={json.dumps(str(Path(directory or '', part)))}" for part in parts]


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """Read a YAML file, and apply `section.key=value` overrides with values in YAML syntax.

    Raises:
        ConfigError: the file is missing or is not a YAML mapping, a key is unknown, or a value has a wrong type or
            breaks a limit. The message names every faulty key.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections `runner` and `hyper_parameters`, found {type(tree).__name__}")
    for override in overrides or []:
        _apply(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, Config)}") from error


def explain(error: ValidationError, model: type[BaseModel] | None = None, secret: Collection[str] = ()) -> str:
    """Describe the faults that pydantic found, one per line: key, fault, and the value unless it is secret.

    Args:
        error: the error that pydantic raised.
        model: the model that was validated. If it is given, an unknown key is followed by the most similar known key.
        secret: keys whose values are not shown.
    """
    lines = []
    for fault in error.errors(include_url=False):
        key = ".".join(str(part) for part in fault["loc"]) or "configuration"
        if fault["type"] == "extra_forbidden":
            near = get_close_matches(key, _keys(model) if model else (), n=1)
            lines.append(f"{key}: unknown key" + "".join(f"; did you mean {known}?" for known in near))
        elif isinstance(fault["input"], dict) or key in secret:  # a check across keys has all of them as its input
            lines.append(f"{key}: {fault['msg'].removeprefix('Value error, ')}")
        else:
            lines.append(f"{key}: {fault['msg'].removeprefix('Value error, ')} (value: {fault['input']!r})")
    return "\n".join(lines)


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return the keys of a model and of the models in it, such as runner and runner.epochs."""
    keys = []
    for name, field in model.model_fields.items():
        key, kind = prefix + (field.alias or name), field.annotation
        keys.append(key)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += _keys(kind, f"{key}.")
    return keys


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r}: expected section.key=value, such as runner.epochs=3")
    *sections, leaf = key.split(".")
    node = tree
    for section in sections:
        child = node.setdefault(section, {})
        if not isinstance(child, dict):
            raise ConfigError(f"override {override!r}: {section} is a value, not a section")
        node = child
    try:
        node[leaf] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not YAML: {error}") from error
