"""A receiver in a process of its own: counts what arrives, costs the others nothing.

It takes OTLP/HTTP, and events as the vendors' APIs do: Segment's /v1/batch, PostHog's /batch/,
Mixpanel's /track, Amplitude's /2/httpapi; of these it keeps the property `n`.
"""

from __future__ import annotations

import gzip
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class _Counts:
    spans = 0
    numbers: ClassVar[set[int]] = set()
    latency_s = 0.0


def numbers(path: str, body: bytes) -> set[int]:
    """The property `n` of the events in a request to a vendor's API."""
    if path.startswith("/track"):
        events = json.loads(parse_qs(body.decode())["data"][0])
        events = events if isinstance(events, list) else [events]
        found = [event["properties"] for event in events]
    elif path.startswith("/2/"):
        found = [event["event_properties"] for event in json.loads(body)["events"]]
    else:
        found = [event["properties"] for event in json.loads(body)["batch"]]
    return {properties["n"] for properties in found if "n" in properties}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer is one packet: of two, the second would wait for the client's delayed ACK.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path.endswith("/v1/traces"):
            request = ExportTraceServiceRequest.FromString(body)
            _Counts.spans += sum(
                len(s.spans) for r in request.resource_spans for s in r.scope_spans
            )
            self._answer(b"")
        elif self.path.endswith("/v1/metrics"):
            ExportMetricsServiceRequest.FromString(body)
            self._answer(b"")
        else:
            time.sleep(_Counts.latency_s)
            _Counts.numbers |= numbers(self.path, body)
            self._answer(b'{"status": 1, "success": true, "code": 200}')

    def do_GET(self) -> None:
        """What there was so far, as JSON; then counts from 0."""
        spans, _Counts.spans = _Counts.spans, 0
        found, _Counts.numbers = _Counts.numbers, set()
        self._answer(json.dumps({"spans": spans, "numbers": sorted(found)}).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Silent."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """A client that was killed is no error."""


def main() -> None:
    """Print the port, serve until standard input ends. Argument: seconds that a vendor takes."""
    _Counts.latency_s = float(sys.argv[1])
    server = _Server(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    main()
