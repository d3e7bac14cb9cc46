"""Figures from the telemetry: what the terminal and the page show. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from examples.pocketbook.books import Amounts
from examples.pocketbook.money import PLACES
from examples.pocketbook.telemetry import Series, Span, Telemetry, attribute
from pbmon import catalog

NO_ROUTE = "(no route)"
_LIMITS = ("p95", "p99", "max", "availability")


@dataclass(frozen=True)
class Limit:
    """One promise of a budget, as the `pbmon.budget.*` metrics tell it."""

    name: str
    threshold_s: float | None
    requests: int
    breaches: int
    allowed: float

    @property
    def share(self) -> float:
        return self.breaches / self.requests if self.requests else 0.0

    @property
    def kept(self) -> bool:
        return self.share <= self.allowed


@dataclass(frozen=True)
class Route:
    method: str
    route: str
    durations_s: tuple[float, ...]
    """Sorted."""
    client_errors: int
    server_errors: int
    slow: int
    budget: tuple[Limit, ...] = ()
    """Of the route, shared by its methods where the budget names none."""
    passed: frozenset[str] = frozenset()
    """Names of the limits that requests of this method have passed."""

    @property
    def count(self) -> int:
        return len(self.durations_s)

    def percentile(self, share: float) -> float:
        return percentile(self.durations_s, share)

    def broke(self, limit: Limit) -> bool:
        """Whether the promise is broken, and this method had a part in it."""
        return not limit.kept and limit.name in self.passed

    @property
    def budget_state(self) -> str:
        """kept, over, or nothing where there is no budget."""
        if not self.budget:
            return ""
        return "over" if any(map(self.broke, self.budget)) else "kept"


@dataclass(frozen=True)
class SlowQuery:
    summary: str
    text: str
    system: str
    where: str
    """The function that issued it."""
    durations_s: tuple[float, ...]
    """Sorted."""

    def percentile(self, share: float) -> float:
        return percentile(self.durations_s, share)


@dataclass(frozen=True)
class Error:
    kind: str
    """Request or query."""
    type: str
    where: str
    count: int


@dataclass(frozen=True)
class Second:
    """What ended within one second of the run."""

    ok: int = 0
    client_errors: int = 0
    server_errors: int = 0

    @property
    def total(self) -> int:
        return self.ok + self.client_errors + self.server_errors


@dataclass(frozen=True)
class WebSockets:
    route: str
    sessions: int
    longest_s: float
    open_now: int


@dataclass(frozen=True)
class Summary:
    routes: list[Route]
    budgets: list[tuple[str, tuple[Limit, ...]]]
    queries: int
    query_p95_s: float
    slow_queries: list[SlowQuery]
    revenue: dict[str, Amounts]
    """In the base currency."""
    transactions: dict[tuple[str, str], int]
    """By kind and status."""
    features: dict[str, dict[str, int]]
    exposures: int
    answers: int
    errors: list[Error]
    websockets: list[WebSockets]
    seconds: list[Second] = field(default_factory=list)
    counted: int = 0
    """Requests by the histogram's count: the metrics' own figure, beside that of the spans."""

    @property
    def requests(self) -> int:
        return sum(route.count for route in self.routes)

    @property
    def server_errors(self) -> int:
        return sum(route.server_errors for route in self.routes)

    @property
    def slow_requests(self) -> int:
        return sum(route.slow for route in self.routes)

    @property
    def sessions(self) -> int:
        return sum(sockets.sessions for sockets in self.websockets)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: a duration that occurred, not one in between. 0 of none."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summarise(telemetry: Telemetry) -> Summary:
    spans = telemetry.spans
    requests = [span for span in spans if span.is_request]
    queries = [span for span in spans if span.is_query]
    budgets = _budgets(telemetry)
    return Summary(
        routes=_routes(requests, budgets),
        budgets=[(_budget_name(key), limits) for key, limits in sorted(budgets.items())],
        queries=len(queries),
        query_p95_s=percentile(sorted(span.duration_s for span in queries), 0.95),
        slow_queries=_slow_queries(queries),
        revenue=_revenue(telemetry),
        transactions=_transactions(telemetry),
        features=_features(telemetry),
        exposures=_count(telemetry, catalog.EXPOSURES),
        answers=_count(telemetry, catalog.FEEDBACK_RESPONSES),
        errors=_errors(requests, queries),
        websockets=_websockets(spans, telemetry),
        seconds=_seconds(requests),
        counted=_count(telemetry, catalog.REQUEST_DURATION),
    )


# --- requests -----------------------------------------------------------------------------------


def _status(span: Span) -> int:
    return int(span.attributes.get(catalog.STATUS.name) or 0)


def _failed(span: Span) -> bool:
    """By the application's fault; an answer of 4xx is the client's."""
    return _status(span) >= 500 or catalog.ERROR_TYPE.name in span.attributes


def _routes(requests: Iterable[Span], budgets: _Budgets) -> list[Route]:
    groups: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for span in requests:
        method = str(span.attributes.get(catalog.METHOD.name, ""))
        groups[str(span.attributes.get(catalog.ROUTE.name) or NO_ROUTE), method].append(span)
    return [
        Route(
            method=method,
            route=route,
            durations_s=tuple(sorted(span.duration_s for span in group)),
            client_errors=sum(400 <= _status(span) < 500 for span in group),
            server_errors=sum(map(_failed, group)),
            slow=sum(bool(span.attributes.get(catalog.SLOW.name)) for span in group),
            budget=budgets.get((route, method)) or budgets.get((route, "")) or (),
            passed=frozenset(
                limit
                for span in group
                for limit in span.attributes.get(catalog.BUDGET_LIMITS.name) or ()
            ),
        )
        for (route, method), group in sorted(groups.items(), key=lambda item: _last(item[0]))
    ]


def _last(key: tuple[str, str]) -> tuple[bool, str, str]:
    """Orders by route, what has none at the end."""
    return (key[0] == NO_ROUTE, *key)


def _seconds(requests: Sequence[Span]) -> list[Second]:
    if not requests:
        return []
    first_ns = min(span.start_ns for span in requests)
    buckets: dict[int, Counter[str]] = defaultdict(Counter)
    for span in requests:
        kind = "server_errors" if _failed(span) else "ok"
        if 400 <= _status(span) < 500:
            kind = "client_errors"
        buckets[(span.end_ns - first_ns) // 1_000_000_000][kind] += 1
    return [Second(**buckets[number]) for number in range(max(buckets) + 1)]


# --- budgets ------------------------------------------------------------------------------------

_Budgets = dict[tuple[str, str], tuple[Limit, ...]]


def _budget_name(key: tuple[str, str]) -> str:
    route, method = key
    return f"{method} {route}".strip()


def _budgets(telemetry: Telemetry) -> _Budgets:
    """(route, method) → its promises; the method is empty where the budget names none."""

    breaches = telemetry.totals(catalog.BUDGET_BREACHES)
    thresholds = telemetry.latest(catalog.BUDGET_THRESHOLD)
    allowed = telemetry.latest(catalog.BUDGET_ALLOWED)
    found: dict[tuple[str, str], dict[str, Limit]] = defaultdict(dict)
    # All four metrics of a promise carry the same attributes.
    for series, requests in telemetry.totals(catalog.BUDGET_REQUESTS).items():
        route, method, name = (
            str(attribute(series, part) or "")
            for part in (catalog.ROUTE, catalog.METHOD, catalog.BUDGET_LIMIT)
        )
        found[route, method][name] = Limit(
            name,
            thresholds.get(series),
            int(requests),
            int(breaches.get(series, 0)),
            allowed.get(series, 0.0),
        )
    return {
        key: tuple(limits[name] for name in _LIMITS if name in limits)
        for key, limits in found.items()
    }


# --- queries and errors -------------------------------------------------------------------------


def _slow_queries(queries: Iterable[Span]) -> list[SlowQuery]:
    groups: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    for span in queries:
        if not span.attributes.get(catalog.DB_SLOW.name):
            continue
        names = (catalog.DB_SUMMARY, catalog.DB_TEXT, catalog.DB_SYSTEM, catalog.CODE_FUNCTION)
        summary, text, system, where = (
            " ".join(str(span.attributes.get(name.name, "")).split()) for name in names
        )
        groups[summary, text, system, where].append(span.duration_s)
    found = [SlowQuery(*key, tuple(sorted(group))) for key, group in groups.items()]
    return sorted(found, key=lambda query: query.durations_s[-1], reverse=True)


def _errors(requests: Iterable[Span], queries: Iterable[Span]) -> list[Error]:
    counts: Counter[tuple[str, str, str]] = Counter()
    for span in requests:
        if kind := span.attributes.get(catalog.ERROR_TYPE.name):
            route = span.attributes.get(catalog.ROUTE.name) or NO_ROUTE
            counts["request", str(kind), f"{span.attributes.get(catalog.METHOD.name)} {route}"] += 1
    for span in queries:
        if kind := span.attributes.get(catalog.ERROR_TYPE.name):
            counts["query", str(kind), str(span.attributes.get(catalog.DB_SUMMARY.name, ""))] += 1
    return [Error(*key, count) for key, count in counts.most_common()]


# --- business -----------------------------------------------------------------------------------


def _revenue(telemetry: Telemetry) -> dict[str, Amounts]:
    """Currency → major units. The metric's float is within half a minor unit of the truth."""
    found: dict[str, Amounts] = defaultdict(Amounts)
    for metric, field_ in ((catalog.REVENUE, "gross"), (catalog.REFUNDS, "returned")):
        for series, value in telemetry.totals(metric).items():
            currency = str(attribute(series, catalog.CURRENCY))
            smallest = Decimal(1).scaleb(-PLACES.get(currency, 2))
            setattr(found[currency], field_, Decimal(repr(value)).quantize(smallest))
    return dict(sorted(found.items()))


def _transactions(telemetry: Telemetry) -> dict[tuple[str, str], int]:
    """What there is none of is left out."""
    names = (catalog.TRANSACTION_KIND, catalog.TRANSACTION_STATUS)
    found: Counter[tuple[str, str]] = Counter()
    for series, value in telemetry.totals(catalog.TRANSACTIONS).items():
        kind, status = (str(attribute(series, name)) for name in names)
        found[kind, status] += int(value)
    return {key: count for key, count in sorted(found.items()) if count}


def _features(telemetry: Telemetry) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for series, value in telemetry.totals(catalog.FEATURE_USAGE).items():  # by plan as well
        name = str(attribute(series, catalog.FEATURE_NAME))
        found[name][str(attribute(series, catalog.FEATURE_ACTION))] += int(value)
    ordered = sorted(found.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    return {name: {a: n for a, n in actions.items() if n} for name, actions in ordered}


def _count(telemetry: Telemetry, metric: catalog.Metric) -> int:
    return int(sum(telemetry.totals(metric).values()))


def _by(values: dict[Series, float], name: catalog.Attribute) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for series, value in values.items():
        sums[str(attribute(series, name))] += int(value)
    return dict(sums)


def _websockets(spans: Iterable[Span], telemetry: Telemetry) -> list[WebSockets]:
    sessions: dict[str, list[float]] = defaultdict(list)
    for span in spans:
        if span.is_websocket:
            route = str(span.attributes.get(catalog.ROUTE.name) or NO_ROUTE)
            sessions[route].append(span.duration_s)
    open_now = _by(telemetry.totals(catalog.WEBSOCKET_CONNECTIONS), catalog.ROUTE)
    return [
        WebSockets(route, len(durations), max(durations), open_now.get(route, 0))
        for route, durations in sorted(sessions.items())
    ]
