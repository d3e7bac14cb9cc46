"""The framework layer of Starlette, and its routes in detail."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys

import httpx
import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles

from pbmon import runtime
from pbmon.hooks.starlette import StarletteHook
from pbmon.hooks.uvicorn import Entrance
from tests.hooks.recorder import call, hooked, recording, scope


def ok(request):
    return PlainTextResponse("ok")


def broken(request):
    raise LookupError("a fault of the application")


def missing(request):
    raise HTTPException(404)


class Things(HTTPEndpoint):
    async def get(self, request):
        return PlainTextResponse("ok")


class Room(WebSocketEndpoint):
    async def on_connect(self, websocket):
        await websocket.accept()
        await websocket.close(4001)


# Made before the hook: patching the class must reach it.
APP = Starlette(
    routes=[
        Route("/users/{id:int}", ok),
        Route("/things", Things),
        Route("/broken", broken),
        Route("/missing/{id}", missing),
        WebSocketRoute("/rooms/{name}", Room),
        Mount("/api/{version}", routes=[Route("/", ok), Route("/x/{y:path}", ok)]),
        Mount("/team", Starlette(routes=[Mount("/{t}", Router([Route("/a", ok)]))])),
    ]
)


@pytest.fixture(autouse=True)
def hook():
    with hooked(StarletteHook):
        yield


def get(app, path, method="GET"):
    async def go():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.request(method, path)

    with recording() as seen:
        answer = asyncio.run(go())
    return answer, seen.one()


@pytest.mark.parametrize(
    ("path", "method", "status", "route"),
    [
        ("/users/7", "GET", 200, "/users/{id}"),
        ("/users/7", "HEAD", 200, "/users/{id}"),
        ("/users/7", "POST", 405, "/users/{id}"),
        ("/users/ann", "GET", 404, None),
        ("/things", "GET", 200, "/things"),
        ("/things", "PUT", 405, "/things"),
        ("/missing/7", "GET", 404, "/missing/{id}"),
        ("/api/v1/", "GET", 200, "/api/{version}/"),
        ("/api/v1", "GET", 307, None),
        ("/api/v1/x/y/z", "GET", 200, "/api/{version}/x/{y}"),
        ("/api/v1/nothing", "GET", 404, None),
        ("/team/red/a", "GET", 200, "/team/{t}/a"),
        ("/team/red/b", "GET", 404, None),
        ("/nothing", "GET", 404, None),
    ],
)
def test_route(path, method, status, route):
    answer, record = get(APP, path, method)
    assert (answer.status_code, record.route) == (status, route)
    assert record.events == [("started", status), "completed", "closed"]


def test_an_exception_is_answered_and_then_reported():
    answer, record = get(APP, "/broken")
    assert answer.status_code == 500
    assert record.events == [("started", 500), "completed", ("failed", "LookupError"), "closed"]
    assert record.route == "/broken"


def test_static_files_are_one_route(tmp_path):
    (tmp_path / "a.css").write_text("")
    app = Starlette(routes=[Mount("/static", StaticFiles(directory=tmp_path))])
    for path, status in (("/static/a.css", 200), ("/static/b.css", 404)):
        answer, record = get(app, path)
        assert (answer.status_code, record.route) == (status, "/static/{path}")


def test_a_websocket_route():
    with recording() as seen:
        received = {"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 4001}
        call(APP, scope("websocket", path="/rooms/blue"), *received, log=[])
    assert seen.one().route == "/rooms/{name}"
    assert seen.one().events == ["accepted", ("disconnected", 4001), "closed"]


def test_the_route_is_known_before_the_websocket_is_accepted():
    async def room(websocket):
        assert websocket.scope[runtime.RECORD].route == "/{name}"
        await websocket.accept()
        await websocket.close()

    with recording() as seen:
        app = Starlette(routes=[WebSocketRoute("/{name}", room)])
        call(app, scope("websocket", path="/blue"), {"type": "websocket.connect"}, log=[])
    assert "accepted" in seen.one().events


def test_one_record_below_the_server_layer():
    with recording() as seen:
        call(Entrance(APP, ""), scope(path="/users/7"), log=[])
        assert seen.one().route == "/users/{id}"


def test_a_request_within_a_request_has_its_own_record():
    async def outer(request):
        transport = httpx.ASGITransport(APP)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return PlainTextResponse((await client.get("/users/7")).text)

    with recording() as seen:
        call(Starlette(routes=[Route("/outer", outer)]), scope(path="/outer"), log=[])
    assert [record.route for record in seen.wait(2)] == ["/outer", "/users/{id}"]


def test_starlettes_own_telemetry_stands_back(monkeypatch):
    spans = []
    middleware = Middleware(OpenTelemetryMiddleware)
    app = Starlette(routes=[Route("/", ok)], middleware=[middleware])
    monkeypatch.setattr(
        "opentelemetry.trace.ProxyTracerProvider.get_tracer", lambda *args: spans.append(args)
    )
    get(app, "/")
    assert spans == []
    StarletteHook().uninstrument()
    with pytest.raises(AttributeError):  # the tracer above is None: it would have made a span
        call(app, scope(), log=[])
    StarletteHook().instrument(skip_dep_check=True)


def test_a_stream_cut_by_its_client():
    """Starlette cancels the stream when the client has left."""

    async def endless():
        while True:
            yield b"x"
            await asyncio.sleep(0)

    with recording() as seen:
        app = Starlette(routes=[Route("/", lambda request: StreamingResponse(endless()))])
        call(app, scope(), {"type": "http.disconnect"}, log=[])
    assert "completed" not in seen.one().events


def test_the_class_still_looks_like_asgi_3():
    assert inspect.iscoroutinefunction(APP.__call__)
    assert Starlette.__call__.__doc__ == Starlette.__call__.__wrapped__.__doc__


def test_taken_out_by_identity():
    StarletteHook().uninstrument()
    before = Starlette.__call__, Route.handle, WebSocketRoute.handle, Mount.handle
    StarletteHook().instrument(skip_dep_check=True)
    assert Starlette.__call__ is not before[0]
    StarletteHook().uninstrument()
    assert (Starlette.__call__, Route.handle, WebSocketRoute.handle, Mount.handle) == before
    with recording() as seen:
        call(APP, scope(path="/users/7"), log=[])
    assert seen.records == []
    StarletteHook().instrument(skip_dep_check=True)


@pytest.mark.parametrize("library", ["uvicorn", "starlette", "fastapi"])
def test_the_hook_does_not_import_its_library(library):
    program = f"import sys, pbmon.hooks.{library}; assert {library!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
