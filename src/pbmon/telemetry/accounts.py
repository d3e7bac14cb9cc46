"""The telemetry's own telemetry: what was started, queued, spooled, delivered, dropped.

Read from the parts themselves at every collection; nothing is counted a second time on the way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics
from opentelemetry.metrics import Observation

from pbmon import catalog, runtime, signals
from pbmon.catalog import Metric
from pbmon.spool.books import Entry
from pbmon.spool.ledger import REASONS
from pbmon.telemetry.pipeline import Intake, Pipeline

if TYPE_CHECKING:
    from pbmon.telemetry.delivery import Delivery
    from pbmon.telemetry.processors import SpooledLogs, SpooledSpans
    from pbmon.telemetry.sampling import CountedSampler

_OUTCOMES = ("accepted", "delivered")
_REFUSALS = ("full", "io_error", "too_large")

_EXPORTERS = {
    "traces": (catalog.SDK_SPAN_EXPORTED, catalog.SDK_SPAN_INFLIGHT),
    "metrics": (catalog.SDK_DATA_POINT_EXPORTED, catalog.SDK_DATA_POINT_INFLIGHT),
    "logs": (catalog.SDK_LOG_EXPORTED, catalog.SDK_LOG_INFLIGHT),
}
_PROCESSORS = {
    "traces": (
        catalog.SDK_SPAN_PROCESSED,
        catalog.SDK_SPAN_QUEUE_SIZE,
        catalog.SDK_SPAN_QUEUE_CAPACITY,
    ),
    "logs": (
        catalog.SDK_LOG_PROCESSED,
        catalog.SDK_LOG_QUEUE_SIZE,
        catalog.SDK_LOG_QUEUE_CAPACITY,
    ),
}


class Accounts:
    """spans, logs, sampler: set where there is such a part."""

    def __init__(self, pipeline: Pipeline, delivery: Delivery) -> None:
        self._pipeline = pipeline
        self._delivery = delivery
        self.spans: SpooledSpans | None = None
        self.logs: SpooledLogs | None = None
        self.sampler: CountedSampler | None = None

    def summary(self) -> dict[str, dict[str, int]]:
        """Signal → accepted, delivered, waiting, `dropped <reason>` and `refused <reason>`."""
        totals = self._delivery.books.totals()
        result: dict[str, dict[str, int]] = {}
        for signal, sender in self._delivery.senders.items():
            # What it adopted too, of which another process counted that it was accepted.
            waiting = sum(source.waiting(signal) for source in sender.sources)
            delivered = totals.get(Entry(signal, "delivered"), 0)
            lost = {
                f"{entry.outcome} {entry.reason}": count
                for entry, count in sorted(totals.items())
                if entry.channel == signal and entry.outcome in ("dropped", "refused")
            }
            dropped = sum(count for name, count in lost.items() if name.startswith("dropped"))
            accepted = delivered + waiting + dropped
            result[signal] = {
                "accepted": accepted, "delivered": delivered, "waiting": waiting, **lost,
            }  # fmt: skip
        if events := runtime.active.event_totals():
            result["events"] = {
                f"{outcome} {reason}".strip(): count for (outcome, reason), count in events.items()
            }
        return result

    def install(self, meter: metrics.Meter) -> None:
        """Make the instruments of the parts there are."""
        self._observe(catalog.SPOOL_RECORDS, self._books, meter)
        self._observe(catalog.SPOOL_SIZE, self._sizes, meter)
        self._observe(catalog.SPOOL_REPLACED, self._replaced, meter)
        # The SDK's own switch for these: it counts them itself then.
        stock = os.environ.get("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "").lower() == "true"
        if self.sampler is not None and not stock:
            self._observe(catalog.SDK_SPAN_STARTED, self._started, meter)
            self._observe(catalog.SDK_SPAN_LIVE, self._live, meter)
        if self.logs is not None and not stock:
            self._observe(catalog.SDK_LOG_CREATED, self._created, meter)
        for signal, intake in self._pipeline.intakes.items():
            processed, size, capacity = _PROCESSORS[signal]
            component = _component(f"pbmon.{signal}_spooler")
            self._observe(processed, self._processed(intake, component), meter)
            self._observe(size, _one(intake.__len__, component), meter)
            self._observe(capacity, _one(partial(int, intake.capacity), component), meter)
        for signal in self._delivery.senders:
            exported, inflight = _EXPORTERS[signal]
            component = _component(f"pbmon.{signal}_sender")
            self._observe(exported, self._exported(signal, component), meter)
            self._observe(inflight, _one(self._inflight(signal), component), meter)

    def _observe(
        self, metric: Metric, read: Callable[[], Iterable[Observation]], meter: metrics.Meter
    ) -> None:
        signals.observe(metric, read, meter=meter, instant=True)

    def _books(self) -> Iterable[Observation]:
        totals = self._pipeline.observe_books()
        for (outcome, reason), count in runtime.active.event_totals().items():
            totals[Entry("events", outcome, reason)] = count
        wanted = {
            *totals,
            *(
                Entry(signal, outcome, reason)
                for signal in self._delivery.senders
                for outcome, reasons in (
                    *((outcome, ("",)) for outcome in _OUTCOMES),
                    ("dropped", REASONS),
                    ("refused", _REFUSALS),
                )
                for reason in reasons
            ),
        }
        for entry in sorted(wanted):
            attributes = {
                catalog.SIGNAL.name: entry.channel,
                catalog.OUTCOME.name: entry.outcome,
            }
            if entry.reason:
                attributes[catalog.REASON.name] = entry.reason
            yield Observation(totals.get(entry, 0), attributes)

    def _sizes(self) -> Iterable[Observation]:
        for signal in self._delivery.senders:
            size = self._delivery.queue.size(signal)
            yield Observation(size, {catalog.SIGNAL.name: signal})

    def _replaced(self) -> Iterable[Observation]:
        for (signal, reason), count in self._pipeline.replaced.copy().items():
            attributes = {catalog.SIGNAL.name: signal, catalog.REASON.name: reason}
            yield Observation(count, attributes)

    def _started(self) -> Iterable[Observation]:
        assert self.sampler is not None
        for decision, cell in self.sampler.decisions.items():
            yield Observation(cell.value, {catalog.SAMPLING_RESULT.name: decision.name})

    def _live(self) -> Iterable[Observation]:
        assert self.spans is not None
        for sampled, cell in self.spans.live.items():
            result = "RECORD_AND_SAMPLE" if sampled else "RECORD_ONLY"
            yield Observation(cell.value, {catalog.SAMPLING_RESULT.name: result})

    def _created(self) -> Iterable[Observation]:
        assert self.logs is not None
        yield Observation(self.logs.created.value)

    def _processed(
        self, intake: Intake, component: dict[str, str]
    ) -> Callable[[], Iterable[Observation]]:
        def read() -> Iterable[Observation]:
            refused = self._delivery.books.total(intake.signal, "refused")
            left_out = self._pipeline.left_out.get(intake.signal, 0)
            yield Observation(intake.processed - refused - left_out, component)
            yield Observation(
                refused + left_out, component | {catalog.ERROR_TYPE.name: "not_spooled"}
            )

        return read

    def _exported(
        self, signal: str, component: dict[str, str]
    ) -> Callable[[], Iterable[Observation]]:
        def read() -> Iterable[Observation]:
            books = self._delivery.books
            yield Observation(books.total(signal, "delivered"), component)
            for reason in REASONS:
                dropped = books.total(signal, "dropped", reason)
                yield Observation(dropped, component | {catalog.ERROR_TYPE.name: reason})

        return read

    def _inflight(self, signal: str) -> Callable[[], int]:
        return lambda: self._delivery.senders[signal].inflight

    def forget(self) -> None:
        """In a forked child."""
        cells: list[Any] = []
        if self.spans is not None:
            cells += self.spans.live.values()
        if self.logs is not None:
            cells.append(self.logs.created)
        if self.sampler is not None:
            cells += self.sampler.decisions.values()
        for cell in cells:
            cell.forget()


def _component(kind: str) -> dict[str, str]:
    return {catalog.COMPONENT_TYPE.name: kind, catalog.COMPONENT_NAME.name: f"{kind}/0"}


def _one(read: Callable[[], int], attributes: dict[str, str]) -> Callable[[], list[Observation]]:
    return lambda: [Observation(read(), attributes)]
