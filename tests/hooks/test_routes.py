"""Route templates over random trees of mounts: the template that was built, never a value."""

from __future__ import annotations

import string
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute

from pbmon import signals
from pbmon.hooks import routes
from pbmon.hooks.fastapi import FastAPIHook
from pbmon.hooks.starlette import StarletteHook
from tests.hooks.recorder import call, hooked, recording, scope

# Templates hold letters a–w and no digits; concrete values start with z or are digits.
NAMES = st.text(string.ascii_lowercase[:23], min_size=1, max_size=6)
VALUES: dict[str, st.SearchStrategy[str]] = {
    "": st.integers(0, 999).map(lambda n: f"z{n}"),
    ":str": st.integers(0, 999).map(lambda n: f"z{n}"),
    ":int": st.integers(0, 10**6).map(str),
    ":float": st.integers(0, 999).map(lambda n: f"{n}.5"),
    ":uuid": st.just(str(uuid.UUID(int=0x23456789012345678901234567890123))),
}


@dataclass
class Piece:
    """Part of a path: as declared, as its template, as requested, and the values in it."""

    declared: str = ""
    template: str = ""
    requested: str = ""
    values: tuple[str, ...] = ()

    def __add__(self, other: Piece) -> Piece:
        return Piece(
            self.declared + other.declared,
            self.template + other.template,
            self.requested + other.requested,
            self.values + other.values,
        )


@st.composite
def pieces(draw: Callable[..., Any], depth: int, *, least: int = 0) -> Piece:
    """Up to three segments; parameters are named by their depth, so no two are alike."""
    piece = Piece()
    for number in range(draw(st.integers(least, 3))):
        if draw(st.booleans()):
            name = draw(NAMES)
            piece += Piece(f"/{name}", f"/{name}", f"/{name}")
        else:
            name = f"p{'abcdefgh'[depth]}{'abc'[number]}"
            convertor = draw(st.sampled_from(sorted(VALUES)))
            value = draw(VALUES[convertor])
            declared = f"/{{{name}{convertor}}}"
            piece += Piece(declared, f"/{{{name}}}", f"/{value}", (value,))
    return piece


class Wrapper:
    """A middleware as most are: it keeps the application in `app`, and here copies the scope."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(dict(scope), receive, send)


def include(piece: Piece, inner: Any) -> Any:
    app = FastAPI()
    outer, deep = APIRouter(), APIRouter(routes=[inner])
    outer.include_router(deep, prefix=piece.declared)
    app.include_router(outer)
    return Mount("", app)


def in_fastapi(piece: Piece, inner: Any) -> Any:
    app = FastAPI()
    app.router.routes.append(inner)
    return Mount(piece.declared, app)


BRANCHES: dict[str, Callable[[Piece, Any], Any]] = {
    "routes": lambda piece, inner: Mount(piece.declared, routes=[Route("/zdecoy", ok), inner]),
    "router": lambda piece, inner: Mount(piece.declared, Router([inner])),
    "starlette": lambda piece, inner: Mount(piece.declared, Starlette(routes=[inner])),
    "wrapped": lambda piece, inner: Mount(piece.declared, Wrapper(Starlette(routes=[inner]))),
    "middleware": lambda piece, inner: Mount(
        piece.declared, routes=[inner], middleware=[Middleware(Wrapper)]
    ),
    "host": lambda piece, inner: Mount(
        piece.declared, routes=[Host("{zsub}.example.org", Router([inner]))]
    ),
    "fastapi": in_fastapi,
    "include": include,
}


def ok(request):
    return PlainTextResponse("ok")


async def opaque(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})


async def talk(websocket):
    await websocket.accept()
    await websocket.close()


def api_route(path: str) -> Any:
    router = APIRouter()
    router.add_api_route(path, lambda: "ok")
    return router.routes[0]


LEAVES: dict[str, Callable[[Piece], tuple[Any, str, str]]] = {
    # How it is declared; what its template and the request have beyond the piece.
    "route": lambda piece: (Route(piece.declared + "/end", ok), "/end", "/end"),
    "path": lambda piece: (Route(piece.declared + "/{rest:path}", ok), "/{rest}", "/z1/z2"),
    "slash": lambda piece: (Route(piece.declared + "/", ok), "/", "/"),
    "api": lambda piece: (api_route(piece.declared + "/end"), "/end", "/end"),
    "opaque": lambda piece: (Mount(piece.declared, opaque), "/{path}", "/z1/z2"),
    "websocket": lambda piece: (WebSocketRoute(piece.declared + "/end", talk), "/end", "/end"),
}


@st.composite
def trees(draw: Callable[..., Any], leaf: str) -> tuple[Any, str, str, tuple[str, ...]]:
    """An application; its one route's template; a request for it; the values in that."""
    depth = draw(st.integers(0, 4))
    piece = draw(pieces(depth, least=1))
    node, template, requested = LEAVES[leaf](piece)
    whole = Piece("", piece.template + template, piece.requested + requested, piece.values)
    if template == "/{path}" or template == "/{rest}":
        whole.values += ("z1", "z2")
    for level in reversed(range(depth)):
        kind = draw(st.sampled_from(sorted(BRANCHES)))
        prefix = draw(pieces(level, least=1))
        node = BRANCHES[kind](prefix, node)
        whole = prefix + whole
    app = FastAPI() if leaf == "api" or draw(st.booleans()) else Starlette()
    app.router.routes.append(node)
    return app, whole.template, whole.requested, whole.values


@pytest.fixture(scope="module", autouse=True)
def hooks():
    signals.reraise = True
    with hooked(StarletteHook, FastAPIHook):
        yield


def ask(app, path, kind="http", **more):
    with recording() as seen:
        values = {"path": path, "headers": [(b"host", b"z7.example.org")], **more}
        call(app, scope(kind, **values), {"type": "websocket.connect"}, log=seen.log)
    return seen.one()


@pytest.mark.parametrize("leaf", LEAVES)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_the_route_is_the_template_that_was_built(leaf, data):
    app, template, path, values = data.draw(trees(leaf))
    kind = "websocket" if leaf == "websocket" else "http"
    record = ask(app, path, kind)
    assert record.route == template
    assert record.events[0] == ("accepted" if kind == "websocket" else ("started", 200))
    for segment in record.route.split("/"):
        assert segment not in values


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_what_matches_nothing_has_no_route(data):
    app, _, path, _ = data.draw(trees("route"))
    record = ask(app, path + "/zzz")
    assert ("started", 404) in record.events
    assert record.route is None


@settings(deadline=None, max_examples=60)
@given(data=st.data(), leaf=st.sampled_from(["route", "api"]))
def test_a_method_that_is_not_allowed_has_the_route(data, leaf):
    app, template, path, _ = data.draw(trees(leaf))
    record = ask(app, path, method="DELETE")
    assert ("started", 405) in record.events
    assert record.route == template


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_a_redirect_to_the_slash_has_no_route(data):
    app, _, path, _ = data.draw(trees("slash"))
    record = ask(app, path.rstrip("/"))
    assert record.events[0] in (("started", 307), ("started", 404))
    assert record.route is None


def test_a_route_without_an_application():
    with recording() as seen:
        route = Route("/items/{id:int}", ok)
        call(route, scope(path="/items/7"), log=[])
        assert seen.records == [], "nothing observes it, nothing breaks"


def test_a_record_of_another_kind_of_route_is_left_alone(monkeypatch):
    """Our own failure reaches nobody."""
    monkeypatch.setattr(signals, "reraise", False)
    seen = []

    def broken(route, scope):
        raise KeyError("path_format")

    handle = routes.noting(broken, lambda self, scope, receive, send: seen.append(scope))
    handle(None, {}, None, None)
    assert seen == [{}]
