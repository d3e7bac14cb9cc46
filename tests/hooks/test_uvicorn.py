"""The server layer in a real uvicorn, over real sockets."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from uvicorn.server import Server
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from pbmon import runtime
from pbmon.hooks import asgi
from pbmon.hooks.fastapi import FastAPIHook
from pbmon.hooks.starlette import StarletteHook
from pbmon.hooks.uvicorn import Entrance, UvicornHook, observed
from tests.hooks.recorder import SERVERS, hooked, recording, serving
from tests.stack.process import hold_port, wait_until

HEAD = b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(autouse=True)
def hook():
    with hooked(UvicornHook):
        yield


@pytest.fixture(params=SERVERS, ids=lambda server: server["http"])
def serve(request):
    """serving(), once for each pair of protocol and event loop."""
    return functools.partial(serving, **request.param)


def ask(address, request):
    """The raw answer to raw bytes."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


async def raw(scope, receive, send):
    """A bare application: no lifespan, and an answer for everything."""
    assert scope["type"] == "http"
    if scope["path"] == "/broken":
        raise ValueError("before the start")
    headers = [(b"content-length", b"5")] if scope["path"] != "/304" else []
    status = 304 if scope["path"] == "/304" else 200
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if scope["path"] == "/torn":
        raise ValueError("after the start")
    await send({"type": "http.response.body", "body": b"hello" if status == 200 else b""})


def hello(request):
    return PlainTextResponse("hello")


APPS = {
    "raw": raw,
    "starlette": Starlette(routes=[Route("/", hello)]),
    "fastapi": FastAPI(),
}
APPS["fastapi"].get("/", response_class=PlainTextResponse)(lambda: "hello")
LAYERS = {
    "server": [],
    "both": [StarletteHook, FastAPIHook],
}


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("app", APPS)
def test_one_record_for_one_request(serve, app, layers):
    with hooked(*LAYERS[layers]), recording() as seen, serve(APPS[app]) as address:
        assert httpx.get(f"http://{address}/").text == "hello"
        record = seen.one()
    assert record.events == [("started", 200), "completed", "closed"]
    assert record.route == ("/" if layers == "both" and app != "raw" else None)


@pytest.mark.parametrize("path", ["/", "/304", "/broken", "/torn"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "BREW"])
def test_the_answer_is_the_same_as_without_us(serve, method, path):
    request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    # httptools refuses unknown methods itself.
    with serve(raw, date_header=False) as address, recording() as seen:
        ours = ask(address, request)
        expected = {
            "/": [("started", 200), "completed", "closed"],
            "/304": [("started", 304), "completed", "closed"],
            "/broken": [("failed", "ValueError"), "closed"],
            "/torn": [("started", 200), ("failed", "ValueError"), "closed"],
        }
        if ours.startswith(b"HTTP/1.1 400"):
            assert seen.records == []
        else:
            assert seen.one().events == expected[path]
    with recording() as seen:
        UvicornHook().uninstrument()
        with serve(raw, date_header=False) as address:
            assert ask(address, request) == ours
        UvicornHook().instrument(skip_dep_check=True)
    assert seen.records == []


@pytest.mark.parametrize(
    "header", [b"User-Agent: \xff\\x", b"traceparent: \xff\\x", b"X-\xc3: 1", b"baggage: \xff\\x=%"]
)
def test_odd_header_bytes_answer_as_without_us(serve, header):
    request = HEAD.replace(b"Host: x\r\n", b"Host: \xff\\x\r\n" + header + b"\r\n").replace(
        b"%s", b"/"
    )
    with serve(raw, date_header=False) as address, recording() as seen:
        ours = ask(address, request)
        refused = ours.startswith(b"HTTP/1.1 400")
        assert refused or seen.one().events[0] == ("started", 200)
        with recording(excluded="/"):
            assert ask(address, request) == ours


def test_a_client_that_leaves_in_mid_stream_closes_the_record(serve):
    left = threading.Event()

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await receive()  # the request's own body
        assert (await receive())["type"] == "http.disconnect"
        left.set()

    with recording() as seen, serve(app) as address:
        host, port = address.split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(HEAD % b"/")
            assert connection.recv(1)
        assert left.wait(10)
        assert seen.one().events == [("started", 200), "closed"]


def test_a_stream_ends_with_its_last_event(serve):
    async def events(request):
        async def lines():
            for number in range(30):
                yield f"data: {number}\n\n"
                await asyncio.sleep(0)

        return StreamingResponse(lines(), media_type="text/event-stream")

    with recording() as seen, serve(Starlette(routes=[Route("/", events)])) as address:
        assert httpx.get(f"http://{address}/").text.count("data:") == 30
        record = seen.one()
    assert record.events == [("started", 200), "completed", "closed"]
    assert dict(record.headers)[b"content-type"].startswith(b"text/event-stream")


def test_background_work_does_not_hold_the_answer_back(serve):
    release = threading.Event()

    def answer(request):
        return PlainTextResponse("hello", background=BackgroundTask(release.wait, 10))

    with recording() as seen, serve(Starlette(routes=[Route("/", answer)])) as address:
        assert httpx.get(f"http://{address}/").text == "hello"
        with seen.changed:
            assert seen.changed.wait_for(lambda: "completed" in seen.log or seen.open == 0, 10)
        assert seen.records[0].events == [("started", 200), "completed"]
        release.set()
        assert seen.one().events[-1] == "closed"


def test_many_at_once_do_not_mix(serve):
    async def echo(scope, receive, send):
        if scope["type"] != "http":
            raise ValueError("no lifespan")
        await asyncio.sleep(0.001 * (len(scope["path"]) % 5))
        body = scope["path"].encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"p", body)]})
        await send({"type": "http.response.body", "body": body})

    async def go(address):
        async with httpx.AsyncClient() as client:
            urls = [f"/{'x' * (n % 17)}{n}" for n in range(60)]
            answers = await asyncio.gather(*(client.get(f"http://{address}{u}") for u in urls))
            assert [answer.text for answer in answers] == urls

    with recording() as seen, serve(echo) as address:
        asyncio.run(go(address))
        for record in seen.wait(60):
            assert record.headers == [(b"p", record.scope["path"].encode())]


# --- the place of the layer ---------------------------------------------------------------------


async def peer(scope, receive, send):
    if scope["type"] == "http":
        text = f"{scope['client'][0]} {scope['scheme']}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text})


@pytest.mark.parametrize("proxy_headers", [True, False])
def test_the_record_sees_the_client_and_the_peer(serve, proxy_headers):
    forwarded = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    with recording() as seen, serve(peer, proxy_headers=proxy_headers) as address:
        text = httpx.get(f"http://{address}/", headers=forwarded).text
        record = seen.one()
    assert record.scope[runtime.PEER][0] == "127.0.0.1"
    assert text == ("203.0.113.9 https" if proxy_headers else "127.0.0.1 http")
    assert (record.scope["client"][0], record.scope["scheme"]) == tuple(text.split())


def test_a_unix_socket_has_no_peer(tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, recording() as seen:
        listener.bind(path)
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(raw, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
            assert client.get("http://x/").text == "hello"
        record = seen.one()
        server.should_exit = True
        thread.join()
    assert record.scope[runtime.PEER] is None


def test_the_servers_root_path_begins_the_route(serve):
    app = Starlette(routes=[Route("/users/{id:int}", hello)])
    with hooked(StarletteHook), recording() as seen, serve(app, root_path="/svc") as address:
        assert httpx.get(f"http://{address}/users/7").text == "hello"
        record = seen.one()
    assert (record.route, record.scope["path"]) == ("/svc/users/{id}", "/svc/users/7")


def test_a_configuration_that_its_user_loaded():
    config = uvicorn.Config(raw)
    config.load()
    config.loaded_app = observed(config)
    entrance = config.loaded_app
    assert isinstance(entrance, Entrance)
    assert observed(config) is entrance, "a second start puts no second layer"


def test_a_second_start_of_one_configuration(serve):
    config = uvicorn.Config(raw, log_level="critical")
    config.load()
    for _ in range(2):
        with recording() as seen, socket.create_server(("127.0.0.1", 0)) as listener:
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            host, port = listener.getsockname()
            assert httpx.get(f"http://{host}:{port}/").text == "hello"
            seen.one()
            server.should_exit = True
            thread.join()


def test_the_users_own_proxy_headers_middleware_is_not_touched():
    config = uvicorn.Config(raw)
    config.load()
    middleware = config.loaded_app
    observed(config)
    assert middleware.app is raw


def test_factories_and_asgi_2(serve):
    class Two:
        def __init__(self, scope):
            self.scope = scope

        async def __call__(self, receive, send):
            await raw(self.scope, receive, send)

    for app, options in ((lambda: raw, {"factory": True}), (Two, {"interface": "asgi2"})):
        with recording() as seen, serve(app, **options) as address:
            assert httpx.get(f"http://{address}/").text == "hello"
            assert seen.one().events == [("started", 200), "completed", "closed"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wsgi_is_left_to_upstreams_instrumentation():
    def wsgi(environ, start_response):
        start_response("200 OK", [])
        return [b"hello"]

    with recording() as seen, serving(wsgi, interface="wsgi") as address:
        assert httpx.get(f"http://{address}/").text == "hello"
    assert seen.records == []


# --- WebSockets ---------------------------------------------------------------------------------


async def talk(scope, receive, send):
    if scope["type"] != "websocket":
        return
    assert (await receive())["type"] == "websocket.connect"
    path = scope["path"]
    if path == "/refused":
        await send({"type": "websocket.close", "code": 4003})
        return
    if path == "/denied":
        start = {"type": "websocket.http.response.start", "status": 402, "headers": []}
        await send(start)
        await send({"type": "websocket.http.response.body", "body": b"pay"})
        return
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message["text"] == "raise":
            raise ValueError("in mid-talk")
        if message["text"] == "close":
            await send({"type": "websocket.close", "code": 4001, "reason": "as asked"})
            return
        await send({"type": "websocket.send", "text": message["text"]})


@pytest.mark.parametrize(
    ("path", "say", "close", "expected"),
    [
        ("/", "hi", 1000, ["accepted", ("disconnected", 1000), "closed"]),
        ("/", "hi", 4999, ["accepted", ("disconnected", 4999), "closed"]),
        ("/", "close", None, ["accepted", ("disconnected", 4001), "closed"]),
        ("/", "raise", None, ["accepted", ("failed", "ValueError"), "closed"]),
        ("/refused", None, None, ["closed"]),
        ("/denied", None, None, ["closed"]),
    ],
)
def test_websocket(serve, path, say, close, expected):
    with recording() as seen, serve(talk) as address:
        try:
            with connect(f"ws://{address}{path}") as client:
                client.send(say)
                if close is None:
                    with pytest.raises(ConnectionClosed):
                        client.recv(timeout=10)
                else:
                    assert client.recv(timeout=10) == say
                    client.close(close)
        except InvalidStatus as error:
            assert error.response.status_code == (402 if path == "/denied" else 403)
        assert seen.one().events == expected


def test_a_websocket_whose_client_vanishes():
    with recording() as seen, serving(talk) as address, connect(f"ws://{address}/") as client:
        client.send("hi")
        assert client.recv(timeout=10) == "hi"
        client.socket.shutdown(socket.SHUT_RDWR)
        record = seen.one()
    assert record.events in (
        ["accepted", ("disconnected", 1006), "closed"],
        ["accepted", ("disconnected", 1005), "closed"],
    )


def test_a_starlette_handler_that_does_not_expect_the_end_has_not_failed():
    async def echo(websocket):
        await websocket.accept()
        while True:
            await websocket.send_text(await websocket.receive_text())

    app = Starlette(routes=[WebSocketRoute("/{room}", echo)])
    with hooked(StarletteHook), recording() as seen, serving(app) as address:
        with connect(f"ws://{address}/blue") as client:
            client.send("hi")
            assert client.recv(timeout=10) == "hi"
        record = seen.one()
    assert record.events == ["accepted", ("disconnected", 1000), "closed"]
    assert record.route == "/{room}"


# --- shutdown -----------------------------------------------------------------------------------


@pytest.mark.parametrize("app", ["raw", "starlette"])
@pytest.mark.parametrize("layers", LAYERS)
def test_a_shutdown_flushes_once(monkeypatch, app, layers):
    """With a lifespan (Starlette) and without (raw)."""
    flushed = []
    monkeypatch.setattr(runtime.active, "flush", flushed.append)
    with hooked(*LAYERS[layers]), recording(), serving(APPS[app]) as address:
        assert httpx.get(f"http://{address}/").text == "hello"
        assert flushed == []
    assert flushed == [asgi.FLUSH_S]


def test_the_flush_comes_after_the_applications_own_end(monkeypatch):
    order = []
    monkeypatch.setattr(runtime.active, "flush", lambda timeout_s: order.append("flush"))

    async def app(scope, receive, send):
        while scope["type"] == "lifespan":
            kind = (await receive())["type"]
            order.append(kind)
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    with recording(), serving(app):
        pass
    assert order == ["lifespan.startup", "lifespan.shutdown", "flush"]


@pytest.mark.parametrize("app", ["raw", "starlette"])
def test_its_loop_is_watched_from_the_start(monkeypatch, app):
    watched = []
    monkeypatch.setattr(
        runtime.active, "watch_loop", lambda: watched.append(asyncio.get_running_loop())
    )
    with serving(APPS[app]):
        pass
    assert len(watched) == 1


PROGRAM = textwrap.dedent("""
    import os, pathlib, sys
    from pbmon import runtime
    from pbmon.hooks.uvicorn import UvicornHook

    out = pathlib.Path(os.environ["OUT"])

    class Record:
        route = None
        def response_started(self, status, headers): pass
        def response_completed(self): pass
        def failed(self, error): pass
        def closed(self): (out / f"{os.getpid()}.closed").touch()

    class Sink:
        def request(self, scope): return Record()

    runtime.active.requests = Sink()
    runtime.active.flush = lambda timeout_s: (out / f"{os.getpid()}.flushed").touch()
    UvicornHook().instrument(skip_dep_check=True)

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
""")


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["one", "two"])
def test_a_terminated_process_has_flushed(tmp_path, workers):
    """uvicorn raises SIGTERM again at the end, so no atexit runs. Workers are spawned: the hook
    is in the application's module, where the launcher's would be in sitecustomize."""
    (tmp_path / "program.py").write_text(PROGRAM)
    out = tmp_path / "out"
    out.mkdir()
    held = hold_port()
    port = held.getsockname()[1]
    with (
        held,
        subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "program:app", "--port", str(port), *workers],
            cwd=tmp_path,
            env={**os.environ, "OUT": str(out)},
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        started = 0
        for line in process.stderr:
            started += "Application startup complete" in line or "lifespan" in line
            if ("running on" in line and not workers) or started == 2:
                break
        pid = httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).text
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        process.wait(30)
    assert (out / f"{pid}.closed").exists()
    assert len(list(out.glob("*.flushed"))) == (2 if workers else 1)


def test_a_process_that_is_reloaded_has_flushed(tmp_path):
    program, out = tmp_path / "program.py", tmp_path / "out"
    program.write_text(PROGRAM)
    out.mkdir()
    held = hold_port()
    port = held.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "program:app", "--port", str(port), "--reload"]

    def serves(other_than=""):
        """The process id of who answers, empty while nobody or this one does."""
        try:
            pid = httpx.get(f"http://127.0.0.1:{port}/", trust_env=False, timeout=10).text
        except httpx.HTTPError:
            return ""
        return "" if pid == other_than else pid

    with (
        held,
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "OUT": str(out)}, stderr=log, stdout=log
        ) as process,
    ):
        try:
            wait_until(serves, "the first", 30)
            first = serves()
            changed_s = 0.0

            def is_reloaded():
                nonlocal changed_s
                if time.monotonic() - changed_s > 5:  # again: it may not have looked yet
                    changed_s = time.monotonic()
                    program.write_text(f"{PROGRAM}# {changed_s}\n")
                return serves(other_than=first)

            wait_until(is_reloaded, "the second, reloaded", 60)
            second = serves()
            assert (out / f"{first}.flushed").exists()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    assert {f"{first}.flushed", f"{second}.flushed"} <= {path.name for path in out.iterdir()}


# --- patching -----------------------------------------------------------------------------------


def test_taken_out_by_identity():
    UvicornHook().uninstrument()
    before = Server.startup, Server.shutdown
    UvicornHook().instrument(skip_dep_check=True)
    assert Server.startup is not before[0]
    assert Server.shutdown is not before[1]
    UvicornHook().uninstrument()
    assert (Server.startup, Server.shutdown) == before
    UvicornHook().instrument(skip_dep_check=True)
