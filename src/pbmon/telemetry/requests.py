"""HTTP requests and WebSockets: one server span each, and the metrics of the catalogue.

Implements runtime.RequestSink on the OpenTelemetry SDK.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import is_http_instrumentation_enabled
from opentelemetry.metrics import Histogram, Meter
from opentelemetry.trace import Link, Span, SpanKind, Tracer

from pbmon import catalog, identity, privacy, segments, signals
from pbmon.peers import TrustedPeers
from pbmon.runtime import PEER, Scope, active, peer_address
from pbmon.settings import Settings
from pbmon.telemetry.budgets import BudgetFigures
from pbmon.telemetry.clock import Clock
from pbmon.telemetry.edges import edges
from pbmon.telemetry.exchange import Exchange
from pbmon.telemetry.headers import HeaderCapture
from pbmon.telemetry.notices import Notices
from pbmon.telemetry.recording import Recording, RunFile
from pbmon.telemetry.sampling import mark_untrusted
from pbmon.telemetry.series import Series, SeriesKey
from pbmon.telemetry.session import Session

_MAX_AGENT = 256
_MAX_URL = 2048  # a server may take a path of megabytes, a collector no batch of them
_UPSTREAM_SCOPE = "opentelemetry.instrumentation.asgi"
_WITH_QUERY = frozenset(("http.url", "http.target"))  # of the conventions before the stable ones
_HEADERS = "pbmon.headers"


class Requests:
    """The RequestSink. apply() changes its settings while it runs."""

    def __init__(
        self,
        settings: Settings,
        tracer: Tracer,
        meter: Meter,
        clock: Clock,
        notices: Notices,
        budgets: BudgetFigures,
    ) -> None:
        self.tracer = tracer
        self.clock = clock
        self.notices = notices
        self.budgets = budgets
        self._meter = meter
        self._histogram: Histogram | None = None
        self.active = signals.Counts(catalog.ACTIVE_REQUESTS, meter)
        self.slow = signals.Counts(catalog.SLOW_REQUESTS, meter)
        self.aborted = signals.Counts(catalog.ABORTED_REQUESTS, meter)
        self.websockets = signals.Counts(catalog.WEBSOCKET_CONNECTIONS, meter)
        self.open_websockets = 0
        self.recording: Recording | None = None
        signals.enlist(self)
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        self.settings = settings
        self._series: dict[SeriesKey, Series] = {}
        self.peers = TrustedPeers(settings.trusted_peers)
        self.headers = HeaderCapture(settings)
        # Each by itself: joined into one, their flags and group numbers would get in each
        # other's way.
        self._excluded = [re.compile(pattern) for pattern in settings.excluded_urls]
        self.stream_routes = frozenset(settings.stream_routes)
        self.annotates = "upstream" in settings.hooks.values()
        wanted = settings.segment_spans
        self.segments = {
            name: values
            for name, values in settings.segments.items()
            if wanted is True or (wanted and name in wanted)
        }
        self._record_to(settings.requests_file)

    def record(self, recording: Recording | None) -> None:
        """Tell it of every request of a known route that ends from here on."""
        if isinstance(self.recording, RunFile):
            self.recording.close()
        self.recording = recording

    def _record_to(self, path: str | None) -> None:
        kept = self.recording
        if kept is not None and (not isinstance(kept, RunFile) or kept.path == path):
            return  # a capture's stays
        self.record(None)
        if path is not None:
            try:
                self.record(RunFile(path))
            except OSError as error:
                signals.tell(
                    "requests_file",
                    "pbmon: requests can't be recorded in %s (%s); name a file in a directory that "
                    "this user can write to",
                    path,
                    error.strerror,
                )

    def forget(self) -> None:
        """In a forked child: the open WebSockets are the parent's."""
        self.open_websockets = 0

    @property
    def histogram(self) -> Histogram:
        """Made at the first request: its buckets depend on settings that code may still set."""
        if self._histogram is None:
            metric, settings = catalog.REQUEST_DURATION, self.settings
            bounds = {*metric.buckets, settings.slow_request_s}
            bounds.update(edges(settings.budgets.all, bounds))
            self._histogram = signals.histogram(metric, extra_buckets=bounds, meter=self._meter)
        return self._histogram

    def series(self, key: SeriesKey) -> Series:
        # Looked at once: apply() may put another in its place, in a thread of its own, and what
        # is made by the settings of before must not get into that.
        known = self._series
        series = known.get(key)
        if series is None:
            full = len(known) >= signals.OWN_SERIES
            series = Series(self, key, overflow=full)
            if not full:
                known[key] = series
        return series

    def segment_attributes(self) -> dict[str, Any]:
        """Of the request in whose context this is called."""
        noted = identity.noted() if self.segments else None
        if not noted:
            return {}
        kept = segments.keep(self.segments, noted)
        return {segments.ATTRIBUTE + name: value for name, value in kept.items()}

    @staticmethod
    def person_attributes() -> dict[str, str]:
        """Likewise, of its user: pseudonyms, of somebody of whom they may be said."""
        pseudonyms = active.pseudonyms
        person = identity.whole() if pseudonyms is not None else None
        if pseudonyms is None or person is None or person.user_id is None:
            return {}
        known = pseudonyms.of(person.user_id) if person.consent is not False else None
        if known is None:
            return {}
        attributes = {catalog.USER_PSEUDONYM.name: known.user}
        if person.session_id is not None:
            attributes[catalog.SESSION_PSEUDONYM.name] = known.session(person.session_id)
        return attributes

    # --- RequestSink ---------------------------------------------------------------------------

    def request(self, scope: Scope) -> Exchange | None:
        if not is_http_instrumentation_enabled() or self._is_excluded(scope):
            return None
        return Exchange(self, scope)

    def websocket(self, scope: Scope) -> Session | None:
        if not is_http_instrumentation_enabled() or self._is_excluded(scope):
            return None
        return Session(self, scope)

    def _is_excluded(self, scope: Scope) -> bool:
        if not self._excluded:
            return False
        host = _headers(scope).get("host", "")
        url = f"{scope.get('scheme') or 'http'}://{host}{scope['path']}"
        return any(pattern.search(url) for pattern in self._excluded)

    def start_span(self, scope: Scope, method: str, wall_ns: int) -> tuple[Span, Context | None]:
        """The server span and the context that is to be current; None: it already is."""
        if self.annotates:
            current = trace.get_current_span()
            scope_name = getattr(getattr(current, "instrumentation_scope", None), "name", "")
            if current.is_recording() and scope_name == _UPSTREAM_SCOPE:
                _mask(current, scope)
                return current, None
        parent, links = self._parent(scope)
        span = self.tracer.start_span(
            method if method != "_OTHER" else "HTTP",
            context=parent,
            kind=SpanKind.SERVER,
            attributes=self._start_attributes(scope, method),
            links=links,
            start_time=wall_ns,
        )
        return span, trace.set_span_in_context(span, parent)

    def _parent(self, scope: Scope) -> tuple[Context | None, list[Link] | None]:
        headers = _headers(scope)
        parent = propagate.extract(headers)
        remote = trace.get_current_span(parent).get_span_context()
        if not remote.is_remote:
            return parent, None
        public = self.settings.public_endpoint
        if callable(public):
            public = bool(public(scope))
        if public is True or (public and scope["path"].startswith(public)):
            return trace.set_span_in_context(trace.INVALID_SPAN, parent), [Link(remote)]
        if not self.peers.trusts(peer_address(scope)):
            parent = mark_untrusted(parent)
        return parent, None

    def _start_attributes(self, scope: Scope, method: str) -> dict[str, Any]:
        attributes: dict[str, Any] = {
            catalog.METHOD.name: method,
            catalog.SCHEME.name: scope.get("scheme")
            or ("ws" if scope["type"] == "websocket" else "http"),
            catalog.PATH.name: scope["path"][:_MAX_URL],
        }
        if method == "_OTHER":
            attributes[catalog.METHOD_ORIGINAL.name] = str(scope.get("method", ""))[:64]
        if query := _masked_query(scope):
            attributes[catalog.QUERY.name] = query
        if version := scope.get("http_version"):
            attributes[catalog.PROTOCOL_VERSION.name] = version
        if server := scope.get("server"):
            attributes[catalog.SERVER_ADDRESS.name] = server[0]
            if server[1] is not None:
                attributes[catalog.SERVER_PORT.name] = int(server[1])  # granian says it as text
        if agent := _headers(scope).get("user-agent"):
            attributes[catalog.USER_AGENT.name] = agent[:_MAX_AGENT]
        if self.settings.client_address:
            self._add_addresses(scope, attributes)
        if self.settings.request_headers:
            attributes |= self.headers.request(scope.get("headers") or ())
        return attributes

    @staticmethod
    def _add_addresses(scope: Scope, attributes: dict[str, Any]) -> None:
        if peer := scope.get(PEER) or scope.get("client"):
            attributes[catalog.PEER_ADDRESS.name] = peer[0]
        if client := scope.get("client"):
            attributes[catalog.CLIENT_ADDRESS.name] = client[0]


def _masked_query(scope: Scope) -> str:
    query: bytes = scope.get("query_string") or b""
    return privacy.mask_query(query[:_MAX_URL].decode("latin-1"))


def _mask(span: Span, scope: Scope) -> None:
    """Take the query's values out of upstream's span, by whichever conventions it was made."""
    if query := _masked_query(scope):
        span.set_attribute(catalog.QUERY.name, query)
        attributes = getattr(span, "attributes", None) or {}
        for name in _WITH_QUERY & attributes.keys():
            span.set_attribute(name, attributes[name].partition("?")[0])


def _headers(scope: Scope) -> Mapping[str, str]:
    """Headers by lower-case name, decoded as HTTP defines them, so that no byte can fail."""
    headers: dict[str, str] | None = scope.get(_HEADERS)
    if headers is None:
        fields: dict[bytes, list[bytes]] = {}
        for name, value in scope.get("headers") or ():
            fields.setdefault(name.lower(), []).append(value)
        # Repeated fields are one comma-separated list (RFC 9110, 5.3): tracestate, baggage. Joined
        # once: a client may repeat one 300,000 times.
        headers = {
            name.decode("latin-1"): b",".join(values).decode("latin-1")
            for name, values in fields.items()
        }
        scope[_HEADERS] = headers
    return headers
