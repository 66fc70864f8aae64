"""Follows each call, and records its metrics, its span and its line in the log.

A line has method, status, reason, sizes and durations. It never shows a user's history, a filter or credentials.
"""

import logging
import re
import secrets
import time
from typing import Any

import grpc

from server.errors import DeadlineExceededError, Failure, InvalidRequestError, StoreError
from server.watching.logs import FIELDS
from server.watching.telemetry import CALL_CHANNEL, CALL_SPAN, Telemetry

logger = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
"""The metadata key of the id by which a call is found in the log."""
LINES_A_SECOND = 10
"""Maximum number of lines per second for failures with one reason, so that logging does not slow the answers down."""
LATE_S = 0.02
"""Time in seconds: a caller that leaves within it before its deadline left because of it, as its clock started earlier.
"""

_SANE_ID = re.compile("[!-~]{1,128}")
_TRACEPARENT = re.compile("[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_LEVELS = dict.fromkeys(("INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "CANCELLED", "OK"), logging.INFO)
_LEVELS |= dict.fromkeys(("INTERNAL", "UNKNOWN"), logging.ERROR)

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = tuple[tuple[str, str], ...]


class Calls:
    """Follows calls from beginning to end."""

    def __init__(self, telemetry: Telemetry, access_log: bool) -> None:
        """Prepare to follow calls. With `access_log`, calls that succeed are also logged, as at the level DEBUG."""
        self.metrics, self.tracing = telemetry.metrics, telemetry.tracing
        self.log_all = access_log or logger.isEnabledFor(logging.DEBUG)
        self._lines: dict[str, tuple[int, int, int]] = {}
        """For each reason: a second, the lines logged in it, and the failures without a line since the last line."""

    def begin(self, method: str, context: Context) -> "Call":
        """Follow a call that has arrived. `method`: its full name, such as `recall.v1.RecallService.Recall`."""
        return Call(self, method, context)

    def admit_line(self, reason: str) -> int | None:
        """Return the number of failures with this reason since the last line; None if this failure gets no line."""
        now = int(time.monotonic())
        second, lines, left_out = self._lines.get(reason, (now, 0, 0))
        if second == now and lines >= LINES_A_SECOND:
            self._lines[reason] = second, lines, left_out + 1
            return None
        self._lines[reason] = now, lines + 1 if second == now else 1, 0
        return left_out


class Call:
    """One call, which ends with `done`, `failed` or `cancelled`."""

    __slots__ = ("_calls", "_context", "_filtered", "_name", "_sizes", "_span", "_started")

    def __init__(self, calls: Calls, method: str, context: Context) -> None:
        """Begin to follow the call. See `Calls.begin`."""
        self._started = time.perf_counter()
        self._calls, self._context = calls, context
        self._sizes: dict[str, int] = {}
        self._filtered = False
        self._name = method.rpartition(".")[2]
        self._span = None
        if calls.tracing:
            self._span = calls.tracing.start_call(method, _metadata(context))
            CALL_SPAN.set(self._span)  # a task of its own answers each call

    def received(self, request: Any) -> None:
        """Start the clock of the call, because its request is complete. The time on the network does not count."""
        self._started = time.perf_counter()
        for name in ("users", "queries"):
            if hasattr(request, name):
                self._sizes[name] = len(getattr(request, name))
        if hasattr(request, "top_k"):
            self._sizes["top_k"] = request.top_k
        self._filtered = bool(getattr(request, "filter", ""))

    def done(self, answer: Any) -> None:
        """End a call that is answered with `answer`."""
        self._end("OK", "")
        if self._calls.log_all:
            fields = {"model_version": getattr(answer, "model_version", "")}
            if timings := getattr(answer, "timings", None):
                fields |= {each.name: round(value, 3) for each, value in timings.ListFields()}
            self._context.set_trailing_metadata(self._log("OK", "", f"{self._name} OK", fields))

    def failed(self, error: Failure, status: str, cause: Exception | None = None) -> Metadata:
        """End a call that fails.

        `status` is a gRPC status, `cause` an exception to log with traceback. Return metadata for it.
        """
        self._end(status, error.reason)
        left_out = 0 if self._calls.log_all else self._calls.admit_line(error.reason)
        if left_out is None:
            return ()
        fields: dict[str, Any] = {"left_out": left_out} if left_out else {}
        says = str(error)
        if isinstance(error, InvalidRequestError):
            fields["field"] = error.field
            says = "invalid request"  # the message quotes what the caller sent
        elif isinstance(error, StoreError) and self._filtered:
            says = says.partition(":")[0]  # the message of Milvus may quote the filter
        return self._log(status, error.reason, f"{self._name} {status}: {says}", fields, cause)

    def cancelled(self) -> None:
        """End a call whose caller left or whose deadline passed."""
        remaining_s = self._context.time_remaining()
        if remaining_s is not None and remaining_s < LATE_S:
            self.failed(DeadlineExceededError("the caller did not wait longer"), "DEADLINE_EXCEEDED")
            return
        self._end("CANCELLED", "")
        if self._calls.log_all:
            self._log("CANCELLED", "", f"{self._name} CANCELLED", {})

    def _end(self, status: str, reason: str) -> None:
        channel = CALL_CHANNEL.get()
        if self._calls.metrics:
            took_s = time.perf_counter() - self._started
            self._calls.metrics.count_request(self._name, status, reason, took_s, channel)
        if self._span and self._calls.tracing:
            self._calls.tracing.end_call(self._span, status, self._sizes, channel)

    def _log(
        self, status: str, reason: str, says: str, fields: dict[str, Any], cause: Exception | None = None
    ) -> Metadata:
        """Write the line of the call to the log. Return the request id as metadata."""
        sent = _metadata(self._context)
        request_id = sent.get(REQUEST_ID, "")
        if not _SANE_ID.fullmatch(request_id):
            request_id = secrets.token_hex(8)
        total_ms = round((time.perf_counter() - self._started) * 1000, 3)
        fields |= {"method": self._name, "status": status, "reason": reason, **self._sizes, "total_ms": total_ms}
        fields |= {
            "channel": CALL_CHANNEL.get(),
            "peer": self._context.peer(),
            "request_id": request_id,
            "trace_id": self._trace_id(sent),
        }
        named = {name: fields[name] for name in FIELDS if fields.get(name) not in (None, "")}
        logger.log(_LEVELS.get(status, logging.WARNING), "%s", says, extra=named, exc_info=cause)
        return ((REQUEST_ID, request_id),)

    def _trace_id(self, sent: dict[str, str]) -> str:
        if self._span:
            return f"{self._span.get_span_context().trace_id:032x}"
        matched = _TRACEPARENT.fullmatch(sent.get("traceparent", ""))
        return matched[1] if matched else ""


def _metadata(context: Context) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
