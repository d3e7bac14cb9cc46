"""Hand-made OTLP exports, so that figures can be checked against known ones."""

from __future__ import annotations

from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from examples.pocketbook.telemetry import Telemetry
from pbmon import catalog

SERVER = Span.SPAN_KIND_SERVER
CLIENT = Span.SPAN_KIND_CLIENT
START_NS = 1_700_000_000_000_000_000


def value(plain: Any) -> AnyValue:
    if isinstance(plain, bool):
        return AnyValue(bool_value=plain)
    if isinstance(plain, int):
        return AnyValue(int_value=plain)
    if isinstance(plain, float):
        return AnyValue(double_value=plain)
    if isinstance(plain, (list, tuple)):
        return AnyValue(array_value=ArrayValue(values=[value(item) for item in plain]))
    return AnyValue(string_value=plain)


def pairs(attributes: dict[Any, Any]) -> list[KeyValue]:
    """Keys are names, or the catalogue's attributes."""
    return [
        KeyValue(key=getattr(key, "name", key), value=value(item))
        for key, item in attributes.items()
    ]


class Export:
    """Collects spans and series of one process; `telemetry(...)` reads them back."""

    def __init__(self, instance: str = "one") -> None:
        self.traces = ExportTraceServiceRequest()
        self.metrics = ExportMetricsServiceRequest()
        resource = pairs({"service.instance.id": instance})
        spans = self.traces.resource_spans.add()
        spans.resource.attributes.extend(resource)
        self._spans = spans.scope_spans.add().spans
        metrics = self.metrics.resource_metrics.add()
        metrics.resource.attributes.extend(resource)
        self._metrics = metrics.scope_metrics.add().metrics
        self._instance = instance

    def span(self, kind: int, duration_s: float, attributes: dict[Any, Any], *, at_s: float = 0.0):
        number = len(self._spans) + 1
        start_ns = START_NS + round(at_s * 1e9)
        self._spans.add(
            trace_id=self._instance.encode().ljust(16, b"."),
            span_id=number.to_bytes(8, "big"),
            name="a name",
            kind=kind,
            start_time_unix_nano=start_ns,
            end_time_unix_nano=start_ns + round(duration_s * 1e9),
            attributes=pairs(attributes),
        )
        return self

    def request(self, route: str | None, duration_s: float, status: int = 200, **more: Any):
        """more: method, at_s; every other one is an attribute."""
        attributes: dict[Any, Any] = {
            catalog.METHOD: more.pop("method", "GET"),
            catalog.SCHEME: more.pop("scheme", "http"),
            catalog.STATUS: status,
        }
        if route is not None:
            attributes[catalog.ROUTE] = route
        at_s = more.pop("at_s", 0.0)
        return self.span(SERVER, duration_s, attributes | more.pop("attributes", {}), at_s=at_s)

    def query(self, summary: str, duration_s: float, **attributes: Any):
        common = {
            catalog.DB_SYSTEM: "sqlite",
            catalog.DB_SUMMARY: summary,
            catalog.DB_SLOW: duration_s > 0.1,
        }
        return self.span(CLIENT, duration_s, common | attributes.pop("attributes", {}))

    def series(
        self, metric: catalog.Metric, number: float, attributes: dict[Any, Any], *, at: int = 1
    ):
        message = self._metrics.add(name=metric.name, unit=metric.unit)
        if metric.kind == "gauge":
            points = message.gauge.data_points
        elif metric.kind == "histogram":
            message.histogram.data_points.add(
                count=int(number), time_unix_nano=at, attributes=pairs(attributes)
            )
            return self
        else:
            points = message.sum.data_points
        point = points.add(time_unix_nano=at, attributes=pairs(attributes))
        if isinstance(number, int):
            point.as_int = number
        else:
            point.as_double = number
        return self


def telemetry(*exports: Export) -> Telemetry:
    received = Telemetry()
    for export in exports:
        received.add_traces(export.traces.SerializeToString())
        received.add_metrics(export.metrics.SerializeToString())
    return received
