"""OTLP/HTTP receivers on real sockets: one that remembers, one that accepts and never answers."""

from __future__ import annotations

import gzip
import http.server
import socket
import threading
from contextlib import contextmanager

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.stack.process import HOST, unused_port

UNKNOWN = "nowhere.invalid"


class Receiver:
    """What arrived: (path, headers, body) in their order. status: the answer to give."""

    def __init__(self, status=200):
        self.status = status
        self.arrived = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.arrived.append((self.path, headers, body))
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer((HOST, 0), Handler)
        self.url = f"http://{HOST}:{self.server.server_address[1]}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def bodies(self, path):
        return [body for where, _, body in self.arrived if where == path]

    def resources(self):
        """Every resource that spans or metrics arrived with."""
        return [
            {pair.key: pair.value.string_value for pair in part.resource.attributes}
            for part in (*self._spans_by_resource(), *self._metrics_by_resource())
        ]

    def spans(self):
        return [
            span
            for part in self._spans_by_resource()
            for scope in part.scope_spans
            for span in scope.spans
        ]

    def counts(self):
        """Spans of each request."""
        return [
            sum(len(scope.spans) for part in request.resource_spans for scope in part.scope_spans)
            for request in map(ExportTraceServiceRequest.FromString, self.bodies("/v1/traces"))
        ]

    def metrics(self):
        """Name → metric, of the last arrival of each."""
        return {
            metric.name: metric
            for part in self._metrics_by_resource()
            for scope in part.scope_metrics
            for metric in scope.metrics
        }

    def scopes(self):
        """(scope name, version, schema URL) of all that arrived."""
        return {
            (scope.scope.name, scope.scope.version, scope.schema_url)
            for part in self._spans_by_resource()
            for scope in part.scope_spans
        } | {
            (scope.scope.name, scope.scope.version, scope.schema_url)
            for part in self._metrics_by_resource()
            for scope in part.scope_metrics
        }

    def _spans_by_resource(self):
        return [
            part
            for body in self.bodies("/v1/traces")
            for part in ExportTraceServiceRequest.FromString(body).resource_spans
        ]

    def _metrics_by_resource(self):
        return [
            part
            for body in self.bodies("/v1/metrics")
            for part in ExportMetricsServiceRequest.FromString(body).resource_metrics
        ]


@contextmanager
def hanging():
    """Accepts connections, reads nothing and never answers. Yields its URL."""
    with socket.create_server((HOST, 0), backlog=16) as server:
        yield f"http://{HOST}:{server.getsockname()[1]}"


def closed_port():
    """The URL of a port at which nothing listens."""
    return f"http://{HOST}:{unused_port()}"


def unknown_host(monkeypatch):
    """The URL of a host that no resolver knows, without asking one."""
    resolve = socket.getaddrinfo

    def resolved(host, *arguments, **options):
        if host == UNKNOWN:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    return f"http://{UNKNOWN}:4318"
