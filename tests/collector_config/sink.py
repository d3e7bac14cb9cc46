"""A backend that remembers: OTLP over HTTP as Prometheus takes it, over gRPC as Tempo does."""

from __future__ import annotations

import gzip
import http.server
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.stack.process import HOST, hold_port, wait_until

ARRIVAL_S = 20.0


class Sink:
    """Ports are chosen at once and kept, so a sink may start after its senders, and again."""

    def __init__(self) -> None:
        held = hold_port(), hold_port()
        for each in held:
            weakref.finalize(self, each.close)
        self.http_port, self.grpc_port = (int(each.getsockname()[1]) for each in held)
        self.requests: list[Any] = []
        # The status with which HTTP requests are turned away, and how many were.
        self.refuse_with: int | None = None
        self.refused = 0
        self._http: http.server.ThreadingHTTPServer | None = None
        self._grpc: grpc.Server | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Where collector-config/single.yaml must send to reach this sink."""
        return {
            "PBMON_PROMETHEUS_OTLP_ENDPOINT": f"http://{HOST}:{self.http_port}/api/v1/otlp",
            "PBMON_TEMPO_OTLP_ENDPOINT": f"{HOST}:{self.grpc_port}",
        }

    def start(self) -> Sink:
        self._http = http.server.ThreadingHTTPServer((HOST, self.http_port), _handler(self))
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        self._grpc = grpc.server(ThreadPoolExecutor(max_workers=2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(self), self._grpc)
        self._grpc.add_insecure_port(f"{HOST}:{self.grpc_port}")
        self._grpc.start()
        return self

    def close(self) -> None:
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None
        if self._grpc is not None:
            self._grpc.stop(grace=None).wait()
            self._grpc = None

    def __enter__(self) -> Sink:  # noqa: PYI034  Self is in typing only from 3.11 on
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.close()

    def spans(self) -> list[Span]:
        return [
            span
            for request in list(self.requests)
            if isinstance(request, ExportTraceServiceRequest)
            for group in request.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]

    def metrics(self) -> list[Metric]:
        return [
            metric
            for request in list(self.requests)
            if isinstance(request, ExportMetricsServiceRequest)
            for group in request.resource_metrics
            for scope in group.scope_metrics
            for metric in scope.metrics
        ]

    def logs(self) -> list[LogRecord]:
        return [
            record
            for request in list(self.requests)
            if isinstance(request, ExportLogsServiceRequest)
            for group in request.resource_logs
            for scope in group.scope_logs
            for record in scope.log_records
        ]

    def wait_for_span(self, name: str) -> Span:
        return self._wait_for(self.spans, name, "span")

    def wait_for_metric(self, name: str) -> Metric:
        return self._wait_for(self.metrics, name, "metric")

    def _wait_for(self, records: Any, name: str, what: str) -> Any:
        found: list[Any] = []

        def arrived() -> bool:
            found[:] = [record for record in records() if record.name == name]
            return bool(found)

        wait_until(arrived, f"the {what} {name!r} at the sink", ARRIVAL_S)
        return found[-1]


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def Export(
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        self._sink.requests.append(request)
        return ExportTraceServiceResponse()


def _handler(sink: Sink) -> type[http.server.BaseHTTPRequestHandler]:
    kinds = {
        "/api/v1/otlp/v1/metrics": ExportMetricsServiceRequest,
        "/v1/logs": ExportLogsServiceRequest,
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            self.send_response(self.answer(body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def answer(self, body: bytes) -> int:
            kind = kinds.get(self.path)
            if kind is None:
                return 404
            if sink.refuse_with is not None:
                sink.refused += 1
                return sink.refuse_with
            sink.requests.append(kind.FromString(body))
            return 200

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    return Handler
