"""One OTLP request to a receiver, and what its answer means.

An answer is believed only when it says that the data was taken: a redirect, a page of a proxy or
a body that is no OTLP response is a failure, and a partial success is read.
"""

from __future__ import annotations

import gzip
import importlib
import json
import math
import os
import random
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from pbmon import catalog, outbound, privacy, signals
from pbmon.settings import Settings
from pbmon.telemetry import exporters, pipeline

TIMEOUT_S = 10.0
"""Default of OTEL_EXPORTER_OTLP_TIMEOUT."""

_LEAST_S = 0.05
_LONGEST_WAIT_S = 300.0
_MAX_ANSWER = 64 * 1024
_MILLISECONDS_FROM = 1000

# The specification's non-retryable answers to data that is wrong in itself. Any other failure may
# be mended on the way, from a token to a route, and the data is kept as long as the spool holds.
_BAD_DATA = (400, 413, 422)

_RESPONSES = {
    "traces": ("trace", "ExportTraceServiceResponse", "rejected_spans"),
    "metrics": ("metrics", "ExportMetricsServiceResponse", "rejected_data_points"),
    "logs": ("logs", "ExportLogsServiceResponse", "rejected_log_records"),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request."""

    taken: bool = False
    rejected: int = 0
    """Of what was sent, how many items the receiver says it did not take."""
    reason: str = ""
    """Why it was not taken, in a few words without secrets."""
    bad_data: bool = False
    """The receiver refuses this data, not the sender or the moment."""
    status: int | None = None
    retry_after_s: float | None = None
    nobody_there: bool = False


class Transport(Protocol):
    where: str
    """The endpoint as messages may show it."""

    def send(self, body: bytes, left_s: float = math.inf) -> Answer:
        """Send one serialized export request, within its timeout and left_s. Never raises."""

    def close(self) -> None: ...


def connect(signal: str, settings: Settings, name: str = "otlp") -> Transport:
    """The transport of a signal by OTEL_EXPORTER_OTLP_[SIGNAL_]PROTOCOL; name: as in
    OTEL_<SIGNAL>_EXPORTER. Raises exporters.ExporterError."""
    grpc = name == "otlp_proto_grpc" or (
        name == "otlp" and exporters.protocol(signal, settings) == "grpc"
    )
    return GRPCTransport(signal, settings) if grpc else HTTPTransport(signal, settings)


def variable(signal: str, name: str) -> tuple[str, str]:
    """(name, value) of OTEL_EXPORTER_OTLP_<SIGNAL>_<NAME>, else of the one for all signals."""
    for key in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}", f"OTEL_EXPORTER_OTLP_{name}"):
        if value := os.environ.get(key, "").strip():
            return key, value
    return "", ""


def headers(signal: str) -> dict[str, str]:
    """OTEL_EXPORTER_OTLP_[SIGNAL_]HEADERS; what can't be read is left out."""
    from opentelemetry.util.re import parse_env_headers

    exporters.hide_headers()
    return dict(parse_env_headers(variable(signal, "HEADERS")[1], liberal=True))


def timeout_s(signal: str) -> float:
    """OTEL_EXPORTER_OTLP_[SIGNAL_]TIMEOUT, in seconds as OpenTelemetry for Python reads it; the
    specification's milliseconds are known by their size."""
    key, value = variable(signal, "TIMEOUT")
    if not key:
        return TIMEOUT_S
    number = pipeline.positive(value)
    if number is None:
        signals.tell(
            key, "pbmon: %s=%s is no time; set seconds, such as 10. 10 s are used", key, value
        )
        return TIMEOUT_S
    return number / 1000 if number >= _MILLISECONDS_FROM else number


def compression(signal: str, url: str) -> str:
    """gzip, deflate or none by OTEL_EXPORTER_OTLP_[SIGNAL_]COMPRESSION; unset it is gzip, and
    none to this machine, where it would only cost time."""
    key, value = variable(signal, "COMPRESSION")
    if value.lower() in ("gzip", "deflate", "none"):
        return value.lower()
    if key:
        signals.tell(
            key, "pbmon: %s=%s is not supported; set gzip, deflate or none. gzip is used",
            key, value,
        )  # fmt: skip
        return "gzip"
    host = urlsplit(url).hostname or ""
    local = host in ("localhost", "::1") or host.startswith("127.")
    return "none" if local else "gzip"


class HTTPTransport:
    """OTLP/HTTP with protobuf bodies."""

    def __init__(self, signal: str, settings: Settings) -> None:
        with signals.importing:
            import netrc  # noqa: F401 - that requests would import at the first request

            import requests

        self._signal = signal
        self._url = exporters.endpoint(signal, settings)
        self.where = privacy.mask_url(self._url)
        self._timeout_s = timeout_s(signal)
        self._compression = compression(signal, self._url)
        self._session = requests.Session()
        self._session.headers.clear()
        self._headers: dict[str, str] = {
            "User-Agent": f"pbmon/{catalog.VERSION}",
            **headers(signal),
            "Content-Type": "application/x-protobuf",
            "Accept": "application/x-protobuf, application/json;q=0.5",
        }
        if self._compression != "none":
            self._headers["Content-Encoding"] = self._compression
        self._verify = variable(signal, "CERTIFICATE")[1] or True
        certificate = variable(signal, "CLIENT_CERTIFICATE")[1]
        key = variable(signal, "CLIENT_KEY")[1]
        if certificate:
            self._session.cert = (certificate, key) if key else certificate

    def send(self, body: bytes, left_s: float = math.inf) -> Answer:
        try:
            return self._send(body, max(_LEAST_S, min(self._timeout_s, left_s)))
        except Exception as error:
            return Answer(reason=outbound.cause(error), nobody_there=_is_nobody(error))

    def _send(self, body: bytes, timeout_s: float) -> Answer:
        if self._compression == "gzip":
            body = gzip.compress(body, 1, mtime=0)
        elif self._compression == "deflate":
            body = zlib.compress(body, 1)
        response = self._session.post(
            self._url,
            data=body,
            headers=self._headers,
            timeout=timeout_s,
            # Here, as REQUESTS_CA_BUNDLE would win over the session's.
            verify=self._verify,
            allow_redirects=False,
            stream=True,
        )
        answer = outbound.read(response, time.monotonic() + timeout_s, _MAX_ANSWER)
        return judge(self._signal, response.status_code, response.headers, answer)

    def close(self) -> None:
        self._session.close()


def judge(signal: str, status: int, head: Mapping[str, str], body: bytes) -> Answer:
    """The meaning of an HTTP answer. head: with keys in any case."""
    if 200 <= status < 300:
        return _read_success(signal, status, head.get("Content-Type", ""), body)
    text = _REASONS.get(status, f"status {status}")
    return Answer(
        reason=text,
        bad_data=status in _BAD_DATA,
        status=status,
        retry_after_s=outbound.retry_after_s(head.get("Retry-After"), _LONGEST_WAIT_S),
    )


_REASONS = {
    400: "400 bad request",
    401: "401 unauthorized",
    403: "403 forbidden",
    404: "404 not found",
    413: "413 content too large",
    429: "429 too many requests",
    500: "500 internal server error",
    502: "502 bad gateway",
    503: "503 unavailable",
    504: "504 gateway timeout",
}


def _read_success(signal: str, status: int, content_type: str, body: bytes) -> Answer:
    if not body:
        return Answer(taken=True, status=status)
    kind = content_type.split(";", maxsplit=1)[0].strip().lower()
    parse = {"application/json": _from_json, "application/x-protobuf": _from_protobuf}.get(kind)
    try:
        rejected, message = parse(signal, body) if parse is not None else (-1, "")
    except Exception:  # whatever it is, it is no OTLP response
        rejected = -1
    if rejected < 0:
        return Answer(reason=f"status {status} with a body that is no OTLP response", status=status)
    return Answer(taken=True, rejected=rejected, reason=message, status=status)


def _from_protobuf(signal: str, body: bytes) -> tuple[int, str]:
    module, name, field = _RESPONSES[signal]
    found = importlib.import_module(
        f"opentelemetry.proto.collector.{module}.v1.{module}_service_pb2"
    )
    response = getattr(found, name).FromString(body)
    return getattr(response.partial_success, field), response.partial_success.error_message


def _from_json(signal: str, body: bytes) -> tuple[int, str]:
    answer = json.loads(body)
    if not isinstance(answer, dict):
        raise TypeError
    partial = answer.get("partialSuccess") or {}
    first, *rest = _RESPONSES[signal][2].split("_")
    field = first + "".join(word.capitalize() for word in rest)
    return int(partial.get(field) or 0), str(partial.get("errorMessage") or "")


def _is_nobody(error: BaseException) -> bool:
    return outbound.cause(error) in ("connection refused", "unknown host")


class GRPCTransport:
    """The stock gRPC exporter's channel, headers and TLS, and our reading of its answers."""

    def __init__(self, signal: str, settings: Settings) -> None:
        self._signal = signal
        self.where = privacy.mask_url(exporters.endpoint(signal, settings))
        with signals.importing:
            self._exporter: Any = exporters.build(signal, "otlp_proto_grpc", settings)
        self._timeout_s = timeout_s(signal)
        module, name, self._field = _RESPONSES[signal]
        found = importlib.import_module(
            f"opentelemetry.proto.collector.{module}.v1.{module}_service_pb2"
        )
        self._request = getattr(found, name.replace("Response", "Request"))

    def send(self, body: bytes, left_s: float = math.inf) -> Answer:
        import grpc

        stock = self._exporter
        try:
            response = stock._client.Export(  # noqa: SLF001 - its export() hides the answer
                request=self._request.FromString(body),
                metadata=stock._headers,  # noqa: SLF001
                timeout=max(_LEAST_S, min(self._timeout_s, left_s)),
            )
        except grpc.RpcError as error:
            return self._judge(error.code(), str(error.details() or ""))
        except Exception as error:
            return Answer(reason=outbound.cause(error))
        partial = response.partial_success
        return Answer(
            taken=True, rejected=getattr(partial, self._field), reason=partial.error_message
        )

    def _judge(self, code: Any, details: str) -> Answer:
        cause = outbound.cause(RuntimeError(details))
        return Answer(
            reason=f"{code.name}, {cause}" if cause != "RuntimeError" else code.name,
            bad_data=code.name == "INVALID_ARGUMENT",
            nobody_there=code.name == "UNAVAILABLE" and _is_nobody(RuntimeError(details)),
        )

    def close(self) -> None:
        self._exporter.shutdown()


def spread(seconds: float) -> float:
    """With jitter, so that processes that failed together do not return together."""
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
