"""Reads the inputs of a training run, and finds its checkpoint. This module knows nothing of Paddle."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mind.artifact import Artifact
from mind.config import Config, Effect, runner_keys
from mind.data.ages import read_ages
from mind.data.features import FeatureTable, read_features
from mind.data.ids import IdKind, KeyTable
from mind.data.paddlerec import Share, digests, read_eval, read_share
from mind.data.prepared import HELD_OUT, REST, events_of, how_split, item_keys
from mind.data.split import SplitKind
from mind.data.user_ranges import ALL, UserRange
from mind.errors import DataError
from mind.evaluation.provenance import other_data
from mind.evaluation.returns import Returns, measure_returns
from mind.sequences import EvalCases, Float32, Sequences, first_of, joined
from mind.training.checkpoint import Checkpoint
from mind.weights import Weights

LISTS = ("returns", "exclude_history")
"""The key of a fingerprint that tells how the lists of held-out users were made."""


@dataclass(frozen=True)
class Inputs:
    """What a run reads before it trains."""

    sequences: Sequences
    """The training users."""
    valid: EvalCases | None
    """The users that choose the best epoch."""
    features: FeatureTable | None
    """The features of the items."""
    fingerprint: dict[str, Any]
    """The files that these inputs were read from, with their sha256. They become `data` in the manifest."""
    keys: KeyTable | None = None
    """The text ids of the items; None where ids are integers."""
    ages: Float32 | None = None
    """[n] float32, days since each click of `sequences`; None if no setting needs them."""
    returns: Returns | None = None
    """Whether held-out users return to items; None if that was not measured."""

    @property
    def exclude_history(self) -> bool:
        """Whether the lists of held-out users have no item of their history."""
        return bool(self.fingerprint.get("exclude_history"))

    def counted(self, users: int, interactions: int) -> "Inputs":
        """Return the same inputs, with the numbers of users and interactions of all processes in the fingerprint."""
        return replace(self, fingerprint=self.fingerprint | {"users": users, "interactions": interactions})

    def with_returns(self, returns: Returns | None) -> "Inputs":
        """Return the same inputs, with lists of held-out users as `returns` makes them better."""
        found = {"returns": returns.recorded(), "exclude_history": returns.exclude_history} if returns else {}
        return replace(self, fingerprint=_without_lists(self.fingerprint) | found, returns=returns)

    def with_keys(self, weights: Weights) -> Weights:
        """Return the weights with the text ids of their items, if the items have text ids. Raises DataError."""
        if self.keys is None:
            return weights
        keys = self.keys.of(weights.item_id)
        return replace(weights, item_key_offsets=keys.offsets, item_key_text=keys.text)


def read_inputs(settings: Config, users: UserRange = ALL) -> Inputs:
    """Read the data of a run.

    Args:
        settings: the configuration.
        users: the users of this process; the others are left out of the training data.

    Raises:
        DataError: files cannot be read.
    """
    runner, hyper = settings.runner, settings.hyper_parameters
    share = read_share(runner.train_data_dir, users)
    sequences = share.sequences
    if not share.total:
        raise DataError(f"{runner.train_data_dir}: no interactions")
    valid = read_eval(runner.valid_data_dir) if runner.valid_data_dir else None
    named = runner.item_features_file if hyper.item_features else None
    keys = item_keys(runner.train_data_dir)
    kind = IdKind.TEXT if keys else IdKind.INTEGER
    features = read_features(named, hyper.item_features, runner.item_features_id, kind) if named else None
    if keys and features and features.keys:
        keys = keys.join(features.keys)
    fingerprint: dict[str, Any] = {"files": digests(runner.train_data_dir)}
    if runner.valid_data_dir:
        fingerprint["valid"] = digests(runner.valid_data_dir)
    if test := _beside(runner.train_data_dir, "test"):
        fingerprint["test"] = digests(test)
    if named:
        # Another column of ids makes other features of the same file.
        ids = "" if runner.item_features_id == "item_id" else f", ids in {runner.item_features_id}"
        fingerprint["item_features"] = {name + ids: digest for name, digest in digests(named).items()}
    if how := how_split(runner.train_data_dir):
        fingerprint["split"] = how
    if events := events_of(runner.train_data_dir):
        fingerprint["events"] = events
    ages = None
    if hyper.half_life_days or hyper.trending_days:
        ages, fingerprint["ages"] = _ages(runner.train_data_dir, share)
    inputs = Inputs(sequences, valid, features, fingerprint, keys, ages).counted(len(sequences), len(sequences.item_id))
    if not valid:
        return inputs
    if runner.exclude_history is None:
        return inputs.with_returns(measure_returns(sequences, valid))
    return replace(inputs, fingerprint=inputs.fingerprint | {"exclude_history": runner.exclude_history})


def read_everything(settings: Config, chosen: Artifact, users: UserRange = ALL) -> Inputs:
    """Read the data of a final model: every user with all clicks, from all parts of the prepared data.

    Args:
        settings: the configuration.
        chosen: the model whose settings are taken; it was trained on the same data.
        users: the users of this process; the others are left out.

    Raises:
        DataError: files cannot be read, or the model was trained on other data.
    """
    train, test = settings.runner.train_data_dir, settings.runner.test_data_dir
    if doubt := other_data(chosen, train, test):
        raise DataError(f"--final {chosen.model_version}: {doubt} Pass the data of the model to --data")
    inputs = read_inputs(settings, users)
    if inputs.fingerprint.get("events") != chosen.data.get("events"):
        raise DataError(
            f"--final {chosen.model_version}: its data had other kinds of clicks or other weights than those in "
            f"{train.parent}; prepare them as before, or train another model first"
        )
    parts: dict[Path, Share] = {}  # all but the training part
    if inputs.sequences.roles is not None:  # cases lack the clicks that are neither history nor target
        held_out = _held_out(train)
        parts[held_out] = read_share(held_out, users)
    else:
        parts[test] = _share_of(read_eval(test), users)
        if inputs.valid and settings.runner.valid_data_dir:
            parts[settings.runner.valid_data_dir] = _share_of(inputs.valid, users)
    fingerprint = {"final_of": chosen.model_version, **_without_lists(inputs.fingerprint), "test": digests(test)}
    fingerprint |= {name: chosen.data[name] for name in LISTS if name in chosen.data}  # as the model was measured
    rest = _beside(train, REST)
    if rest:
        fingerprint["rest"] = digests(rest)
    own = {path: share.sequences for path, share in parts.items()} | {train: inputs.sequences}
    if rest:
        parts[rest] = read_share(rest, users)
        own[rest] = parts[rest].sequences
    every, ages = first_of(list(own.values())), inputs.ages
    if ages is not None:
        found = {path: _ages(path, share) for path, share in parts.items()} | {train: (ages, fingerprint["ages"])}
        numbers = np.concatenate([found[path][0] for path in own])
        starts = np.cumsum([0, *(len(part.item_id) for part in own.values())])
        numbered = [
            replace(part, item_id=np.arange(start, start + len(part.item_id)))
            for part, start in zip(own.values(), starts, strict=False)
        ]
        ages = numbers[first_of(numbered).item_id]  # of the same clicks
        fingerprint["ages"] = [found[path][1] for path in own]
    inputs = replace(inputs, sequences=every, valid=None, fingerprint=fingerprint, ages=ages)
    return inputs.counted(len(every), len(every.item_id))


def _without_lists(fingerprint: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fingerprint.items() if name not in LISTS}


def _ages(part: Path, share: Share) -> tuple[Float32, str]:
    """Return the ages of the clicks of this process, and the sha256 of the ages of all clicks. Raises DataError."""
    every = read_ages(part, share.total)
    own = every[share.before : share.before + len(share.sequences.item_id)].copy()
    return own, hashlib.sha256(every.data).hexdigest()


def _share_of(cases: EvalCases, users: UserRange) -> Share:
    """Return all clicks of the held-out users that are among the given users."""
    every = joined(cases)
    own = every.take(np.flatnonzero(users.holds(every.user_id)))
    return Share(own, int(every.lengths[users.below(every.user_id)].sum()), len(every.item_id))


def _held_out(train_data_dir: Path) -> Path:
    """Return all clicks of the users of the cases. Raises DataError if they are not there."""
    if found := _beside(train_data_dir, HELD_OUT):
        return found
    raise DataError(f"{train_data_dir.parent / HELD_OUT}: is missing, and has clicks that --final needs; prepare again")


def warmed(settings: Config, inputs: Inputs, warm: Artifact, epochs: int | None) -> tuple[Config, Inputs]:
    """Return settings and inputs of a run that begins with the weights of a model. The fingerprint names the model.

    Args:
        settings: the configuration.
        inputs: what `read_inputs` returns for it.
        warm: the model.
        epochs: number of epochs of such a run; None keeps `runner.epochs`.
    """
    if epochs is not None:
        runner = settings.runner.model_copy(update={"epochs": epochs})
        settings = settings.model_copy(update={"runner": runner})
    return settings, replace(inputs, fingerprint=inputs.fingerprint | {"warm_start": warm.model_version})


def may_know_held_out(warm: Artifact, inputs: Inputs) -> str | None:
    """Warn if a model may have been trained on held-out users, because users are drawn again when there are more."""
    how = inputs.fingerprint.get("split", {}).get("split")
    if how != SplitKind.USERS or warm.data.get("files") == inputs.fingerprint["files"]:
        return None
    return (
        f"the held-out users were drawn anew, so model {warm.model_version} may have been trained on some of them, and "
        "metrics are too good; `mind.prepare --split time` holds out what no earlier model has seen"
    )


def valid_elsewhere(settings: Config) -> str | None:
    """Warn if validation data are beside the training data, but other validation data are used."""
    valid, beside = settings.runner.valid_data_dir, _beside(settings.runner.train_data_dir, "valid")
    if valid is None or beside is None or valid.absolute() == beside.absolute() or digests(valid) == digests(beside):
        return None
    return f"runner.valid_data_dir is {valid}, though {beside} lies beside the training data; --data names both"


def _beside(train_data_dir: Path, part: str) -> Path | None:
    """Return another part of the directory that `mind.prepare` wrote; None if there is none with files."""
    directory = train_data_dir.parent / part
    there = train_data_dir.name == "train" and directory.is_dir() and any(directory.iterdir())
    return directory if there else None


def checkpoint_of(settings: Config, inputs: Inputs, resume: bool = True) -> Checkpoint | None:
    """Return the checkpoint of a run with these settings and data, wherever the data are; None if none is wanted."""
    if not settings.runner.checkpoint_interval_s:
        return None
    same = settings.model_dump(mode="json", exclude={"runner": runner_keys(Effect.NOTHING)})
    digest = hashlib.sha256(json.dumps([same, inputs.fingerprint], sort_keys=True).encode()).hexdigest()
    return Checkpoint(settings.runner.model_save_path, digest[:12], resume)
