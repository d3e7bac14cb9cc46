"""An OTLP/HTTP receiver that can be made to fail, and remembers only what it acknowledged.

It decodes with the official protobuf classes, so that it shares nothing with what it measures.
A record counts once its answer, a true success, was written; whatever the sink refused, rejected
or left unanswered was never accepted, however the client took it.
"""

from __future__ import annotations

import gzip
import re
import socket
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.stack.process import HOST, hold_port

if TYPE_CHECKING:
    from typing_extensions import Self

NUMBER = "test.n"
POISON = "test.poison"
PROTOBUF = "application/x-protobuf"
_BODY = re.compile(r"work (\d+)")
_DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA

REQUESTS = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}


@dataclass(frozen=True, eq=False)
class Mode:
    """How every export is answered. delay_s None: it is read and never answered."""

    name: str
    delay_s: float | None = 0.0
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    rejected: int | None = 0
    """Records of each batch that a partial success rejects; None: all of them."""
    listening: bool = True
    poisoned: int | None = None
    """Status of the answer to a batch with a record marked `test.poison`; 200: a partial success
    that rejects as many of the last ones."""
    over: threading.Event = field(default_factory=threading.Event)
    """Set when another mode begins: nobody waits longer for this one's answers."""


def ok() -> Mode:
    return Mode("ok")


def refused() -> Mode:
    """Nothing listens at the port; connections that were open are gone."""
    return Mode("refused", listening=False)


def hanging() -> Mode:
    return Mode("hanging", delay_s=None)


def slow(delay_s: float) -> Mode:
    """A true success after delay_s."""
    return Mode("slow", delay_s=delay_s)


def status(code: int, *, retry_after_s: int | None = None) -> Mode:
    after = () if retry_after_s is None else (("Retry-After", str(retry_after_s)),)
    return Mode(str(code), status=code, headers=after, body=b"")


def redirect() -> Mode:
    """As a login proxy does: elsewhere, a page answers 200 to whatever comes."""
    return Mode("301", status=301, headers=(("Location", "/login"),), body=b"")


def garbage() -> Mode:
    """200 and a page that is no OTLP answer."""
    return Mode("garbage", headers=(("Content-Type", "text/html"),), body=b"<html>hello</html>")


def partial(rejected: int | None = None) -> Mode:
    """200 with a partial success: the last `rejected` of each batch, None for all, are not kept."""
    return Mode("partial success", rejected=rejected)


def rejecting_poison(code: int = 400) -> Mode:
    """This status to any batch with a record marked `test.poison`, a success to all others. 200: a
    partial success, so that of a batch whose poison is last, all else is kept."""
    return Mode("rejecting poison", poisoned=code)


class Accepted:
    """What was acknowledged. Sets and sums, so that it is small whatever arrives.

    in_order: the last value to arrive is the newest; else the one with the latest time is.
    """

    def __init__(self, *, in_order: bool = False) -> None:
        self.in_order = in_order
        self.spans: set[tuple[int, str]] = set()
        """(number, "server" or "child") of every numbered span."""
        self.logs: set[int] = set()
        self.sent_by: Counter[tuple[str, str]] = Counter()
        """Spans and log records by ("span" or "log", service.instance.id)."""
        self.span_total = 0
        self.log_total = 0
        self.duplicate_spans = 0
        self.duplicate_logs = 0
        self.negative_durations = 0
        self.decreases = 0
        self.span_names: set[str] = set()
        """Names of server spans."""
        self.durations_s: dict[tuple[int, str], float] = {}
        self.series: dict[str, set[object]] = defaultdict(set)
        """Distinct (instance, attributes) by instrument."""
        self._span_ids: set[bytes] = set()
        self._newest: dict[tuple[str, object], tuple[int, float]] = {}
        self._delta: Counter[tuple[str, object]] = Counter()

    def total(self, name: str, **attributes: str) -> float:
        """Sum of a counter, or of a histogram's counts, over instances and series.

        attributes: those a series must have, with `_` for the dots of their names.
        """
        wanted = {key.replace("_", "."): value for key, value in attributes.items()}
        return sum(
            value
            for (metric, (_, pairs)), value in self._values()
            if metric == name and wanted.items() <= dict(pairs).items()
        )

    def by_attribute(self, name: str, *keys: str) -> dict[tuple[object, ...], float]:
        """The same sum, by the values of the given attributes."""
        sums: Counter[tuple[object, ...]] = Counter()
        for (metric, (_, pairs)), value in self._values():
            if metric == name:
                found = dict(pairs)
                sums[tuple(found.get(key) for key in keys)] += value
        return dict(sums)

    def instances(self) -> set[str]:
        """service.instance.id of all that sent metrics."""
        return {instance for _, (instance, _) in self._newest}

    def _values(self):
        yield from ((key, value) for key, (_, value) in self._newest.items())
        yield from self._delta.items()

    def add(self, request, rejected: int) -> None:
        """Take in a batch less its last `rejected` records."""
        items = list(_items(request))
        for resource, item in items[: len(items) - rejected]:
            if isinstance(request, ExportTraceServiceRequest):
                self.sent_by["span", _instance(resource)] += 1
                self._add_span(item)
            elif isinstance(request, ExportLogsServiceRequest):
                self.sent_by["log", _instance(resource)] += 1
                self._add_log(item)
            else:
                self._add_metric(_instance(resource), item)

    def _add_span(self, span: Span) -> None:
        self.span_total += 1
        span_id = span.trace_id + span.span_id
        if span_id in self._span_ids:
            self.duplicate_spans += 1
            return
        self._span_ids.add(span_id)
        duration_ns = span.end_time_unix_nano - span.start_time_unix_nano
        self.negative_durations += duration_ns < 0
        is_server = span.kind == Span.SPAN_KIND_SERVER
        if is_server:
            self.span_names.add(span.name)
        number = _attributes(span).get(NUMBER)
        if isinstance(number, int):
            key = (number, "server" if is_server else "child")
            self.spans.add(key)
            self.durations_s[key] = duration_ns / 1e9

    def _add_log(self, record) -> None:
        self.log_total += 1
        number = _attributes(record).get(NUMBER)
        if not isinstance(number, int):
            found = _BODY.search(record.body.string_value)
            if found is None:
                return
            number = int(found[1])
        self.duplicate_logs += number in self.logs
        self.logs.add(number)

    def _add_metric(self, instance: str, metric) -> None:
        kind = metric.WhichOneof("data")
        if kind is None:
            return
        data = getattr(metric, kind)
        for point in data.data_points:
            series = (instance, tuple(sorted(_attributes(point).items(), key=repr)))
            self.series[metric.name].add(series)
            value = _value(kind, point)
            key = (metric.name, series)
            if kind != "gauge" and data.aggregation_temporality == _DELTA:
                self._delta[key] += value
                continue
            counts = kind != "gauge" and (kind != "sum" or data.is_monotonic)
            self._add_cumulative(key, point.time_unix_nano, value, counts)

    def _add_cumulative(self, key, at_ns: int, value: float, counts: bool) -> None:
        newest = self._newest.get(key)
        if newest is not None and not self.in_order:
            earlier, later = sorted([newest, (at_ns, value)], key=lambda each: each[0])
            self.decreases += counts and later[1] < earlier[1]
            if at_ns < newest[0]:
                return
        self._newest[key] = (at_ns, value)


class Sink:
    """Serves on one loopback port for its whole life, whatever its mode."""

    def __init__(self, *, in_order: bool = False) -> None:
        self.accepted = Accepted(in_order=in_order)
        self.lock = threading.Lock()
        self.mode = ok()
        self.posts = 0
        """Exports that were read, however they were answered."""
        self.undecodable = 0
        self._server: _Server | None = None
        self._held = hold_port()
        self.port = int(self._held.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def become(self, mode: Mode) -> None:
        """Answer so from now on; those who wait for the old mode's answer are let go."""
        before, self.mode = self.mode, mode
        before.over.set()
        if mode.listening:
            self._listen()
        else:
            self._stop_listening()

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.mode.over.set()
        self._stop_listening()
        self._held.close()

    def _listen(self) -> None:
        if self._server is None:
            self._server = _Server(self)
            threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.disconnect()
            self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._open: set[socket.socket] = set()
        super().__init__((HOST, sink.port), _Handler)

    def process_request(self, request, address) -> None:
        self._open.add(request)
        super().process_request(request, address)

    def shutdown_request(self, request) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def disconnect(self) -> None:
        for each in tuple(self._open):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client was quicker

    def handle_error(self, request, address) -> None:
        """Clients come and go here; what can't be decoded is counted by the handler."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        sink = self.server.sink
        sink.posts += 1
        mode = sink.mode
        if self.path not in REQUESTS:
            self._answer(200, (("Content-Type", "text/html"),), b"<html>log in</html>")
            return
        mode.over.wait(mode.delay_s)
        if mode.delay_s is None or not mode.listening:
            self.close_connection = True
            return
        try:
            request = REQUESTS[self.path].FromString(body)
        except DecodeError:
            sink.undecodable += 1
            self._answer(400, (), b"")
            return
        if mode.body is not None:
            self._answer(mode.status, mode.headers, mode.body)
            return
        poison = sum(POISON in _attributes(item) for _, item in _items(request))
        if mode.poisoned is None or not poison:
            self._accept(request, mode.rejected)
        elif mode.poisoned == 200:
            self._accept(request, poison)
        else:
            self._answer(mode.poisoned, (), b"")

    def do_GET(self) -> None:
        """Where a redirected POST ends, as most clients follow it."""
        self._answer(200, (("Content-Type", "text/html"),), b"<html>log in</html>")

    def _accept(self, request, rejected: int | None) -> None:
        count = sum(1 for _ in _items(request))
        rejected = count if rejected is None else min(rejected, count)
        answer = _response(request, rejected).SerializeToString()
        # Under the lock, so that who saw the client satisfied sees the records too.
        with self.server.sink.lock:
            self._answer(200, (("Content-Type", PROTOBUF),), answer)
            self.server.sink.accepted.add(request, rejected)

    def _answer(self, code: int, headers: tuple[tuple[str, str], ...], body: bytes) -> None:
        self.send_response(code)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent."""


def _response(request, rejected: int):
    if isinstance(request, ExportTraceServiceRequest):
        response = ExportTraceServiceResponse()
        name = "rejected_spans"
    elif isinstance(request, ExportLogsServiceRequest):
        response = ExportLogsServiceResponse()
        name = "rejected_log_records"
    else:
        response = ExportMetricsServiceResponse()
        name = "rejected_data_points"
    if rejected:
        setattr(response.partial_success, name, rejected)
        response.partial_success.error_message = "rejected by the test"
    return response


def _items(request):
    """(resource, span, log record or metric) of a request, in its order."""
    if isinstance(request, ExportTraceServiceRequest):
        for part in request.resource_spans:
            for scope in part.scope_spans:
                yield from ((part.resource, span) for span in scope.spans)
    elif isinstance(request, ExportLogsServiceRequest):
        for part in request.resource_logs:
            for scope in part.scope_logs:
                yield from ((part.resource, record) for record in scope.log_records)
    else:
        for part in request.resource_metrics:
            for scope in part.scope_metrics:
                yield from ((part.resource, metric) for metric in scope.metrics)


def _attributes(item) -> dict[str, object]:
    if not hasattr(item, "attributes"):
        return {}
    return {pair.key: _plain(pair.value) for pair in item.attributes}


def _plain(value) -> object:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    plain = getattr(value, kind)
    return plain if isinstance(plain, (str, int, float, bool, bytes)) else str(plain)


def _instance(resource) -> str:
    return str(_attributes(resource).get("service.instance.id"))


def _value(kind: str, point) -> float:
    if kind in ("sum", "gauge"):
        return float(getattr(point, point.WhichOneof("value") or "as_int"))
    return float(point.count)
