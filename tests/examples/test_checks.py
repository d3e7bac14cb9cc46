from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal

import pytest

from examples.pocketbook.books import Amounts, Call, Money, Sent
from examples.pocketbook.business import Business, Feature, Variant, from_json, to_json
from examples.pocketbook.checks import compare
from examples.pocketbook.schema import USERS
from examples.pocketbook.summary import summarise
from pbmon import catalog
from tests.examples.otlp import Export, telemetry

SHY = 99
PEOPLE = range(1, 13)


@pytest.fixture
def sent():
    """Twelve people who search, one of whom nothing is kept, and who look at the dashboard and
    answer; three sales, of which one is refunded."""
    sent = Sent(shy=SHY, websockets=1)
    for user in (*PEOPLE, SHY):
        sent.add(Call("GET", "/b", features=(("x", "viewed"),), user_id=user), 200, {})
        sent.add(Call("GET", "/c", user_id=user), 200, {"layout": "list"})
        sent.add(Call("POST", "/feedback/", user_id=user, score=9 if user % 2 else 6), 202, {})
    sale = Money("charge", "USD", Decimal("0.10"))
    back = replace(sale, kind="refund", amount=Decimal("0.03"), charge=sale.amount)
    sent.add(Call("POST", "/a", money=sale, user_id=1), 201, {})
    sent.add(Call("POST", "/a", money=replace(sale, currency="EUR"), user_id=1), 201, {})
    sent.add(Call("POST", "/a", money=replace(sale, status="pending"), user_id=1), 201, {})
    sent.add(Call("POST", "/a", money=sale, user_id=1), 422, {})
    sent.add(Call("POST", "/a/refunds", money=back), 201, {})
    sent.add(Call("GET", "/b", features=(("x", "viewed"),)), 500, {})
    return sent


def shown(requests=45, failed=1, counted=45, gross=0.1 + 0.09, returned=0.03, charges=2, uses=13,
          sessions=1, open_now=0, exposures=13, answers=13):  # fmt: skip
    export = Export()
    for number in range(requests):
        export.request("/a", 0.1, 500 if number < failed else 200)
    for _ in range(sessions):
        export.request("/ws", 1.0, 101, scheme="ws")
    key = {catalog.FEATURE_NAME: "x", catalog.FEATURE_ACTION: "viewed"}
    export.series(catalog.FEATURE_USAGE, uses, key)
    export.series(catalog.REVENUE, gross, {catalog.CURRENCY: "EUR"})
    export.series(catalog.REFUNDS, returned, {catalog.CURRENCY: "EUR"})
    for kind, status, count in (
        ("charge", "completed", charges), ("charge", "pending", 1), ("refund", "completed", 1),
        ("chargeback", "completed", 0),
    ):  # fmt: skip
        key = {catalog.TRANSACTION_KIND: kind, catalog.TRANSACTION_STATUS: status}
        export.series(catalog.TRANSACTIONS, count, key)
    export.series(catalog.EXPOSURES, exposures, {catalog.FLAG_VARIANT: "list"})
    export.series(catalog.FEEDBACK_RESPONSES, answers, {catalog.SCORE: "9"})
    export.series(catalog.REQUEST_DURATION, counted, {})
    export.series(catalog.WEBSOCKET_CONNECTIONS, open_now, {catalog.ROUTE: "/ws"})
    return summarise(telemetry(export))


def said(**other):
    business = Business(
        currency="EUR",
        revenue=Amounts(Decimal("0.19"), Decimal("0.03")),
        by_currency={
            "EUR": Amounts(Decimal("0.10")),
            "USD": Amounts(Decimal("0.10"), Decimal("0.03")),
        },
        unconverted=0,
        held=0,
        active=12,
        registered=USERS,
        new=3,
        features=[Feature("x", 12, {})],
        experiment="layout",
        variants=[Variant("list", 12, None), Variant("chart", None, None)],
        decision="",
        answers=12,
        nps=0.0,
    )
    return replace(business, **other)


def wrong(checks):
    return [check.what for check in checks if not check.ok]


def test_books_that_agree(sent):
    checks = compare(sent, shown(), said())
    assert wrong(checks) == []
    assert [str(checks[0]), len(checks)] == ["requests (spans): sent 45, telemetry shows 45", 28]


@pytest.mark.parametrize(
    ("difference", "what"),
    [
        ({"requests": 44}, "requests (spans)"),
        ({"requests": 46}, "requests (spans)"),
        ({"counted": 44}, "requests (histogram)"),
        ({"failed": 2}, "answers 5xx"),
        ({"gross": 0.2}, "taken in EUR (metric)"),
        ({"returned": 0.04}, "given back in EUR (metric)"),
        ({"charges": 3}, "completed charges"),
        ({"uses": 14}, "feature uses"),
        ({"sessions": 2}, "WebSockets"),
        ({"open_now": 1}, "WebSockets left open"),
        ({"exposures": 12}, "people who met layout"),
        ({"answers": 12}, "answers to NPS"),
    ],
)
def test_each_difference_of_the_telemetry_is_found(sent, difference, what):
    assert wrong(compare(sent, shown(**difference), said())) == [what]


@pytest.mark.parametrize(
    ("difference", "what"),
    [
        ({"revenue": Amounts(Decimal("0.18"), Decimal("0.03"))}, ["taken in EUR (store)"]),
        (
            {"by_currency": {"EUR": Amounts(Decimal("0.10"))}},
            ["taken of USD (store)", "given back of USD (store)"],
        ),
        ({"unconverted": 1}, ["transactions that wait for a rate"]),
        ({"held": 1}, ["refunds without their charge"]),
        ({"active": 13}, ["active people"]),
        ({"registered": None}, ["registered users"]),
        ({"features": []}, ["people who used x"]),
        ({"variants": [Variant("list", 13, None)]}, ["people with list"]),
        ({"answers": 11}, ["answers that are kept"]),
        ({"nps": 7.7}, ["NPS"]),
        ({"nps": None}, []),
    ],
)
def test_each_difference_of_the_store_is_found(sent, difference, what):
    assert wrong(compare(sent, shown(), said(**difference))) == what


def test_a_probe_counts_as_sent(sent):
    assert wrong(compare(sent, shown(requests=46, counted=46), said(), probes=1)) == []


def test_a_request_without_an_answer_is_no_match(sent):
    sent.lost = 1
    assert wrong(compare(sent, shown(), said())) == ["requests without an answer"]


def test_only_what_succeeded_counts_for_the_business(sent):
    assert sent.revenue == {
        "EUR": Amounts(Decimal("0.10")),
        "USD": Amounts(Decimal("0.10"), Decimal("0.03")),
    }
    assert sent.features == Counter({("x", "viewed"): 13})
    assert sent.statuses == Counter({200: 26, 202: 13, 201: 4, 422: 1, 500: 1})


def test_parts_are_converted_by_what_their_charge_gave():
    charge = Money("charge", "GBP", Decimal("0.13"))  # 0.1521
    assert charge.in_base == Decimal("0.15")
    refund = replace(charge, kind="refund", charge=charge.amount)
    assert refund.in_base == Decimal("0.15")
    assert replace(refund, amount=Decimal("0.03")).in_base == Decimal("0.03")  # 0.0346
    # Half to even.
    assert Money("charge", "CHF", Decimal("1.25")).in_base == Decimal("1.32")  # 1.325


def test_the_answers_of_the_store_survive_their_way():
    assert from_json(to_json(said())) == said()
