"""OTLP written by hand: the exact bytes that a test sends, and a reader for what arrives."""

from __future__ import annotations

import random
import time
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Exemplar, Metric, NumberDataPoint
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

SERVER = Span.SPAN_KIND_SERVER
CLIENT = Span.SPAN_KIND_CLIENT
CUMULATIVE = 2
TIMEOUT_S = 10.0

# One seed: the share that is kept by trace id is then the same in every run.
_ids = random.Random(20261123)


def trace_id() -> bytes:
    return _ids.randbytes(16)


def value(thing: Any) -> AnyValue:
    """The OTLP form of a Python value; bool before int, since True is an int."""
    if isinstance(thing, bool):
        return AnyValue(bool_value=thing)
    if isinstance(thing, int):
        return AnyValue(int_value=thing)
    if isinstance(thing, float):
        return AnyValue(double_value=thing)
    if isinstance(thing, Mapping):
        return AnyValue(kvlist_value=KeyValueList(values=pairs(thing)))
    if isinstance(thing, (list, tuple)):
        return AnyValue(array_value=ArrayValue(values=[value(each) for each in thing]))
    return AnyValue(string_value=thing)


def plain(thing: AnyValue) -> Any:
    """The Python form of an OTLP value."""
    kind = thing.WhichOneof("value")
    if kind is None:
        return None
    if kind == "kvlist_value":
        return {pair.key: plain(pair.value) for pair in thing.kvlist_value.values}
    if kind == "array_value":
        return [plain(each) for each in thing.array_value.values]
    return getattr(thing, kind)


def pairs(attributes: Mapping[str, Any] | None) -> list[KeyValue]:
    return [KeyValue(key=key, value=value(each)) for key, each in (attributes or {}).items()]


def attributes_of(record: Any) -> dict[str, Any]:
    return {pair.key: plain(pair.value) for pair in record.attributes}


def span(
    name: str,
    trace: bytes | None = None,
    *,
    parent: bytes = b"",
    kind: int = SERVER,
    attributes: Mapping[str, Any] | None = None,
    error: str | None = None,
    events: Iterable[tuple[str, Mapping[str, Any]]] = (),
) -> Span:
    """error: the message of an error status; None leaves the status unset."""
    now = time.time_ns()
    status = Status() if error is None else Status(code=Status.STATUS_CODE_ERROR, message=error)
    return Span(
        name=name,
        trace_id=trace or trace_id(),
        span_id=_ids.randbytes(8),
        parent_span_id=parent,
        kind=kind,
        start_time_unix_nano=now - 1_000_000,
        end_time_unix_nano=now,
        attributes=pairs(attributes),
        status=status,
        events=[
            Span.Event(name=event, time_unix_nano=now, attributes=pairs(about))
            for event, about in events
        ],
    )


def traces(
    spans: Sequence[Span], resource: Mapping[str, Any] | None = None
) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.extend(pairs({"service.name": "shop", **(resource or {})}))
    group.scope_spans.add().spans.extend(spans)
    return request


def counter(
    name: str,
    total: float,
    *,
    attributes: Mapping[str, Any] | None = None,
    instance: str = "one",
    exemplar: Mapping[str, Any] | None = None,
    resource: Mapping[str, Any] | None = None,
) -> ExportMetricsServiceRequest:
    """A cumulative counter with one point, as a process exports it."""
    now = time.time_ns()
    point = NumberDataPoint(
        as_double=total,
        start_time_unix_nano=now - 60_000_000_000,
        time_unix_nano=now,
        attributes=pairs(attributes),
    )
    if exemplar is not None:
        point.exemplars.append(
            Exemplar(
                as_double=1.0,
                time_unix_nano=now,
                trace_id=trace_id(),
                span_id=_ids.randbytes(8),
                filtered_attributes=pairs(exemplar),
            )
        )
    metric = Metric(name=name)
    metric.sum.is_monotonic = True
    metric.sum.aggregation_temporality = CUMULATIVE  # type: ignore[assignment]
    metric.sum.data_points.append(point)
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    group.resource.attributes.extend(
        pairs({"service.name": "shop", "service.instance.id": instance, **(resource or {})})
    )
    group.scope_metrics.add().metrics.append(metric)
    return request


def log(
    body: Any,
    attributes: Mapping[str, Any] | None = None,
    *,
    event: str = "",
    resource: Mapping[str, Any] | None = None,
) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    group = request.resource_logs.add()
    group.resource.attributes.extend(pairs({"service.name": "shop", **(resource or {})}))
    group.scope_logs.add().log_records.append(
        LogRecord(
            time_unix_nano=time.time_ns(),
            body=value(body),
            attributes=pairs(attributes),
            event_name=event,
        )
    )
    return request


_PATHS = {
    ExportTraceServiceRequest: "/v1/traces",
    ExportMetricsServiceRequest: "/v1/metrics",
    ExportLogsServiceRequest: "/v1/logs",
}


def post(endpoint: str, request: Any) -> None:
    """Send over OTLP/HTTP; HTTPError unless it was taken."""
    message = urllib.request.Request(
        endpoint + _PATHS[type(request)],
        data=request.SerializeToString(),
        headers={"Content-Type": "application/x-protobuf"},
    )
    with urllib.request.urlopen(message, timeout=TIMEOUT_S) as answer:
        answer.read()
