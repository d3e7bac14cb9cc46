"""Deltas collected often and sent seldom: what is sent adds up to what was recorded."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk.metrics import MeterProvider

from pbmon.telemetry import preferences, processors
from tests.patience import patiently

TEMPORALITY = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
HISTOGRAM = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
EXPONENTIAL = "base2_exponential_bucket_histogram"
BOUNDS = [0, 10, 100]


class Measured:
    """Instruments of every kind behind a reader of ours. sent: request by request."""

    def __init__(self, preference="delta", histogram=""):
        environ = {TEMPORALITY: preference, HISTOGRAM: histogram}
        self.reader = processors.SpooledMetrics(
            preferences.temporality(environ), preferences.aggregation(environ), lambda _: True
        )
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)
        meter = self.provider.get_meter("one")
        self.open = 0
        self.instruments = {
            "counter": meter.create_counter("n", unit="a").add,
            # The SDK keeps instruments of one name apart that differ in anything else.
            "twin": meter.create_counter("n", unit="b").add,
            "other meter": self.provider.get_meter("two").create_counter("n", unit="a").add,
            "down": meter.create_up_down_counter("open").add,
            "histogram": meter.create_histogram(
                "h", explicit_bucket_boundaries_advisory=BOUNDS
            ).record,
        }
        self.sent = []

    def take(self, *, whole):
        encoded = self.reader.take(whole=whole)
        if whole and encoded is not None:
            self.sent.append(ExportMetricsServiceRequest.FromString(encoded.payload))
            points = [p for *_, points in metrics(self.sent[-1]) for p in points]
            assert encoded.items == len(points)

    def points(self, scope, name, unit=""):
        return [
            point
            for request in self.sent
            for where, metric, points in metrics(request)
            if (where, metric.name, metric.unit) == (scope, name, unit)
            for point in points
        ]


def metrics(request):
    for part in request.resource_metrics:
        for scope in part.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                yield scope.scope.name, metric, getattr(metric, kind).data_points


def series(point):
    return tuple((pair.key, pair.value.string_value) for pair in point.attributes)


def totals(points, read):
    result = Counter()
    for point in points:
        result[series(point)] += read(point)
    return +result


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["counter", "twin", "other meter", "histogram"]),
            st.integers(0, 200),
            st.sampled_from(["x", "y"]),
        ),
        st.tuples(st.just("down"), st.integers(-5, 5), st.sampled_from(["x", "y"])),
        st.sampled_from(["collect", "send", "flush"]),
    ),
    max_size=40,
)


def play(measured, steps):
    """Take the steps; what was recorded, by instrument: lists of (series, value)."""
    recorded = {name: [] for name in measured.instruments}
    for step in steps:
        if step == "flush":  # by the application, which any time collects
            measured.provider.force_flush()
        elif isinstance(step, str):
            measured.take(whole=step == "send")
        else:
            name, value, key = step
            measured.instruments[name](value, {"k": key})
            recorded[name].append(((("k", key),), value))
    measured.take(whole=True)
    measured.provider.shutdown()
    return recorded


def summed(pairs):
    result = Counter()
    for key, value in pairs:
        result[key] += value
    return +result


def counted(pairs):
    return Counter(key for key, _ in pairs)


@patiently(max_examples=100)
@given(steps=STEPS)
def test_the_deltas_that_are_sent_add_up_to_what_was_recorded(steps):
    measured = Measured()
    recorded = play(measured, steps)
    for name, scope, unit in (("counter", "one", "a"), ("twin", "one", "b"),
                              ("other meter", "two", "a")):  # fmt: skip
        points = measured.points(scope, "n", unit)
        assert totals(points, lambda p: p.as_int) == summed(recorded[name])
    points = measured.points("one", "h")
    assert totals(points, lambda p: p.count) == counted(recorded["histogram"])
    assert totals(points, lambda p: p.sum) == summed(recorded["histogram"])
    for index in range(len(BOUNDS) + 1):
        limits = [float("-inf"), *BOUNDS, float("inf")]
        inside = [pair for pair in recorded["histogram"]
                  if limits[index] < pair[1] <= limits[index + 1]]  # fmt: skip
        assert totals(points, lambda p, i=index: p.bucket_counts[i]) == counted(inside)
    # Up/down counters stay cumulative: the last one says it all.
    last = {series(point): point.as_int for point in measured.points("one", "open")}
    assert +Counter(last) == +Counter(
        {key: sum(v for k, v in recorded["down"] if k == key) for key, _ in recorded["down"]}
    )


@patiently(max_examples=50)
@given(steps=STEPS)
def test_exponential_histograms_lose_nothing_either(steps):
    measured = Measured(histogram=EXPONENTIAL)
    recorded = play(measured, steps)
    points = measured.points("one", "h")
    assert totals(points, lambda p: p.count) == counted(recorded["histogram"])
    assert totals(points, lambda p: p.sum) == summed(recorded["histogram"])


@patiently(max_examples=30)
@given(steps=STEPS)
def test_cumulative_ones_are_sent_as_they_are(steps):
    measured = Measured("cumulative")
    recorded = play(measured, steps)
    last = {series(point): point.as_int for point in measured.points("one", "n", "a")}
    assert +Counter(last) == summed(recorded["counter"])


def test_one_delta_spans_all_collections_of_an_export():
    measured = Measured()
    first_ns = 0
    for value in (5, 500, 7):
        measured.instruments["counter"](value)
        measured.instruments["histogram"](value)
        measured.take(whole=False)
        first_ns = first_ns or time.time_ns()
    measured.take(whole=True)
    (point,) = measured.points("one", "n", "a")
    assert point.as_int == 512
    assert point.start_time_unix_nano < first_ns
    (bucket,) = measured.points("one", "h")
    assert (bucket.count, bucket.min, bucket.max) == (3, 5, 500)
    assert list(bucket.bucket_counts) == [0, 2, 0, 1]
    began_ns, ended_ns = bucket.start_time_unix_nano, bucket.time_unix_nano
    measured.instruments["histogram"](1)
    measured.take(whole=True)
    later = measured.points("one", "h")[1]
    assert later.count == 1
    assert began_ns < first_ns
    assert began_ns < ended_ns <= later.start_time_unix_nano
    assert later.time_unix_nano > later.start_time_unix_nano


def test_nothing_measured_is_nothing_to_send():
    measured = Measured()
    measured.instruments["counter"](1)
    measured.take(whole=True)
    measured.take(whole=True)
    assert len(measured.sent) == 1


@pytest.mark.parametrize("count", [3, 40])
def test_exemplars_are_few(count):
    from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter

    measured = Measured()
    measured.provider = MeterProvider(
        [reader := processors.SpooledMetrics(
            preferences.temporality({TEMPORALITY: "delta"}), {}, lambda _: True
        )],
        exemplar_filter=AlwaysOnExemplarFilter(), shutdown_on_exit=False,
    )  # fmt: skip
    measured.reader = reader
    record = measured.provider.get_meter("one").create_counter("n", unit="a").add
    for _ in range(count):
        record(1)
        measured.take(whole=False)
    measured.take(whole=True)
    (point,) = measured.points("one", "n", "a")
    assert point.as_int == count
    assert len(point.exemplars) == min(count, 16)
