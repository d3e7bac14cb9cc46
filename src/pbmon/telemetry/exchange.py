"""One HTTP request and its answer, from the first report to the finished span.

Span and histogram agree: both end at the last byte of the answer. Slow and the budgets judge the
same time, or the first byte of a stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextvars import Token
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Span, Status, StatusCode

from pbmon import catalog, privacy
from pbmon.budgets import Verdict
from pbmon.catalog import KNOWN_METHODS
from pbmon.gate.runs import Request
from pbmon.runtime import Scope, active

if TYPE_CHECKING:
    from pbmon.telemetry.requests import Requests

ERROR = Status(StatusCode.ERROR)
GONE = (asyncio.CancelledError, GeneratorExit)
"""Not the application's failure: nobody waits for the answer any more."""
_EMPTY = Context()


class Exchange:
    """A runtime.RequestRecord."""

    __slots__ = (
        "_active",
        "_done_s",
        "_error",
        "_finished",
        "_first_s",
        "_method",
        "_scheme",
        "_sink",
        "_span",
        "_start_s",
        "_status",
        "_stream",
        "_token",
        "_version",
        "_wall_ns",
        "route",
    )  # fmt: skip

    def __init__(self, sink: Requests, scope: Scope) -> None:
        method = scope["method"]
        self._sink = sink
        # Not the scope itself: it holds this record, and the cycle would hold all of the request.
        self._version = scope.get("http_version", "")
        self._method = method if method in KNOWN_METHODS else "_OTHER"
        self.route: str | None = None
        self._status: int | None = None
        self._error: BaseException | None = None
        self._first_s: float | None = None
        self._done_s: float | None = None
        self._stream = self._finished = False
        self._wall_ns = sink.clock.wall_ns()
        self._start_s = sink.clock.monotonic_s()
        self._scheme = scope.get("scheme") or "http"  # optional in ASGI
        self._span, context = sink.start_span(scope, self._method, self._wall_ns)
        self._active = sink.active.cell(
            ((catalog.METHOD.name, self._method), (catalog.SCHEME.name, self._scheme))
        )
        self._active.up()
        self._token = attach(context) if context is not None else None

    def response_started(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._status = status
        self._first_s = self._sink.clock.monotonic_s()
        for name, value in headers:
            if name.lower() == b"content-type":
                self._stream = value.lower().startswith(b"text/event-stream")
        if self._sink.settings.response_headers and self._span.is_recording():
            self._span.set_attributes(self._sink.headers.response(headers))

    def response_completed(self) -> None:
        self._done_s = self._sink.clock.monotonic_s()
        self._active.down()
        # A 5xx waits for closed(): the exception that caused it arrives after its answer. Not
        # on upstream's span, which upstream ends as soon as this returns.
        if self._status is None or self._status < 500 or self._token is None:
            self._finish()

    def failed(self, error: BaseException) -> None:
        self._error = error

    def closed(self) -> None:
        try:
            if not self._finished:
                self._finish()
            elif self._error is not None and not is_gone(self._error):
                self._log_late()
            if self._error is not None:
                self._report_error(self._error)
        finally:
            leave(self._token, self._error)
            self._error = None  # its traceback holds the frames of the whole request

    def _report_error(self, error: BaseException) -> None:
        """To the error monitor, but for one that was its own answer, as 404 is one."""
        if self._status is None or self._status >= 500 or not _says(error, self._status):
            trace_id = self._span.get_span_context().trace_id
            active.errors.seen(error, route=self.route, trace_id=trace_id)

    def _finish(self) -> None:
        self._finished = True
        sink = self._sink
        if self._done_s is None:
            self._active.down()
        end_s = self._done_s if self._done_s is not None else sink.clock.monotonic_s()
        duration_s = end_s - self._start_s
        error_type = self._error_type()
        series = sink.series(
            (
                self._method,
                self._scheme,
                self._version,
                self.route,
                self._status,
                error_type,
            )
        )
        sink.histogram.record(
            duration_s, series.attributes, context=trace.set_span_in_context(self._span, _EMPTY)
        )
        if self._aborted:
            series.count_aborted()
        judged_s = self._judged(duration_s)
        slow = judged_s > sink.settings.slow_request_s
        if slow:
            series.count_slow()
        if sink.recording is not None and self.route is not None:
            sink.recording.add(
                Request(self._method, self.route, judged_s, error_type is not None), self._span
            )
        verdict = series.budget.judge(judged_s) if series.budget is not None else None
        if verdict is not None:
            series.count_budget(verdict, failed=error_type is not None)
        attributes = self._attributes(verdict, error_type)
        if slow:
            attributes[catalog.SLOW.name] = True
        self._end_span(attributes, duration_s, error_type)
        self._log(attributes, duration_s, verdict)

    @property
    def _aborted(self) -> bool:
        """It ended before the last byte, and not by an exception of the application."""
        return self._done_s is None and (self._error is None or is_gone(self._error))

    def _judged(self, duration_s: float) -> float:
        if self._first_s is not None and (self._stream or self.route in self._sink.stream_routes):
            return self._first_s - self._start_s
        return duration_s

    def _error_type(self) -> str | None:
        if self._error is not None and not self._aborted:
            if self._status is None:
                self._status = 500  # what an ASGI server answers for an application that raised
            return privacy.error_type(self._error)
        if self._status is not None and self._status >= 500:
            return str(self._status)
        return None

    def _attributes(self, verdict: Verdict | None, error_type: str | None) -> dict[str, Any]:
        """What is known of the request only at its end."""
        attributes = self._sink.segment_attributes()
        if self.route is not None:
            attributes[catalog.ROUTE.name] = self.route
        if self._status is not None:
            attributes[catalog.STATUS.name] = self._status
        if error_type is not None:
            attributes[catalog.ERROR_TYPE.name] = error_type
        if verdict is not None:
            attributes[catalog.BUDGET_EXCEEDED.name] = verdict.exceeded
            if verdict.limits:
                attributes[catalog.BUDGET_LIMITS.name] = list(verdict.limits)
            if verdict.exceeded:
                attributes[catalog.BUDGET_EXCESS.name] = verdict.excess_s
        return attributes

    def _end_span(
        self, attributes: dict[str, Any], duration_s: float, error_type: str | None
    ) -> None:
        span = self._span
        if span.is_recording():
            span.set_attributes(attributes | self._sink.person_attributes())
            if self.route is not None:
                verb = "HTTP" if self._method == "_OTHER" else self._method
                span.update_name(f"{verb} {self.route}")
            if error_type is not None:
                record_error(span, self._error)
        if self._token is not None:  # ours; upstream's span is ended by upstream
            span.end(self._wall_ns + round(duration_s * 1e9))

    def _log(self, attributes: dict[str, Any], duration_s: float, verdict: Verdict | None) -> None:
        sink = self._sink
        mode = sink.settings.request_log
        slow = catalog.SLOW.name in attributes
        exceeded = verdict is not None and verdict.exceeded
        notable = slow or exceeded or catalog.ERROR_TYPE.name in attributes
        if mode == "all" or (notable and mode == "notable"):
            sink.notices.write(
                catalog.REQUEST_COMPLETED,
                span=self._span,
                endpoint=self.route,
                method=self._method,
                duration=duration_s,
                status=self._status,
                slow=slow,
            )
        if verdict is not None and exceeded:
            sink.budgets.tell(verdict, self.route, self._method, self._span)

    def _log_late(self) -> None:
        """An exception after the answer: of background work, or of a stream behind a middleware
        that had sent its end. The span is gone by then."""
        error = self._error
        self._sink.notices.write(
            catalog.FAILED_LATE,
            key=f"{self._method} {self.route}",
            span=self._span,
            endpoint=self.route,
            method=self._method,
            error=privacy.error_type(error) if error is not None else None,
            frames=privacy.frames(error.__traceback__ if error is not None else None, 3),
        )


def is_gone(error: BaseException) -> bool:
    """Whether it only ends the work, as nobody waits for the answer any more."""
    return issubclass(type(error), GONE)  # isinstance() may ask the exception what it is


def _says(error: BaseException, status: int) -> bool:
    """Whether an exception stands for an answer with this status, as frameworks have such."""
    try:
        found = getattr(error, "status_code", None)
        return isinstance(found, int) and found == status
    except Exception:
        return False


def leave(token: Token[Context] | None, error: BaseException | None) -> None:
    """Take the record's span out of the current context, if the record put it there."""
    # A coroutine that the garbage collector closes is in another context by then.
    if token is not None and not issubclass(type(error), GeneratorExit):
        detach(token)


def record_error(span: Span, error: BaseException | None) -> None:
    """Mark a span as failed; an exception leaves its type and frames, not its message."""
    span.set_status(ERROR)
    if error is not None:
        span.add_event(
            "exception",
            {
                "exception.type": privacy.error_type(error),
                "exception.stacktrace": privacy.frames(error.__traceback__),
            },
        )
