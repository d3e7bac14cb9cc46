"""error_middleware(): one answer for what nobody handled, that says nothing but an id."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

import pbmon
from pbmon.business.error_middleware import ErrorMiddleware
from pbmon.runtime import PEER, RECORD
from pbmon.spool.entries import Failure
from pbmon.testing import capture
from tests.hooks.recorder import call, scope, serving
from tests.stack.process import wait_until

CANARY = "canary.4711@example.com"
INBOUND = "0e6f:REQ-42"


async def fail(request):
    raise KeyError(CANARY)


async def fine(request):
    return JSONResponse({"fine": True})


async def torn(request):
    async def parts():
        yield b"part"
        raise KeyError(CANARY)

    return StreamingResponse(parts())


async def missing(request):
    raise HTTPException(404)


async def cancelled(request):
    raise asyncio.CancelledError


async def refuses(socket):
    raise KeyError(CANARY)


async def breaks(socket):
    await socket.accept()
    raise KeyError(CANARY)


async def waits(socket):
    await socket.accept()
    await socket.receive()
    raise KeyError(CANARY)


ROUTES = [
    *(Route(f"/{view.__name__}/{{id}}", view) for view in (fail, fine, torn, missing, cancelled)),
    *(WebSocketRoute(f"/{view.__name__}", view) for view in (refuses, breaks, waits)),
]


def within():
    app = Starlette(routes=ROUTES)
    app.add_middleware(pbmon.error_middleware)
    return app


def around():
    return pbmon.error_middleware(Starlette(routes=ROUTES))


@pytest.fixture
def seen():
    with capture() as seen:
        yield seen


def ask(app, path, *, method="GET", client=("127.0.0.1", 1), **headers):
    async def go():
        transport = httpx.ASGITransport(app, client=client)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as made:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            return await made.request(method, path, headers=sent)

    return asyncio.run(go())


def failures(seen):
    return [entry for entry in seen.entries if isinstance(entry, Failure)]


def test_an_exception_becomes_an_answer_with_the_trace_id(seen):
    answer = ask(within(), "/fail/7")
    (span,) = seen.spans
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == span.trace_id
    assert answer.json() == {
        "error": {"message": "Internal server error", "requestId": span.trace_id}
    }
    assert (span.status, span.attributes["http.response.status_code"]) == ("ERROR", 500)
    assert (span.attributes["error.type"], span.attributes["http.route"]) == (
        "KeyError", "/fail/{id}",
    )  # fmt: skip
    assert [name for name, _ in span.events] == ["exception"]
    (entry,) = failures(seen)
    assert (entry.route, entry.trace_id, entry.errors) == ("/fail/{id}", span.trace_id, 1)
    assert seen.metric("pbmon.errors", error__type="KeyError") == 1
    (log,) = (log for log in seen.logs if log.logger == "pbmon.errors")
    assert log.level == "ERROR"
    assert span.trace_id in log.message
    assert " in fail" in log.message
    assert CANARY not in answer.text + str(seen.spans) + str(seen.logs) + str(seen.entries)


def test_around_an_application_that_nobody_observes_the_id_is_random(seen):
    """As with the hooks off; the application within is then the layer that is observed."""

    async def raw(scope, receive, send):
        raise KeyError(CANARY)

    answers = [ask(pbmon.error_middleware(raw), "/x") for _ in range(2)]
    ids = {answer.json()["error"]["requestId"] for answer in answers}
    assert len(ids) == 2
    assert all(len(each) == 32 for each in ids)
    assert len(failures(seen)) == 2


def test_before_configure_it_answers_too():
    answer = ask(within(), "/fail/7")
    assert (answer.status_code, len(answer.headers["x-request-id"])) == (500, 32)


def test_what_is_answered_passes(seen):
    assert ask(within(), "/fine/1").json() == {"fine": True}
    assert ask(within(), "/missing/1").status_code == 404
    assert failures(seen) == []


def test_after_the_head_it_goes_on_to_the_server(seen):
    with pytest.raises(KeyError):
        ask(within(), "/torn/1")
    assert len(failures(seen)) == 1


def test_around_a_framework_that_answers_itself_that_is_its_answer(seen):
    with pytest.raises(KeyError):
        ask(around(), "/fail/7")
    assert len(failures(seen)) == 1


def test_a_cancellation_passes(seen):
    with pytest.raises(asyncio.CancelledError):
        ask(within(), "/cancelled/1")
    assert failures(seen) == []


def test_the_answer_to_head_has_no_body(seen):
    answer = ask(within(), "/fail/7", method="HEAD")
    assert (answer.status_code, answer.content) == (500, b"")
    body = {"error": {"message": "Internal server error", "requestId": "0" * 32}}
    assert int(answer.headers["content-length"]) == len(json.dumps(body))


# --- the id it is named by ---


@pytest.mark.parametrize("client", [("127.0.0.1", 1), ("10.1.2.3", 1), None])
def test_a_trusted_peer_may_name_the_request(seen, client):
    answer = ask(within(), "/fail/7", client=client, x_request_id=INBOUND)
    assert answer.json()["error"]["requestId"] == answer.headers["x-request-id"] == INBOUND


def test_another_may_not(seen):
    answer = ask(within(), "/fail/7", client=("8.8.8.8", 1), x_request_id=INBOUND)
    assert answer.headers["x-request-id"] == seen.spans[0].trace_id


def test_the_peer_is_that_of_the_connection_whatever_a_proxy_header_says(seen):
    inner = within()

    async def behind_proxy_headers(scope, receive, send):
        await inner({**scope, PEER: ("8.8.8.8", 1)}, receive, send)

    answer = ask(behind_proxy_headers, "/fail/7", x_request_id=INBOUND)
    assert answer.headers["x-request-id"] == seen.spans[0].trace_id


@pytest.mark.parametrize("value", ["", "a b", "x" * 129, "a\x80", "<script>", "a,b", "id;x"])
def test_an_id_that_is_none_is_passed_over(seen, value):
    answer = ask(within(), "/fail/7", x_request_id=value.encode("latin-1"))
    assert answer.headers["x-request-id"] == seen.spans[0].trace_id


def test_two_ids_are_none(seen):
    async def go():
        transport = httpx.ASGITransport(within())
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            return await client.get("/fail/7", headers=[("x-request-id", "a")] * 2)

    assert asyncio.run(go()).headers["x-request-id"] == seen.spans[0].trace_id


def test_the_header_has_the_name_of_the_settings():
    with capture(request_id_header="X-Correlation-Id", trusted_peers=["8.8.8.0/24"]):
        answer = ask(within(), "/fail/7", client=("8.8.8.8", 1), x_correlation_id=INBOUND)
        assert answer.headers["x-correlation-id"] == INBOUND
        assert "x-request-id" not in answer.headers


# --- WebSockets ---


MAKERS = {"within": within, "around": around}


@pytest.mark.parametrize("how", MAKERS)
def test_a_websocket_is_closed_with_1011(seen, how):
    with serving(MAKERS[how]()) as place:
        with connect(f"ws://{place}/breaks") as socket, pytest.raises(ConnectionClosedError):
            socket.recv(10)
        with pytest.raises(InvalidStatus):  # closed before it was accepted
            connect(f"ws://{place}/refuses")
        wait_until(lambda: len(failures(seen)) == 2, "both errors")
    assert socket.close_code == 1011
    assert {entry.route for entry in failures(seen)} == {"/breaks", "/refuses"}
    assert [span.status for span in seen.spans] == ["ERROR"] * 2


def test_one_that_is_closed_is_not_closed_again(seen):
    log = []
    messages = ({"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000})
    call(within(), scope("websocket", path="/waits"), *messages, log=log)
    assert log == ["sent websocket.accept"]
    assert len(failures(seen)) == 1


def test_a_lifespan_passes(seen):
    log = []
    messages = ({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    call(within(), {"type": "lifespan"}, *messages, log=log)
    assert log == ["sent lifespan.startup.complete", "sent lifespan.shutdown.complete"]


def test_a_fault_of_ours_takes_no_answer_away(monkeypatch):
    monkeypatch.setattr("pbmon.signals.reraise", False)
    broken = type("Broken", (), {"failed": lambda self, error: 1 / 0})()
    sent = []

    async def send(message):
        sent.append(message)

    async def raw(scope, receive, send):
        raise KeyError(CANARY)

    asyncio.run(ErrorMiddleware(raw)(scope(**{RECORD: broken}), None, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
