"""Serialized OTLP requests: how many items are in one, and one cut in two."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class Encoded:
    """One serialized Export…ServiceRequest, and what became of what was to be in it."""

    payload: bytes
    items: int
    """Spans, log records or data points in it."""
    replaced: Mapping[str, int] = field(default_factory=dict)
    """Reason → values made legal: surrogate, too_long, out_of_range, not_finite, type, cycle,
    too_deep."""
    left_out: int = 0
    """Items that could not be encoded at all."""


_LAYOUTS: dict[str, tuple[Callable[[], Any], str, str, str]] = {
    "traces": (ExportTraceServiceRequest, "resource_spans", "scope_spans", "spans"),
    "logs": (ExportLogsServiceRequest, "resource_logs", "scope_logs", "log_records"),
    "metrics": (ExportMetricsServiceRequest, "resource_metrics", "scope_metrics", "metrics"),
}


def count(signal: str, payload: bytes) -> int:
    """Items in a request of traces, logs or metrics; ValueError for what is no such request."""
    return sum(map(len, _lists(signal, _parse(signal, payload))))


def split(signal: str, payload: bytes) -> list[Encoded]:
    """A request as two of half its items, each with its resource and scope.

    One of a single item is given back as it is. ValueError for what is no request.
    """
    items = count(signal, payload)
    if items < 2:
        return [Encoded(payload, items)]
    middle = items // 2
    return [
        Encoded(_slice(signal, payload, 0, middle), middle),
        Encoded(_slice(signal, payload, middle, items), items - middle),
    ]


def _parse(signal: str, payload: bytes) -> Any:
    if signal not in _LAYOUTS:
        raise ValueError(f"{signal!r} is none of {', '.join(_LAYOUTS)}")
    request = _LAYOUTS[signal][0]()
    try:
        request.ParseFromString(payload)
    except Exception as error:  # protobuf's own class is no ValueError
        raise ValueError(f"no request of {signal}: {error}") from error
    return request


def _lists(signal: str, request: Any) -> Iterator[Any]:
    """Every list that holds items."""
    _, resources, scopes, items = _LAYOUTS[signal]
    for resource in getattr(request, resources):
        for scope in getattr(resource, scopes):
            if signal != "metrics":
                yield getattr(scope, items)
                continue
            for metric in scope.metrics:
                if kind := metric.WhichOneof("data"):
                    yield getattr(metric, kind).data_points


def _slice(signal: str, payload: bytes, start: int, stop: int) -> bytes:
    request = _parse(signal, payload)
    first = 0
    for items in _lists(signal, request):
        end = first + len(items)
        del items[max(stop - first, 0) :]
        del items[: max(start - first, 0)]
        first = end
    _, resources, scopes, items = _LAYOUTS[signal]
    for resource in getattr(request, resources):
        for scope in getattr(resource, scopes):
            if signal == "metrics":
                _remove_empty(scope.metrics, _points)
        _remove_empty(getattr(resource, scopes), operator.attrgetter(items))
    _remove_empty(getattr(request, resources), operator.attrgetter(scopes))
    return bytes(request.SerializeToString())


def _points(metric: Any) -> Any:
    kind = metric.WhichOneof("data")
    return getattr(metric, kind).data_points if kind else ()


def _remove_empty(parents: Any, children: Callable[[Any], Any]) -> None:
    for index in reversed(range(len(parents))):
        if not children(parents[index]):
            del parents[index]
