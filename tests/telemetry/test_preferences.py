"""What a reader is asked for, beside the stock exporter."""

from __future__ import annotations

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

from pbmon import signals
from pbmon.telemetry import preferences
from tests.telemetry.metered import Metered


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch):
    monkeypatch.setattr(signals, "_last_told", {})


TEMPORALITY = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
HISTOGRAM = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"


@pytest.mark.parametrize(
    "value", [None, "cumulative", "delta", "lowmemory", "DELTA", " LowMemory ", "", "sideways"]
)
def test_temporality_is_what_the_stock_exporter_asks_for(monkeypatch, value):
    environ = {} if value is None else {TEMPORALITY: value}
    monkeypatch.delenv(TEMPORALITY, raising=False)
    for name, text in environ.items():
        monkeypatch.setenv(name, text)
    stock = OTLPMetricExporter()
    assert preferences.temporality(environ) == stock._preferred_temporality
    stock.shutdown()


@pytest.mark.parametrize(
    "value",
    [
        None, "explicit_bucket_histogram", "base2_exponential_bucket_histogram",
        " BASE2_exponential_bucket_histogram", "", "linear",
    ],
)  # fmt: skip
def test_aggregation_is_what_the_stock_exporter_asks_for(monkeypatch, value):
    environ = {} if value is None else {HISTOGRAM: value}
    monkeypatch.delenv(HISTOGRAM, raising=False)
    for name, text in environ.items():
        monkeypatch.setenv(name, text)
    stock = OTLPMetricExporter()

    def shape(found):
        return {kind: (type(how), vars(how)) for kind, how in found.items()}

    assert shape(preferences.aggregation(environ)) == shape(stock._preferred_aggregation)
    stock.shutdown()


def test_a_wrong_preference_is_one_line_with_the_remedy(caplog):
    for _ in range(2):
        preferences.temporality({TEMPORALITY: "sideways"})
        preferences.aggregation({HISTOGRAM: "linear"})
    preferences.temporality({TEMPORALITY: ""})
    assert caplog.messages == [
        f"pbmon: {variable} is none of {choices}; set it to one of them"
        for variable, choices in (
            (TEMPORALITY, "cumulative, delta, lowmemory"),
            (HISTOGRAM, "explicit_bucket_histogram, base2_exponential_bucket_histogram"),
        )
    ]


def test_a_reader_takes_what_is_preferred():
    environ = {TEMPORALITY: "delta", HISTOGRAM: "base2_exponential_bucket_histogram"}
    metered = Metered(
        preferred_temporality=preferences.temporality(environ),
        preferred_aggregation=preferences.aggregation(environ),
    )
    counter, histogram = metered.meter.create_counter("n"), metered.meter.create_histogram("h")
    counter.add(2)
    histogram.record(4.0)
    first = metered.read()
    counter.add(3)
    assert (first["n"][()].value, metered.read()["n"][()].value) == (2, 3)
    assert first["h"][()].scale == 20
    assert (first["h"][()].count, first["h"][()].sum) == (1, 4.0)
