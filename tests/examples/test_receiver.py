"""The OTLP receiver of the demo, over real HTTP."""

from __future__ import annotations

import gzip
import http.client
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler

import pytest

from examples.pocketbook.receiver import Forwarder, Receiver
from pbmon import catalog
from tests.examples.otlp import Export
from tests.stack.process import wait_until


@pytest.fixture
def receiver():
    with Receiver() as receiver:
        yield receiver


def post(receiver, path, body, **headers):
    host = receiver.endpoint.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=5)
    connection.request("POST", path, body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


def body(routes=("/a",), instance="one"):
    export = Export(instance)
    for route in routes:
        export.request(route, 0.5)
    return export.traces.SerializeToString()


def routes(receiver):
    return [span.attributes[catalog.ROUTE.name] for span in receiver.telemetry.spans]


def test_spans_are_kept(receiver):
    assert post(receiver, "/v1/traces", body(["/a", "/b"])) == 200
    assert routes(receiver) == ["/a", "/b"]
    assert receiver.telemetry.spans[0].duration_s == 0.5


def test_compressed_bodies_are_read(receiver):
    headers = {"Content-Encoding": "gzip"}
    assert post(receiver, "/v1/traces", gzip.compress(body()), **headers) == 200
    assert routes(receiver) == ["/a"]


def test_an_export_sent_twice_counts_once(receiver):
    for _ in range(2):
        post(receiver, "/v1/traces", body())
    assert routes(receiver) == ["/a"]
    post(receiver, "/v1/traces", body(instance="two"))
    assert routes(receiver) == ["/a", "/a"]


def test_the_newest_value_of_a_series_counts_and_processes_add_up(receiver):
    def export(instance, number, at):
        made = Export(instance).series(catalog.TRANSACTIONS, number, {}, at=at)
        return made.metrics.SerializeToString()

    for instance, number, at in [("one", 5, 2), ("one", 9, 3), ("one", 7, 2), ("two", 10, 1)]:
        assert post(receiver, "/v1/metrics", export(instance, number, at)) == 200
    assert receiver.telemetry.totals(catalog.TRANSACTIONS) == {(): 19}
    assert receiver.telemetry.latest(catalog.TRANSACTIONS) == {(): 9}


# Without a time in its header: pytest names the case after these bytes, in every worker alike.
CUT_SHORT = gzip.compress(b"x" * 99, mtime=0)[:-9]


@pytest.mark.parametrize(
    ("path", "content", "headers", "status"),
    [
        ("/v1/traces", b"\xff\xff nonsense", {}, 400),
        ("/v1/metrics", b"\xff\xff nonsense", {}, 400),
        ("/v1/traces", b"no gzip", {"Content-Encoding": "gzip"}, 400),
        ("/v1/traces", CUT_SHORT, {"Content-Encoding": "gzip"}, 400),
        ("/v1/nothing", b"", {}, 404),
        ("/v2/traces", b"", {}, 404),
        ("/v1/traces", b"", {"Content-Length": "999999999999"}, 413),
        ("/v1/traces", b"", {"Content-Length": "x"}, 411),
    ],
)
def test_what_is_no_export_is_refused_and_the_next_one_taken(
    receiver, path, content, headers, status
):
    assert post(receiver, path, content, **headers) == status
    assert post(receiver, "/v1/traces", body()) == 200
    assert routes(receiver) == ["/a"]


def test_a_sender_that_goes_away_is_not_talked_about(receiver, capfd):
    before = set(threading.enumerate())  # other tests' connections may still be ending
    address = ("127.0.0.1", int(receiver.endpoint.rpartition(":")[2]))
    with socket.create_connection(address) as sender:
        sender.sendall(b"POST /v1/traces HTTP/1.1\r\nContent-Length: 1000\r\n\r\nhalf")
        # No lingering: close() resets the connection.
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert post(receiver, "/v1/traces", body()) == 200
    assert routes(receiver) == ["/a"]
    wait_until(
        lambda: not [t for t in set(threading.enumerate()) - before if "process_request" in t.name],
        "the end of the connections",
    )
    assert capfd.readouterr().err == ""


# --- handing on ---------------------------------------------------------------------------------


def test_a_collector_gets_the_same_bytes_and_the_users_headers(monkeypatch):
    got, seen = [], []
    parse = BaseHTTPRequestHandler.parse_request

    def remember(handler):
        parsed = parse(handler)
        seen.append(handler.headers)
        return parsed

    monkeypatch.setattr(BaseHTTPRequestHandler, "parse_request", remember)

    class Collector(Receiver):
        def take(self, signal, body, headers):
            got.append((signal, body))
            super().take(signal, body, headers)

    with Collector() as collector:
        forwarder = Forwarder(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint + "/",
                "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=one",
            }
        )
        forwarder.start()
        assert forwarder.listening
        probes = len(got)
        packed = gzip.compress(body())
        with Receiver(forwarder) as receiver:
            post(receiver, "/v1/traces", packed, **{"Content-Encoding": "gzip"})
            post(receiver, "/v1/logs", b"")
        forwarder.close()
        assert got[probes:] == [("traces", packed), ("logs", b"")]
        assert [headers["X-Tenant"] for headers in seen].count("one") == len(got)
        assert collector.telemetry.spans == receiver.telemetry.spans
        assert (forwarder.sent, forwarder.failed) == (2, 0)
        assert "gets everything" in forwarder.describe()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_without_a_collector_the_line_says_so_without_the_password():
    endpoint = f"http://user:sec/ret@127.0.0.1:{free_port()}"
    forwarder = Forwarder({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
    forwarder.start()
    assert not forwarder.listening
    line = forwarder.describe()
    assert line.startswith("No OTLP/HTTP collector answers at http://127.0.0.1:")
    assert "\n" not in line
    assert "sec" not in line
    with Receiver(forwarder) as receiver:
        assert post(receiver, "/v1/traces", body()) == 200
        assert routes(receiver) == ["/a"]
    forwarder.close()


def test_what_speaks_no_http_is_no_collector():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            taken, _ = server.accept()
            taken.sendall(b"\x00\x00\x12\x04 settings, as gRPC sends them\n")
            taken.recv(65536)
            taken.close()

        thread = threading.Thread(target=answer)
        thread.start()
        port = server.getsockname()[1]
        forwarder = Forwarder({"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"})
        forwarder.start()
        thread.join()
    assert not forwarder.listening


def test_a_collector_that_ends_is_told_of():
    with Receiver() as collector:
        forwarder = Forwarder({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint})
        forwarder.start()
    forwarder.put("traces", body(), {})
    forwarder.close()
    assert "refused 1 of the exports" in forwarder.describe()


def test_the_endpoint_of_one_signal_wins_and_the_default_is_the_conventions():
    assert Forwarder({})._urls["metrics"] == "http://localhost:4318/v1/metrics"
    given = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/own"}
    assert Forwarder(given)._urls["traces"] == "http://t/own"


@pytest.mark.parametrize("endpoint", ["localhost:1", "http://[", "http://h:x", "nonsense"])
def test_an_unusable_endpoint_is_as_none(endpoint):
    forwarder = Forwarder({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
    forwarder.start()
    assert not forwarder.listening
    assert forwarder.describe().startswith("No OTLP/HTTP collector")
