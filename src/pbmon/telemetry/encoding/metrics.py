"""Metrics as OTLP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics as _stock
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Buckets,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)

from pbmon.telemetry.encoding import standins
from pbmon.telemetry.encoding.batches import serialize, serialize_each
from pbmon.telemetry.encoding.limits import INT32, UINT32, UINT64
from pbmon.telemetry.encoding.mending import Mender
from pbmon.telemetry.encoding.payloads import Encoded, count
from pbmon.telemetry.encoding.sources import Sources, add
from pbmon.telemetry.encoding.weighing import DOUBT, check_size, copied, weigh, weigh_text


def encode_metrics(data: MetricsData) -> Encoded:
    """Never raises. A metric of an unknown kind is left out."""
    gathering = _Gathering(plain=True)
    try:
        return gathering.result(serialize(gathering.resources(data), _stock_resources))
    except Exception:  # in a number, which the quick look leaves to the stock encoder
        gathering = _Gathering(plain=False)
        ready = gathering.resources(data)
        try:
            return gathering.result(serialize(ready, _stock_resources))
        except Exception:
            payload, left_out = serialize_each(list(_each_metric(ready)), _stock_resources)
            gathering.left_out += left_out
            return gathering.result(payload)


def _stock_resources(resources: list[ResourceMetrics]) -> Any:
    return _stock(MetricsData(resources))


def _each_metric(ready: Iterable[ResourceMetrics]) -> Iterator[ResourceMetrics]:
    for resource in ready:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                only = ScopeMetrics(scope.scope, [metric], "")
                yield ResourceMetrics(resource.resource, [only], "")


class _Gathering:
    """Makes a MetricsData that the stock encoder takes. plain: leave legal metrics as they are."""

    def __init__(self, plain: bool) -> None:
        self.left_out = 0
        self._plain = plain
        self._mender = Mender()
        self._sources = Sources()

    def result(self, payload: bytes) -> Encoded:
        replaced = dict(self._mender.replaced)
        add(replaced, self._sources.replaced)
        return Encoded(payload, count("metrics", payload), replaced, self.left_out)

    def resources(self, data: Any) -> list[ResourceMetrics]:
        mender = self._mender
        made: list[ResourceMetrics] = []
        for group in mender.each(mender.read(data, "resource_metrics")):
            source = self._sources.resource(mender.read(group, "resource"))
            # Its own for each group: of two groups of one resource the stock encoder would
            # keep the second only.
            resource: Any = standins.Resource(source.attributes, source.schema_url)
            scopes = mender.each(mender.read(group, "scope_metrics"))
            made.append(ResourceMetrics(resource, [self._scope(s) for s in scopes], ""))
        return made

    def _scope(self, group: Any) -> ScopeMetrics:
        mender = self._mender
        source = self._sources.scope(mender.read(group, "scope")) or standins.Scope()
        scope: Any = standins.Scope(
            source.name, source.version, source.schema_url, source.attributes
        )
        metrics = [self._metric(m) for m in mender.each(mender.read(group, "metrics"))]
        return ScopeMetrics(scope, [m for m in metrics if m is not None], "")

    def _metric(self, metric: Any) -> Metric | None:
        if self._plain:
            with suppress(Exception):
                return _look_at(metric)
        mender = self._mender
        mender.size = 0
        source = mender.read(metric, "data")
        points = list(mender.each(mender.read(source, "data_points", ())))
        data = _mend_data(source, points, mender)
        if data is None:
            self.left_out += max(1, len(points))
            return None
        read = mender.read
        name, description, unit = (read(metric, f) for f in ("name", "description", "unit"))
        return Metric(mender.text(name), mender.text(description), mender.text(unit), data)


_DATA = frozenset((Gauge, Sum, Histogram, ExponentialHistogram))


def _look_at(metric: Any) -> Metric:
    """The metric; Doubt, or any other exception, if it isn't plain."""
    if type(metric.data) not in _DATA:
        raise DOUBT
    check_size(weigh_text(metric.name) + weigh_text(metric.description) + weigh_text(metric.unit))
    for point in metric.data.data_points:
        size = weigh(copied(point.attributes))
        for exemplar in point.exemplars:
            size += weigh(copied(exemplar.filtered_attributes))
        check_size(size)
    return metric  # type: ignore[no-any-return]


def _mend_data(source: Any, points: list[Any], mender: Mender) -> Any:
    try:
        kind: Any = next(
            k for k in (Gauge, Histogram, Sum, ExponentialHistogram) if isinstance(source, k)
        )
    except Exception:
        return None
    mend = {
        Gauge: _mend_number,
        Sum: _mend_number,
        Histogram: _mend_histogram,
        ExponentialHistogram: _mend_exponential,
    }[kind]
    made: list[Any] = []
    for point in points:
        mender.size = 0
        made.append(mend(point, mender))
    if kind is Gauge:
        return Gauge(made)
    temporality = mender.choice(
        mender.read(source, "aggregation_temporality"),
        AggregationTemporality,
        AggregationTemporality.CUMULATIVE,
    )
    if kind is Sum:
        return Sum(made, temporality, mender.flag(mender.read(source, "is_monotonic")))
    return kind(made, temporality)


def _mend_number(point: Any, mender: Mender) -> NumberDataPoint:
    read = mender.read
    return NumberDataPoint(
        attributes=mender.attributes(read(point, "attributes")),
        start_time_unix_nano=mender.time(read(point, "start_time_unix_nano")),
        time_unix_nano=mender.time(read(point, "time_unix_nano")),
        value=mender.measure(read(point, "value")),
        exemplars=_mend_exemplars(point, mender),
    )


def _mend_histogram(point: Any, mender: Mender) -> HistogramDataPoint:
    read = mender.read
    bounds = [mender.double(b) for b in mender.each(read(point, "explicit_bounds"))]
    return HistogramDataPoint(
        attributes=mender.attributes(read(point, "attributes")),
        start_time_unix_nano=mender.time(read(point, "start_time_unix_nano")),
        time_unix_nano=mender.time(read(point, "time_unix_nano")),
        count=mender.number(read(point, "count"), UINT64),
        sum=_perhaps(read(point, "sum"), mender),
        bucket_counts=_mend_counts(read(point, "bucket_counts"), mender),
        explicit_bounds=bounds,
        min=_perhaps(read(point, "min"), mender),
        max=_perhaps(read(point, "max"), mender),
        exemplars=_mend_exemplars(point, mender),
    )


def _mend_exponential(point: Any, mender: Mender) -> ExponentialHistogramDataPoint:
    read = mender.read
    return ExponentialHistogramDataPoint(
        attributes=mender.attributes(read(point, "attributes")),
        start_time_unix_nano=mender.time(read(point, "start_time_unix_nano")),
        time_unix_nano=mender.time(read(point, "time_unix_nano")),
        count=mender.number(read(point, "count"), UINT64),
        sum=_perhaps(read(point, "sum"), mender),
        scale=mender.number(read(point, "scale"), INT32),
        zero_count=mender.number(read(point, "zero_count"), UINT64),
        positive=_mend_buckets(read(point, "positive"), mender),
        negative=_mend_buckets(read(point, "negative"), mender),
        flags=mender.number(read(point, "flags"), UINT32),
        min=_perhaps(read(point, "min"), mender),
        max=_perhaps(read(point, "max"), mender),
        exemplars=_mend_exemplars(point, mender),
    )


def _mend_buckets(buckets: Any, mender: Mender) -> Buckets:
    return Buckets(
        mender.number(mender.read(buckets, "offset"), INT32),
        _mend_counts(mender.read(buckets, "bucket_counts"), mender),
    )


def _mend_counts(counts: Any, mender: Mender) -> list[int]:
    return [mender.number(c, UINT64) for c in mender.each(counts)]


def _perhaps(value: Any, mender: Mender) -> Any:
    return None if value is None else mender.double(value)


def _mend_exemplars(point: Any, mender: Mender) -> list[Exemplar]:
    read = mender.read
    made: list[Exemplar] = []
    for exemplar in mender.each(read(point, "exemplars")):
        span_id, trace_id = read(exemplar, "span_id"), read(exemplar, "trace_id")
        made.append(
            Exemplar(
                mender.attributes(read(exemplar, "filtered_attributes")),
                mender.measure(read(exemplar, "value")),
                mender.time(read(exemplar, "time_unix_nano")),
                None if span_id is None else mender.id(span_id, 64),
                None if trace_id is None else mender.id(trace_id, 128),
            )
        )
    return made
