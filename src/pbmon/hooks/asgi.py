"""The ASGI layer: one record for each HTTP request and WebSocket, whoever serves it.

A server's hook and a framework's hook may both put this layer around the application. The first
one reached observes; the others find `scope[runtime.RECORD]` and pass through.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from pbmon import identity, runtime, signals
from pbmon.errors import CLIENT_LEFT
from pbmon.runtime import RECORD, RequestRecord, Scope, WebSocketRecord

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[Any]]

FLUSH_S = 3.0
"""How long a shutdown waits for what is still to be sent; what is left waits on the disk."""

_BODIES = ("http.response.body", "http.response.zerocopysend")


class Observed:
    """An ASGI application whose requests and WebSockets are reported to the request sink."""

    __slots__ = ("app",)

    def __init__(self, app: App) -> None:
        self.app = app

    # A coroutine function also where it only passes through: servers look at
    # iscoroutinefunction(app.__call__) to tell ASGI 3 from ASGI 2.
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record: RequestRecord | WebSocketRecord | None = None
        if RECORD not in scope:
            kind = scope["type"]
            if kind == "http":
                if (request := _begin_request(scope)) is not None:
                    record, send = request, self._watch(request, scope, send)
            elif kind == "websocket":
                if (socket := _begin_websocket(scope)) is not None:
                    talk = Conversation(socket, receive, send)
                    record, receive, send = socket, talk.receive, talk.send
            elif kind == "lifespan":
                scope[RECORD] = None  # a layer further in need not flush as well
                send = _flushing(send)
                watch_loop()
        if record is None:
            await self.app(scope, receive, send)
            return
        person = identity.begin(scope)
        try:
            await self.app(scope, receive, send)
        except BaseException as error:
            _report_failure(record, error)
            raise
        finally:
            _close(record)  # while it can be asked whose request it was
            identity.end(person)

    def _watch(self, record: RequestRecord, scope: Scope, send: Send) -> Send:
        return Answer(record, send).send


def _begin_request(scope: Scope) -> RequestRecord | None:
    # FastAPI, and Starlette's own middleware, would report the request a second time.
    scope["fastapi.telemetry"] = scope[RECORD] = None
    scope["starlette.opentelemetry"] = True
    try:
        record = scope[RECORD] = runtime.active.requests.request(scope)
    except Exception as error:
        signals.failed("request hook", error)
        return None
    return record


def _begin_websocket(scope: Scope) -> WebSocketRecord | None:
    scope["fastapi.telemetry"] = scope[RECORD] = None
    try:
        record = scope[RECORD] = runtime.active.requests.websocket(scope)
    except Exception as error:
        signals.failed("websocket hook", error)
        return None
    return record


def _report_failure(record: RequestRecord | WebSocketRecord, error: BaseException) -> None:
    try:
        if type(error).__name__ not in CLIENT_LEFT:
            record.failed(error)
    except Exception as ours:
        signals.failed("request hook", ours)


def _close(record: RequestRecord | WebSocketRecord) -> None:
    try:
        record.closed()
    except Exception as error:
        signals.failed("request hook", error)


def _as_coroutine_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a plain function that returns an awaitable, for those who look before they call
    (asgiref warns of a `send` that is not one)."""
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(function)
    function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # noqa: SLF001
    return function


class Answer:
    """Stands in for `send` and reports the answer's first and last byte, each once they are
    passed on. Only these two messages pay for a coroutine; all others go straight through."""

    __slots__ = ("_completed", "_record", "_send", "_started", "_trailers")

    def __init__(self, record: RequestRecord | None, send: Send) -> None:
        self._record = record
        self._send = send
        self._started = self._completed = self._trailers = False

    @_as_coroutine_function
    def send(self, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if kind in _BODIES:
            if message.get("more_body") or self._trailers:
                return self._send(message)
            return self._send_last(message)
        if kind == "http.response.start":
            return self._send_first(message)
        if (kind == "http.response.pathsend" and not self._trailers) or (
            kind == "http.response.trailers" and not message.get("more_trailers")
        ):
            return self._send_last(message)
        return self._send(message)

    async def _send_first(self, message: Message) -> None:
        self._trailers = bool(message.get("trailers"))
        await self._send(message)
        if self._started or self._record is None:
            return
        self._started = True
        try:
            self._record.response_started(message["status"], message.get("headers") or ())
        except Exception as error:
            signals.failed("request hook", error)

    async def _send_last(self, message: Message) -> None:
        await self._send(message)
        if self._completed or self._record is None:
            return
        self._completed = True
        try:
            self._record.response_completed()
        except Exception as error:
            signals.failed("request hook", error)


class Conversation:
    """Stands in for a WebSocket's `receive` and `send`, reports its opening and its close.

    A socket that was never accepted has no close: it was refused, or the client gave up.
    """

    __slots__ = ("_open", "_receive", "_record", "_send")

    def __init__(self, record: WebSocketRecord, receive: Receive, send: Send) -> None:
        self._record = record
        self._receive = receive
        self._send = send
        self._open = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._report_close(message.get("code"), 1005)
        return message

    @_as_coroutine_function
    def send(self, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if kind == "websocket.accept":
            return self._accept(message)
        if kind == "websocket.close":
            return self._close(message)
        return self._send(message)

    async def _accept(self, message: Message) -> None:
        await self._send(message)
        self._open = True
        try:
            self._record.accepted()
        except Exception as error:
            signals.failed("websocket hook", error)

    async def _close(self, message: Message) -> None:
        await self._send(message)
        self._report_close(message.get("code"), 1000)

    def _report_close(self, code: int | None, absent: int) -> None:
        """absent: what the ASGI specification takes for a missing code."""
        if not self._open:
            return
        self._open = False
        try:
            self._record.disconnected(absent if code is None else code)
        except Exception as error:
            signals.failed("websocket hook", error)


# --- the loop ------------------------------------------------------------------------------------


def watch_loop() -> None:
    """Have the event loop that runs here watched, as one that serves requests."""
    with signals.guard("watching an event loop"):
        runtime.active.watch_loop()


# --- shutdown ----------------------------------------------------------------------------------


def _flushing(send: Send) -> Send:
    """A lifespan's `send` that flushes before the server hears of the end and exits."""

    async def sending(message: Message) -> None:
        if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            await flush()
        await send(message)

    return sending


async def flush(skip: Callable[[], bool] = lambda: False) -> None:
    """Send what is waiting, for FLUSH_S at most, while the event loop goes on.

    skip: asked ten times a second; true ends the wait.

    In a daemon thread, for which neither the loop's executor nor the interpreter waits.
    """
    with signals.guard("flush at shutdown"):
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # trio: nothing else runs any more, so its loop may stand still
            _start_flush(lambda: None).join(FLUSH_S)
            return
        finished = asyncio.Event()
        _start_flush(lambda: loop.call_soon_threadsafe(finished.set))
        end_s = loop.time() + FLUSH_S
        while not finished.is_set() and not skip() and loop.time() < end_s:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(finished.wait(), 0.1)


def _start_flush(tell: Callable[[], object]) -> threading.Thread:
    def work() -> None:
        with signals.guard("flush at shutdown"):
            runtime.active.flush(FLUSH_S)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            tell()

    thread = threading.Thread(target=work, name="pbmon-flush", daemon=True)
    thread.start()
    return thread
