"""A request sink that writes down what the hooks report, and what drives applications for it."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from pbmon import runtime, signals
from pbmon.hooks.patches import Hook
from pbmon.settings import Settings

_current: contextvars.ContextVar[Any] = contextvars.ContextVar("current_record", default=None)


class Recorded:
    """One record. events: what was reported, in order; `log` holds all records' and the wire's."""

    def __init__(self, sink: Recorder, scope: dict[str, Any]) -> None:
        self.route: str | None = None
        self.events: list[Any] = []
        self.headers: list[tuple[bytes, bytes]] = []
        self.scope = scope
        self._sink = sink
        self._token = _current.set(self)

    def _note(self, event: Any, method: str) -> None:
        self.events.append(event)
        self._sink.log.append(event)
        self._sink.fail(method)

    def response_started(self, status, headers) -> None:
        self.headers = list(headers)
        self._note(("started", status), "response_started")

    def response_completed(self) -> None:
        self._note("completed", "response_completed")

    def accepted(self) -> None:
        self._note("accepted", "accepted")

    def disconnected(self, code: int) -> None:
        self._note(("disconnected", code), "disconnected")

    def failed(self, error: BaseException) -> None:
        self._note(("failed", type(error).__name__), "failed")

    def closed(self) -> None:
        _current.reset(self._token)  # raises in another context than __init__'s
        try:
            self._note("closed", "closed")
        finally:
            with self._sink.changed:
                self._sink.open -= 1
                self._sink.changed.notify_all()


class Recorder:
    """The sink. failing: names of methods, of the sink or its records, that raise."""

    def __init__(self, failing: frozenset[str] = frozenset(), excluded: str | None = None) -> None:
        self.records: list[Recorded] = []
        self.log: list[Any] = []
        self.asked = 0
        self.open = 0
        self.changed = threading.Condition()
        self._failing = failing
        self._excluded = excluded

    def fail(self, method: str) -> None:
        if method in self._failing:
            raise RuntimeError(f"the sink's {method} is broken")

    def request(self, scope: dict[str, Any]) -> Recorded | None:
        return self._start(scope, "request")

    def websocket(self, scope: dict[str, Any]) -> Recorded | None:
        return self._start(scope, "websocket")

    def _start(self, scope: dict[str, Any], method: str) -> Recorded | None:
        self.asked += 1
        self.fail(method)
        if scope["path"] == self._excluded:
            return None
        record = Recorded(self, scope)
        with self.changed:
            self.records.append(record)
            self.open += 1
        return record

    def wait(self, count: int = 1) -> list[Recorded]:
        """The records, once `count` of them were made and all are closed."""
        with self.changed:
            done = self.changed.wait_for(
                lambda: len(self.records) >= count and not self.open, timeout=10
            )
        assert done, [(r.scope["path"], r.events) for r in self.records]
        assert len(self.records) == count, [r.scope["path"] for r in self.records]
        return self.records

    def one(self) -> Recorded:
        return self.wait(1)[0]


def current() -> Any:
    """The record of the request that runs here."""
    return _current.get()


@contextmanager
def recording(**options: Any) -> Iterator[Recorder]:
    """A Recorder in the place of the request sink."""
    before, told = runtime.active.requests, signals.reraise
    recorder = Recorder(**options)
    runtime.active.requests = recorder
    signals.reraise = not options.get("failing")
    try:
        yield recorder
    finally:
        runtime.active.requests, signals.reraise = before, told


@contextmanager
def hooked(*hooks: type[Hook], **modes: str) -> Iterator[None]:
    """These hooks in place, in pbmon's mode if no other is given by library."""
    before = runtime.active.settings
    runtime.active.settings = Settings(hooks=modes)
    instruments = [hook() for hook in hooks]
    for instrument in instruments:
        instrument.instrument(skip_dep_check=True)
    try:
        yield
    finally:
        for instrument in reversed(instruments):
            instrument.uninstrument()
        runtime.active.settings = before


@contextmanager
def serving(app: Any, **config: Any) -> Iterator[str]:
    """The application in a real uvicorn; gives `127.0.0.1:port`. Connections made before it is
    ready wait in the socket's backlog."""
    config = {"log_level": "critical", "ws": "websockets-sansio", **config}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        server = uvicorn.Server(uvicorn.Config(app, **config))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"{host}:{port}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


SERVERS = [
    {"http": "httptools", "loop": "uvloop"},
    {"http": "h11", "loop": "asyncio"},
]


def scope(kind: str = "http", **more: Any) -> dict[str, Any]:
    values = {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http" if kind == "http" else "ws",
        "path": "/",
        "query_string": b"",
        "headers": [],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 80),
    }
    if kind == "http":
        values["method"] = "GET"
    return {**values, **more}


def call(app: Any, scope: dict[str, Any], *received: dict[str, Any], log: list[Any]) -> None:
    """Run an application on a scope; what it sends goes to `log` as `sent <type>`."""
    waiting = list(received)

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.wait_for(asyncio.Event().wait(), 10)  # what waits for ever must fail
        return waiting.pop(0)

    async def send(message: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        log.append(f"sent {message['type']}")

    asyncio.run(app(scope, receive, send))
