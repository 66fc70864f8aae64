"""How a log line looks: text for people, or JSON for machines. What is logged is decided elsewhere."""

import logging
import os
from typing import Literal

FIELDS = (
    "method", "status", "reason", "field", "users", "top_k", "total_ms", "queue_ms", "encode_ms", "search_ms",
    "merge_ms", "model_version", "peer", "request_id", "trace_id", "left_out",
)  # fmt: skip
"""What a line about a call tells of it, in this order and where it applies. Times are milliseconds."""


def formatter(kind: Literal["text", "json"], several: bool) -> logging.Formatter:
    """A formatter. `several`: whether processes share the output, so that text must tell them apart."""
    if kind == "text":
        process = f" [{os.getpid()}]" if several else ""
        return TextFormatter(f"%(asctime)s %(levelname)-7s{process} %(name)s: %(message)s")
    from pythonjsonlogger.json import JsonFormatter  # only now is it needed

    return JsonFormatter(
        ["levelname", "name", "process", "message"],
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "traceback"},
        timestamp="time",
    )


class TextFormatter(logging.Formatter):
    """One line, followed by what is known of a call as `name=value`."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line, without a traceback."""
        known = record.__dict__
        pairs = "".join(f" {name}={known[name]}" for name in FIELDS if name in known)
        return super().formatMessage(record) + pairs
