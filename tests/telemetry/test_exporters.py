"""Exporters: where a signal goes, how, and the one line when it can't."""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export import ConsoleSpanExporter

from pbmon import signals
from pbmon.settings import resolve
from pbmon.telemetry import exporters

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
    stock = exporters.build("traces", "otlp_proto_grpc", settings())
    assert type(stock).__module__.startswith("opentelemetry.exporter.otlp.proto.grpc")
    stock.shutdown()


def test_another_installed_exporter_is_built_as_it_is():
    assert type(exporters.build("traces", "console", settings())) is ConsoleSpanExporter


REMEDY = (
    "exporter 'zipkin' for traces is not installed; OTEL_TRACES_EXPORTER takes otlp, "
    "console, none or an installed exporter's name"
)


def test_an_exporter_that_is_not_there_is_named_with_the_remedy():
    with pytest.raises(exporters.ExporterError) as caught:
        exporters.build("traces", "zipkin", settings())
    assert str(caught.value) == REMEDY


@pytest.mark.parametrize(
    ("name", "why"),
    [("otlp", ""), ("otlp_proto_http", ""), ("none", ""), ("console", ""),
     ("otlp_proto_grpc", ""), ("zipkin", REMEDY)],
)  # fmt: skip
def test_missing(name, why):
    assert exporters.missing("traces", name) == why


def test_a_missing_grpc_exporter_names_its_extra(environ):
    environ.setattr(exporters.metadata, "entry_points", lambda **_: ())
    assert exporters.missing("logs", "otlp_proto_grpc") == (
        "exporter 'otlp_proto_grpc' for logs is not installed; pip install 'pbmon[grpc]'; "
        "OTEL_LOGS_EXPORTER takes otlp, console, none or an installed exporter's name"
    )
