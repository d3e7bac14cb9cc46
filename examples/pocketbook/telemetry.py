"""What an application exported, decoded from OTLP and kept: spans, and each series' last value."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric as MetricMessage
from opentelemetry.proto.trace.v1 import trace_pb2

from pbmon import catalog

Attributes = dict[str, Any]
Series = tuple[tuple[str, Any], ...]

INSTANCE = "service.instance.id"


@dataclass(frozen=True)
class Span:
    name: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: Attributes

    @property
    def duration_s(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9

    @property
    def is_server(self) -> bool:
        return self.kind == trace_pb2.Span.SPAN_KIND_SERVER

    @property
    def is_websocket(self) -> bool:
        return self.is_server and self.attributes.get(catalog.SCHEME.name) in ("ws", "wss")

    @property
    def is_request(self) -> bool:
        return self.is_server and not self.is_websocket

    @property
    def is_query(self) -> bool:
        return (
            self.kind == trace_pb2.Span.SPAN_KIND_CLIENT
            and catalog.DB_SYSTEM.name in self.attributes
        )


class Telemetry:
    """Everything received so far. Adding is safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: dict[tuple[bytes, bytes], Span] = {}
        # A cumulative series of a process replaces its earlier value; processes add up.
        self._points: dict[str, dict[tuple[str, Series], tuple[int, float]]] = {}

    def add_traces(self, body: bytes) -> None:
        """Raises protobuf's DecodeError if body is no ExportTraceServiceRequest."""
        message = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            for resource in message.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        # A sender that saw no answer sends again: an id counts once.
                        self._spans[span.trace_id, span.span_id] = _span(span)

    def add_metrics(self, body: bytes) -> None:
        """Raises protobuf's DecodeError if body is no ExportMetricsServiceRequest."""
        message = ExportMetricsServiceRequest.FromString(body)
        with self._lock:
            for resource in message.resource_metrics:
                described = _attributes(resource.resource.attributes)
                instance = str(described.get(INSTANCE, ""))
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        self._add_metric(instance, metric)

    def _add_metric(self, instance: str, metric: MetricMessage) -> None:
        points = self._points.setdefault(metric.name, {})
        for time_ns, value, attributes in _values(metric):
            key = (instance, tuple(sorted(attributes.items())))
            if key not in points or points[key][0] <= time_ns:
                points[key] = (time_ns, value)

    @property
    def spans(self) -> list[Span]:
        """In the order of their start."""
        with self._lock:
            return sorted(self._spans.values(), key=lambda span: span.start_ns)

    def totals(self, metric: catalog.Metric) -> dict[Series, float]:
        """Attributes → value summed over processes; of a histogram the count."""
        sums: dict[Series, float] = {}
        with self._lock:
            for (_, series), (_, value) in self._points.get(metric.name, {}).items():
                sums[series] = sums.get(series, 0) + value
        return sums

    def latest(self, metric: catalog.Metric) -> dict[Series, float]:
        """Attributes → newest value of any process, for a gauge that each of them reports."""
        newest: dict[Series, tuple[int, float]] = {}
        with self._lock:
            for (_, series), point in self._points.get(metric.name, {}).items():
                newest[series] = max(newest.get(series, point), point)
        return {series: value for series, (_, value) in newest.items()}


def _span(span: trace_pb2.Span) -> Span:
    return Span(
        span.name,
        span.kind,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _attributes(span.attributes),
    )


def _values(metric: MetricMessage) -> Iterator[tuple[int, float, Attributes]]:
    kind = metric.WhichOneof("data")
    if kind in ("sum", "gauge"):
        for number in getattr(metric, kind).data_points:
            value = number.as_int if number.WhichOneof("value") == "as_int" else number.as_double
            yield number.time_unix_nano, value, _attributes(number.attributes)
    elif kind == "histogram":
        for point in metric.histogram.data_points:
            yield point.time_unix_nano, point.count, _attributes(point.attributes)


def _attributes(pairs: Iterable[KeyValue]) -> Attributes:
    return {pair.key: _plain(pair.value) for pair in pairs}


def _plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_plain(item) for item in value.array_value.values)
    return getattr(value, kind) if kind else None


def attribute(series: Series | Mapping[str, Any], name: catalog.Attribute) -> Any:
    """The value of one attribute of a series, None if it is not there."""
    return dict(series).get(name.name)
