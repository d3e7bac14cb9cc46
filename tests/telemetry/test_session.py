"""WebSockets: the gauge, the two log records and the span of every way one can end."""

from __future__ import annotations

import asyncio

import pytest

import pbmon
from pbmon import runtime
from pbmon.testing import capture
from tests.telemetry.drive import raised, websocket

GAUGE = "pbmon.websocket.connections"


@pytest.fixture
def seen():
    with capture() as seen:
        yield seen
        assert pbmon.websocket_connections() == 0
        assert seen.metric(GAUGE) == 0


def start(route="/ws/{room}", **scope):
    record = runtime.active.requests.websocket(websocket("/ws/7", **scope))
    record.route = route
    return record


def test_a_websocket_from_handshake_to_close(seen):
    record = start()
    assert pbmon.websocket_connections() == 0
    record.accepted()
    assert pbmon.websocket_connections() == 1
    assert seen.metrics[GAUGE] == {(("http.route", "/ws/{room}"),): 1}
    seen.clock.advance(12.5)
    record.disconnected(1000)
    record.closed()
    (span,) = seen.spans
    assert (span.name, span.kind, span.status) == ("GET /ws/{room}", "SERVER", "UNSET")
    assert span.duration_s == 12.5
    assert span.attributes == {
        "http.request.method": "GET",
        "url.scheme": "ws",
        "url.path": "/ws/7",
        "network.protocol.version": "1.1",
        "server.address": "127.0.0.1",
        "server.port": 8000,
        "http.route": "/ws/{room}",
        "http.response.status_code": 101,
        "pbmon.websocket.close_code": 1000,
        "pbmon.websocket.connection_id": span.span_id,
    }
    assert "http.server.request.duration" not in seen.metrics
    connected, disconnected = seen.logs
    ids = {"trace_id": span.trace_id, "span_id": span.span_id}
    common = {"connection_id": span.span_id, "endpoint": "/ws/{room}", **ids}
    assert connected.fields == common | {"total_connections": 1}
    assert disconnected.fields == common | {"total_connections": 0, "code": 1000}
    assert connected.message == (
        f"WebSocket connected connection_id={span.span_id} total_connections=1 "
        "endpoint=/ws/{room}"
    )
    assert disconnected.message.startswith("WebSocket disconnected connection_id=")
    assert (connected.logger, connected.level) == ("pbmon.websocket", "INFO")


def test_a_refused_handshake_was_never_open(seen):
    record = start()
    record.disconnected(1006)
    record.closed()
    (span,) = seen.spans
    assert "http.response.status_code" not in span.attributes
    assert span.attributes["pbmon.websocket.close_code"] == 1006
    assert seen.logs == []
    assert GAUGE not in seen.metrics


def test_an_exception_of_the_application(seen):
    record = start()
    record.accepted()
    record.failed(raised(KeyError("a secret")))
    record.closed()
    (span,) = seen.spans
    assert (span.status, span.attributes["error.type"]) == ("ERROR", "KeyError")
    assert span.attributes["http.response.status_code"] == 101
    assert span.events[0][0] == "exception"
    assert "a secret" not in str(span.events)
    assert seen.logs[-1].fields["code"] is None
    assert seen.logs[-1].message.endswith(" code=-")
    (entry,) = seen.entries
    assert (entry.error_type, entry.route, entry.trace_id) == (
        "KeyError", "/ws/{room}", span.trace_id,
    )  # fmt: skip


def test_an_exception_before_the_handshake(seen):
    record = start()
    record.failed(raised(KeyError()))
    record.closed()
    assert (seen.spans[0].status, len(seen.logs)) == ("ERROR", 0)


def test_cancelled_is_no_error(seen):
    record = start()
    record.accepted()
    record.failed(asyncio.CancelledError())
    record.closed()
    assert (seen.spans[0].status, seen.spans[0].events) == ("UNSET", ())
    assert seen.entries == []


def test_no_route_no_attribute(seen):
    record = start(route=None)
    record.accepted()
    assert seen.metrics[GAUGE] == {(): 1}
    record.closed()
    assert seen.spans[0].name == "GET"
    assert seen.logs[0].message.endswith(" endpoint=-")


def test_many_are_counted_each(seen):
    records = [start(route=f"/ws/{n % 2}") for n in range(10)]
    for record in records:
        record.accepted()
    assert seen.metrics[GAUGE] == {(("http.route", f"/ws/{n}"),): 5 for n in range(2)}
    assert [log.fields["total_connections"] for log in seen.logs] == list(range(1, 11))
    for record in reversed(records):
        record.closed()
    assert [log.fields["total_connections"] for log in seen.logs[10:]] == list(range(9, -1, -1))
    assert len({log.fields["connection_id"] for log in seen.logs}) == 10


def test_a_scope_without_a_scheme_is_ws(seen):
    scope = websocket("/ws/7")
    del scope["scheme"]
    runtime.active.requests.websocket(scope).closed()
    assert seen.spans[0].attributes["url.scheme"] == "ws"
