"""Deltas of several collections as one, so that collecting often does not mean sending often."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)

_DELTA = AggregationTemporality.DELTA
_MOST_EXEMPLARS = 16


class Merged:
    """What was collected since clear(): deltas added up, anything else as it was last."""

    def __init__(self) -> None:
        self._data: MetricsData | None = None
        self._exemplars: dict[Any, dict[Any, Any]] = {}

    def clear(self) -> None:
        self._data = None
        self._exemplars.clear()

    def data(self) -> MetricsData | None:
        return self._data

    def add(self, data: MetricsData) -> None:
        before = self._data
        self._data = data if before is None or not _has_deltas(before) else _merge(before, data)
        self._keep_exemplars(self._data)

    def _keep_exemplars(self, data: MetricsData) -> None:
        """The SDK gives an exemplar to the next collection alone, which need not be an export."""
        for resource in data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points: Any = metric.data.data_points
                    series = scope.scope, _identity(metric)
                    kept = self._exemplars.get(series)
                    if kept is None:
                        if not any(point.exemplars for point in points):
                            continue
                        kept = self._exemplars[series] = {}
                    for index, point in enumerate(points):
                        if point.exemplars:
                            kept[_key(point)] = point.exemplars
                        elif found := kept.get(_key(point)):
                            points[index] = replace(point, exemplars=found)


def _has_deltas(data: MetricsData) -> bool:
    return any(
        getattr(metric.data, "aggregation_temporality", None) == _DELTA
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )


def _merge(before: MetricsData, after: MetricsData) -> MetricsData:
    # The SDK makes one resource; a change of it, as by a second configure(), is the newer one's.
    if not after.resource_metrics:
        return before
    scopes: dict[Any, ScopeMetrics] = {}
    for data in (before, after):
        for resource in data.resource_metrics:
            for scope in resource.scope_metrics:
                known = scopes.get(scope.scope)
                scopes[scope.scope] = (
                    scope
                    if known is None
                    else replace(scope, metrics=_metrics(known.metrics, scope.metrics))
                )
    newest = after.resource_metrics[-1]
    merged = ResourceMetrics(newest.resource, list(scopes.values()), newest.schema_url)
    return MetricsData(resource_metrics=[merged])


def _metrics(before: Any, after: Any) -> list[Metric]:
    merged = {_identity(m): m for m in before}
    for metric in after:
        key = _identity(metric)
        known = merged.get(key)
        if known is not None and getattr(metric.data, "aggregation_temporality", None) == _DELTA:
            metric = replace(  # noqa: PLW2901
                metric, data=replace(metric.data, data_points=_points(known.data, metric.data))
            )
        merged[key] = metric
    return list(merged.values())


def _identity(metric: Metric) -> Any:
    """The SDK keeps instruments of one name apart that differ in anything else."""
    kind = getattr(metric.data, "is_monotonic", None)
    return metric.name, metric.unit, metric.description, type(metric.data), kind


def _points(before: Any, after: Any) -> list[Any]:
    if not isinstance(after, (Sum, Histogram)):
        return [*before.data_points, *after.data_points]  # successive points of a series are legal
    points = {_key(point): point for point in before.data_points}
    rest = []
    for point in after.data_points:
        known = points.get(_key(point))
        joined = point if known is None else _join(known, point)
        if joined is None:
            rest.append(point)
        else:
            points[_key(point)] = joined
    return [*points.values(), *rest]


def _key(point: Any) -> Any:
    return repr(sorted((point.attributes or {}).items(), key=lambda item: str(item[0])))


def _join(first: Any, second: Any) -> Any:
    """The sum of two successive points, or None where they can't be added."""
    exemplars = [*first.exemplars, *second.exemplars][-_MOST_EXEMPLARS:]
    if isinstance(second, NumberDataPoint):
        return replace(
            second,
            start_time_unix_nano=first.start_time_unix_nano,
            value=first.value + second.value,
            exemplars=exemplars,
        )
    if isinstance(second, HistogramDataPoint) and (
        list(first.explicit_bounds) == list(second.explicit_bounds)
    ):
        counts = zip(first.bucket_counts, second.bucket_counts, strict=True)
        return replace(
            second,
            start_time_unix_nano=first.start_time_unix_nano,
            count=first.count + second.count,
            sum=first.sum + second.sum,
            bucket_counts=[a + b for a, b in counts],
            min=min(first.min, second.min),
            max=max(first.max, second.max),
            exemplars=exemplars,
        )
    return None
