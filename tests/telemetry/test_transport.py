"""The transport: what an answer means, and what a request carries."""

from __future__ import annotations

import gzip
import json
import logging
import os
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from requests.structures import CaseInsensitiveDict

from pbmon import catalog, outbound, signals
from pbmon.settings import resolve
from pbmon.telemetry import transport
from pbmon.telemetry.transport import GRPCTransport, HTTPTransport, judge
from tests.stack.process import HOST
from tests.telemetry import certificates
from tests.telemetry.answers import CLOSE, RESET, Answers, http
from tests.telemetry.receiver import closed_port, hanging, unknown_host

NOWHERE = Path("/nonexistent")
PROTOBUF = "application/x-protobuf"
JSON = "application/json"
SECRET = "hunter2"


@pytest.fixture(autouse=True)
def environ(monkeypatch):
    """The environment without any OTEL_ variable; and nothing told yet."""
    for name in list(os.environ):
        if name.startswith(("OTEL_", "PBMON_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(signals, "_last_told", {})
    return monkeypatch


def settings(url):
    return resolve({"endpoint": url}, None, NOWHERE)[0]


@contextmanager
def connected(url, signal="traces"):
    made = HTTPTransport(signal, settings(url))
    try:
        yield made
    finally:
        made.close()


def send(url, body=b"x"):
    with connected(url) as made:
        return made.send(body)


def told(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "pbmon.internal"]


# --- judge --------------------------------------------------------------------------------------


def partial(signal="traces", rejected=0, message=""):
    kind, field = {
        "traces": (ExportTraceServiceResponse, "rejected_spans"),
        "metrics": (ExportMetricsServiceResponse, "rejected_data_points"),
        "logs": (ExportLogsServiceResponse, "rejected_log_records"),
    }[signal]
    return kind(partial_success={field: rejected, "error_message": message}).SerializeToString()


def answered(status=200, content_type=PROTOBUF, body=b"", signal="traces", **headers):
    head = CaseInsensitiveDict({"content-type": content_type, **headers})
    return judge(signal, status, head, body)


@pytest.mark.parametrize("status", [200, 202, 204, 299])
@pytest.mark.parametrize("content_type", [PROTOBUF, JSON, "text/html", ""])
def test_a_success_without_a_body_is_taken(status, content_type):
    answer = answered(status, content_type)
    assert (answer.taken, answer.rejected, answer.status) == (True, 0, status)


@pytest.mark.parametrize(
    ("content_type", "body", "rejected", "reason"),
    [
        (PROTOBUF, partial(rejected=3, message="too old"), 3, "too old"),
        (PROTOBUF, partial(message="only a warning"), 0, "only a warning"),
        (f"{PROTOBUF.upper()}; charset=utf-8", partial(rejected=1), 1, ""),
        (JSON, b"{}", 0, ""),
        (f"{JSON};charset=utf-8", b'{"partialSuccess": null}', 0, ""),
        (JSON, b'{"partialSuccess": {}}', 0, ""),
        (JSON, b'{"partialSuccess": {"rejectedSpans": "7", "errorMessage": "old"}}', 7, "old"),
        (JSON, b'{"partialSuccess": {"rejectedSpans": 7}}', 7, ""),
    ],
)
def test_a_success_says_how_many_it_rejects(content_type, body, rejected, reason):
    answer = answered(200, content_type, body)
    assert (answer.taken, answer.rejected, answer.reason) == (True, rejected, reason)


@pytest.mark.parametrize(
    ("signal", "field"),
    [
        ("traces", "rejectedSpans"),
        ("metrics", "rejectedDataPoints"),
        ("logs", "rejectedLogRecords"),
    ],
)
def test_each_signal_has_its_own_field(signal, field):
    assert answered(body=partial(signal, 5), signal=signal).rejected == 5
    text = json.dumps({"partialSuccess": {field: "6"}}).encode()
    assert answered(200, JSON, text, signal).rejected == 6


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/html", b"<html>log in</html>"),
        (PROTOBUF, b"<html>log in</html>"),
        (JSON, b"<html>log in</html>"),
        ("", partial(rejected=1)),
        ("application/octet-stream", partial(rejected=1)),
        (PROTOBUF, partial(rejected=300, message="cut short")[:-1]),
        (PROTOBUF, partial(rejected=300)[:3]),
        (PROTOBUF, partial(rejected=-1)),
        (JSON, partial(rejected=1)),
        (JSON, b'{"partialSuccess": {"rejectedSpans": -1}}'),
        (JSON, b'{"partialSuccess": {"rejectedSpans": "many"}}'),
        (JSON, b'{"partialSuccess": {"rejectedSpans": 1e999}}'),
        (JSON, b'{"partialSuccess": [1]}'),
        (JSON, b"[]"),
        (JSON, b"null"),
        (JSON, b"\xff"),
        (JSON, b"[" * 50_000),
    ],
)
def test_a_success_with_any_other_body_is_none(content_type, body):
    answer = answered(200, content_type, body)
    assert not answer.taken
    assert not answer.bad_data
    assert answer.reason == "status 200 with a body that is no OTLP response"


@pytest.mark.parametrize(
    ("status", "bad_data", "reason"),
    [
        (100, False, "status 100"),
        (199, False, "status 199"),
        (301, False, "status 301"),
        (304, False, "status 304"),
        (400, True, "400 bad request"),
        (401, False, "401 unauthorized"),
        (403, False, "403 forbidden"),
        (404, False, "404 not found"),
        (405, False, "status 405"),
        (413, True, "413 content too large"),
        (415, False, "status 415"),
        (422, True, "status 422"),
        (429, False, "429 too many requests"),
        (500, False, "500 internal server error"),
        (502, False, "502 bad gateway"),
        (503, False, "503 unavailable"),
        (504, False, "504 gateway timeout"),
        (599, False, "status 599"),
    ],
)
def test_any_other_status_is_a_failure_whatever_its_body_says(status, bad_data, reason):
    answer = answered(status, body=partial(message=SECRET))
    assert (answer.taken, answer.bad_data, answer.status) == (False, bad_data, status)
    assert answer.reason == reason
    assert answer.retry_after_s is None


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("7", 7.0), ("0", 0.0), ("1.5", 1.5), (" 2 ", 2.0), ("-5", 0.0), ("301", 300.0),
        ("1e999", 300.0), ("99999999999999999999", 300.0), ("inf", 300.0), ("-inf", 0.0),
        ("nan", None), ("", None), ("soon", None), ("Wed, 99 Foo 2026", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),  # gone
        ("Wed, 21 Oct 9999 07:28:00 GMT", 300.0),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None),
        (None, None),
    ],
)  # fmt: skip
def test_retry_after(value, wait_s):
    assert outbound.retry_after_s(value, 300) == wait_s
    headers = {} if value is None else {"RETRY-AFTER": value}
    assert answered(503, **headers).retry_after_s == wait_s


def test_retry_after_as_a_date_is_the_time_until_then():
    wait_s = outbound.retry_after_s(formatdate(time.time() + 60, usegmt=True))
    assert 50 < wait_s <= 60


# --- the variables ------------------------------------------------------------------------------


def test_headers_of_a_signal_win_over_those_of_all(environ):
    environ.setenv("OTEL_EXPORTER_OTLP_HEADERS", "a=1,b=two%20words")
    environ.setenv("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "c=3")
    assert transport.headers("traces") == {"a": "1", "b": "two words"}
    assert transport.headers("logs") == {"c": "3"}


def test_a_malformed_header_is_left_out_and_never_repeated(environ, caplog):
    environ.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization Bearer {SECRET},x-tenant=shop")
    assert transport.headers("traces") == {"x-tenant": "shop"}
    assert "Header format invalid" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, 10.0), (" ", 10.0), ("3", 3.0), ("0.25", 0.25), ("999", 999.0), ("10000", 10.0),
     ("1000", 1.0)],
)  # fmt: skip
def test_timeout(environ, value, seconds):
    if value is not None:
        environ.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", value)
    assert transport.timeout_s("traces") == seconds
    environ.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2")
    assert transport.timeout_s("traces") == 2


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf"])
def test_a_timeout_that_is_none_is_one_line(environ, caplog, value):
    environ.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", value)
    assert [transport.timeout_s("traces"), transport.timeout_s("logs")] == [10.0, 10.0]
    (line,) = told(caplog)
    assert f"OTEL_EXPORTER_OTLP_TIMEOUT={value} is no time; set seconds, such as 10" in line


@pytest.mark.parametrize(
    ("url", "value", "used"),
    [
        ("http://localhost:4318", None, "none"),
        ("http://127.9.8.7:4318", None, "none"),
        ("http://[::1]:4318", None, "none"),
        ("http://collector:4318", None, "gzip"),
        ("http://1270.0.0.1", None, "gzip"),
        ("http://localhost.example", None, "gzip"),
        ("http://localhost:4318", "gzip", "gzip"),
        ("http://collector", "none", "none"),
        ("http://collector", "Deflate", "deflate"),
        ("http://localhost", "zstd", "gzip"),
    ],
)
def test_compression(environ, caplog, url, value, used):
    if value is not None:
        environ.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", value)
    assert transport.compression("traces", url) == used
    assert len(told(caplog)) == (value == "zstd")


def test_spread_is_within_half_and_whole():
    drawn = [transport.spread(10.0) for _ in range(2000)]
    assert 5.0 <= min(drawn) < 5.2
    assert 9.8 < max(drawn) <= 10.0


# --- HTTP ---------------------------------------------------------------------------------------


def test_a_request_and_its_headers(environ):
    environ.setenv(
        "OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc,content-type=text/plain"
    )
    with Answers(http(body=partial(rejected=2), Content_Type=PROTOBUF)) as server:
        answer = send(server.url, b"payload")
        assert (answer.taken, answer.rejected, answer.status) == (True, 2, 200)
        assert server.heads[0].startswith(b"POST /v1/traces HTTP/1.1\r\n")
        assert server.bodies == [b"payload"]
        assert server.header("Authorization") == "Bearer abc"
        assert server.header("Content-Type") == PROTOBUF  # what the body is, whatever was set
        assert server.header("User-Agent") == f"pbmon/{catalog.VERSION}"
        assert server.header("Content-Encoding") is None


def test_the_users_own_agent_is_sent(environ):
    environ.setenv("OTEL_EXPORTER_OTLP_HEADERS", "user-agent=shop")
    with Answers(http()) as server:
        send(server.url)
        assert server.header("User-Agent") == "shop"


def test_the_credentials_of_a_url_are_sent_and_not_shown():
    with Answers(http()) as server:
        with connected(server.url.replace("://", f"://app:{SECRET}@")) as made:
            assert made.send(b"x").taken
            assert made.where == f"http://REDACTED@{HOST}:{server.port}/v1/traces"
        assert server.header("Authorization").startswith("Basic ")


@pytest.mark.parametrize(
    ("name", "read"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)]
)
def test_compressed(environ, name, read):
    environ.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", name)
    with Answers(http()) as server:
        assert send(server.url, b"abc" * 1000).taken
        assert server.header("Content-Encoding") == name
        assert len(server.bodies[0]) < 300
        assert read(server.bodies[0]) == b"abc" * 1000


def test_a_compressed_answer_is_read():
    body = gzip.compress(partial(rejected=2))
    with Answers(http(body=body, Content_Type=PROTOBUF, Content_Encoding="gzip")) as server:
        assert send(server.url).rejected == 2
    with Answers(http(body=b"no gzip", Content_Type=PROTOBUF, Content_Encoding="gzip")) as server:
        answer = send(server.url)
        assert not answer.taken
        assert answer.reason


def test_a_redirect_is_not_followed():
    with Answers(http()) as other:
        with Answers(http(307, Location=other.url)) as server:
            answer = send(server.url)
            assert (answer.taken, answer.status) == (False, 307)
            assert len(server.bodies) == 1
        assert other.heads == []


@pytest.mark.parametrize(
    "answer",
    [
        http(),
        http(500, b"a page " * 100),
        http(body=partial(rejected=1), Content_Type=PROTOBUF),
        http(body=b"<html>", Content_Type="text/html"),
        http(Content_Length="", Transfer_Encoding="chunked").replace(b"Content-Length: \r\n", b"")
        + b"2\r\n{}\r\n0\r\n\r\n",
    ],
)
def test_one_connection_carries_all_requests(answer):
    with Answers(answer) as server, connected(server.url) as made:
        for _ in range(3):
            made.send(b"x")
        assert len(server.bodies) == 3
        assert server.connections == 1


def test_a_huge_answer_is_not_read_whole():
    size = 50 * 1024 * 1024
    with Answers(http(500, b"x" * size), http()) as server, connected(server.url) as made:
        assert made.send(b"x").status == 500
        assert made.send(b"x").taken  # on a connection of its own
        assert server.sent < size / 2


def test_a_small_answer_that_unpacks_to_a_huge_one_is_not_unpacked_whole():
    body = gzip.compress(b"\n" * 50 * 1024 * 1024)
    with Answers(http(body=body, Content_Type=PROTOBUF, Content_Encoding="gzip")) as server:
        assert not send(server.url).taken


@pytest.mark.parametrize(
    ("ending", "causes"),
    [
        (RESET, {"connection reset", "connection closed without an answer"}),
        (CLOSE, {"connection closed without an answer", "connection reset"}),
        (b"no HTTP at all\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nhalf", None),
    ],
)
def test_a_broken_connection_is_a_failure_and_the_next_request_has_a_new_one(ending, causes):
    with Answers(ending, http()) as server, connected(server.url) as made:
        answer = made.send(b"x")
        assert (answer.taken, answer.bad_data, answer.nobody_there) == (False, False, False)
        assert answer.reason in causes if causes else answer.reason
        if ending not in (RESET, CLOSE):
            server._open[0].close()
        assert made.send(b"x").taken


def test_a_connection_that_was_closed_between_requests_costs_no_failure():
    """As a keep-alive timeout does; a request that was not begun is safe to begin again."""
    with Answers(http(Connection="close")) as server, connected(server.url) as made:
        assert [made.send(b"x").taken for _ in range(3)] == [True] * 3


def test_nobody_listens():
    answer = send(closed_port())
    assert (answer.taken, answer.reason, answer.nobody_there) == (
        False, "connection refused", True,
    )  # fmt: skip


def test_no_such_host(monkeypatch):
    answer = send(unknown_host(monkeypatch))
    assert not answer.taken
    assert (answer.reason, answer.nobody_there) == ("unknown host", True)


def test_no_answer_within_the_time(environ):
    environ.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    with hanging() as url:
        began_s = time.monotonic()
        answer = send(url)
        assert 0.19 < time.monotonic() - began_s < 9  # of 10 by default
        assert (answer.taken, answer.reason, answer.nobody_there) == (False, "timed out", False)


@pytest.mark.parametrize(
    "answer",
    [http(500, b"x" * 20_000), http(body=b"x" * 20_000, Content_Type=PROTOBUF)],
    ids=["failure", "success"],
)
def test_an_answer_that_comes_byte_by_byte_is_not_waited_for(environ, answer):
    environ.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
    with Answers(answer, drip_s=0.01) as server:
        began_s = time.monotonic()
        assert not send(server.url).taken
        assert time.monotonic() - began_s < 30  # of 200


@pytest.mark.parametrize("word", ["%0Ax:%20y", "%E2%82%AC"])
def test_a_header_that_can_not_be_sent_is_a_failure_without_its_value(environ, caplog, word):
    environ.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization={SECRET}{word}")
    with caplog.at_level(logging.DEBUG), Answers(http()) as server:
        answer = send(server.url)
    assert not answer.taken
    assert SECRET not in caplog.text + repr(answer)


def test_no_failure_shows_a_password_or_a_header(environ, caplog):
    environ.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization={SECRET}")
    environ.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    with (
        caplog.at_level(logging.INFO),
        hanging() as silent,
        Answers(RESET) as reset,
        Answers(http(401, SECRET.encode())) as refusing,
    ):
        unknown = unknown_host(environ)
        for url in (silent, reset.url, refusing.url, closed_port(), unknown):
            with connected(url.replace("://", f"://app:{SECRET}@")) as made:
                answer = made.send(b"x")
                assert not answer.taken
                assert SECRET not in repr(answer) + made.where
    assert SECRET not in caplog.text


# --- TLS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    return certificates.make(tmp_path_factory.mktemp("certificates"))


CERTIFICATE = "OTEL_EXPORTER_OTLP_CERTIFICATE"
NOT_ACCEPTED = "TLS certificate not accepted"


def test_a_certificate_of_an_unknown_authority_is_not_accepted(environ, signed):
    with Answers(http(), tls=signed.server_side(wants_client=False)) as server:
        answer = send(server.url)
        assert (answer.taken, answer.reason) == (False, NOT_ACCEPTED)
        environ.setenv(CERTIFICATE, signed.ca)
        assert send(server.url).taken
        environ.setenv("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", signed.client)
        assert send(server.url).reason == NOT_ACCEPTED  # the signal's own wins
        environ.setenv("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/nonexistent.pem")
        assert send(server.url).reason == NOT_ACCEPTED


def test_the_applications_own_bundle_does_not_replace_the_certificate(environ, signed):
    environ.setenv("REQUESTS_CA_BUNDLE", signed.client)
    environ.setenv(CERTIFICATE, signed.ca)
    with Answers(http(), tls=signed.server_side(wants_client=False)) as server:
        assert send(server.url).taken


def test_a_client_certificate(environ, signed):
    environ.setenv(CERTIFICATE, signed.ca)
    with Answers(http(), tls=signed.server_side(wants_client=True)) as server:
        assert not send(server.url).taken
        environ.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", signed.client)
        environ.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", signed.client_key)
        assert send(server.url).taken


# --- gRPC ---------------------------------------------------------------------------------------


class Service(TraceServiceServicer):
    """answer: rejected spans, or a status code to refuse with."""

    def __init__(self):
        self.answer = 0
        self.arrived = []
        self.metadata = []

    def Export(self, request, context):
        self.metadata.append(dict(context.invocation_metadata()))
        if not isinstance(self.answer, int):
            context.abort(self.answer, f"no, {SECRET}")
        self.arrived.append(request)
        return ExportTraceServiceResponse(
            partial_success={"rejected_spans": self.answer, "error_message": "m" * self.answer}
        )


@contextmanager
def serving(service, credentials=None):
    """Yields the port."""
    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(service, server)
    if credentials is None:
        port = server.add_insecure_port(f"{HOST}:0")
    else:
        port = server.add_secure_port(f"{HOST}:0", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


@contextmanager
def connected_by_grpc(url):
    made = transport.connect("traces", settings(url))
    assert isinstance(made, GRPCTransport)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def grpc_protocol(environ):
    environ.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    environ.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "5")


BODY = ExportTraceServiceRequest(
    resource_spans=[{"scope_spans": [{"spans": [{"name": "one"}]}]}]
).SerializeToString()


def test_grpc_answers(environ, grpc_protocol):
    environ.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc")
    service = Service()
    with serving(service) as port, connected_by_grpc(f"http://{HOST}:{port}") as made:
        answer = made.send(BODY)
        assert (answer.taken, answer.rejected) == (True, 0)
        assert service.arrived[0].SerializeToString() == BODY
        assert service.metadata[0]["authorization"] == "Bearer abc"
        assert made.send(b"").taken

        service.answer = 3
        answer = made.send(BODY)
        assert (answer.taken, answer.rejected, answer.reason) == (True, 3, "mmm")

        for code, bad_data in [
            (grpc.StatusCode.INVALID_ARGUMENT, True),
            (grpc.StatusCode.UNAVAILABLE, False),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, False),
            (grpc.StatusCode.UNAUTHENTICATED, False),
            (grpc.StatusCode.INTERNAL, False),
        ]:
            service.answer = code
            answer = made.send(BODY)
            assert (answer.taken, answer.bad_data, answer.nobody_there) == (False, bad_data, False)
            assert answer.reason == code.name  # and not what the receiver says, which may be ours
        assert not made.send(b"\xff\xff").taken  # no request at all


def test_grpc_nobody_listens(grpc_protocol):
    with connected_by_grpc(closed_port()) as made:
        answer = made.send(BODY)
        assert (answer.taken, answer.nobody_there) == (False, True)
        assert answer.reason == "UNAVAILABLE, connection refused"


def test_grpc_no_answer_within_the_time(environ, grpc_protocol):
    environ.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "300")  # milliseconds are known only from 1000 up
    environ.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0.3")
    with hanging() as url, connected_by_grpc(url) as made:
        began_s = time.monotonic()
        answer = made.send(BODY)
        assert time.monotonic() - began_s < 30  # of 300
        assert (answer.taken, answer.nobody_there) == (False, False)


def test_grpc_reads_milliseconds_as_http_does(environ, grpc_protocol):
    environ.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")
    with hanging() as url, connected_by_grpc(url) as made:
        began_s = time.monotonic()
        assert not made.send(BODY).taken
        assert time.monotonic() - began_s < 10


def test_grpc_over_tls(environ, grpc_protocol, signed):
    pair = Path(signed.server_key).read_bytes(), Path(signed.server).read_bytes()
    credentials = grpc.ssl_server_credentials([pair])
    service = Service()
    with serving(service, credentials) as port:
        environ.setenv(CERTIFICATE, signed.ca)
        with connected_by_grpc(f"https://{HOST}:{port}") as made:
            assert made.send(BODY).taken
    assert len(service.arrived) == 1


@pytest.mark.parametrize(
    ("name", "protocol", "kind"),
    [
        ("otlp", "", HTTPTransport),
        ("otlp", "grpc", GRPCTransport),
        ("otlp_proto_http", "grpc", HTTPTransport),
        ("otlp_proto_grpc", "http/protobuf", GRPCTransport),
    ],
)
def test_connect(environ, name, protocol, kind):
    environ.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    made = transport.connect("traces", settings("http://localhost:4318"), name)
    assert type(made) is kind
    made.close()
