"""Mode `upstream`: upstream's span around our record, which may still annotate it at the end."""

from __future__ import annotations

import logging
import subprocess
import sys

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from websockets.sync.client import connect

from pbmon import runtime, wiring
from pbmon.hooks import asgi, upstream
from pbmon.hooks.fastapi import FastAPIHook
from pbmon.hooks.starlette import StarletteHook
from pbmon.hooks.uvicorn import UvicornHook
from pbmon.testing import capture
from tests.hooks.recorder import Recorded, call, hooked, recording, scope, serving


class Annotating(Recorded):
    """Writes what it is told on the span that is current when it is made, as telemetry does."""

    def __init__(self, sink, scope):
        super().__init__(sink, scope)
        self.span = trace.get_current_span()
        self.span.set_attribute("seen.request", True)

    def response_completed(self):
        self.span.set_attribute("seen.completed", str(self.route))
        super().response_completed()

    def disconnected(self, code):
        self.span.set_attribute("seen.code", code)
        super().disconnected(code)

    def failed(self, error):
        if self.span.is_recording():
            self.span.set_attribute("seen.failed", True)
        super().failed(error)


@pytest.fixture
def spans(monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    upstream._middleware.cache_clear()
    monkeypatch.setattr("tests.hooks.recorder.Recorded", Annotating)
    return exporter


def ok(request):
    return PlainTextResponse("ok", background=BackgroundTask(lambda: None))


def broken(request):
    raise LookupError


async def room(websocket):
    await websocket.accept()
    await websocket.close(4001)


APP = Starlette(
    routes=[
        Route("/users/{id}", ok),
        Route("/broken", broken),
        WebSocketRoute("/{room}", room),
    ]
)
BOTH = {"uvicorn": "upstream", "starlette": "upstream", "fastapi": "upstream"}


@pytest.mark.parametrize("modes", [{"uvicorn": "upstream"}, BOTH], ids=["server", "every"])
def test_one_span_one_record(spans, modes):
    hooks = hooked(UvicornHook, StarletteHook, FastAPIHook, **modes)
    with hooks, recording() as seen, serving(APP) as address:
        assert httpx.get(f"http://{address}/users/7").text == "ok"
        record = seen.one()
    assert record.events == [("started", 200), "completed", "closed"]
    [span] = spans.get_finished_spans()
    assert span.name == "GET", "the record names it by its route; upstream would by its path"
    assert span.instrumentation_scope.name == "opentelemetry.instrumentation.asgi"
    assert span.attributes["seen.completed"] == "/users/{id}", "the span had not ended yet"


def test_instrumented_anew_it_is_made_anew(spans):
    """Its tracer belongs to the provider that was set when it was made."""
    with recording():
        call(upstream.UpstreamObserved(APP), scope(path="/users/7"), log=[])
    made = upstream._middleware()
    with hooked(StarletteHook, starlette="upstream"):
        assert upstream._middleware() is not made


def test_at_the_framework_alone(spans):
    with hooked(StarletteHook, starlette="upstream"), recording() as seen:
        call(APP, scope(path="/users/7"), log=[])
        call(APP, scope(path="/users/8"), log=[])
        seen.wait(2)
    assert [span.attributes["seen.completed"] for span in spans.get_finished_spans()] == [
        "/users/{id}"
    ] * 2


def test_an_exception_of_the_application_is_its_own(spans):
    calls = []

    async def app(scope, receive, send):
        calls.append(scope)
        raise LookupError

    with recording(failing=frozenset(["nothing"])) as seen, pytest.raises(LookupError):
        call(upstream.UpstreamObserved(app), scope(), log=[])
    assert len(calls) == 1, "not tried a second time"
    assert seen.one().events == [("failed", "LookupError"), "closed"]
    [span] = spans.get_finished_spans()
    assert span.attributes["seen.failed"]


def test_the_metrics_are_ours_alone(spans, monkeypatch):
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    monkeypatch.setattr("opentelemetry.metrics._internal._METER_PROVIDER", provider)
    with recording():
        call(upstream.UpstreamObserved(APP), scope(path="/users/7"), log=[])
    assert reader.get_metrics_data() is None
    provider.get_meter("control").create_counter("counter").add(1)
    assert reader.get_metrics_data() is not None


def test_a_websocket(spans):
    with hooked(UvicornHook, StarletteHook, **BOTH), recording() as seen, serving(APP) as address:
        with connect(f"ws://{address}/blue") as client:
            client.close()
        record = seen.one()
    assert record.events[0] == "accepted"
    assert record.route == "/{room}"
    [span] = spans.get_finished_spans()
    assert (span.name, span.attributes["seen.code"]) == ("GET", 4001)


def test_where_upstream_fails_the_application_answers(spans, monkeypatch):
    """Upstream answers 500 for these bytes in a header."""
    monkeypatch.setattr("pbmon.signals.reraise", False)
    bad = {"headers": [(b"host", b"\xff\\x"), (b"user-agent", b"\xff\\x")]}
    told = []
    monkeypatch.setattr("pbmon.signals.tell", lambda *args, **kwargs: told.append(args))
    with recording(failing=frozenset(["nothing"])) as seen:
        call(upstream.UpstreamObserved(APP), scope(path="/users/7", **bad), log=seen.log)
    assert seen.one().events == [("started", 200), "completed", "closed"]
    assert "sent http.response.start" in seen.log
    assert len(told) == 1


def test_excluded_urls_have_no_span(spans):
    with hooked(uvicorn="upstream"), recording(excluded="/users/7") as seen:
        runtime.active.settings = type(runtime.active.settings)(excluded_urls=("users/7$",))
        call(upstream.UpstreamObserved(APP), scope(path="/users/7"), log=seen.log)
        call(upstream.UpstreamObserved(APP), scope(path="/users/77"), log=[])
        assert seen.one().scope["path"] == "/users/77"
    assert len(spans.get_finished_spans()) == 1


def test_an_unknown_method_is_not_in_the_name(spans):
    with recording():
        call(upstream.UpstreamObserved(APP), scope(method="X" * 99), log=[])
    assert spans.get_finished_spans()[0].name == "HTTP"


def test_the_values_of_a_query_stay_here(spans):
    with recording():
        for query in (b"card=4111111111111111&page=2", b""):
            call(upstream.UpstreamObserved(APP), scope(query_string=query), log=[])
    seen = [span.attributes.get("url.query") for span in spans.get_finished_spans()]
    assert seen == ["card=REDACTED&page=REDACTED", None]


def test_a_lifespan_and_unknown_scopes_pass(monkeypatch):
    flushed, seen = [], []
    monkeypatch.setattr(runtime.active, "flush", flushed.append)

    async def app(scope, receive, send):
        seen.append(scope["type"])
        await send({"type": "lifespan.shutdown.complete"})

    for kind in ("lifespan", "telepathy"):
        call(upstream.UpstreamObserved(app), {"type": kind}, log=[])
    assert (seen, flushed) == (["lifespan", "telepathy"], [asgi.FLUSH_S])


def test_a_broken_sink_changes_nothing(spans):
    with recording(failing=frozenset(["request", "response_completed", "closed"])) as seen:
        call(upstream.UpstreamObserved(APP), scope(path="/users/7"), log=seen.log)
    assert seen.log == ["sent http.response.start", "sent http.response.body"]


def test_without_its_package_our_own_hook_runs(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.asgi", None)
    monkeypatch.setattr("pbmon.signals._last_told", {})
    with caplog.at_level(logging.WARNING), hooked(UvicornHook, uvicorn="upstream"):
        state = runtime.active.hooks["uvicorn"]
        assert (state.mode, state.state) == ("pbmon", "active")
        with recording() as seen, serving(APP) as address:
            assert httpx.get(f"http://{address}/users/7").text == "ok"
            seen.one()
    [told] = [r.getMessage() for r in caplog.records if "upstream" in r.getMessage()]
    assert told == (
        "pbmon: hook uvicorn: mode upstream needs its package (pip install 'pbmon[upstream]'); "
        "pbmon's own hook runs instead"
    )


def test_pbmons_own_mode_does_not_import_upstream():
    program = (
        "import sys; from pbmon.hooks.uvicorn import UvicornHook;"
        "UvicornHook().instrument(skip_dep_check=True); import uvicorn;"
        "assert 'opentelemetry.instrumentation.asgi' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


ASGI = sorted(e.name for e in wiring.own_instrumentors() if issubclass(e.load(), upstream.ASGIHook))


def test_the_asgi_hooks():
    assert ASGI == ["django", "fastapi", "granian", "gunicorn", "hypercorn", "starlette", "uvicorn"]


@pytest.mark.parametrize("library", ASGI)
def test_there_is_one_server_span_whichever_hook_it_is(spans, library):
    with capture(hooks={library: "upstream"}) as seen:
        call(upstream.layer(library, APP), scope(path="/users/7"), log=[])
        assert seen.spans == []
        assert seen.metric("http.server.request.duration")[0] == 1
    [span] = spans.get_finished_spans()
    assert (span.name, span.kind) == ("GET /users/{id}", trace.SpanKind.SERVER)
