"""Where the SDK hands over what it made: spans, log records and metrics, into the pipeline."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk._logs import LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricReader, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from pbmon import signals
from pbmon.signals import Cell
from pbmon.telemetry import encoding
from pbmon.telemetry.encoding import Encoded
from pbmon.telemetry.merging import Merged
from pbmon.telemetry.pipeline import Intake

_NOW_NS = 1_000_000_000
"""A time that is less than this ago may have been read from the clock just now; what the caller
gave instead only counts as bent where the two clocks disagree about it."""

_BENT_NS = 1_000_000
_MOST_LIVE = 10_000

Flush = Callable[[float], bool]
"""Sends a signal's items within so many seconds; whether all of them are gone."""


class SpooledSpans(SpanProcessor):
    """Queues every sampled span, with a duration that no step of the wall clock has bent."""

    def __init__(self, intake: Intake, flush: Flush) -> None:
        self._put = intake.put
        self._flush = flush
        self._clocks: dict[int, int] = {}
        self.live = {True: Cell(), False: Cell()}
        """Recording spans that have not ended, by whether they are sampled."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.live[span.context.trace_flags.sampled].up()
        start_ns, now_ns = span.start_time, time.time_ns()
        if start_ns is not None and 0 <= now_ns - start_ns < _NOW_NS:
            clocks = self._clocks
            if len(clocks) >= _MOST_LIVE:
                clocks.clear()  # spans that nobody ended
            clocks[span.context.span_id] = time.perf_counter_ns() - (now_ns - start_ns)

    def on_end(self, span: ReadableSpan) -> None:
        sampled = span.context.trace_flags.sampled
        self.live[sampled].down()
        began_ns = self._clocks.pop(span.context.span_id, None)
        if not sampled:
            return
        if began_ns is not None:
            _mend(span, began_ns)
        self._put(span)

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._flush(timeout_millis / 1000)


def _mend(span: ReadableSpan, began_ns: int) -> None:
    """Start by the wall clock, duration by the monotonic one, where both ends were read from the
    wall clock and it was set in between."""
    start_ns, end_ns = span.start_time, span.end_time
    if start_ns is None or end_ns is None:
        return
    since_ns = time.time_ns() - end_ns
    elapsed_ns = time.perf_counter_ns() - began_ns - since_ns
    if 0 <= since_ns < _NOW_NS and abs(end_ns - start_ns - elapsed_ns) > _BENT_NS:
        span._end_time = start_ns + max(0, elapsed_ns)  # noqa: SLF001 - it has no setter


class SpooledLogs(LogRecordProcessor):
    def __init__(self, intake: Intake, flush: Flush) -> None:
        self._put = intake.put
        self._flush = flush
        self.created = Cell()

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        self.created.up()
        # Without its context, which keeps a whole request alive.
        record = copy.copy(log_record.log_record)
        record.context = Context()
        self._put(
            ReadableLogRecord(
                log_record=record,
                resource=log_record.resource or Resource.get_empty(),
                instrumentation_scope=log_record.instrumentation_scope,
                limits=log_record.limits,
            )
        )

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._flush(timeout_millis / 1000)


class SpooledMetrics(MetricReader):
    """Collected by the pipeline: wholly once per export interval, and every second so that a
    process that is killed leaves its newest metrics behind."""

    def __init__(
        self,
        temporality: dict[type, AggregationTemporality],
        aggregation: Any,
        flush: Flush,
    ) -> None:
        super().__init__(preferred_temporality=temporality, preferred_aggregation=aggregation)
        self._flush = flush
        self._merged = Merged()
        self._lock_merged = threading.Lock()

    def take(self, *, whole: bool) -> Encoded | None:
        """What was measured, encoded. whole: it goes on its way now, so deltas begin anew."""
        self.collect()
        with self._lock_merged:
            data = self._merged.data()
            if whole:
                self._merged.clear()
        return None if data is None else encoding.encode_metrics(data)

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        # Also asked for by others, by MetricReader.collect(): deltas come only once.
        with self._lock_merged:
            self._merged.add(metrics_data)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._flush(timeout_millis / 1000)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        with signals.guard("stopping metrics"):
            self._merged.clear()

    def forget(self) -> None:
        """In a forked child."""
        self._lock_merged = threading.Lock()
        self._merged.clear()
