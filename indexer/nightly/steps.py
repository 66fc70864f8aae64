"""The steps of a night, in their order. Each step reads the results of earlier steps, and returns what it found.

A step can be repeated after a kill at any moment. What needs Paddle or much memory runs as a command of ours in its
own process. What changes Milvus is a procedure that completes an interrupted call of its own.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter

from indexer.catalogue import find, fingerprint_of, item_collections
from indexer.errors import NightlyError, ServersError
from indexer.nightly.data import Catalogue, DataFigures, read_figures
from indexer.nightly.gate import Check, check_data, check_models, refused
from indexer.nightly.shift import (
    COMPARISON,
    DATA,
    FINAL,
    MODELS,
    Shift,
    build_command,
    candidate,
    final_command,
    prepare_command,
    released,
    train_command,
)
from indexer.nightly.state import nights
from indexer.nightly.watch import watch_release
from indexer.rollout import retire, rollout
from indexer.users.encode import forget_models
from indexer.verify import check_contents, check_recall
from mind.artifact import load_artifact, newest_artifact
from mind.data.files import replacing
from mind.data.paddlerec import read_eval
from mind.evaluation.side_by_side import Comparison, compare
from mind.milvus.store import Store

if TYPE_CHECKING:
    pass

Figures = dict[str, Any]


class Refused(Exception):  # noqa: N818 - not a failure: it is the purpose of the gate
    """The gate refused the data or the candidate, so this night releases nothing."""

    def __init__(self, checks: list[Check], figures: "Figures") -> None:
        """Keep the result of the gate. `checks`: all checks, passed or not; `figures`: what the step found."""
        super().__init__("; ".join(refused(checks)))
        self.figures = figures


def prepare(shift: Shift) -> Figures:
    """Prepare the data of the night."""
    shift.run("prepare", prepare_command(shift))
    return {}


def check(shift: Shift) -> Figures:
    """Check the data against the limits of the gate, before the long training."""
    data, catalogue = read_figures(shift.directory / DATA)
    catalogue.write(shift.directory)
    earlier = shift.earlier()
    before = DataFigures.of(earlier.figures("check")) if earlier else None
    compared = (before, Catalogue.read(earlier.directory)) if earlier and before else None
    checks = check_data(shift.config.gate, shift.night.state.date, data, catalogue, compared)
    return _passed(checks, asdict(data) | {"compared_with": str(earlier.state.date) if earlier else None})


def train(shift: Shift) -> Figures:
    """Train the candidate."""
    version = shift.live_version()
    shift.run("train", train_command(shift, str(shift.models.version(version)) if version else ""))
    model = load_artifact(newest_artifact(shift.directory / MODELS))
    return {
        "model_version": model.model_version,
        "items": len(model.vocabulary),
        "epoch": model.metrics.get("epoch"),
        "epochs": len(model.metrics.get("epochs", [])),
        "warm_start": model.data.get("warm_start"),
        "valid_recall": model.metrics.get("valid", {}).get("recall@50"),
    }


def evaluate(shift: Shift) -> Figures:
    """Compare the candidate with the live model on the test users of tonight."""
    cases = read_eval(shift.directory / DATA / "test")
    if len(cases) > shift.config.test_users:
        drawn = np.random.default_rng(0).permutation(len(cases))[: shift.config.test_users]
        cases = cases.take(np.sort(drawn))
    version = shift.live_version()
    live = load_artifact(shift.models.version(version)) if version else None
    found = compare(cases, candidate(shift), live, shift.config.report.users)
    with replacing(shift.directory / COMPARISON) as file:
        file.write_text(json.dumps(asdict(found)), encoding="utf-8")
    return {
        "users": found.users,
        "recall": round(found.candidate.recall.mean, 6),
        "live_recall": round(found.live.recall.mean, 6) if found.live else None,
        "live_version": version or None,
        "difference": round(found.difference.mean, 6) if found.difference else None,
        "half_width": round(found.difference.half_width or 0, 6) if found.difference else None,
    }


def gate(shift: Shift) -> Figures:
    """Check the candidate against its limits and the live model."""
    found = read_comparison(shift)
    earlier, live_before = shift.earlier(), None
    if earlier and found.live and earlier.released_version == found.live.model_version:
        live_before = earlier.figures("evaluate").get("recall")
    return _passed(check_models(shift.config.gate, found, live_before), {})


def final(shift: Shift) -> Figures:
    """Train the candidate's settings on all clicks, if the configuration says so."""
    if not shift.config.train.final:
        return {"skipped": "train.final is false"}
    begun = shift.night.figures("train").get("warm_start")
    shift.run("final", final_command(shift, str(shift.models.version(begun)) if begun else ""))
    return {"model_version": load_artifact(newest_artifact(shift.directory / FINAL)).model_version}


def push(shift: Shift) -> Figures:
    """Copy the model to the place from which servers load models."""
    model = released(shift)
    copied = shift.models.push(model)
    return {"model_version": model.name, "copied": copied}


def build(shift: Shift) -> Figures:
    """Build the collection of the model."""
    model = released(shift)
    shift.run("build", build_command(shift, model))
    version = model.name
    with Store(shift.connection) as store:
        built = [
            one for one in item_collections(store) if one.record and one.record.fingerprint.model_version == version
        ]
    if not built:
        raise NightlyError(f"`indexer build` ended well, but Milvus has no finished collection of model {version}")
    newest = max(built, key=lambda one: (one.record.build, one.built_at) if one.record else (0, ""))
    return {"collection": newest.name, "items": fingerprint_of(newest).count}


def verify(shift: Shift) -> Figures:
    """Compare the collection in Milvus with the model once more."""
    weights = load_artifact(released(shift)).weights
    with Store(shift.connection) as store:
        name = shift.night.figures("build")["collection"]
        collection = find(item_collections(store), name)
        store.load(name)
        sampled = check_contents(store, name, weights)
        recall = check_recall(store, name, fingerprint_of(collection), weights, shift.config.build.min_recall)
    return {"vectors": sampled, "recall": round(recall.recall, 4)}


def publish(shift: Shift) -> Figures:
    """Make the collection live, and wait until every server serves it."""
    name, own = shift.night.figures("build")["collection"], shift.config.publish
    with Store(shift.connection) as store:
        done = rollout.publish(store, shift.models, name, own.carry_over)
    processes = 0
    try:
        processes = _wait(shift, name)
    except ServersError as error:
        shift.night.state.fell = str(error)
    return {"live": done.live, "before": done.before, "server_processes": processes}


def watch(shift: Shift) -> Figures:
    """Watch the metrics of the servers after the release."""
    own = shift.config.watch
    if shift.night.state.fell:
        return {"skipped": "the release is rolled back already"}
    if not own.metrics or not own.minutes:
        return {"skipped": "watch.metrics names no server" if not own.metrics else "watch.minutes is 0"}
    shift.night.state.fell, figures = watch_release(own)
    return dict(figures)


def roll_back(shift: Shift) -> Figures:
    """Return to the previous release, if the watch found a fault."""
    if not shift.night.state.fell:
        return {"skipped": "not needed"}
    ours = shift.night.figures("publish")["live"]
    with Store(shift.connection) as store:
        live = store.alias()
        if live == ours:
            live = rollout.rollback(store, shift.models).live
    if live is None:
        raise NightlyError(f"no collection is live, though {ours} was published; was it dropped meanwhile?")
    return {"live": live, "why": shift.night.state.fell, "server_processes": _wait(shift, live)}


def prune(shift: Shift) -> Figures:
    """Drop old collections, and delete the data and models of old nights."""
    if shift.night.state.fell:
        return {"skipped": "nothing was released"}
    in_use: set[str] = set()
    if shift.servers:
        from indexer.rollout.servers import collections_in_use

        in_use = collections_in_use(shift.servers)
    dropped: list[str] = []
    with Store(shift.connection) as store:
        retire.prune(store, shift.config.prune.keep, False, in_use, dropped.append)
        forget_models(store, dropped.append)
    old = [one for one in nights(shift.config.work_dir) if one.state.date < shift.night.state.date]
    for night in old[shift.config.prune.keep_nights - 1 :]:
        for part in (DATA, MODELS, FINAL):
            shutil.rmtree(night.directory / part, ignore_errors=True)
    return {"dropped": dropped}


Step = Callable[[Shift], Figures]
STEPS: dict[str, Step] = {
    "prepare": prepare,
    "check": check,
    "train": train,
    "evaluate": evaluate,
    "gate": gate,
    "final": final,
    "push": push,
    "build": build,
    "verify": verify,
    "publish": publish,
    "watch": watch,
    "rollback": roll_back,
    "prune": prune,
}
"""The steps by name, in their order. The help of a step is its docstring."""


def read_comparison(shift: Shift) -> Comparison:
    """Read the result of the step evaluate. Raises NightlyError."""
    file = shift.directory / COMPARISON
    try:
        return TypeAdapter(Comparison).validate_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise NightlyError(f"{file}: cannot be read; give --from-step evaluate") from error


def _passed(checks: list[Check], figures: Figures) -> Figures:
    """Return the figures of a step if all checks passed. Raises Refused otherwise."""
    figures = figures | {"checks": [check.plain() for check in checks]}
    if refused(checks):
        raise Refused(checks, figures)
    return figures


def _wait(shift: Shift, collection: str) -> int:
    """Wait until every server serves a collection. Return the number of server processes."""
    if not shift.servers:
        return 0
    from indexer.rollout.servers import wait_until_serving

    timeout_s = shift.config.publish.wait_timeout_s
    return wait_until_serving(shift.servers, collection, timeout_s, lambda done, total: None)
