"""The format of log lines: text for people, or JSON for programs. Other modules decide what is logged."""

import logging
import os
from typing import Literal

FIELDS = (
    "method", "status", "reason", "field", "users", "queries", "top_k", "channel", "total_ms", "queue_ms", "encode_ms",
    "search_ms", "merge_ms", "model_version", "peer", "request_id", "trace_id", "left_out",
)  # fmt: skip
"""The fields of a line about a call, in order. Fields that do not apply are left out. Times are in milliseconds."""


def formatter(kind: Literal["text", "json"], several: bool) -> logging.Formatter:
    """Return a formatter for log lines. With `several` processes in one output, text shows the process id."""
    if kind == "text":
        process = f" [{os.getpid()}]" if several else ""
        return TextFormatter(f"%(asctime)s %(levelname)-7s{process} %(name)s: %(message)s")
    from pythonjsonlogger.json import JsonFormatter  # here, because only JSON needs it

    return JsonFormatter(
        ["levelname", "name", "process", "message"],
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "traceback"},
        timestamp="time",
    )


class TextFormatter(logging.Formatter):
    """Formats a record as one line of text, followed by the fields of a call as `name=value`."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line, without a traceback."""
        known = record.__dict__
        pairs = "".join(f" {name}={known[name]}" for name in FIELDS if name in known)
        return super().formatMessage(record) + pairs
