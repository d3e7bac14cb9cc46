"""Exporters: where a signal goes, how, and the one line when it can't."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

from pbmon import signals
from pbmon.settings import resolve
from pbmon.telemetry import exporters
from pbmon.telemetry.exporters import MetricDelivery, SpanDelivery
from tests.telemetry.receiver import Receiver, closed_port

NOWHERE = Path("/nonexistent")


@pytest.fixture(autouse=True)
def environ(monkeypatch):
    """The environment without any OTEL_ variable; and nothing told yet."""
    import os

    for name in [n for n in os.environ if n.startswith(("OTEL_", "PBMON_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(signals, "_last_told", {})
    return monkeypatch


def settings(**keywords):
    return resolve(keywords, None, NOWHERE)[0]


def a_span():
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t")
    with tracer.start_as_current_span("s") as span:
        pass
    return span


def told(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "pbmon.internal"]


# --- where and how ---

BASE = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
TRACES_PROTOCOL = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
HTTP = "http/protobuf"


@pytest.mark.parametrize(
    ("env", "traces", "metrics"),
    [
        ({}, (HTTP, "http://localhost:4318/v1/traces"), (HTTP, "http://localhost:4318/v1/metrics")),
        ({BASE: "http://c:4318"}, (HTTP, "http://c:4318/v1/traces"),
         (HTTP, "http://c:4318/v1/metrics")),
        ({BASE: "http://c:4318/"}, (HTTP, "http://c:4318/v1/traces"),
         (HTTP, "http://c:4318/v1/metrics")),
        ({BASE: "http://c/otlp"}, (HTTP, "http://c/otlp/v1/traces"),
         (HTTP, "http://c/otlp/v1/metrics")),
        ({BASE: "c:4318"}, (HTTP, "http://c:4318/v1/traces"), (HTTP, "http://c:4318/v1/metrics")),
        ({TRACES: "http://t/own"}, (HTTP, "http://t/own"),
         (HTTP, "http://localhost:4318/v1/metrics")),
        ({BASE: "http://c:4318", TRACES: "http://t/own"}, (HTTP, "http://t/own"),
         (HTTP, "http://c:4318/v1/metrics")),
        ({PROTOCOL: "grpc", BASE: "http://c:4317"}, ("grpc", "http://c:4317"),
         ("grpc", "http://c:4317")),
        ({TRACES_PROTOCOL: "grpc", BASE: "http://c:9"}, ("grpc", "http://c:9"),
         (HTTP, "http://c:9/v1/metrics")),
        ({PROTOCOL: "grpc", TRACES_PROTOCOL: HTTP, BASE: "http://c:4317"},
         (HTTP, "http://c:4317/v1/traces"), ("grpc", "http://c:4317")),
        # port 4317 without a protocol is gRPC, since its exporter is installed here
        ({BASE: "http://c:4317"}, ("grpc", "http://c:4317"), ("grpc", "http://c:4317")),
        ({TRACES: "http://t:4317"}, ("grpc", "http://t:4317"),
         (HTTP, "http://localhost:4318/v1/metrics")),
        ({TRACES: "t:4317"}, ("grpc", "t:4317"), (HTTP, "http://localhost:4318/v1/metrics")),
        ({BASE: "http://c:4317", TRACES: "http://t:4318/v1/traces"},
         (HTTP, "http://t:4318/v1/traces"), ("grpc", "http://c:4317")),
        ({BASE: "http://c:4317", PROTOCOL: HTTP}, (HTTP, "http://c:4317/v1/traces"),
         (HTTP, "http://c:4317/v1/metrics")),
        ({PROTOCOL: "  "}, (HTTP, "http://localhost:4318/v1/traces"),
         (HTTP, "http://localhost:4318/v1/metrics")),
    ],
)  # fmt: skip
def test_endpoint_and_protocol(environ, env, traces, metrics):
    for name, value in env.items():
        environ.setenv(name, value)
    resolved = settings()
    for signal, wanted in (("traces", traces), ("metrics", metrics)):
        seen = exporters.protocol(signal, resolved), exporters.endpoint(signal, resolved)
        assert seen == wanted, signal


def test_what_code_says_wins_over_a_signals_own_variable(environ):
    environ.setenv(TRACES, "http://env/own")
    resolved = settings(endpoint="http://code:4318")
    assert exporters.endpoint("traces", resolved) == "http://code:4318/v1/traces"


def test_port_4317_without_the_grpc_exporter_is_one_line(environ, caplog):
    environ.setattr(exporters, "_installed", lambda name: False)
    resolved = settings(endpoint="http://u:hunter2@c:4317")
    for signal in ("traces", "metrics", "traces"):
        assert exporters.protocol(signal, resolved) == HTTP
    (line,) = told(caplog)
    assert line == (
        "pbmon: endpoint http://REDACTED@c:4317 is the gRPC port; use port 4318, or "
        "pip install 'pbmon[grpc]'"
    )


def test_an_unsupported_protocol_is_one_line(environ, caplog):
    environ.setenv(PROTOCOL, "http/json")
    assert exporters.protocol("traces", settings()) == HTTP
    assert told(caplog) == [
        (
            "pbmon: OTEL_EXPORTER_OTLP_PROTOCOL=http/json is not supported (grpc, http/protobuf "
            "are); http/protobuf is used"
        )
    ]


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, ["otlp"]),
        ("", ["otlp"]),
        ("none", []),
        ("console", ["console"]),
        ("otlp, console", ["otlp", "console"]),
        ("console,none", ["console"]),
    ],
)
def test_names(environ, value, names):
    if value is not None:
        environ.setenv("OTEL_TRACES_EXPORTER", value)
    assert exporters.names("traces") == names
    assert exporters.names("metrics") == ["otlp"]


def test_grpc_builds_the_grpc_exporter(environ):
    environ.setenv(PROTOCOL, "grpc")
    stock = exporters.build("traces", "otlp", settings())
    assert type(stock).__module__.startswith("opentelemetry.exporter.otlp.proto.grpc")
    stock.shutdown()


def test_an_exporter_that_is_not_there_is_named_with_the_remedy():
    with pytest.raises(exporters.ExporterError) as caught:
        exporters.build("traces", "zipkin", settings())
    assert str(caught.value) == (
        "exporter 'zipkin' for traces is not installed; OTEL_TRACES_EXPORTER takes otlp, "
        "console, none or an installed exporter's name"
    )


# --- delivery ---


def test_a_span_delivery_builds_its_exporter_at_the_first_batch(environ):
    built = []
    build = exporters.build
    environ.setattr(exporters, "build", lambda *a: built.append(a) or build(*a))
    with Receiver() as receiver:
        delivery = SpanDelivery("otlp", settings(endpoint=closed_port()))
        assert built == []
        delivery.delivery.apply(settings(endpoint=receiver.url))
        for _ in range(3):
            assert delivery.export([a_span()]) is SpanExportResult.SUCCESS
        assert len(built) == 1
        assert len(receiver.spans()) == 3
        delivery.shutdown()


def test_a_changed_endpoint_takes_the_next_batch(environ):
    with Receiver() as first, Receiver() as second:
        delivery = SpanDelivery("otlp", settings(endpoint=first.url))
        delivery.export([a_span()])
        delivery.delivery.apply(settings(endpoint=second.url))
        delivery.export([a_span()])
        delivery.delivery.apply(settings(endpoint=second.url, service_name="x"))
        delivery.export([a_span()])
        assert (len(first.spans()), len(second.spans())) == (1, 2)
        delivery.shutdown()


def test_a_metric_delivery_builds_one_exporter(environ):
    built = []
    build = exporters.build
    environ.setattr(exporters, "build", lambda *a: built.append(a) or build(*a))
    with Receiver() as receiver:
        delivery = MetricDelivery("otlp", settings(endpoint=receiver.url))
        assert delivery.export(MetricsData([])) is MetricExportResult.SUCCESS
        assert len(built) == 1
        delivery.shutdown()


def test_an_unreachable_collector_is_one_line_a_minute(environ, caplog):
    """The secrets masked, the stock exporter's own lines kept away."""
    where = closed_port().replace("http://", "http://app:hunter2@")
    delivery = SpanDelivery("otlp", settings(endpoint=f"{where}/?token=hunter3"))
    environ.setattr(exporters, "endpoint", lambda *_: f"{where}/v1/traces?token=hunter3")
    environ.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.05")
    with caplog.at_level(logging.DEBUG, "opentelemetry"):
        for _ in range(3):
            assert delivery.export([a_span()]) is SpanExportResult.FAILURE
    assert delivery.delivery.failures == 3
    (line,) = told(caplog)
    host = where.rpartition("@")[2]
    assert line.startswith(
        f"pbmon: traces can't be delivered to http://REDACTED@{host}/v1/traces?token=REDACTED ("
    )
    assert line.endswith(
        "is a collector listening there? Set OTEL_EXPORTER_OTLP_ENDPOINT, or "
        "OTEL_TRACES_EXPORTER=none for no export."
    )
    assert "hunter" not in caplog.text
    assert not [r for r in caplog.records if r.name.startswith("opentelemetry.exporter")]
    delivery.shutdown()


@pytest.mark.parametrize(
    ("status", "cause"),
    [(401, "401 unauthorized"), (403, "403 forbidden"), (404, "404 not found"), (500, "")],
)
def test_a_refusing_collector_is_told_with_the_cause(caplog, status, cause):
    with Receiver(status) as receiver:
        delivery = SpanDelivery("otlp", settings(endpoint=receiver.url))
        assert delivery.export([a_span()]) is SpanExportResult.FAILURE
        (line,) = told(caplog)
        assert f"({cause or 'the exporter reported a failure'})" in line
        delivery.shutdown()


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("[Errno 111] Connection refused", "connection refused"),
        ("Read timed out. (read timeout=10)", "timed out"),
        ("Temporary failure in name resolution", "unknown host"),
        ("certificate verify failed", "TLS certificate not accepted"),
        ("Transient error Connection refused\nFailed due to timeout", "connection refused"),
        ("Transient error Service Unavailable\nFailed due to timeout", "503 unavailable"),
        ("Failed to export spans batch due to timeout, max retries or shutdown.", "timed out"),
        ("Failed to export span batch code: 404, reason: x", "404 not found"),
        ("HTTPConnectionPool(host='h', port=40401): reset", "the exporter reported a failure"),
        ("", "the exporter reported a failure"),
    ],
)
def test_reasons(words, cause):
    assert exporters._reason(words) == cause


def test_an_unknown_exporter_fails_each_batch_and_is_told_once(caplog):
    delivery = SpanDelivery("zipkin", settings())
    for _ in range(3):
        assert delivery.export([a_span()]) is SpanExportResult.FAILURE
    assert len(told(caplog)) == 1
    assert "exporter 'zipkin' for traces is not installed" in told(caplog)[0]


def test_a_malformed_header_is_not_repeated(environ, caplog):
    environ.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization Bearer hunter2,x-tenant=shop")
    with Receiver() as receiver:
        delivery = SpanDelivery("otlp", settings(endpoint=receiver.url))
        delivery.export([a_span()])
        ((_, headers, _),) = receiver.arrived
        assert headers["x-tenant"] == "shop"
        delivery.shutdown()
    assert "Header format invalid" in caplog.text
    assert "hunter2" not in caplog.text
