"""A store's figures, as metrics of the store and not of the process that reads them.

Their resource is the service with the store's UUID as its instance: whichever process leads goes
on with the same series, and two stores sum. A reading goes out once, under the time at which it
was true: of two leaders that overlap for a moment, or whose points arrive in another order, each
point is right for its time. Where there is no new reading nothing goes out.
"""

from __future__ import annotations

import threading
from collections import defaultdict

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv.attributes import (
    deployment_attributes,
    service_attributes,
    telemetry_attributes,
)

from pbmon import catalog, signals
from pbmon.runtime import Figure, Reading
from pbmon.telemetry import encoding
from pbmon.telemetry.encoding import Encoded

_SHARED = (
    service_attributes.SERVICE_NAME,
    service_attributes.SERVICE_NAMESPACE,
    deployment_attributes.DEPLOYMENT_ENVIRONMENT_NAME,
    telemetry_attributes.TELEMETRY_DISTRO_NAME,
    telemetry_attributes.TELEMETRY_DISTRO_VERSION,
)
"""Of the process's resource, what holds for every process of the service, and does not change with
its next version: that would be another series."""

_YOUNG = 300_000_000
"""µs for which a store has been there of which a new leader says that it began with nothing: later
receivers would not take a point so old."""

_SCOPE = InstrumentationScope("pbmon", catalog.VERSION, catalog.SCHEMA_URL)

Series = tuple[str, signals.Key]


class Shared:
    """The newest reading on its way. resource: of this process."""

    def __init__(self, resource: Resource) -> None:
        self.apply(resource)
        self.forget()
        signals.enlist(self)

    def apply(self, resource: Resource) -> None:
        attributes = resource.attributes
        self._shared = {name: attributes[name] for name in _SHARED if name in attributes}

    def forget(self) -> None:
        """In a forked child: the readings are the parent's."""
        self._lock = threading.Lock()
        self._last: Reading | None = None
        self._next: Reading | None = None
        self._began: dict[Series, tuple[Figure, int]] = {}

    def hear(self, reading: Reading | None) -> None:
        """The newest figures, to go out with the next export; None: this process does not lead
        any more, and says no more."""
        with self._lock:
            if reading is None:
                self._last = self._next = None
                self._began.clear()
                return
            self._begin(reading)
            self._last = self._next = reading

    def _begin(self, reading: Reading) -> None:
        """Note at which time the counters that are new were 0: a receiver that only ever saw what
        they rose to would not count it."""
        last = self._last
        if last is not None and last.store_id == reading.store_id:
            known, since = {_series(figure) for figure in last.figures}, last.at
        elif reading.at - reading.made_at < _YOUNG:
            known, since = set(), reading.made_at
        else:
            return
        for figure in reading.figures:
            series = _series(figure)
            if figure.metric.kind == "counter" and series not in known and since < reading.at:
                self._began.setdefault(series, (figure, since))

    def take(self) -> Encoded | None:
        """What is new since the last time."""
        with self._lock:
            reading, self._next = self._next, None
            if reading is None or not reading.figures:
                return None
            began, self._began = self._began, {}
        return encoding.encode_metrics(self._data(reading, began))

    def _data(self, reading: Reading, began: dict[Series, tuple[Figure, int]]) -> MetricsData:
        points: dict[catalog.Metric, list[NumberDataPoint]] = defaultdict(list)
        for figure, at in began.values():
            points[figure.metric].append(_point(reading, figure._replace(value=0), at))
        for figure in reading.figures:
            points[figure.metric].append(_point(reading, figure, reading.at))
        metrics = [
            Metric(metric.name, metric.meaning, metric.unit, _kind(metric, of_it))
            for metric, of_it in points.items()
        ]
        instance = {service_attributes.SERVICE_INSTANCE_ID: reading.store_id}
        resource = Resource({**self._shared, **instance}, catalog.SCHEMA_URL)
        scope = ScopeMetrics(_SCOPE, metrics, catalog.SCHEMA_URL)
        return MetricsData([ResourceMetrics(resource, [scope], catalog.SCHEMA_URL)])


def _series(figure: Figure) -> Series:
    return figure.metric.name, signals.key(figure.attributes)


def _point(reading: Reading, figure: Figure, at: int) -> NumberDataPoint:
    # A gauge is of its moment; a counter counts since the store was made.
    start = min(reading.made_at, at) * 1000 if figure.metric.kind == "counter" else None
    return NumberDataPoint(
        attributes=figure.attributes,
        start_time_unix_nano=start,  # type: ignore[arg-type] # as the SDK gives a gauge
        time_unix_nano=at * 1000,
        value=figure.value,
    )


def _kind(metric: catalog.Metric, points: list[NumberDataPoint]) -> Sum | Gauge:
    """Cumulative always: no process has deltas of what several of them have counted."""
    if metric.kind == "gauge":
        return Gauge(points)
    return Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=metric.kind == "counter")
