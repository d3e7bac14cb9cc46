"""Which exporters send what we make, chosen by the standard OTEL_* variables.

The stock exporters do the sending. Around each stands a wrapper that builds it at its first
batch (so settings made in code after the launcher still count), says once a minute in one line
why a delivery failed, and keeps the exporter's own repeated log lines away.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from pbmon import privacy, signals
from pbmon.settings import Settings

_PATHS = {"traces": "/v1/traces", "metrics": "/v1/metrics"}
_CLASSES = {"traces": "OTLPSpanExporter", "metrics": "OTLPMetricExporter"}
_MODULES = {"traces": "trace_exporter", "metrics": "metric_exporter"}


class ExporterError(RuntimeError):
    """An exporter that was asked for can't be had; the text says the remedy."""


def names(signal: str) -> list[str]:
    """The exporters asked for: OTEL_TRACES_EXPORTER or OTEL_METRICS_EXPORTER, `otlp` if unset."""
    wanted = os.environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip() or "otlp"
    return [name.strip() for name in wanted.split(",") if name.strip() not in ("", "none")]


def endpoint(signal: str, settings: Settings) -> str:
    """Where a signal goes: its own OTEL_ variable as it stands, else the base with its path."""
    if own := _own_endpoint(signal, settings):
        return own
    if _is_grpc(signal, settings):
        default = settings.source("endpoint") == "default"
        return "http://localhost:4317" if default else settings.endpoint
    base = settings.endpoint if "://" in settings.endpoint else f"http://{settings.endpoint}"
    return base.rstrip("/") + _PATHS[signal]


def _is_grpc(signal: str, settings: Settings) -> bool:
    named = "otlp_proto_grpc" in names(signal)
    return named or ("otlp" in names(signal) and protocol(signal, settings) == "grpc")


def _own_endpoint(signal: str, settings: Settings) -> str:
    """OTEL_EXPORTER_OTLP_[SIGNAL]_ENDPOINT; what code says wins over it."""
    if settings.source("endpoint") == "configure()":
        return ""
    return os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "").strip()


def _port(url: str) -> int | None:
    try:
        return urlsplit(url if "://" in url else f"//{url}").port
    except ValueError:
        return None


def protocol(signal: str, settings: Settings) -> str:
    """`http/protobuf` or `grpc`, by OTEL_EXPORTER_OTLP_[SIGNAL_]PROTOCOL.

    Unset, port 4317 means gRPC where its exporter is installed, since OTLP/HTTP is 4318.
    """
    for variable in (
        f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ):
        if value := os.environ.get(variable, "").strip():
            if value not in ("grpc", "http/protobuf"):
                signals.tell(
                    variable,
                    "pbmon: %s=%s is not supported (grpc, http/protobuf are); "
                    "http/protobuf is used",
                    variable,
                    value,
                )
                return "http/protobuf"
            return value
    where = _own_endpoint(signal, settings) or settings.endpoint
    if _port(where) == 4317:
        if _installed("opentelemetry-exporter-otlp-proto-grpc"):
            return "grpc"
        signals.tell(
            "port-4317",
            "pbmon: endpoint %s is the gRPC port; use port 4318, or pip install 'pbmon[grpc]'",
            privacy.mask_url(where),
        )
    return "http/protobuf"


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def missing(signal: str, name: str) -> str:
    """Why the exporter `name` can't be had, or an empty text."""
    if name in ("otlp", "otlp_proto_http", "none"):
        return ""
    if any(metadata.entry_points(group=f"opentelemetry_{signal}_exporter", name=name)):
        return ""
    extra = "; pip install 'pbmon[grpc]'" if name == "otlp_proto_grpc" else ""
    return (
        f"exporter {name!r} for {signal} is not installed{extra}; "
        f"OTEL_{signal.upper()}_EXPORTER takes otlp, console, none or an installed exporter's name"
    )


def build(signal: str, name: str, settings: Settings) -> Any:
    """The stock exporter `name` for a signal. Raises ExporterError with the remedy."""
    hide_headers()
    if name == "otlp":
        name = "otlp_proto_grpc" if protocol(signal, settings) == "grpc" else "otlp_proto_http"
    if name == "otlp_proto_http":
        import importlib

        module = importlib.import_module(
            f"opentelemetry.exporter.otlp.proto.http.{_MODULES[signal]}"
        )
        _quiet(module.__name__)
        _quiet("opentelemetry.exporter.otlp.proto.http._common")
        return getattr(module, _CLASSES[signal])(endpoint=endpoint(signal, settings))
    group = f"opentelemetry_{signal}_exporter"
    for entry_point in metadata.entry_points(group=group, name=name):
        factory = entry_point.load()
        if name == "otlp_proto_grpc":
            _quiet("opentelemetry.exporter.otlp.proto.grpc.exporter")
            return factory(endpoint=endpoint(signal, settings))
        return factory()
    raise ExporterError(missing(signal, name))


class _LastWords(logging.Filter):
    """Keeps an exporter's log lines from the application's log, and their words for our line.

    All of a delivery's: the last one only says that the exporter gave up.
    """

    by_thread = threading.local()  # exporters of two signals may fail at the same time

    def filter(self, record: logging.LogRecord) -> bool:
        delivery = getattr(self.by_thread, "delivery", None)
        if delivery is not None:
            delivery.heard(record.getMessage())
        return False


def _quiet(logger: str) -> None:
    found = logging.getLogger(logger)
    if not any(isinstance(f, _LastWords) for f in found.filters):
        found.addFilter(_LastWords())


class _NoSecrets(logging.Filter):
    """OpenTelemetry's warning of a malformed header repeats it, token and all."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.args and str(record.msg).startswith("Header format invalid"):
            record.args = (privacy.MASK,)
        return True


def hide_headers() -> None:
    """Before anybody parses OTEL_EXPORTER_OTLP_HEADERS."""
    found = logging.getLogger("opentelemetry.util.re")
    if not any(isinstance(f, _NoSecrets) for f in found.filters):
        found.addFilter(_NoSecrets())


class _Delivery:
    """Shared by both wrappers: the exporter behind it, built when first needed."""

    def __init__(self, signal: str, name: str, settings: Settings) -> None:
        self.signal = signal
        self.name = name
        self._settings = settings
        self.exporter: Any = None
        self.failures = 0
        """Batches that could not be handed over."""
        self.hopeless = threading.Event()
        """Nobody listens there: the exporter may go on trying, a shutdown need not wait."""
        self._said = ""

    def apply(self, settings: Settings) -> None:
        """Where the endpoint changed, the next batch goes to the new one."""
        before = endpoint(self.signal, self._settings)
        self._settings = settings
        if endpoint(self.signal, settings) != before:
            self.exporter = None  # a batch on its way keeps the old one

    def run(self, send: Callable[[Any], Any], failure: Any) -> Any:
        result = self._run(send, failure)
        if result is failure:
            self.failures += 1
        return result

    def heard(self, words: str) -> None:
        """What the exporter logged, while it is still trying."""
        self._said += f"\n{words}"
        if _reason(words) in _NOBODY_THERE:
            self.hopeless.set()

    def _run(self, send: Callable[[Any], Any], failure: Any) -> Any:
        self._said = ""
        _LastWords.by_thread.delivery = self
        try:
            exporter = self.exporter
            if exporter is None:
                exporter = self.exporter = build(self.signal, self.name, self._settings)
            result = send(exporter)
        except ExporterError as error:
            signals.tell(f"exporter:{self.signal}", "pbmon: %s", error)
            return failure
        except Exception as error:
            signals.failed(f"exporting {self.signal}", error)
            return failure
        if result is failure:
            self.tell()
        else:
            self.hopeless.clear()
        return result

    def tell(self) -> None:
        """Why nothing can be delivered, in one line, once a minute."""
        where = privacy.mask_url(endpoint(self.signal, self._settings))
        signals.tell(
            f"delivery:{where}",
            "pbmon: %s can't be delivered to %s (%s); is a collector listening there? "
            "Set OTEL_EXPORTER_OTLP_ENDPOINT, or OTEL_%s_EXPORTER=none for no export.",
            self.signal,
            where,
            _reason(self._said),
            self.signal.upper(),
        )

    def close(self) -> None:
        if self.exporter is not None:
            self.exporter.shutdown()


_NOBODY_THERE = ("connection refused", "unknown host")


def _reason(words: str) -> str:
    """A short cause out of an exporter's log lines, without the addresses they may repeat."""
    lowered = words.lower()
    for sign, cause in (
        ("refused", "connection refused"),
        ("name or service not known", "unknown host"),
        ("name resolution", "unknown host"),
        ("timed out", "timed out"),
        ("certificate", "TLS certificate not accepted"),
        ("401", "401 unauthorized"),
        ("403", "403 forbidden"),
        ("404", "404 not found"),
        ("503", "503 unavailable"),
        ("service unavailable", "503 unavailable"),
        ("too many requests", "429 too many requests"),
        ("timeout", "timed out"),
    ):
        # As a word: a port may hold the digits of a status.
        if re.search(rf"\b{sign}\b", lowered):
            return cause
    return "the exporter reported a failure"


class SpanDelivery(SpanExporter):
    def __init__(self, name: str, settings: Settings) -> None:
        self.delivery = _Delivery("traces", name, settings)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result: SpanExportResult = self.delivery.run(
            lambda exporter: exporter.export(spans), SpanExportResult.FAILURE
        )
        return result

    def shutdown(self) -> None:
        self.delivery.close()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


class MetricDelivery(MetricExporter):
    """Takes temporality and aggregation from the exporter it stands for, so that one is built
    early."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.delivery = _Delivery("metrics", name, settings)
        stock = self.delivery.exporter = build("metrics", name, settings)
        super().__init__(
            stock._preferred_temporality,  # noqa: SLF001 - how the SDK's own reader asks
            stock._preferred_aggregation,  # noqa: SLF001
        )

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        result: MetricExportResult = self.delivery.run(
            lambda exporter: exporter.export(metrics_data, timeout_millis=timeout_millis),
            MetricExportResult.FAILURE,
        )
        return result

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self.delivery.close()

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True
