"""Against upstream's ASGI instrumentation as the oracle: nothing it records may be missing."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from pbmon.hooks.asgi import Observed
from pbmon.testing import capture

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

# What is left out or changed on purpose: attribute → why.
DIFFERENT = {
    "client.address": "personal data: only with client_address",
    "client.port": "as client.address; a port of a person's machine says nothing",
    "url.query": "values are replaced, keys stay",
    "server.address": "the Host header is the client's word; ours is the server's own address",
    "server.port": "as server.address",
}


async def endpoint(request):
    status = int(request.path_params["status"])
    if status == 599:
        raise ValueError("no")
    return PlainTextResponse("x" * 10, status_code=status)


def application():
    methods = ["GET", "POST", "PUT", "DELETE", "PATCH"]
    return Starlette(routes=[Route("/items/{status}", endpoint, methods=methods)])


def call(app, method, path, query, headers):
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"shop.example:8443"), *headers],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
    }

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        pass

    async def run():
        try:
            await app(scope, receive, send)
        except ValueError:
            pass

    asyncio.run(run())


def upstream_span(monkeypatch, *request):
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    monkeypatch.setattr(
        "opentelemetry.instrumentation._semconv._OpenTelemetrySemanticConventionStability._initialized",
        False,
    )
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = OpenTelemetryMiddleware(
        application(),
        tracer_provider=provider,
        meter_provider=NoOpMeterProvider(),
        exclude_spans=["send", "receive"],
    )
    call(app, *request)
    (span,) = exporter.get_finished_spans()
    return span


def pbmon_span(*request):
    with capture(hooks={"uvicorn": "off"}) as seen:
        call(Observed(application()), *request)
    (span,) = seen.spans
    return span


@pytest.mark.parametrize("status", [200, 201, 302, 404, 422, 500, 503, 599])
@pytest.mark.parametrize(
    ("method", "query", "headers"),
    [
        ("GET", b"", []),
        ("POST", b"page=2&size=5", [(b"user-agent", b"curl/8"), (b"content-length", b"0")]),
        ("PUT", b"", [(b"traceparent", TRACEPARENT.encode())]),
    ],
)
def test_every_attribute_of_upstream_is_there_too(monkeypatch, status, method, query, headers):
    request = (method, f"/items/{status}", query, headers)
    theirs, ours = upstream_span(monkeypatch, *request), pbmon_span(*request)
    expected = {k: v for k, v in theirs.attributes.items() if k not in DIFFERENT}
    assert len(expected) >= 5
    if status == 599:  # upstream sees the answer, we also the exception
        assert expected.pop("error.type") == "500"
        assert ours.attributes["error.type"] == "ValueError"
    assert expected.items() <= ours.attributes.items()
    assert ours.status == theirs.status.status_code.name
    assert ours.kind == theirs.kind.name
    parent = theirs.parent.span_id if theirs.parent else None
    assert ours.parent_id == (f"{parent:016x}" if parent else None)


def test_the_query_keeps_its_keys(monkeypatch):
    request = ("GET", "/items/200", b"card=4111&x", [])
    assert upstream_span(monkeypatch, *request).attributes["url.query"] == "card=4111&x"
    assert pbmon_span(*request).attributes["url.query"] == "card=REDACTED&REDACTED"
