"""track_revenue(): what it takes, what it refuses and why, and that sums are exact."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import datetime, timedelta, timezone, tzinfo
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pbmon
from pbmon import runtime, signals
from pbmon.business import refusals
from pbmon.testing import capture
from tests.patience import patiently

REVENUE = "pbmon.revenue"


@pytest.fixture
def seen():
    with capture(strict=False) as seen:
        yield seen


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch):
    monkeypatch.setattr(refusals, "_told", set())


def charge(amount="12.50", currency="EUR", **more):
    return pbmon.track_revenue(amount, currency, **{"transaction_id": "t1", **more})


def transactions(seen):
    """Status → charges."""
    return {
        dict(key)["pbmon.transaction.status"]: count
        for key, count in seen.metrics["pbmon.transactions"].items()
        if dict(key)["pbmon.transaction.kind"] == "charge"
    }


# --- accepted ---


def test_every_status_is_there_at_zero_from_the_start(seen):
    assert transactions(seen) == {"pending": 0, "completed": 0, "failed": 0, "cancelled": 0}


def test_a_charge_is_revenue_and_a_transaction(seen):
    assert charge("12.50", "EUR") == pbmon.Accepted()
    assert charge(Decimal("0.05"), "EUR")
    assert charge(3, "JPY")
    assert seen.metrics[REVENUE] == {
        (("pbmon.currency", "EUR"),): 12.55,
        (("pbmon.currency", "JPY"),): 3.0,
    }
    assert transactions(seen) == {"pending": 0, "completed": 3, "failed": 0, "cancelled": 0}


@pytest.mark.parametrize("status", ["pending", "failed", "cancelled"])
def test_only_completed_is_revenue(seen, status):
    assert charge(status=status)
    assert REVENUE not in seen.metrics
    assert seen.metric("pbmon.transactions", pbmon__transaction__status=status) == 1


def test_a_charge_of_nothing_is_a_transaction(seen):
    assert charge(0)
    assert seen.metrics[REVENUE] == {(("pbmon.currency", "EUR"),): 0.0}


def test_many_cents_are_no_float_sum(seen):
    for _ in range(1000):
        charge("0.10")
    assert seen.metric(REVENUE, pbmon__currency="EUR") == 100.0  # 99.9999999999986 as floats


def test_the_transaction_id_is_no_attribute(seen):
    charge(transaction_id="secret-id")
    assert "secret-id" not in str(seen.metrics)


@pytest.mark.parametrize("transaction_id", ["x", "x" * 255, "é ✓"])
def test_transaction_ids(seen, transaction_id):
    assert charge(transaction_id=transaction_id)


def test_an_aware_time_is_taken(seen):
    assert charge(occurred_at=datetime.now(timezone.utc))
    assert charge(occurred_at=datetime.now(timezone(timedelta(hours=5, minutes=45))))


currencies = st.sampled_from(["USD", "EUR", "JPY", "KWD", "CLF", "CHF"])
places = {"JPY": 0, "KWD": 3, "CLF": 4}
charges = st.lists(
    st.tuples(currencies, st.integers(min_value=0, max_value=10**12)), min_size=8, max_size=200
)


@patiently(max_examples=25)
@given(charges)
def test_sums_are_exact_over_eight_threads(made):
    wanted = Counter()
    for currency, minor in made:
        wanted[currency] += minor

    def work(part):
        for currency, minor in part:
            amount = Decimal(minor).scaleb(-places.get(currency, 2))
            assert charge(amount, currency)

    with capture() as seen:
        threads = [threading.Thread(target=work, args=(made[n::8],)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        totals = {dict(k)["pbmon.currency"]: v for k, v in seen.metrics[REVENUE].items()}
        assert totals == {c: minor / 10 ** places.get(c, 2) for c, minor in wanted.items()}
        assert seen.metric("pbmon.transactions") == len(made)


def test_a_forked_child_starts_every_currency_at_zero(seen):
    """What the child runs; tests/telemetry/test_meters.py forks."""
    charge("12.50", "EUR")
    charge(3, "JPY")
    with runtime.active.revenue._lock:  # another thread's, which is not in the child
        signals.forget()
        assert {dict(k)["pbmon.currency"]: v for k, v in seen.metrics[REVENUE].items()} == {
            "EUR": 0,
            "JPY": 0,
        }
        assert charge("0.10", "EUR")
    assert seen.metric(REVENUE) == 0.1
    assert transactions(seen)["completed"] == 1


# --- refused ---


class Nowhere(tzinfo):
    def utcoffset(self, when):
        return None


REFUSED = [
    ({"currency": "XBT"}, "unknown_currency", "is not in ISO 4217"),
    ({"currency": "eur"}, "unknown_currency", "is not in ISO 4217"),
    ({"amount": "twelve"}, "invalid_amount", "amount is no number"),
    ({"amount": Decimal("NaN")}, "invalid_amount", "amount is no number"),
    ({"amount": -1}, "negative_amount", "a charge is 0 or more"),
    ({"amount": "0.001"}, "too_precise", "more decimals than the 2 that EUR has"),
    ({"amount": 10**20}, "too_large", "is above 1000000000000000 minor units"),
    ({"transaction_id": ""}, "bad_transaction_id", "1 to 255 characters"),
    ({"transaction_id": "x" * 256}, "bad_transaction_id", "1 to 255 characters"),
    ({"status": "done"}, "bad_status", "is not one of pending, completed, failed, cancelled"),
    ({"occurred_at": datetime(2026, 1, 1)}, "naive_datetime", "needs a time zone"),
    ({"occurred_at": datetime(2026, 1, 1, tzinfo=Nowhere())}, "naive_datetime", "a time zone"),
]


@pytest.mark.parametrize(("given", "reason", "remedy"), REFUSED)
def test_refused_counted_and_told(seen, given, reason, remedy):
    verdict = charge(**given)
    assert verdict == pbmon.Refused(reason)
    assert not verdict
    assert seen.metrics["pbmon.refused_calls"] == {
        (("pbmon.call", "track_revenue"), ("pbmon.reason", reason)): 1
    }
    assert REVENUE not in seen.metrics
    assert set(transactions(seen).values()) == {0}
    (log,) = seen.logs
    assert remedy in log.message
    assert (log.logger, log.level) == ("pbmon.api", "WARNING")


@pytest.mark.parametrize(("given", "reason", "remedy"), REFUSED)
def test_raised_and_counted_under_strict(given, reason, remedy):
    with capture(strict=True) as seen:
        with pytest.raises(ValueError, match=remedy) as caught:
            charge(**given)
        assert str(caught.value).startswith("pbmon.track_revenue: ")
        assert seen.metric("pbmon.refused_calls", pbmon__reason=reason) == 1
        assert seen.logs == []


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"amount": 12.5}, "amount must be Decimal, int or str, not float"),
        ({"amount": True}, "amount must be Decimal, int or str, not bool"),
        ({"amount": None}, "amount must be Decimal, int or str, not NoneType"),
        ({"currency": None}, "currency must be str, not NoneType"),
        ({"transaction_id": 7}, "transaction_id must be str, not int"),
        ({"status": None}, "status must be str, not NoneType"),
        ({"occurred_at": "today"}, "occurred_at must be datetime, not str"),
    ],
)
def test_a_wrong_type_raises_in_any_mode(strict, given, message):
    with capture(strict=strict) as seen:
        with pytest.raises(TypeError, match=message):
            charge(**given)
        assert "pbmon.refused_calls" not in seen.metrics


def test_told_once_for_each_line_and_reason_with_its_place(seen):
    for _ in range(5):
        charge(currency="XBT")
    lines = []
    for _ in range(3):
        pbmon.track_revenue("1", "XBT", transaction_id="t")
        lines.append(1)
    assert len(seen.logs) == 2
    first, second = (log.message for log in seen.logs)
    code = charge.__code__
    assert f"refused at {__file__}:{code.co_firstlineno + 1}: " in first
    assert f"refused at {__file__}:" in second
    assert first != second
    charge(amount="x")  # another reason at the first line
    assert len(seen.logs) == 3
    assert seen.metric("pbmon.refused_calls") == 9


def test_what_came_in_does_not_break_the_line(seen):
    charge(status="a\nb")
    charge(currency="X\nY")
    assert all(log.message.count("\n") == 0 for log in seen.logs)
    assert len(seen.logs) == 2


def test_call_sites_are_bounded(seen, monkeypatch):
    monkeypatch.setattr(refusals, "_MAX_SITES", 3)
    for n in range(10):
        exec(compile("\n" * n + "charge(currency='XBT')", "app.py", "exec"), {"charge": charge})
        refusals.refuse("track_revenue", f"reason{n}", "remedy")
    assert len(refusals._told) == 3
    assert seen.metric("pbmon.refused_calls") == 20
