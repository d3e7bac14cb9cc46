"""FastAPI: included routers, sub-applications, and that its own telemetry stands back."""

from __future__ import annotations

import asyncio
import inspect

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from pbmon import runtime
from pbmon.hooks.fastapi import FastAPIHook
from pbmon.hooks.starlette import StarletteHook
from pbmon.hooks.uvicorn import Entrance
from tests.hooks.recorder import call, hooked, recording, scope


async def opaque(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})


class Timed(APIRoute):
    """A route class of the application's own, as FastAPI's documentation shows."""

    def get_route_handler(self):
        inner = super().get_route_handler()

        async def handler(request):
            return await inner(request)

        return handler


def build() -> FastAPI:
    app = FastAPI()
    sub = FastAPI()
    items = APIRouter(prefix="/items", route_class=Timed)
    api = APIRouter(prefix="/v1")

    @app.get("/users/{user_id}")
    def user(user_id: int):
        return user_id

    @items.get("/{item_id:int}")
    @items.get("")
    async def item(item_id: int = 0):
        return item_id

    @items.websocket("/{item_id}/changes")
    async def changes(websocket: WebSocket, item_id: int):
        await websocket.accept()
        await websocket.close(4002)

    @sub.get("/reports/{year}")
    def report(year: int):
        return year

    @app.get("/broken")
    def broken():
        raise LookupError

    items.add_route("/plain/{x}", lambda request: PlainTextResponse("ok"))
    items.mount("/raw", opaque)
    items.mount("/inner", Starlette(routes=[Route("/deep/{z}", lambda r: PlainTextResponse("ok"))]))
    api.include_router(items)
    api.include_router(items, prefix="/again", dependencies=[Depends(lambda: None)])
    app.include_router(api, prefix="/api")
    app.mount("/sub/{tenant}", sub)
    app.mount("/raw", opaque)
    return app


APP = build()
MOUNTED = Starlette(routes=[Mount("/outer/{place}", APP)])


@pytest.fixture(autouse=True)
def hook():
    with hooked(StarletteHook, FastAPIHook):
        yield


def get(app, path, method="GET"):
    async def go():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.request(method, path)

    with recording() as seen:
        answer = asyncio.run(go())
    return answer, seen.one()


ROUTES = [
    ("/users/7", "GET", 200, "/users/{user_id}"),
    ("/users/7", "PUT", 405, "/users/{user_id}"),
    ("/users/ann", "GET", 422, "/users/{user_id}"),
    ("/api/v1/items/7", "GET", 200, "/api/v1/items/{item_id}"),
    ("/api/v1/items/7", "PUT", 405, "/api/v1/items/{item_id}"),
    ("/api/v1/items", "GET", 200, "/api/v1/items"),
    ("/api/v1/again/items/7", "GET", 200, "/api/v1/again/items/{item_id}"),
    ("/api/v1/again/items/7", "DELETE", 405, "/api/v1/again/items/{item_id}"),
    ("/api/v1/plain/7", "GET", 200, "/api/v1/plain/{x}"),
    ("/api/v1/raw/7", "GET", 200, "/api/v1/raw/{path}"),
    ("/api/v1/inner/deep/7", "GET", 200, "/api/v1/inner/deep/{z}"),
    ("/api/v1/inner/7", "GET", 404, None),
    ("/api/v1/nothing", "GET", 404, None),
    ("/sub/blue/reports/7", "GET", 200, "/sub/{tenant}/reports/{year}"),
    ("/sub/blue/nothing", "GET", 404, None),
    ("/raw/7", "GET", 200, "/raw/{path}"),
    ("/openapi.json", "GET", 200, "/openapi.json"),
    ("/nothing", "GET", 404, None),
]


@pytest.mark.parametrize(("path", "method", "status", "route"), ROUTES)
@pytest.mark.parametrize("mounted", [False, True])
def test_route(path, method, status, route, mounted):
    app, prefix = (MOUNTED, "/outer/here") if mounted else (APP, "")
    answer, record = get(app, prefix + path, method)
    assert answer.status_code == status, answer.text
    if route is not None and mounted:
        route = "/outer/{place}" + route
    assert record.route == route
    assert record.events == [("started", status), "completed", "closed"]


@pytest.mark.parametrize("path", ["/api/v1/items", "/api/v1/again/items"])
def test_a_websocket_of_an_included_router(path):
    with recording() as seen:
        received = {"type": "websocket.connect"}
        call(APP, scope("websocket", path=f"{path}/7/changes"), received, log=[])
    assert seen.one().route == path + "/{item_id}/changes"
    assert seen.one().events == ["accepted", ("disconnected", 4002), "closed"]


def test_a_websocket_without_a_route_was_no_connection():
    with recording() as seen:
        call(APP, scope("websocket", path="/no"), {"type": "websocket.connect"}, log=[])
    assert (seen.one().route, seen.one().events) == (None, ["closed"])


def test_a_frontends_files_are_one_route(tmp_path):
    (tmp_path / "index.html").write_text("hello")
    (tmp_path / "a.js").write_text("")
    app, router = FastAPI(), APIRouter()
    router.frontend("/ui", directory=tmp_path)
    app.include_router(router, prefix="/shop")
    for path in ("/shop/ui/a.js", "/shop/ui/"):
        answer, record = get(app, path)
        assert (answer.status_code, record.route) == (200, "/shop/ui/{path}")


def test_an_exception_is_answered_and_then_reported():
    answer, record = get(APP, "/broken")
    assert answer.status_code == 500
    assert record.events == [("started", 500), "completed", ("failed", "LookupError"), "closed"]


def test_one_record_below_the_server_layer():
    with recording() as seen:
        call(Entrance(APP, ""), scope(path="/users/7"), log=[])
        assert seen.one().route == "/users/{user_id}"


@pytest.mark.parametrize("excluded", [None, "/users/7"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_fastapis_own_telemetry_stands_back(monkeypatch, kind, excluded):
    """Also where the request is excluded: then nobody is to report it."""
    used = []

    class Native:
        enabled = staticmethod(lambda: True)

        async def __call__(self, **arguments):
            used.append(arguments["scope"]["path"])

    app = build()
    monkeypatch.setattr(app, "_native_telemetry", Native())
    received = {"type": "websocket.connect"}
    with recording(excluded=excluded):
        call(app, scope(kind, path="/users/7"), received, log=[])
    assert used == []
    FastAPIHook().uninstrument()
    with recording():
        call(app, scope(kind, path="/users/7"), received, log=[])
    assert used == ["/users/7"], "without the hook FastAPI would have reported it"
    FastAPIHook().instrument(skip_dep_check=True)


def test_without_starlettes_hook():
    StarletteHook().uninstrument()
    answer, record = get(APP, "/api/v1/items/7")
    assert (answer.status_code, record.route) == (200, "/api/v1/items/{item_id}")
    assert record.events == [("started", 200), "completed", "closed"]
    StarletteHook().instrument(skip_dep_check=True)


def test_fastapis_internals_may_change(monkeypatch):
    """Whatever stands in the scope, the request is answered."""
    monkeypatch.setattr("pbmon.signals.reraise", False)

    class Odd(dict):
        def get(self, *args):
            if args[0] == "fastapi" and runtime.RECORD in self:
                raise TypeError("not what it was")
            return super().get(*args)

    from pbmon.hooks.fastapi import noting_api_route

    seen = []
    handle = noting_api_route(lambda self, scope, receive, send: seen.append("called"))
    handle(None, Odd({runtime.RECORD: None}), None, None)
    assert seen == ["called"]


def test_taken_out_by_identity():
    import fastapi.routing

    def now():
        return FastAPI.__call__, APIRoute.handle, fastapi.routing._route_selected

    FastAPIHook().uninstrument()
    before = now()
    FastAPIHook().instrument(skip_dep_check=True)
    assert not set(now()) & set(before)
    assert inspect.iscoroutinefunction(APP.__call__)
    FastAPIHook().uninstrument()
    assert now() == before
    FastAPIHook().instrument(skip_dep_check=True)
