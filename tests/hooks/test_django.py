"""Django: its routes, its exceptions, and whose request it is without a query of ours."""

from __future__ import annotations

import asyncio
import gc
import inspect
import subprocess
import sys
import uuid
import warnings
from contextlib import contextmanager

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pbmon import identity, signals
from pbmon.hooks import upstream
from pbmon.hooks.django import DjangoHook, template_of
from pbmon.hooks.starlette import StarletteHook
from pbmon.hooks.uvicorn import Entrance, UvicornHook
from pbmon.runtime import active
from pbmon.testing import capture
from tests.hooks.recorder import SERVERS, call, hooked, recording, scope, serving

QUERIES = {"untouched": 0, "asked": 2, "asked-async": 2, "opened": 1}
"""Statements of a request by a user who is logged in: the session, the user."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("DJANGO_SITE_DATABASE", str(tmp_path_factory.mktemp("django") / "site.sqlite3"))
    from tests.hooks import django_site

    django_site.prepare()
    yield django_site
    from django.db import connections

    connections.close_all()
    patch.undo()


@pytest.fixture(scope="module")
def asgi(site):
    from django.core.asgi import get_asgi_application

    return get_asgi_application()  # made before the hook: patching the class must reach it


@pytest.fixture(scope="module")
def wsgi(site):
    from django.core.wsgi import get_wsgi_application

    return get_wsgi_application()


@pytest.fixture(autouse=True)
def hook():
    with hooked(DjangoHook):
        yield


@pytest.fixture
def statements(monkeypatch, site):
    """Statements that Django runs, in whatever thread."""
    from django.db.backends.utils import CursorWrapper

    seen = []
    execute = CursorWrapper.execute

    def counted(self, sql, params=None):
        seen.append(sql)
        return execute(self, sql, params)

    monkeypatch.setattr(CursorWrapper, "execute", counted)
    return seen


@contextmanager
def asking(app, how):
    """A client of the application, in the same process."""
    if how == "asgi":
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        loop = asyncio.new_event_loop()  # one for all requests
        client = httpx.AsyncClient(transport=transport, base_url="http://x")
        yield lambda path, **more: loop.run_until_complete(client.get(path, **more))
        loop.run_until_complete(client.aclose())
        loop.close()
    else:
        with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://x") as client:
            yield client.get


def get(app, path):
    async def go():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get(path)

    with recording() as seen:
        answer = asyncio.run(go())
    return answer, seen.one()


# --- routes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "route"),
    [
        ("/", 200, "/"),
        ("/users/7/", 200, "/users/{pk}/"),
        ("/users/ann/", 404, None),
        ("/users/7", 301, None),
        ("/files/a/b.txt", 200, "/files/{rest}"),
        ("/archive/2026/", 200, "/archive/{year}/page-{page}/"),
        ("/archive/2026/page-3/", 200, "/archive/{year}/page-{page}/"),
        (f"/api/v1/items/{uuid.UUID(int=7)}", 200, "/api/{version}/items/{id}"),
        ("/api/v1/x/7/", 200, "/api/{version}/x/{1}/"),
        ("/things/", 200, "/things/"),
        ("/forbidden", 403, "/forbidden"),
        ("/missing", 404, "/missing"),
        ("/stream", 200, "/stream"),
        ("/nothing", 404, None),
    ],
)
def test_route(asgi, path, status, route):
    answer, record = get(asgi, path)
    assert (answer.status_code, record.route) == (status, route)
    assert record.events == [("started", status), "completed", "closed"]


def test_another_method_has_the_route(asgi):
    with recording() as seen:
        call(asgi, scope(path="/things/", method="PUT"), {"type": "http.request"}, log=[])
    assert (seen.one().route, seen.one().events[0]) == ("/things/", ("started", 405))


@pytest.mark.parametrize(
    ("route", "template"),
    [
        ("", "/"),
        ("users/<int:pk>/", "/users/{pk}/"),
        ("<slug>/x/<path:rest>", "/{slug}/x/{rest}"),
        ("en/a+b/", "/en/a+b/"),
        (r"^page/(?P<n>[0-9]+)/$", "/page/{n}/"),
        (r"^a/(\d+)/(x(y)z)/$", "/a/{1}/{2}/"),
        (r"^(?:page-(?P<p>\d+)/)?$", "/page-{p}/"),
        (r"x/(?P<a>(?:b|c)+)/(?:y){1,2}\Z", "/x/{a}/y"),
        (r"^x/(?P<id>[()\]]+)/$", "/x/{id}/"),
        (r"^a\.b/(?P<y>\d{4})/?$", "/a.b/{y}/"),
        (r"^lit\(x\)/$", "/lit(x)/"),
    ],
)
def test_template(route, template):
    assert template_of(route) == template


def test_below_a_mount_the_route_is_the_whole_path(asgi):
    from starlette.applications import Starlette
    from starlette.routing import Mount

    app = Starlette(routes=[Mount("/shop/{tenant}", asgi)])
    with hooked(StarletteHook):
        for path, route in (
            ("/shop/a/users/7/", "/shop/{tenant}/users/{pk}/"),
            ("/shop/a/nothing", "/shop/{tenant}/{path}"),
        ):
            assert get(app, path)[1].route == route


# --- exceptions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "error"), [("/broken", "LookupError"), ("/broken-async", "KeyError")]
)
def test_an_exception_that_becomes_an_answer_is_reported(asgi, path, error):
    answer, record = get(asgi, path)
    assert answer.status_code == 500
    assert record.events == [("failed", error), ("started", 500), "completed", "closed"]
    assert record.route == path


@pytest.fixture
def raising():
    """Where its handler raises, Django leaves the file of the request's body to the collector."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_an_exception_that_is_let_through_is_reported(asgi, raising):
    from django.test import override_settings

    with override_settings(DEBUG_PROPAGATE_EXCEPTIONS=True):
        _, record = get(asgi, "/broken")
    assert record.events == [("failed", "LookupError"), "closed"]


def test_a_broken_stream_is_reported(asgi, raising):
    _, record = get(asgi, "/broken-stream")
    assert record.events == [("started", 200), ("failed", "LookupError"), "closed"]


def test_the_span_has_the_exception_and_the_route(asgi):
    with capture() as seen:
        asyncio.run(_get_all(asgi, "/broken", "/users/7/"))
    broken, found = seen.spans
    assert (broken.name, broken.status) == ("GET /broken", "ERROR")
    assert broken.attributes["error.type"] == "LookupError"
    assert broken.attributes["http.response.status_code"] == 500
    assert (found.name, found.status) == ("GET /users/{pk}/", "UNSET")


def test_in_upstreams_mode_its_span_has_them(asgi, monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    upstream._middleware.cache_clear()
    DjangoHook().uninstrument()
    with capture(hooks={"django": "upstream"}) as seen:
        DjangoHook().instrument(skip_dep_check=True)
        asyncio.run(_get_all(asgi, "/broken"))
        assert seen.spans == []
    upstream._middleware.cache_clear()
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.kind) == ("GET /broken", trace.SpanKind.SERVER)
    assert span.attributes["error.type"] == "LookupError"
    DjangoHook().instrument(skip_dep_check=True)


async def _get_all(app, *paths):
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        for path in paths:
            await client.get(path)


# --- one record ---------------------------------------------------------------------------------


def test_one_record_below_the_server_layer(asgi):
    with recording() as seen:
        call(Entrance(asgi, ""), scope(path="/users/7/"), {"type": "http.request"}, log=[])
        assert seen.one().route == "/users/{pk}/"


@pytest.mark.server
@pytest.mark.parametrize("server", SERVERS, ids=lambda config: config["http"])
def test_a_session_under_uvicorn(asgi, server, statements):
    """Login, and requests that load the user, the session or nothing."""
    with (
        hooked(UvicornHook),
        recording() as seen,
        serving(asgi, **server) as address,
        httpx.Client(base_url=f"http://{address}", timeout=60) as client,
    ):
        assert client.get("/login").json()["user"] == "1"
        key = client.cookies["sessionid"]
        del statements[:]
        for path, count in QUERIES.items():
            answer = client.get(f"/{path}").json()
            assert len(statements) == count, (path, statements)
            del statements[:]
            last = answer.get("seen", [answer])[-1]
            expected = (None, None) if path == "untouched" else ("1", key)
            assert (last["user"], last["session"]) == expected, path
        assert client.get("/stream").text == "ab"
        assert client.get("/broken").status_code == 500
    assert [record.route for record in seen.wait(7)] == [
        "/login", *(f"/{path}" for path in QUERIES), "/stream", "/broken",
    ]  # fmt: skip


# --- whose request it is ------------------------------------------------------------------------


@pytest.fixture(params=["asgi", "wsgi"])
def ask(request):
    """ask(path): the answer of an application that somebody has logged in to, by ASGI or WSGI."""
    app = request.getfixturevalue(request.param)
    with asking(app, request.param) as asked, recording():
        assert asked("/login").json()["user"] == "1"
        yield asked


def test_nobody_is_found_as_long_as_nothing_is_loaded(ask, statements):
    assert ask("/untouched").json() == {
        "note": "", "user": None, "session": None, "accessed": False,
    }  # fmt: skip
    assert statements == []


@pytest.mark.parametrize("path", ["/asked", "/asked-async"])
def test_a_user_who_is_loaded_is_found(ask, statements, path):
    before, after = ask(path).json()["seen"]
    assert before == {"note": "before", "user": None, "session": None}
    assert (after["note"], after["user"]) == ("1", "1")
    assert len(after["session"]) == 32
    assert len(statements) == 2


def test_in_a_loaded_session_the_user_is_found_without_being_loaded(ask, statements):
    answer = ask("/opened").json()
    before, after = answer["seen"]
    assert (before["user"], after["user"]) == (None, "1")
    assert answer["lazy"] is False
    assert len(statements) == 1


def test_the_answer_is_the_same_as_without_the_hook(ask, statements):
    """No header more, such as Vary, and no query."""
    with_hook = [(path, dict(ask(path).headers), len(statements)) for path in ("/untouched", "/")]
    DjangoHook().uninstrument()
    del statements[:]
    without = [(path, dict(ask(path).headers), len(statements)) for path in ("/untouched", "/")]
    DjangoHook().instrument(skip_dep_check=True)
    for (_, headers, _), (_, others, _) in zip(with_hook, without, strict=True):
        assert headers.keys() == others.keys()
        assert headers.get("vary") == others.get("vary") is None
    assert [count for *_, count in with_hook] == [count for *_, count in without]


def test_who_logs_out_is_nobody(ask):
    answer = ask("/logout").json()
    assert answer["user"] is None
    assert ask("/asked").json()["seen"][1]["user"] is None


def test_somebody_unknown_is_nobody(asgi):
    answer, _ = get(asgi, "/asked")
    assert answer.json()["seen"][1] == {"note": "None", "user": None, "session": None}


def test_a_request_leaves_nobody_behind(ask):
    ask("/asked")
    assert identity.current() is None


def test_the_settings_come_first(ask, monkeypatch):
    monkeypatch.setattr(active, "find_user", identity.in_header("x-user"))
    monkeypatch.setattr(active, "find_session", identity.in_cookie("sessionid"))
    found = ask("/untouched", headers={"x-user": "ben"}).json()
    assert found["user"] == "ben"
    assert len(found["session"]) == 32


def test_a_session_kept_in_its_cookie_has_no_id(site, asgi):
    from django.test import override_settings

    engine = "django.contrib.sessions.backends.signed_cookies"
    with override_settings(SESSION_ENGINE=engine), recording(), asking(_made(), "asgi") as asked:
        asked("/login")
        found = asked("/asked").json()["seen"][1]
        assert (found["user"], found["session"]) == ("1", None)


def _made():
    """The session engine is looked up when the middleware is made."""
    from django.core.asgi import get_asgi_application

    return get_asgi_application()


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
def test_djangos_own_test_clients(site, kind, statements):
    from django import test

    client = getattr(test, kind)()
    user = site.auth.get_user_model().objects.get(pk=1)
    if kind == "Client":
        client.force_login(user)
        seen = client.get("/asked").json()["seen"]
    else:

        async def go():
            await client.aforce_login(user)
            return (await client.get("/asked")).json()["seen"]

        seen = asyncio.run(go())
    assert seen[1]["user"] == "1"
    assert identity.current() is None


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
def test_requests_of_djangos_own_test_clients_are_seen(site, kind):
    from django import test

    client = getattr(test, kind)(raise_request_exception=False)

    def get(path):
        answer = client.get(path, headers={"x-tenant": "ü"})
        return answer if kind == "Client" else asyncio.run(answer)

    with capture(request_headers=["x-tenant"], excluded_urls=["/asked"]) as seen:
        assert get("/users/7/?q=1").status_code == 200
        assert get("/nowhere").status_code == 404
        assert get("/broken").status_code == 500
        assert get("/asked").status_code == 200
    user, nowhere, broken = seen.spans
    assert (user.name, user.kind, user.status) == ("GET /users/{pk}/", "SERVER", "UNSET")
    assert user.attributes["http.response.status_code"] == 200
    assert user.attributes["url.path"] == "/users/7/"
    assert user.attributes["http.request.header.x-tenant"]
    assert (nowhere.name, nowhere.attributes["http.response.status_code"]) == ("GET", 404)
    assert (broken.status, broken.attributes["http.response.status_code"]) == ("ERROR", 500)
    assert [(r.name, r.failed) for r in seen.requests] == [
        ("GET /users/{pk}/", False), (broken.name, True)
    ]  # fmt: skip
    assert identity.current() is None


def test_track_knows_who(ask):
    with capture(consent="not-required") as seen:
        assert ask("/bought").text == "ok"
    (event,) = seen.entries
    assert (event.name, event.user_id, len(event.session_id)) == ("bought", "1", 32)


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["asgi", "wsgi"])
def test_an_error_counts_once_with_its_route_and_404_is_none(asgi, wsgi, how):
    with capture() as seen, asking({"asgi": asgi, "wsgi": wsgi}[how], how) as asked:
        assert asked("/broken").status_code == 500
        assert asked("/nowhere").status_code == 404
    (entry,) = seen.entries
    assert (entry.route, entry.errors, entry.handled) == ("/broken", 1, False)
    assert entry.place == "tests.hooks.django_site:broken"
    assert sum(seen.metrics["pbmon.errors"].values()) == 1


# --- whatever happens to us ---------------------------------------------------------------------


def test_a_fault_of_ours_leaves_the_request_alone(asgi, wsgi, monkeypatch):
    def fail(*args):
        raise RuntimeError("ours")

    with recording():
        monkeypatch.setattr(signals, "reraise", False)
        for target in ("template_of", "Visitor", "_scope_of"):
            with monkeypatch.context() as patch:
                patch.setattr(f"pbmon.hooks.django.{target}", fail)
                for app, how in ((asgi, "asgi"), (wsgi, "wsgi")):
                    with asking(app, how) as asked:
                        assert asked("/users/7/").text == "ok", target
                        if how == "asgi":
                            assert asked("/broken").status_code == 500


def test_the_class_still_looks_like_asgi_3(asgi):
    assert inspect.iscoroutinefunction(type(asgi).__call__)


def test_taken_out_by_identity(asgi):
    from django.core.handlers import base, exception
    from django.test import client

    DjangoHook().uninstrument()
    handler = type(asgi)
    names = "resolve_request", "get_response", "get_response_async"

    def state():
        return (
            handler.__call__,
            exception.handle_uncaught_exception,
            client.ClientHandler.__call__,
            client.AsyncClientHandler.__call__,
            *(getattr(base.BaseHandler, name) for name in names),
        )

    before = state()
    DjangoHook().instrument(skip_dep_check=True)
    assert all(a is not b for a, b in zip(before, state(), strict=True))
    DjangoHook().uninstrument()
    assert state() == before
    DjangoHook().instrument(skip_dep_check=True)


def test_the_hook_does_not_import_its_library():
    program = "import sys, pbmon.hooks.django; assert 'django' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
