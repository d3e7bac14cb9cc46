"""Tests of your own telemetry: `with capture() as seen: ...` and look at what was made.

Also the pytest plugin, whose fixture `pbmon_capture` is a capture for the length of a test.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from itertools import count
from typing import Any

try:
    import pytest
except ImportError:  # capture() works without it
    pytest = None  # type: ignore[assignment]

START_NS = 1_700_000_000_000_000_000
"""Wall time at the start of a capture: 2023-11-14T22:13:20Z."""


class CountingClock:
    """A clock that stands still until advance() moves it."""

    def __init__(self) -> None:
        self._elapsed_s = 0.0

    def advance(self, seconds: float) -> None:
        self._elapsed_s += seconds

    def wall_ns(self) -> int:
        return START_NS + round(self._elapsed_s * 1e9)

    def monotonic_s(self) -> float:
        return self._elapsed_s


@dataclass(frozen=True)
class SeenSpan:
    """One finished span. kind: SERVER, CLIENT …; status: UNSET, OK, ERROR; ids in hex."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str | None
    attributes: Mapping[str, Any]
    status: str
    start_ns: int
    duration_s: float
    events: tuple[tuple[str, Mapping[str, Any]], ...]


@dataclass(frozen=True)
class SeenLog:
    """One log record of pbmon. fields: the extra attributes it carried."""

    logger: str
    level: str
    message: str
    fields: Mapping[str, Any]


@dataclass
class Capture:
    """What pbmon made since the capture began. Spans come in the order in which they ended."""

    clock: CountingClock
    logs: list[SeenLog] = field(default_factory=list)
    entries: list[Any] = field(default_factory=list)
    """What was accepted for the store: pbmon.spool.entries.Event and its like."""
    _exporter: Any = field(default=None, repr=False)
    _reader: Any = field(default=None, repr=False)

    def put(self, payload: bytes) -> str:
        """As a journal takes it."""
        from pbmon.spool.entries import decode

        self.entries.append(decode(payload))
        return ""

    @property
    def spans(self) -> list[SeenSpan]:
        return [_seen(span) for span in self._exporter.get_finished_spans()]

    @property
    def metrics(self) -> dict[str, dict[tuple[tuple[str, Any], ...], Any]]:
        """Metric name → sorted attributes → value: a number, or for a histogram the pair
        (count, sum)."""
        data = self._reader.get_metrics_data()
        seen: dict[str, dict[tuple[tuple[str, Any], ...], Any]] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    series = seen.setdefault(metric.name, {})
                    for point in metric.data.data_points:
                        series[tuple(sorted(point.attributes.items()))] = _value(point)
        return seen

    def metric(self, name: str, **attributes: Any) -> Any:
        """The sum of a metric's series that have these attributes (dots written as `__`);
        for a histogram the pair (count, sum). 0 where there is none; ValueError for a metric or
        an attribute that pbmon does not have."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        _check_names(name, wanted)
        values = [
            value
            for key, value in self.metrics.get(name, {}).items()
            if all(dict(key).get(n) == v for n, v in wanted.items())
        ]
        if values and isinstance(values[0], tuple):
            return tuple(sum(column) for column in zip(*values, strict=True))
        return sum(values)


def _check_names(name: str, attributes: Mapping[str, Any]) -> None:
    from pbmon.catalog import METRICS
    from pbmon.segments import ATTRIBUTE

    metrics = {metric.name: metric for metric in METRICS}
    if name not in metrics:
        raise ValueError(f"there is no metric {name!r}; there are {', '.join(sorted(metrics))}")
    known = {attribute.name for attribute in metrics[name].attributes}
    if metrics[name].by_segment:
        known |= {each for each in attributes if each.startswith(ATTRIBUTE)}
    if unknown := attributes.keys() - known:
        raise ValueError(f"{name} has no {sorted(unknown)}; it has {', '.join(sorted(known))}")


@contextmanager
def capture(**settings: Any) -> Iterator[Capture]:
    """Collect in memory what pbmon's hooks and API make, on a clock and ids that repeat.

    settings: as for configure(); strict is on. Nothing is exported, the global OpenTelemetry
    providers are neither used nor set, and everything is as before when the block ends.
    """
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from pbmon import wiring
    from pbmon.runtime import Runtime, active
    from pbmon.settings import SettingsError, resolve
    from pbmon.telemetry import sampling

    resolved, problems = resolve({"strict": True, **settings})
    if problems:
        raise SettingsError("; ".join(map(str, problems)))
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    seen = Capture(CountingClock(), _exporter=exporter, _reader=reader)
    tracers = TracerProvider(
        sampler=sampling.from_environment(),
        resource=Resource.get_empty(),
        id_generator=_counting_ids(),
        shutdown_on_exit=False,
    )
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader], resource=Resource.get_empty(), shutdown_on_exit=False)
    handler = _LogCollector(seen.logs)
    with _restored(), _listening(handler):
        active.settings = resolved
        active.reader = Runtime().reader  # a test asks no database
        wiring.install_sinks(
            resolved,
            tracers.get_tracer("pbmon"),
            meters.get_meter("pbmon"),
            seen.clock,
            seen,
        )
        wiring.activate_hooks()
        yield seen


@contextmanager
def _restored() -> Iterator[None]:
    """Put the runtime back, and take out the hooks that the capture put in."""
    from pbmon import wiring
    from pbmon.runtime import active

    before = copy.copy(active)
    before_hooks = dict(active.hooks)
    try:
        yield
    finally:
        for entry_point in wiring.own_instrumentors():
            if entry_point.name not in before_hooks and entry_point.name in active.hooks:
                entry_point.load()().uninstrument()
        for item in fields(active):
            setattr(active, item.name, getattr(before, item.name))
        active.hooks = before_hooks


@contextmanager
def _listening(handler: logging.Handler) -> Iterator[None]:
    logger = logging.getLogger("pbmon")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


_STANDARD = frozenset(vars(logging.makeLogRecord({})))


class _LogCollector(logging.Handler):
    def __init__(self, logs: list[SeenLog]) -> None:
        super().__init__()
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        extra = {k: v for k, v in vars(record).items() if k not in _STANDARD and k != "message"}
        self._logs.append(SeenLog(record.name, record.levelname, record.getMessage(), extra))


def _counting_ids() -> Any:
    """Span ids 1, 2, 3 …, and trace ids likewise."""
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    spans, traces = count(1), count(1)

    class CountingIds(IdGenerator):
        def generate_span_id(self) -> int:
            return next(spans)

        def generate_trace_id(self) -> int:
            return next(traces)

        def is_trace_id_random(self) -> bool:
            return False

    return CountingIds()


def _seen(span: Any) -> SeenSpan:
    return SeenSpan(
        name=span.name,
        kind=span.kind.name,
        trace_id=f"{span.context.trace_id:032x}",
        span_id=f"{span.context.span_id:016x}",
        parent_id=f"{span.parent.span_id:016x}" if span.parent else None,
        attributes=dict(span.attributes),
        status=span.status.status_code.name,
        start_ns=span.start_time,
        duration_s=(span.end_time - span.start_time) / 1e9,
        events=tuple((event.name, dict(event.attributes)) for event in span.events),
    )


def _value(point: Any) -> Any:
    if hasattr(point, "bucket_counts"):
        return (point.count, point.sum)
    return point.value


if pytest is not None:

    @pytest.fixture
    def pbmon_capture() -> Iterator[Capture]:
        """What pbmon makes during the test: `capture()` for the length of a test."""
        with capture() as seen:
            yield seen
