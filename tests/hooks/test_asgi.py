"""The ASGI layer on bare scopes: the order of reports, and that the application notices nothing."""

from __future__ import annotations

import asyncio
import itertools
import threading

import pytest
from asgiref.sync import iscoroutinefunction

from pbmon import runtime
from pbmon.hooks import asgi
from pbmon.hooks.asgi import Observed
from tests.hooks.recorder import call, current, recording, scope

START = {"type": "http.response.start", "status": 200, "headers": [(b"x", b"\xff\\x")]}
BODY = {"type": "http.response.body", "body": b"hello"}
MORE = {**BODY, "more_body": True}
METHODS = ("request", "websocket", "response_started", "response_completed", "failed", "closed",
           "accepted", "disconnected")  # fmt: skip


def sending(*messages):
    async def app(scope, receive, send):
        for message in messages:
            if isinstance(message, BaseException):
                raise message
            await send(message)

    return app


def conversing(*messages):
    """Sends the messages; None stands for taking one from the client."""

    async def app(scope, receive, send):
        for message in messages:
            if isinstance(message, BaseException):
                raise message
            await (receive() if message is None else send(message))

    return app


def reports(*messages, received=(), **values):
    with recording() as seen:
        call(Observed(conversing(*messages)), scope(**values), *received, log=seen.log)
    assert not seen.open
    return seen.log


def test_start_and_end_are_reported_once_they_were_passed_on():
    assert reports(START, MORE, MORE, BODY) == [
        "sent http.response.start",
        ("started", 200),
        "sent http.response.body",
        "sent http.response.body",
        "sent http.response.body",
        "completed",
        "closed",
    ]


def test_trailers_end_the_answer_and_not_its_body():
    trailers = {"type": "http.response.trailers", "headers": []}
    assert reports({**START, "trailers": True}, BODY, {**trailers, "more_trailers": True},
                   trailers)[-4:] == [
        "sent http.response.trailers", "sent http.response.trailers", "completed", "closed",
    ]  # fmt: skip


@pytest.mark.parametrize("last", ["http.response.pathsend", "http.response.zerocopysend"])
def test_other_ways_to_send_the_body_end_the_answer(last):
    assert reports(START, {"type": last})[-3:] == [f"sent {last}", "completed", "closed"]


def test_unfinished_zero_copy_does_not():
    assert "completed" not in reports(
        START, {"type": "http.response.zerocopysend", "more_body": True}
    )


def test_a_path_with_trailers_ends_with_the_trailers():
    log = reports(
        {**START, "trailers": True},
        {"type": "http.response.pathsend"},
        {"type": "http.response.trailers"},
    )
    assert log[-3:] == ["sent http.response.trailers", "completed", "closed"]


@pytest.mark.parametrize(
    "kind", ["http.response.debug", "http.response.early_hint", "http.response.push", "made.up"]
)
def test_other_messages_pass(kind):
    assert reports({"type": kind}, START, BODY)[:2] == [f"sent {kind}", "sent http.response.start"]


def test_the_head_is_reported_as_it_was_sent():
    with recording() as seen:
        call(Observed(sending(START, BODY)), scope(), log=seen.log)
    assert seen.one().headers == [(b"x", b"\xff\\x")]


def test_an_answer_without_headers():
    assert ("started", 204) in reports({"type": "http.response.start", "status": 204}, BODY)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([ValueError()], [("failed", "ValueError"), "closed"]),
        ([START, ValueError()], [("started", 200), ("failed", "ValueError"), "closed"]),
        ([START, BODY, ValueError()],
         [("started", 200), "completed", ("failed", "ValueError"), "closed"]),
        ([START, asyncio.CancelledError()],
         [("started", 200), ("failed", "CancelledError"), "closed"]),
        ([KeyboardInterrupt()], [("failed", "KeyboardInterrupt"), "closed"]),
        ([], ["closed"]),
        ([START], [("started", 200), "closed"]),
    ],
)  # fmt: skip
def test_what_leaves_the_application_is_reported_and_leaves_unchanged(messages, expected):
    error = messages[-1] if messages and isinstance(messages[-1], BaseException) else None
    with recording() as seen:
        if error is None:
            call(Observed(sending(*messages)), scope(), log=[])
        else:
            with pytest.raises(type(error)) as caught:
                call(Observed(sending(*messages)), scope(), log=[])
            assert caught.value is error or isinstance(error, asyncio.CancelledError)
    assert seen.one().events == expected


def test_a_client_that_left_is_no_failure():
    ClientDisconnect = type("ClientDisconnect", (Exception,), {})
    with recording() as seen, pytest.raises(ClientDisconnect):
        call(Observed(sending(START, ClientDisconnect())), scope(), log=[])
    assert seen.one().events == [("started", 200), "closed"]


def test_a_message_that_the_server_refuses_is_not_reported():
    async def refusing(message):
        raise OSError("gone")

    async def go():
        with pytest.raises(OSError):
            await Observed(sending(START))(scope(), None, refusing)

    with recording() as seen:
        asyncio.run(go())
    assert seen.one().events == [("failed", "OSError"), "closed"]


def test_a_second_start_or_end_is_passed_on_and_not_reported():
    log = reports(START, START, BODY, BODY)
    assert len([line for line in log if str(line).startswith("sent")]) == 4
    assert [line for line in log if not str(line).startswith("sent")] == [
        ("started", 200), "completed", "closed",
    ]  # fmt: skip


def test_background_work_is_after_the_end_and_before_the_close():
    async def app(scope, receive, send):
        await sending(START, BODY)(scope, receive, send)
        scope["log"].append("background")

    with recording() as seen:
        call(Observed(app), scope(log=seen.log), log=seen.log)
    assert seen.log[-3:] == ["completed", "background", "closed"]


def test_the_record_is_current_in_the_application_and_not_after_it():
    async def app(scope, receive, send):
        assert current() is scope[runtime.RECORD]
        await sending(START, BODY)(scope, receive, send)

    async def go():
        await Observed(app)(scope(), None, lambda message: asyncio.sleep(0))
        assert current() is None

    with recording() as seen:
        asyncio.run(go())
    assert seen.one().events[-1] == "closed"


def test_the_answer_may_be_sent_by_another_task():
    async def app(scope, receive, send):
        await asyncio.create_task(sending(START, MORE)(scope, receive, send))
        await asyncio.gather(sending(BODY)(scope, receive, send))

    with recording() as seen:
        call(Observed(app), scope(), log=[])
    assert seen.one().events == [("started", 200), "completed", "closed"]


def test_a_cancelled_request_is_closed():
    async def go():
        started = asyncio.Event()

        async def app(scope, receive, send):
            started.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(Observed(app)(scope(), None, None))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with recording() as seen:
        asyncio.run(go())
    assert seen.one().events == [("failed", "CancelledError"), "closed"]


def test_concurrent_requests_do_not_mix():
    async def app(scope, receive, send):
        number = int(scope["path"][1:])
        for _ in range(number % 7):
            await asyncio.sleep(0)
        assert current().scope is scope
        await send({"type": "http.response.start", "status": 200 + number, "headers": []})
        await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": str(number).encode()})

    async def go():
        sent = {}

        async def one(number):
            messages = sent[number] = []

            async def send(message):
                await asyncio.sleep(0)
                messages.append(message)

            await layer(scope(path=f"/{number}"), None, send)

        layer = Observed(app)
        await asyncio.gather(*map(one, range(50)))
        return sent

    with recording() as seen:
        sent = asyncio.run(go())
    assert all(messages[1]["body"] == str(n).encode() for n, messages in sent.items())
    for record in seen.wait(50):
        status = 200 + int(record.scope["path"][1:])
        assert record.events == [("started", status), "completed", "closed"]


# --- once, and whatever happens to us -----------------------------------------------------------


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_only_the_first_layer_observes(kind):
    with recording() as seen:
        call(Observed(Observed(Observed(sending(START, BODY)))), scope(kind), log=[])
    assert seen.one().events[-1] == "closed"
    assert seen.asked == 1


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_an_excluded_request_is_asked_about_once_and_left_alone(kind):
    with recording(excluded="/") as seen:
        call(Observed(Observed(sending(START, BODY))), scope(kind), log=seen.log)
    assert (seen.asked, seen.records) == (1, [])
    assert seen.log == ["sent http.response.start", "sent http.response.body"]


@pytest.mark.parametrize("broken", [*itertools.combinations(METHODS, 1), METHODS])
@pytest.mark.parametrize("error", [None, ValueError("the application's own")])
def test_a_broken_sink_changes_nothing(broken, error):
    calls = []

    def app(*messages):
        inner = conversing(*messages, *([error] if error else []))

        async def counted(scope, receive, send):
            calls.append(scope["type"])
            await inner(scope, receive, send)

        return counted

    def run(scope, *received, wrapped):
        log = []
        try:
            call(wrapped, scope, *received, log=log)
        except ValueError as raised:
            assert raised is error
            log.append("raised")
        return log

    answer = app(START, MORE, BODY)
    talk = app({"type": "websocket.accept"}, {"type": "websocket.send"}, None)
    gone = {"type": "websocket.disconnect", "code": 1001}
    bare = run(scope(), wrapped=answer), run(scope("websocket"), gone, wrapped=talk)
    with recording(failing=frozenset(broken)):
        seen = (
            run(scope(), wrapped=Observed(Observed(answer))),
            run(scope("websocket"), gone, wrapped=Observed(Observed(talk))),
        )
    assert seen == bare
    assert calls == ["http", "websocket"] * 2


def test_a_scope_of_an_unknown_type_is_passed_on_untouched():
    seen_scopes = []

    async def app(scope, receive, send):
        seen_scopes.append(dict(scope))

    with recording() as seen:
        call(Observed(app), {"type": "telepathy"}, log=[])
    assert seen_scopes == [{"type": "telepathy"}]
    assert seen.asked == 0


def test_servers_and_asgiref_take_it_for_asgi_3():
    with recording() as seen:
        layer = Observed(sending())
        assert iscoroutinefunction(layer.__call__)

        async def app(scope, receive, send):
            assert iscoroutinefunction(send)

        call(Observed(app), scope(), log=[])
        call(Observed(app), scope("websocket"), log=[])
        seen.wait(2)


def test_the_frameworks_own_telemetry_stands_back():
    async def app(scope, receive, send):
        assert scope["fastapi.telemetry"] is None
        assert scope["type"] == "websocket" or scope["starlette.opentelemetry"] is True

    with recording() as seen:
        call(Observed(app), scope(), log=[])
        call(Observed(app), scope("websocket"), log=[])
        seen.wait(2)


# --- WebSockets ---------------------------------------------------------------------------------

ACCEPT = {"type": "websocket.accept"}
SEND = {"type": "websocket.send", "text": "x"}
CLOSE = {"type": "websocket.close", "code": 4001}
CONNECT = {"type": "websocket.connect"}
GONE = {"type": "websocket.disconnect", "code": 1001}


@pytest.mark.parametrize(
    ("messages", "received", "expected"),
    [
        ([None, ACCEPT, SEND, CLOSE], [CONNECT], ["accepted", ("disconnected", 4001), "closed"]),
        ([ACCEPT, {"type": "websocket.close"}], [], ["accepted", ("disconnected", 1000), "closed"]),
        ([ACCEPT, {"type": "websocket.close", "code": None}], [],
         ["accepted", ("disconnected", 1000), "closed"]),
        ([ACCEPT, None], [GONE], ["accepted", ("disconnected", 1001), "closed"]),
        ([ACCEPT, None], [{"type": "websocket.disconnect"}],
         ["accepted", ("disconnected", 1005), "closed"]),
        ([ACCEPT, None], [{"type": "websocket.disconnect", "code": None}],
         ["accepted", ("disconnected", 1005), "closed"]),
        # The first close counts: what follows is its echo.
        ([ACCEPT, CLOSE, None], [GONE], ["accepted", ("disconnected", 4001), "closed"]),
        # Refused or given up before it was a connection: no close code.
        ([CLOSE], [], ["closed"]),
        ([None], [GONE], ["closed"]),
        ([{"type": "websocket.http.response.start", "status": 403, "headers": []},
          {"type": "websocket.http.response.body"}], [], ["closed"]),
        ([ACCEPT], [], ["accepted", "closed"]),
        ([ACCEPT, ValueError()], [], ["accepted", ("failed", "ValueError"), "closed"]),
        ([ValueError()], [], [("failed", "ValueError"), "closed"]),
    ],
)  # fmt: skip
def test_websocket(messages, received, expected):
    with recording() as seen:
        try:
            call(Observed(conversing(*messages)), scope("websocket"), *received, log=[])
        except ValueError as error:
            assert error is messages[-1]
    assert seen.one().events == expected


def test_accept_is_reported_once_it_was_passed_on():
    assert reports(ACCEPT, CLOSE, kind="websocket") == [
        "sent websocket.accept", "accepted",
        "sent websocket.close", ("disconnected", 4001), "closed",
    ]  # fmt: skip


# --- lifespan -----------------------------------------------------------------------------------


@pytest.fixture
def flushes(monkeypatch):
    """What runtime.active.flush was called with; the log of the last call."""
    seen = []
    monkeypatch.setattr(runtime.active, "flush", lambda timeout_s: seen.append(timeout_s) or True)
    return seen


def lifespan(end, log):
    app = Observed(Observed(sending({"type": "lifespan.startup.complete"}, {"type": end})))
    call(app, {"type": "lifespan"}, log=log)


@pytest.mark.parametrize("end", ["lifespan.shutdown.complete", "lifespan.shutdown.failed"])
def test_a_shutdown_flushes_before_the_server_hears_of_it(end, monkeypatch):
    log = []
    monkeypatch.setattr(runtime.active, "flush", log.append)
    lifespan(end, log)
    assert log == ["sent lifespan.startup.complete", asgi.FLUSH_S, f"sent {end}"]


def test_a_failed_start_does_not_flush(flushes):
    call(Observed(sending({"type": "lifespan.startup.failed"})), {"type": "lifespan"}, log=[])
    assert flushes == []


def test_a_failing_flush_harms_nothing(monkeypatch):
    monkeypatch.setattr("pbmon.signals.reraise", False)
    monkeypatch.setattr(runtime.active, "flush", lambda timeout_s: 1 / 0)
    log = []
    lifespan("lifespan.shutdown.complete", log)
    assert log[-1] == "sent lifespan.shutdown.complete"


def test_a_hanging_flush_is_left_behind(monkeypatch):
    hang = threading.Event()
    monkeypatch.setattr(asgi, "FLUSH_S", 0.05)
    monkeypatch.setattr(runtime.active, "flush", lambda timeout_s: hang.wait())
    log = []
    lifespan("lifespan.shutdown.complete", log)
    hang.set()
    assert log[-1] == "sent lifespan.shutdown.complete"


def test_the_loop_goes_on_during_a_flush(monkeypatch):
    ticked = threading.Event()
    monkeypatch.setattr(runtime.active, "flush", ticked.wait)

    async def go():
        asyncio.get_running_loop().call_later(0.01, ticked.set)
        await asgi.flush()
        assert ticked.is_set()

    asyncio.run(go())


def test_a_flush_outside_asyncio(flushes):
    """As under trio."""
    coroutine = asgi.flush()
    with pytest.raises(StopIteration):
        coroutine.send(None)
    assert flushes == [asgi.FLUSH_S]


def test_the_loop_is_watched_once_from_the_lifespans_start(monkeypatch):
    log = []
    monkeypatch.setattr(runtime.active, "watch_loop", lambda: log.append("watched"))
    monkeypatch.setattr(runtime.active, "flush", lambda timeout_s: None)
    lifespan("lifespan.shutdown.complete", log)
    assert log == [
        "watched", "sent lifespan.startup.complete", "sent lifespan.shutdown.complete",
    ]  # fmt: skip


def test_an_application_without_lifespan_raises_as_before():
    with pytest.raises(ValueError):
        call(Observed(sending(ValueError())), {"type": "lifespan"}, log=[])
