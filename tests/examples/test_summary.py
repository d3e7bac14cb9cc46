"""Figures from hand-made telemetry, exactly."""

from __future__ import annotations

from decimal import Decimal

import pytest

from examples.pocketbook.summary import NO_ROUTE, Error, percentile, summarise
from pbmon import catalog
from tests.examples.otlp import SERVER, Export, telemetry


def promise(export, limit, *, requests, breaches, threshold_s, allowed, route="/a"):
    key = {catalog.ROUTE: route, catalog.BUDGET_LIMIT: limit}
    export.series(catalog.BUDGET_REQUESTS, requests, key)
    export.series(catalog.BUDGET_BREACHES, breaches, key)
    export.series(catalog.BUDGET_THRESHOLD, threshold_s, key)
    export.series(catalog.BUDGET_ALLOWED, allowed, key)


def test_nothing_received_is_an_empty_summary():
    summary = summarise(telemetry())
    assert (summary.requests, summary.counted, summary.queries, summary.sessions) == (0, 0, 0, 0)
    assert (summary.routes, summary.budgets, summary.errors, summary.seconds) == ([], [], [], [])


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1, 100), (0.001, 1)]
)
def test_percentiles_are_durations_that_occurred(share, expected):
    assert percentile(range(1, 101), share) == expected


def test_percentiles_of_few():
    assert percentile([], 0.95) == 0
    assert percentile([7], 0.5) == percentile([7], 0.99) == 7
    assert percentile([1, 2, 3], 0.5) == 2


def test_routes_are_told_apart_by_method_and_counted_exactly():
    export = Export()
    for number in range(1, 101):
        export.request("/a", number / 1000)
    export.request("/a", 2.0, 500, method="POST", attributes={catalog.SLOW: True})
    export.request("/a", 0.001, 404, method="POST")
    export.request(None, 0.001, 404)
    get, post, unmatched = summarise(telemetry(export)).routes
    assert (get.method, get.route, get.count) == ("GET", "/a", 100)
    assert [get.percentile(p) for p in (0.5, 0.95, 0.99)] == [0.05, 0.095, 0.099]
    assert (post.count, post.client_errors, post.server_errors, post.slow) == (2, 1, 1, 1)
    assert (unmatched.route, unmatched.client_errors) == (NO_ROUTE, 1)


def test_totals_of_requests():
    export = Export()
    export.request("/a", 1.5, attributes={catalog.SLOW: True}).request("/b", 0.1, 503)
    export.series(catalog.REQUEST_DURATION, 7, {catalog.ROUTE: "/a"})
    export.series(catalog.REQUEST_DURATION, 5, {catalog.ROUTE: "/b"})
    summary = summarise(telemetry(export))
    assert (summary.requests, summary.server_errors, summary.slow_requests) == (2, 1, 1)
    assert summary.counted == 12


def test_an_exception_after_the_answer_is_a_failure():
    export = Export().request("/a", 0.1, 200, attributes={catalog.ERROR_TYPE: "app.Bug"})
    assert summarise(telemetry(export)).server_errors == 1


def test_budgets_come_from_their_metrics():
    export = Export()
    promise(export, "max", requests=200, breaches=1, threshold_s=0.5, allowed=0.0)
    promise(export, "p95", requests=200, breaches=10, threshold_s=0.3, allowed=0.05)
    promise(export, "p99", requests=200, breaches=3, threshold_s=0.4, allowed=0.01)
    ((name, limits),) = summarise(telemetry(export)).budgets
    assert name == "/a"
    told = [(x.name, x.threshold_s, x.requests, x.breaches, x.share, x.kept) for x in limits]
    assert told == [
        ("p95", 0.3, 200, 10, 0.05, True),  # exactly what is allowed
        ("p99", 0.4, 200, 3, 0.015, False),
        ("max", 0.5, 200, 1, 0.005, False),
    ]


def test_budgets_of_two_processes_add_up_and_their_limits_do_not():
    exports = [Export("one"), Export("two")]
    for export in exports:
        promise(export, "p95", requests=10, breaches=1, threshold_s=0.3, allowed=0.05)
    ((_, (limit,)),) = summarise(telemetry(*exports)).budgets
    assert (limit.requests, limit.breaches, limit.threshold_s) == (20, 2, 0.3)


def test_a_route_is_over_only_if_its_own_requests_broke_the_promise():
    export = Export()
    promise(export, "max", requests=3, breaches=1, threshold_s=0.5, allowed=0.0)
    export.request("/a", 0.6, attributes={catalog.BUDGET_LIMITS: ["max"]})
    export.request("/a", 0.1, method="POST")
    export.request("/other", 0.1)
    states = {(r.method, r.route): r.budget_state for r in summarise(telemetry(export)).routes}
    assert states == {("GET", "/a"): "over", ("POST", "/a"): "kept", ("GET", "/other"): ""}


def test_slow_queries_by_statement():
    export = Export()
    slow = {catalog.DB_TEXT: "SELECT *\n FROM t\n WHERE id = ?", catalog.CODE_FUNCTION: "app.read"}
    for duration_s in (0.2, 0.4, 0.3):
        export.query("SELECT t", duration_s, attributes=slow)
    export.query("SELECT u", 0.5).query("SELECT t", 0.01)
    summary = summarise(telemetry(export))
    assert summary.queries == 5
    assert summary.query_p95_s == 0.5
    first, second = summary.slow_queries
    assert (first.summary, first.text, first.durations_s) == ("SELECT u", "", (0.5,))
    assert second.text == "SELECT * FROM t WHERE id = ?"
    assert (second.where, second.system) == ("app.read", "sqlite")
    assert second.durations_s == (0.2, 0.3, 0.4)


def test_errors_by_type_and_place_most_frequent_first():
    bug = {catalog.ERROR_TYPE: "app.Bug"}
    export = Export()
    export.request("/a", 0.1, 500, attributes=bug).request("/a", 0.1, 500, attributes=bug)
    export.request("/b", 0.1, 500, attributes=bug).request("/b", 0.1, 404)
    for _ in range(3):
        export.query("SELECT t", 0.01, attributes={catalog.ERROR_TYPE: "sqlite3.OperationalError"})
    assert summarise(telemetry(export)).errors == [
        Error("query", "sqlite3.OperationalError", "SELECT t", 3),
        Error("request", "app.Bug", "GET /a", 2),
        Error("request", "app.Bug", "GET /b", 1),
    ]


def test_revenue_keeps_the_decimals_of_its_currency():
    export = Export()
    for currency, total in [("EUR", 1234567.1), ("JPY", 500.0), ("KWD", 0.1 + 0.2)]:
        export.series(catalog.REVENUE, total, {catalog.CURRENCY: currency})
    export.series(catalog.REFUNDS, 0.7, {catalog.CURRENCY: "JPY"})
    export.series(catalog.REFUNDS, 0.1 + 0.7, {catalog.CURRENCY: "KWD"})
    other = Export("two").series(catalog.REVENUE, 0.01, {catalog.CURRENCY: "EUR"})
    revenue = summarise(telemetry(export, other)).revenue
    assert {c: (str(sums.gross), str(sums.returned)) for c, sums in revenue.items()} == {
        "EUR": ("1234567.11", "0"),
        "JPY": ("500", "1"),
        "KWD": ("0.300", "0.800"),
    }
    assert all(isinstance(sums.gross, Decimal) for sums in revenue.values())


def test_features_transactions_exposures_and_answers():
    export = Export()
    for name, action, count in [("x", "viewed", 2), ("y", "clicked", 3), ("y", "completed", 1)]:
        for plan in ("free", "pro"):
            key = {catalog.FEATURE_NAME: name, catalog.FEATURE_ACTION: action}
            export.series(catalog.FEATURE_USAGE, count, key | {"pbmon.segment.plan": plan})
        key = {catalog.FEATURE_NAME: name, catalog.FEATURE_ACTION: action}
        export.series(catalog.FEATURE_USAGE, count, key)
    for status, count in [("completed", 8), ("pending", 2)]:
        key = {catalog.TRANSACTION_KIND: "charge", catalog.TRANSACTION_STATUS: status}
        export.series(catalog.TRANSACTIONS, count, key)
    for variant in ("list", "chart"):
        export.series(catalog.EXPOSURES, 21, {catalog.FLAG_VARIANT: variant})
    export.series(catalog.FEEDBACK_RESPONSES, 7, {catalog.SCORE: "9"}, at=1)
    export.series(catalog.FEEDBACK_RESPONSES, 8, {catalog.SCORE: "9"}, at=2)
    summary = summarise(telemetry(export))
    assert summary.features == {"y": {"clicked": 9, "completed": 3}, "x": {"viewed": 6}}
    assert list(summary.features) == ["y", "x"]
    assert summary.transactions == {("charge", "completed"): 8, ("charge", "pending"): 2}
    assert (summary.exposures, summary.answers) == (42, 8)


def test_websockets_are_no_requests():
    export = Export()
    for duration_s in (2.0, 5.0):
        export.request("/ws", duration_s, 101, scheme="ws")
    export.series(catalog.WEBSOCKET_CONNECTIONS, 1, {catalog.ROUTE: "/ws"})
    summary = summarise(telemetry(export))
    assert summary.requests == 0
    (found,) = summary.websockets
    assert (found.route, found.sessions, found.longest_s, found.open_now) == ("/ws", 2, 5.0, 1)


def test_seconds_count_what_ended_in_them():
    export = Export().request("/a", 0.1, at_s=0).request("/a", 1.5, 500, at_s=0.2)
    export.request("/a", 0.1, 404, at_s=3.0)
    told = [(s.ok, s.client_errors, s.server_errors) for s in summarise(telemetry(export)).seconds]
    assert told == [(1, 0, 0), (0, 0, 1), (0, 0, 0), (0, 1, 0)]


def test_a_server_span_without_attributes_is_counted():
    export = Export().span(SERVER, 0.1, {})
    summary = summarise(telemetry(export))
    assert summary.requests == 1
