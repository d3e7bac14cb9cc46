"""Mode `upstream` of the ASGI hooks: opentelemetry-instrumentation-asgi makes the span, around a
record of ours that annotates it and makes the metrics."""

from __future__ import annotations

import functools
import re
from typing import Any

from opentelemetry.metrics import NoOpMeterProvider

from pbmon import privacy, runtime, signals
from pbmon.catalog import KNOWN_METHODS, QUERY
from pbmon.hooks.asgi import Answer, App, Observed, Receive, Send
from pbmon.hooks.patches import Hook
from pbmon.runtime import RECORD, RequestRecord, Scope

_OUTER = "pbmon.upstream"


class ASGIHook(Hook):
    """Base of the hooks that put an observing layer around an application."""

    upstream = "opentelemetry.instrumentation.asgi:OpenTelemetryMiddleware"

    def run_upstream(self, upstream: Any) -> None:
        # A middleware, not an instrumentor: layer() puts it around the applications.
        _middleware.cache_clear()


def layer(library: str, app: App) -> App:
    """The layer that the hook of this library puts around an application, by its mode."""
    state = runtime.active.hooks.get(library)
    if state is not None and state.mode == "upstream":
        return UpstreamObserved(app)
    return Observed(app)


class UpstreamObserved(Observed):
    """Upstream's middleware around an observed application.

    Upstream ends its span when the last message was passed on, and what comes later is lost. So
    the answer is watched from outside of upstream, the record is made inside.
    """

    __slots__ = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if RECORD in scope or scope["type"] not in ("http", "websocket"):
            await super().__call__(scope, receive, send)
            return
        outer = scope[_OUTER] = _Outer(self.app, send)
        try:
            await _middleware()(scope, receive, outer.send)
        except Exception as error:
            if RECORD in scope:
                raise
            # Upstream itself failed, as on some header bytes; the application was not called.
            signals.failed("upstream's ASGI middleware", error)
            await super().__call__(scope, receive, send)


class _Outer(Answer):
    __slots__ = ("app",)

    def __init__(self, app: App, send: Send) -> None:
        super().__init__(None, send)
        self.app = app

    def report_to(self, record: RequestRecord) -> None:
        self._record = record


class _Inside(Observed):
    __slots__ = ()

    def _watch(self, record: RequestRecord, scope: Scope, send: Send) -> Send:
        scope[_OUTER].report_to(record)
        return send


async def _inside(scope: Scope, receive: Receive, send: Send) -> None:
    await _Inside(scope[_OUTER].app)(scope, receive, send)


class _Excluded:
    """The setting excluded_urls in the shape that upstream's middleware asks."""

    def url_disabled(self, url: str) -> bool:
        patterns = runtime.active.settings.excluded_urls
        return any(re.search(pattern, url) for pattern in patterns)


@functools.cache
def _middleware() -> Any:
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    return OpenTelemetryMiddleware(
        _inside,
        excluded_urls=_Excluded(),
        default_span_details=_name,
        meter_provider=NoOpMeterProvider(),
        exclude_spans=["send", "receive"],
    )


def _name(scope: Scope) -> tuple[str, dict[str, Any]]:
    """Upstream would put the concrete path into the span's name, and a query's values on it."""
    method = scope.get("method", "GET")  # a WebSocket's handshake is a GET (RFC 6455, 4.1)
    query = privacy.mask_query(scope.get("query_string", b"").decode("latin-1"))
    return (method if method in KNOWN_METHODS else "HTTP"), {QUERY.name: query} if query else {}
