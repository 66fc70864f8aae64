"""Writes metrics of the last night to a text file, for the textfile collector of Prometheus' node exporter."""

import time
from pathlib import Path

from indexer.nightly.run import Exit
from indexer.nightly.state import Night, nights
from mind.data.files import replacing

METRICS = {
    "recall_nightly_exit_code": "Exit code of the last run of the night shift; 0 released, 3 refused, 4 rolled back.",
    "recall_nightly_ended_timestamp_seconds": "When the last run ended, Unix time.",
    "recall_nightly_released_timestamp_seconds": "When a night released a model last, Unix time; 0 if none did.",
    "recall_nightly_step_seconds": "How long each step of the last night took.",
    "recall_nightly_check_failed": "1 for each check of the gate that the last night did not pass.",
    "recall_nightly_data": "Rows, users and items of the data of the last night.",
    "recall_nightly_recall_ratio": "recall@50 of the candidate and of the live model on the test users of that night.",
}
"""The name and the help of each metric."""


def render(night: Night, code: Exit, released_s: float, now_s: float) -> str:
    """Return the metrics as text.

    Args:
        night: the last night.
        code: how its run ended.
        released_s: the time at which a night last released a model, in Unix time.
        now_s: the present time, in Unix time.
    """
    checks = [check for step in night.state.steps.values() for check in step.figures.get("checks", [])]
    data, models = night.figures("check"), night.figures("evaluate")
    recall = {"candidate": models.get("recall"), "live": models.get("live_recall")}
    values: dict[str, dict[str, float]] = {
        "recall_nightly_exit_code": {"": code.value},
        "recall_nightly_ended_timestamp_seconds": {"": now_s},
        "recall_nightly_released_timestamp_seconds": {"": released_s},
        "recall_nightly_step_seconds": {f'{{step="{name}"}}': step.seconds for name, step in night.state.steps.items()},
        "recall_nightly_check_failed": {f'{{check="{one["name"]}"}}': int(not one["passed"]) for one in checks},
        "recall_nightly_data": {f'{{what="{what}"}}': data[what] for what in ("rows", "users", "items") if data},
        "recall_nightly_recall_ratio": {
            f'{{model="{model}"}}': value for model, value in recall.items() if value is not None
        },
    }
    lines = []
    for name, says in METRICS.items():
        lines += [f"# HELP {name} {says}", f"# TYPE {name} gauge"]
        lines += [f"{name}{labels} {value:.15g}" for labels, value in values[name].items()]
    return "\n".join(lines) + "\n"


def write_metrics(file: Path, work_dir: Path, night: Night, code: Exit) -> None:
    """Write the metrics file, whole or not at all. Raises DataError and NightlyError."""
    ended = (one.state.ended_at for one in nights(work_dir) if one.released_version and one.state.ended_at)
    last = next(ended, None)
    with replacing(file) as temporary:
        temporary.write_text(render(night, code, last.timestamp() if last else 0, time.time()), encoding="utf-8")
