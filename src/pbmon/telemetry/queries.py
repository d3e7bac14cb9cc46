"""Database statements: one client span each, and the metrics of the catalogue.

Implements runtime.QuerySink on the OpenTelemetry SDK. A driver's call has no child spans, so the
span is made when the statement is over, with the time it began.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.metrics import Histogram, Meter
from opentelemetry.trace import SpanKind, Tracer

from pbmon import catalog, privacy, signals
from pbmon.runtime import Database
from pbmon.settings import Settings
from pbmon.telemetry import statements
from pbmon.telemetry.clock import Clock
from pbmon.telemetry.exchange import ERROR
from pbmon.telemetry.notices import Notices
from pbmon.telemetry.series import present


class Queries:
    """The QuerySink. apply() changes its settings while it runs."""

    def __init__(
        self, settings: Settings, tracer: Tracer, meter: Meter, clock: Clock, notices: Notices
    ) -> None:
        self.tracer = tracer
        self.clock = clock
        self.notices = notices
        self._meter = meter
        self._histogram: Histogram | None = None
        self._series: set[tuple[tuple[str, Any], ...]] = set()
        self.slow = signals.Counts(catalog.SLOW_QUERIES, meter)
        self.errors = signals.Counts(catalog.QUERY_ERRORS, meter)
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        self.settings = settings
        self.annotated = frozenset(name for name, mode in settings.hooks.items()
                                   if mode == "upstream")  # fmt: skip

    @property
    def histogram(self) -> Histogram:
        """Made at the first statement: its buckets depend on settings code may still set."""
        if self._histogram is None:
            self._histogram = signals.histogram(
                catalog.QUERY_DURATION,
                extra_buckets=(self.settings.slow_query_s,),
                meter=self._meter,
            )
        return self._histogram

    def prepare(self, system: str) -> None:
        statements.describe("SELECT 1", system)

    def record(self, duration_s: float, attributes: dict[str, Any], context: Context) -> None:
        """Into the histogram; tenants' databases, for one, may be more than its series may."""
        key = tuple(attributes.items())
        if key not in self._series:
            if len(self._series) >= signals.OWN_SERIES:
                attributes = dict(signals.OVERFLOW)
            else:
                self._series.add(key)
        self.histogram.record(duration_s, attributes, context=context)

    def query(
        self,
        database: Database,
        statement: str | None,
        *,
        operation: str | None = None,
        batch_size: int | None = None,
    ) -> Query | None:
        context = get_current()
        if not is_instrumentation_enabled():
            return None
        return Query(self, database, statement, operation, batch_size, context)


class Query:
    """One statement under way (runtime.QueryRecord)."""

    __slots__ = (
        "_batch_size", "_busy_s", "_caller", "_context", "_database", "_finished", "_operation",
        "_running_s", "_sink", "_statement", "_wall_ns",
    )  # fmt: skip

    def __init__(
        self,
        sink: Queries,
        database: Database,
        statement: str | None,
        operation: str | None,
        batch_size: int | None,
        context: Context,
    ) -> None:
        self._sink = sink
        self._database = database
        self._statement = statement
        self._operation = operation
        self._batch_size = batch_size
        self._context = context
        self._finished = False
        self._caller: dict[str, Any] | None = None
        self._busy_s = 0.0
        self._wall_ns = sink.clock.wall_ns()
        self._running_s: float | None = sink.clock.monotonic_s()

    def pause(self) -> None:
        if self._running_s is not None:
            self._busy_s += self._sink.clock.monotonic_s() - self._running_s
            self._running_s = None
            # Looked up here, within the driver's slow call: the end may be anywhere.
            if self._caller is None and self._busy_s > self._sink.settings.slow_query_s:
                self._caller = _caller()

    def resume(self) -> None:
        if self._running_s is None:
            self._running_s = self._sink.clock.monotonic_s()

    def finish(
        self,
        *,
        returned: int | None = None,
        affected: int | None = None,
        error: BaseException | None = None,
        status_code: str | None = None,
    ) -> None:
        if self._finished:
            return
        self._finished = True
        self.pause()
        sink = self._sink
        described = statements.describe(self._statement, self._database.system)
        summary = self._operation or described.summary
        slow = self._busy_s > sink.settings.slow_query_s
        common = self._common(described, error, status_code, slow)
        attributes = common | present(
            {
                catalog.DB_SUMMARY.name: summary,
                catalog.DB_TEXT.name: described.text,
                catalog.DB_BATCH_SIZE.name: self._batch_size,
                catalog.DB_RETURNED_ROWS.name: returned,
                catalog.DB_AFFECTED_ROWS.name: affected,
            }
        )
        if slow:
            attributes |= self._caller or {}
        span = self._span(summary, attributes, failed=error is not None)
        sink.record(self._busy_s, common, trace.set_span_in_context(span, Context()))
        if error is not None:
            sink.errors.cell(signals.key({n: common[n] for n in _ERROR_KEYS if n in common})).up()
        if slow:
            sink.slow.cell(
                (
                    (catalog.DB_SYSTEM.name, self._database.system),
                    (catalog.DB_SUMMARY.name, summary),
                )
            ).up()
            sink.notices.write(
                catalog.SLOW_QUERY,
                key=summary,
                span=span,
                query=described.text or summary,
                duration=self._busy_s,
                rows=returned if returned is not None else affected,
            )

    def _common(
        self,
        described: statements.Statement,
        error: BaseException | None,
        status_code: str | None,
        slow: bool,
    ) -> dict[str, Any]:
        """The attributes that span and histogram share."""
        return present(
            {
                catalog.DB_SYSTEM.name: self._database.system,
                catalog.DB_NAMESPACE.name: self._database.namespace,
                catalog.DB_OPERATION.name: self._operation or described.operation,
                catalog.DB_COLLECTION.name: described.collection,
                catalog.SERVER_ADDRESS.name: self._database.address,
                catalog.SERVER_PORT.name: self._database.port,
                catalog.ERROR_TYPE.name: privacy.error_type(error) if error is not None else None,
                catalog.DB_STATUS.name: status_code,
                catalog.DB_SLOW.name: slow,
            }
        )

    def _span(self, summary: str, attributes: dict[str, Any], *, failed: bool) -> trace.Span:
        sink, name = self._sink, summary or self._database.system
        if sink.annotated:
            current = trace.get_current_span()
            scope = getattr(getattr(current, "instrumentation_scope", None), "name", "")
            if current.is_recording() and scope.rpartition(".")[2] in sink.annotated:
                _annotate(current, name, attributes)
                return current
        span = sink.tracer.start_span(
            name,
            context=self._context,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=self._wall_ns,
        )
        if failed:
            span.set_status(ERROR)
        span.end(self._wall_ns + round(self._busy_s * 1e9))
        return span


def _annotate(span: trace.Span, name: str, attributes: dict[str, Any]) -> None:
    """Upstream's span has the statement as it was given, and its first word as the name."""
    text = attributes.get(catalog.DB_TEXT.name, name)
    span.update_name(name)
    span.set_attributes(attributes | {catalog.DB_TEXT.name: text})
    if _OLD_TEXT in (getattr(span, "attributes", None) or {}):
        span.set_attribute(_OLD_TEXT, text)


_OLD_TEXT = "db.statement"  # of the conventions before the stable ones
_ERROR_KEYS = (catalog.DB_SYSTEM.name, catalog.ERROR_TYPE.name, catalog.DB_STATUS.name)
_NOT_THE_CALLER = ("pbmon.", "sqlalchemy.", "psycopg2.", "sqlite3.", "opentelemetry.", "wrapt.")


def _caller() -> dict[str, Any]:
    """Where in the application a slow statement was issued: `code.*` of the nearest frame that
    is neither ours nor a database library's."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - CPython's documented name
    while frame is not None:
        module = frame.f_globals.get("__name__") or ""
        if not module.startswith(_NOT_THE_CALLER):
            return {
                catalog.CODE_FILE.name: frame.f_code.co_filename,
                catalog.CODE_LINE.name: frame.f_lineno,
                catalog.CODE_FUNCTION.name: f"{module}.{frame.f_code.co_name}",
            }
        frame = frame.f_back
    return {}
