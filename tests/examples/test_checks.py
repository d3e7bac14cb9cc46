from __future__ import annotations

from collections import Counter
from decimal import Decimal

import pytest

from examples.pocketbook.checks import compare
from examples.pocketbook.summary import summarise
from examples.pocketbook.traffic import Call, Sent
from pbmon import catalog
from tests.examples.otlp import Export, telemetry


@pytest.fixture
def sent():
    sent = Sent(websockets=1)
    sent.add(Call("POST", "/a", revenue=("EUR", Decimal("0.10"))), 201)
    sent.add(Call("POST", "/a", revenue=("EUR", Decimal("0.20"))), 201)
    sent.add(Call("POST", "/a", revenue=("EUR", Decimal("9.00"))), 422)
    sent.add(Call("GET", "/b", features=(("x", "viewed"),)), 200)
    sent.add(Call("GET", "/b", features=(("x", "viewed"),)), 500)
    return sent


def shown(
    requests=5, failed=1, counted=5, revenue=0.1 + 0.2, uses=1, sessions=1, open_now=0, windows=3
):
    export = Export()
    for number in range(requests):
        export.request("/a", 0.1, 500 if number < failed else 200)
    for _ in range(sessions):
        export.request("/ws", 1.0, 101, scheme="ws")
    key = {catalog.FEATURE_NAME: "x", catalog.FEATURE_ACTION: "viewed"}
    export.series(catalog.FEATURE_USAGE, uses, key)
    export.series(catalog.REVENUE, revenue, {catalog.CURRENCY: "EUR"})
    export.series(catalog.REQUEST_DURATION, counted, {})
    for window in ("24h", "7d", "30d")[:windows]:
        export.series(catalog.USERS_ACTIVE, 5, {catalog.WINDOW: window})
    export.series(catalog.WEBSOCKET_CONNECTIONS, open_now, {catalog.ROUTE: "/ws"})
    return summarise(telemetry(export))


def wrong(checks):
    return [check.what for check in checks if not check.ok]


def test_books_that_agree(sent):
    checks = compare(sent, shown())
    assert wrong(checks) == []
    assert [str(checks[0]), len(checks)] == ["requests (spans): sent 5, telemetry shows 5", 8]


@pytest.mark.parametrize(
    ("difference", "what"),
    [
        ({"requests": 4}, "requests (spans)"),
        ({"requests": 6}, "requests (spans)"),
        ({"counted": 4}, "requests (histogram)"),
        ({"failed": 2}, "answers 5xx"),
        ({"revenue": 0.31}, "EUR of sales"),
        ({"uses": 2}, "feature uses"),
        ({"sessions": 2}, "WebSockets"),
        ({"open_now": 1}, "WebSockets left open"),
        ({"windows": 2}, "look-backs of active users"),
    ],
)
def test_each_difference_is_found(sent, difference, what):
    assert wrong(compare(sent, shown(**difference))) == [what]


def test_a_probe_counts_as_sent(sent):
    assert wrong(compare(sent, shown(requests=6, counted=6), probes=1)) == []


def test_a_request_without_an_answer_is_no_match(sent):
    sent.lost = 1
    assert wrong(compare(sent, shown())) == ["requests without an answer"]


def test_only_what_succeeded_counts_for_the_business(sent):
    assert sent.revenue == {"EUR": Decimal("0.30")}
    assert sent.features == Counter({("x", "viewed"): 1})
    assert sent.statuses == Counter({201: 2, 422: 1, 200: 1, 500: 1})
