"""capture(): what pbmon makes within a block, in memory."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from itertools import count
from typing import Any, Literal

from pbmon.gate.runs import Request
from pbmon.testing import seen
from pbmon.testing.seen import SeenEvent, SeenLog, SeenRequest, SeenSpan

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


@dataclass
class Capture:
    """What pbmon made since the capture began. Spans come in the order in which they ended.

    clock: stands still until clock.advance(seconds); with clock="system" it is the machine's.
    """

    clock: Any
    logs: list[SeenLog] = field(default_factory=list)
    """Of all loggers, as far as their levels let them through; pbmon's own from INFO on."""
    entries: list[Any] = field(default_factory=list)
    """What was accepted for the store: pbmon.spool.entries.Event and its like."""
    _exporter: Any = field(default=None, repr=False)
    _reader: Any = field(default=None, repr=False)
    _requests: list[tuple[Request, str, str]] = field(default_factory=list, repr=False)

    def put(self, payload: bytes) -> str:
        """As a journal takes it."""
        from pbmon.spool.entries import decode

        self.entries.append(decode(payload))
        return ""

    def add(self, request: Request, span: Any) -> None:
        """As a recording takes it."""
        context = span.get_span_context()
        self._requests.append((request, f"{context.trace_id:032x}", f"{context.span_id:016x}"))

    @property
    def spans(self) -> list[SeenSpan]:
        return [seen.span(span) for span in self._exporter.get_finished_spans()]

    @property
    def requests(self) -> list[SeenRequest]:
        """HTTP requests of known routes, in the order in which they ended."""
        return seen.with_queries(self._requests, self.spans)

    @property
    def queries(self) -> list[SeenSpan]:
        """The spans of statements; those of one request are in its `queries`."""
        return [each for each in self.spans if seen.is_query(each)]

    @property
    def events(self) -> list[SeenEvent]:
        """What track() and track_feature() accepted for the store."""
        from pbmon.spool.entries import Event

        return [seen.event(each) for each in self.entries if isinstance(each, Event)]

    @property
    def errors(self) -> list[Any]:
        """Exceptions on their way to the store: pbmon.spool.entries.Failure."""
        from pbmon.spool.entries import Failure

        return [each for each in self.entries if isinstance(each, Failure)]

    def span(self, name: str | None = None, **attributes: Any) -> SeenSpan:
        """The one span of this name and these attributes (dots written as `__`); AssertionError
        where there is none, or more than one."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        spans = self.spans
        found = [s for s in spans if name in (None, s.name) and seen.has(s.attributes, wanted)]
        return seen.only("span", seen.words(name, wanted), found, (s.name for s in spans))  # type: ignore[no-any-return]

    def log(self, start: str | None = None, **fields: Any) -> SeenLog:
        """The one record whose message starts so, with these fields; likewise."""
        found = [
            each
            for each in self.logs
            if each.message.startswith(start or "") and seen.has(each.fields, fields)
        ]
        names = (each.message for each in self.logs)
        return seen.only("log record", seen.words(start, fields), found, names)  # type: ignore[no-any-return]

    def event(self, name: str | None = None, **properties: Any) -> SeenEvent:
        """The one event of this name, with these properties; likewise."""
        events = self.events
        found = [e for e in events if name in (None, e.name) and seen.has(e.properties, properties)]
        return seen.only("event", seen.words(name, properties), found, (e.name for e in events))  # type: ignore[no-any-return]

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
def capture(
    *, clock: Literal["counting", "system"] = "counting", **settings: Any
) -> Iterator[Capture]:
    """Collect in memory what pbmon's hooks and API make, on a clock and ids that repeat.

    clock: counting stands still until it is advanced; system measures, for budgets.
    settings: as for configure(); strict is on. What calls configure() within the block changes
        the capture's settings.

    Nothing is exported, the global OpenTelemetry providers are neither used nor set, and everything
    is as before when the block ends.
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

    keywords = {"strict": True, **settings}
    resolved, problems = resolve(keywords)
    if problems:
        raise SettingsError("; ".join(map(str, problems)))
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    made = Capture(_clock(clock), _exporter=exporter, _reader=reader)
    tracers = TracerProvider(
        sampler=sampling.from_environment(),
        resource=Resource.get_empty(),
        id_generator=_counting_ids(),
        shutdown_on_exit=False,
    )
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader], resource=Resource.get_empty(), shutdown_on_exit=False)
    with _restored(), _listening(made.logs):
        active.settings = resolved
        active.reader = Runtime().reader  # a test asks no database
        parts = wiring.install_sinks(
            resolved,
            tracers.get_tracer("pbmon"),
            meters.get_meter("pbmon"),
            made.clock,
            made,
        )
        parts["requests"].record(made)
        with wiring.lent(keywords, parts):
            wiring.activate_hooks()
            yield made


def _clock(kind: str) -> Any:
    from pbmon.telemetry.clock import SystemClock

    if kind not in ("counting", "system"):
        raise ValueError(f"clock {kind!r} is not one of counting, system")
    return CountingClock() if kind == "counting" else SystemClock()


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
def _listening(logs: list[SeenLog]) -> Iterator[None]:
    """To all loggers; pbmon's own may keep theirs from the root."""
    own, root = logging.getLogger("pbmon"), logging.getLogger()
    level = own.level
    of_own, of_others = _LogCollector(logs), _LogCollector(logs)
    of_others.addFilter(lambda record: record.name.partition(".")[0] != "pbmon")
    own.addHandler(of_own)
    root.addHandler(of_others)
    own.setLevel(logging.INFO)
    try:
        yield
    finally:
        own.removeHandler(of_own)
        root.removeHandler(of_others)
        own.setLevel(level)


class _LogCollector(logging.Handler):
    def __init__(self, logs: list[SeenLog]) -> None:
        super().__init__()
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        self._logs.append(seen.log(record))


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


def _value(point: Any) -> Any:
    if hasattr(point, "bucket_counts"):
        return (point.count, point.sum)
    return point.value
