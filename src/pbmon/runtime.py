"""What configure() built, and the Protocols at which the layers meet.

Before configure() every sink is a no-op, so hooks and business calls are always safe.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from pbmon import budgets
from pbmon.catalog import Metric
from pbmon.erasure import Receipt
from pbmon.errors import ErrorSummary
from pbmon.experiments import Exposed
from pbmon.growth import Cohort, FeatureAdoption, FunnelStep, UserGrowth
from pbmon.purposes import Decision
from pbmon.settings import Settings
from pbmon.surveys import FeedbackSummary, Survey

Scope = MutableMapping[str, Any]
"""An ASGI connection scope."""

RECORD = "pbmon.request"
"""Scope key of the RequestRecord: present means that this request is already observed."""

PEER = "pbmon.peer"
"""Scope key of the raw TCP peer, set by a server's hook before proxy headers are applied."""


def peer_address(scope: Scope) -> str | None:
    """Of the raw TCP peer, where it is known; else of the client as the server has it."""
    peer = scope[PEER] if PEER in scope else scope.get("client")
    return peer[0] if peer else None


class RequestRecord(Protocol):
    """One HTTP request under way. A hook reports what it sees; nothing here raises.

    Order: response_started? → response_completed? → failed? → closed, each at most once; failed
    comes earlier where the exception is known before its answer.
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


class BudgetSink(Protocol):
    """Where check_budget() reports; the values are checked already."""

    def check(
        self, endpoint: str, duration_s: float, method: str | None, *, failed: bool
    ) -> budgets.Verdict | None:
        """None where there is no such budget. Counts operations, which no hook measures."""


class RevenueSink(Protocol):
    """Where track_revenue() and its like report; all of it is checked already."""

    def book(
        self,
        kind: str,
        key: str,
        charge: str | None,
        status: str,
        minor: int,
        currency: str,
        occurred_at: datetime | None,
        user_id: str | None,
    ) -> Verdict:
        """kind, key, charge: as of spool.entries.Transaction. minor: minor units."""


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

    def decide(self, user_id: str, purpose: str, granted: bool, version: str | None) -> Verdict:
        """A person's decision on a purpose. version: of the text that they agreed to."""


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


class ErrorSink(Protocol):
    """Where hooks and sinks report exceptions, and track_error(). One that passes in several places
    of a request, or outside of any, counts once. Nothing here raises."""

    def seen(self, error: BaseException, *, route: str | None = None, trace_id: int = 0) -> None:
        """Nobody handled it; one that is no failure may come too. route, trace_id: of the request
        whose it is; if left out, of the current one."""

    def track(self, error: BaseException, user_id: str | None) -> Verdict:
        """The application handled it. user_id: whom it met; none: the user of the request."""

    def write_sums(self) -> None:
        """Write down what was only counted so far."""


class ExperimentSink(Protocol):
    """Where experiment(), expose() and hooks of feature flags report; the types are checked
    already. An exposure is recorded once for each subject."""

    def assign(self, key: str, user_id: str | None) -> str | Refused | None:
        """The variant of the current subject, exposed by this call; None for one who has none."""

    def expose(self, key: str, variant: str, user_id: str | None, assigned_by: str) -> Verdict:
        """assigned_by: as in spool.entries.Exposure."""


class PseudonymOf(Protocol):
    """A person of whom something may be said on spans."""

    user: str
    """The pseudonym, hexadecimal."""

    def session(self, session_id: str) -> str:
        """That of a session of theirs."""


class Pseudonyms(Protocol):
    """People as spans name them: what is known in memory, and asks nobody."""

    def of(self, user_id: str) -> PseudonymOf | None:
        """None where nothing may be said, or nothing is known yet: then it will be found out."""


class StoreError(Exception):
    """The store can't be used now; the text says why and the remedy, and follows its URL."""


class RevenueSum(NamedTuple):
    """Transactions that count, of one kind, sign and currency.

    sign: 1 is revenue, -1 takes from it. amount_minor: absolute, in minor units of the currency,
    10**-exponent of it. base_minor: of those that are converted, in the base currency; unconverted:
    how many are not.
    """

    kind: str
    sign: int
    currency: str
    exponent: int
    transactions: int
    amount_minor: int
    base_minor: int
    unconverted: int


class Revenue(NamedTuple):
    """What the ledger says of a period. held: refunds and chargebacks whose charge is missing."""

    base_currency: str
    base_exponent: int
    sums: tuple[RevenueSum, ...]
    held: int


class Reader(Protocol):
    """Questions to the store, each a transaction of its own. Times are µs since the epoch, UTC;
    start is within, end is not. Each raises StoreError."""

    def revenue(self, start: int, end: int, base_currency: str) -> Revenue:
        """base_currency: of a store that has none yet."""

    def user_growth(self, day: dt.date | None) -> UserGrowth | None:
        """Of a day, or of the newest there is."""

    def cohorts(self, start: dt.date, end: dt.date, period: str) -> list[Cohort]:
        """end: of the last cohort's period."""

    def funnel(self, steps: Sequence[str], start: int, end: int, window: int) -> list[FunnelStep]:
        """window: µs."""

    def feature_adoption(self, start: int, end: int, segment: str | None) -> list[FeatureAdoption]:
        """segment: by whose values."""

    def feedback(
        self, start: int, end: int, name: str, survey: Survey, segment: str | None
    ) -> FeedbackSummary:
        """Of a survey by its name; segment: by whose values."""

    def export(self, user_id: str, sharing: str) -> dict[str, Any]:
        """All that the store holds of a person; sharing: legal basis of that purpose."""

    def decisions(self, user_id: str) -> dict[str, Decision | None] | None:
        """Purpose → a person's last decision; None where they were deleted."""

    def exposed(self, key: str, goal: str, window_s: float | None) -> Exposed:
        """An experiment's people by their first variant, and who of them did `goal` after it."""

    def errors(self, limit: int, since: int | None, release: str | None) -> list[ErrorSummary]:
        """The most frequent ones; release: counting this one alone."""


class Eraser(Protocol):
    """Where delete_user() and export_user() report. Each raises StoreError."""

    def delete(self, user_id: str, timeout_s: float) -> Receipt:
        """timeout_s: how long what waits outside of the tables is waited for."""

    def export(self, user_id: str, timeout_s: float) -> dict[str, Any]:
        """timeout_s: how long what waits on this host is waited for."""


class _NoEraser:
    def delete(self, user_id: str, timeout_s: float) -> Receipt:
        raise StoreError("the store can't be reached yet; call pbmon.configure() first")

    def export(self, user_id: str, timeout_s: float) -> dict[str, Any]:
        raise StoreError("the store can't be reached yet; call pbmon.configure() first")


def _no_reader() -> Reader:
    raise StoreError("the store can't be read yet; call pbmon.configure() first")


class Figure(NamedTuple):
    """What the store says at one moment, for a metric that is read from it (Metric.of_store).

    value: of a counter its whole total since the store was made, never a difference.
    attributes: those that the catalogue gives the metric.
    """

    metric: Metric
    value: int | float
    attributes: Mapping[str, str]


class Reading(NamedTuple):
    """All figures of a store at one moment, read by the one process that leads. Times are µs since
    the epoch, UTC, by the store's clock.

    made_at: since when the totals of its counters count.
    """

    store_id: str
    made_at: int
    at: int
    figures: tuple[Figure, ...]


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


class _NoErrors:
    def seen(self, error: BaseException, *, route: str | None = None, trace_id: int = 0) -> None:
        return None

    def track(self, error: BaseException, user_id: str | None) -> Verdict:
        return NOT_CONFIGURED

    def write_sums(self) -> None:
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
    budgets: BudgetSink | None = None
    errors: ErrorSink = field(default_factory=_NoErrors)
    revenue: RevenueSink | None = None
    features: FeatureSink | None = None
    events: EventSink | None = None
    experiments: ExperimentSink | None = None
    feedback: FeedbackSink | None = None
    reader: Callable[[], Reader] = _no_reader
    """Opens the store at its first call. Raises StoreError."""
    eraser: Eraser = field(default_factory=_NoEraser)
    pseudonyms: Pseudonyms | None = None
    """None: spans name nobody."""
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
