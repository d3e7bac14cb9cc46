"""Which exporters send what we make, and where to, by the standard OTEL_* variables.

OTLP goes by our own spool and sender; any other installed exporter is used as it is.
"""

from __future__ import annotations

import logging
import os
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit

from pbmon import privacy, signals
from pbmon.settings import Settings

OTLP = ("otlp", "otlp_proto_http", "otlp_proto_grpc")
"""The names that mean OTLP in OTEL_<SIGNAL>_EXPORTER."""

_PATHS = {"traces": "/v1/traces", "metrics": "/v1/metrics", "logs": "/v1/logs"}


class ExporterError(RuntimeError):
    """An exporter that was asked for can't be had; the text says the remedy."""


def names(signal: str) -> list[str]:
    """The exporters asked for by OTEL_<SIGNAL>_EXPORTER, `otlp` if unset."""
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
    """The installed exporter `name` for a signal. Raises ExporterError with the remedy."""
    hide_headers()
    for entry_point in metadata.entry_points(group=f"opentelemetry_{signal}_exporter", name=name):
        factory = entry_point.load()
        if name == "otlp_proto_grpc":
            return factory(endpoint=endpoint(signal, settings))
        return factory()
    raise ExporterError(missing(signal, name))


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
