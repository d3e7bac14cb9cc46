"""What configure() built, and the Protocols at which the layers meet.

Before configure() every sink is a no-op, so hooks and business calls are always safe.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from pbmon.catalog import Metric
from pbmon.settings import Settings

Scope = dict[str, Any]
"""An ASGI connection scope."""

RECORD = "pbmon.request"
"""Scope key of the RequestRecord: present means that this request is already observed."""

PEER = "pbmon.peer"
"""Scope key of the raw TCP peer, set by a server's hook before proxy headers are applied."""


class RequestRecord(Protocol):
    """One HTTP request under way. A hook reports what it sees; nothing here raises.

    Order: response_started? → response_completed? → failed? → closed, each at most once.
    """

    route: str | None
    """Full route template; a framework's hook sets it as soon as it knows."""

    def response_started(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """The answer's head was handed to the server (`http.response.start`)."""

    def response_completed(self) -> None:
        """The last byte of the answer was handed to the server."""

    def failed(self, error: BaseException) -> None:
        """The application raised."""

    def closed(self) -> None:
        """The application returned or raised: nothing more will happen."""


class WebSocketRecord(Protocol):
    """One WebSocket under way. Order: accepted? → disconnected? → failed? → closed."""

    route: str | None

    def accepted(self) -> None: ...

    def disconnected(self, code: int) -> None:
        """Either side closed it with this code (RFC 6455, 7.4)."""

    def failed(self, error: BaseException) -> None: ...

    def closed(self) -> None: ...


class RequestSink(Protocol):
    """Where the hooks of servers and frameworks report."""

    def request(self, scope: Scope) -> RequestRecord | None:
        """Start observing an `http` scope; None means: leave this request alone.

        The record's span is current in the caller's context until closed().
        """

    def websocket(self, scope: Scope) -> WebSocketRecord | None:
        """Start observing a `websocket` scope, likewise."""


@dataclass(frozen=True, slots=True)
class Database:
    """What a connection is connected to."""

    system: str
    """`db.system.name`: postgresql, sqlite …"""
    namespace: str | None = None
    address: str | None = None
    port: int | None = None


class QueryRecord(Protocol):
    """One statement under way; its clock runs from QuerySink.query().

    A hook that hands rows out later stops the clock between the driver's calls, so that the
    duration is the time spent in the driver and not the application's time between fetches.
    """

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def finish(
        self,
        *,
        returned: int | None = None,
        affected: int | None = None,
        error: BaseException | None = None,
        status_code: str | None = None,
    ) -> None:
        """The statement is over; a second call does nothing.

        returned: rows handed to the caller. affected: rows changed. status_code: SQLSTATE.
        """


class QuerySink(Protocol):
    """Where the hooks of database drivers report."""

    def prepare(self, system: str) -> None:
        """A driver was imported: load now what its first statement would wait for."""

    def query(
        self,
        database: Database,
        statement: str | None,
        *,
        operation: str | None = None,
        batch_size: int | None = None,
    ) -> QueryRecord | None:
        """Start observing a statement; None means: do not observe (ours, or suppressed).

        statement: SQL text as given, literals included; they are removed before anything
        leaves. operation: name of an operation that has no SQL text, such as COMMIT.
        batch_size: statements executed by this one call, where there is more than one.
        """


class RevenueSink(Protocol):
    """Where track_revenue() reports; the amount is checked already."""

    def charge(self, minor: int, currency: str, transaction_id: str, status: str) -> Verdict: ...


class FeatureSink(Protocol):
    """Where track_feature() reports; the action is checked already."""

    def use(self, feature: str, action: str, metadata: Mapping[str, Any]) -> Verdict: ...


class EventSink(Protocol):
    """Where track() and its like report; types and lengths are checked already."""

    def track(
        self,
        call: str,
        name: str,
        properties: Mapping[str, Any] | None,
        user_id: str | None,
        event_id: str | None,
        consent: bool | None,
    ) -> Verdict:
        """call: of the API, for what it refuses."""

    def link(self, session_id: str, user_id: str) -> None:
        """The session is this user's."""

    def decide(self, user_id: str, purpose: str, *, granted: bool) -> Verdict:
        """A person's decision on a purpose."""


class FeedbackSink(Protocol):
    """Where feedback() and feedback_app report."""

    def answer(
        self,
        survey: str,
        score: int | None,
        comment: str | None,
        user_id: str | None,
        feedback_id: str | None,
        trace_id: str | None,
    ) -> Verdict:
        """Raises business.refusals.RefusalError for a wrong value."""


class StoreReader(Protocol):
    """Figures read from a database."""

    def active_users(self) -> Mapping[str, int]:
        """Window (24h, 7d, 30d) → users active within it."""


class Figure(NamedTuple):
    """What the store says at one moment, for a metric that is read from it (Metric.of_store).

    value: of a counter its whole total since the store was made, never a difference.
    attributes: those that the catalogue gives the metric.
    """

    metric: Metric
    value: int | float
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Accepted:
    """pbmon took what was handed to it."""

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Refused:
    """pbmon did not take what was handed to it. Falsy. reason: a short fixed word."""

    reason: str

    def __bool__(self) -> bool:
        return False


class StoreError(Exception):
    """The store can't be used now; the text says why and the remedy, and follows its URL."""


Verdict = Accepted | Refused
ACCEPTED = Accepted()
NOT_CONFIGURED = Refused("not_configured")


class _NoRequests:
    def request(self, scope: Scope) -> None:
        return None

    def websocket(self, scope: Scope) -> None:
        return None


class _NoQueries:
    def prepare(self, system: str) -> None:
        return None

    def query(
        self,
        database: Database,
        statement: str | None,
        *,
        operation: str | None = None,
        batch_size: int | None = None,
    ) -> None:
        return None


@dataclass(slots=True)
class HookState:
    """What became of one hook, for the start line and `pbmon doctor`."""

    name: str
    mode: str
    state: str
    """active, waiting (its library is not imported yet), skipped."""
    reason: str = ""


@dataclass(slots=True)
class Runtime:
    """The parts in use. Replaced field by field by wiring.configure(), read by the hooks."""

    settings: Settings = field(default_factory=Settings)
    requests: RequestSink = field(default_factory=_NoRequests)
    queries: QuerySink = field(default_factory=_NoQueries)
    revenue: RevenueSink | None = None
    features: FeatureSink | None = None
    events: EventSink | None = None
    store: StoreReader | None = None
    feedback: FeedbackSink | None = None
    reader: Callable[[], Any] | None = None
    """Gives the queries of the store in force (store.queries.Queries). Raises StoreError."""
    refusals: Callable[[str, str], None] = lambda call, reason: None
    """Counts a call of the API that was refused: (call, reason)."""
    flush: Callable[[float], bool] = lambda timeout_s: True
    open_websockets: Callable[[], int] = lambda: 0
    watch_loop: Callable[[], None] = lambda: None
    """Measure from now on how late the event loop is that runs here; once for each loop."""
    accounts: Callable[[], Mapping[str, Mapping[str, int]]] = dict
    """Signal → what became of its items in this process: accepted, delivered, waiting, and
    `dropped <reason>`, `refused <reason>`. accepted = delivered + waiting + all dropped."""
    find_user: Callable[[Scope], Any] | None = None
    find_session: Callable[[Scope], Any] | None = None
    """From a request's scope to the id of its user (unset: as middleware says it), its session."""
    event_totals: Callable[[], Mapping[tuple[str, str], int]] = dict
    """(outcome, reason) → events in this process, as `pbmon.spool.records` has them."""
    hooks: dict[str, HookState] = field(default_factory=dict)
    configured: bool = False


active = Runtime()

outbox: ContextVar[list[bytes] | None] = ContextVar("pbmon_outbox", default=None)
"""What is handed over within `with pbmon.outbox(…)` goes here, and not into the journal."""


def logger(area: str) -> logging.Logger:
    """The stdlib logger `pbmon.<area>`."""
    return logging.getLogger(f"pbmon.{area}")
