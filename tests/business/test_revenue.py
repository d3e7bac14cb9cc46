"""track_revenue() and its like: what they hand over, what they refuse and why."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import datetime, timedelta, timezone, tzinfo
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pbmon
from pbmon import runtime
from pbmon.business import refusals
from pbmon.spool.entries import Transaction
from pbmon.testing import capture
from tests.patience import patiently

METRICS = ("pbmon.revenue", "pbmon.refunds", "pbmon.transactions", "pbmon.revenue.unconverted")


@pytest.fixture
def seen():
    with capture(strict=False) as seen:
        yield seen


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch):
    monkeypatch.setattr(refusals, "_told", set())


def charge(amount="12.50", currency="EUR", **more):
    return pbmon.track_revenue(amount, currency, **{"transaction_id": "t1", **more})


def micros(at):
    return (at - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1)


# --- accepted ---


def test_a_charge_is_an_entry(seen):
    before = micros(datetime.now(timezone.utc))
    assert charge("12.50", "EUR") == pbmon.Accepted()
    (entry,) = seen.entries
    assert before <= entry.at == entry.occurred_at <= micros(datetime.now(timezone.utc))
    assert entry == Transaction(
        entry.at, "charge", "t1", None, "completed", 1250, "EUR", 2, entry.at, None, None
    )


def test_no_process_counts_it(seen):
    charge()
    assert not any(name in seen.metrics for name in METRICS)


REPORTS = [
    (lambda **more: pbmon.track_refund("1.5", "EUR", transaction_id="t", refund_id="r", **more),
     ("refund", "r", "t", "completed", 150, "EUR", 2)),
    (lambda **more: pbmon.track_chargeback(3, "JPY", transaction_id="t", chargeback_id="b", **more),
     ("chargeback", "b", "t", "completed", 3, "JPY", 0)),
    (lambda **more: pbmon.track_adjustment("-0.125", "KWD", adjustment_id="a", **more),
     ("adjustment", "a", None, "completed", -125, "KWD", 3)),
    (lambda **more: pbmon.track_adjustment(Decimal("0.05"), "USD", adjustment_id="a", **more),
     ("adjustment", "a", None, "completed", 5, "USD", 2)),
    (lambda **more: charge(status="pending", **more),
     ("charge", "t1", None, "pending", 1250, "EUR", 2)),
]  # fmt: skip
KINDS = ["refund", "chargeback", "less", "more", "pending"]


@pytest.mark.parametrize(("report", "wanted"), REPORTS, ids=KINDS)
def test_each_kind_is_an_entry(seen, report, wanted):
    at = datetime(2026, 3, 4, 5, 6, 7, 8, timezone(timedelta(hours=5, minutes=45)))
    assert report(occurred_at=at) == pbmon.Accepted()
    (entry,) = seen.entries
    assert entry[1:8] == wanted
    assert entry.occurred_at == micros(at) == 1_772_580_067_000_008


@pytest.mark.parametrize(("report", "wanted"), REPORTS, ids=KINDS)
def test_before_configure_it_is_a_no_op(report, wanted):
    assert report() == pbmon.Refused("not_configured")


def test_a_charge_is_the_users_of_its_context_and_a_refund_nobodys():
    with capture(segments=["plan"]) as seen, pbmon.context(user_id=7, plan="pro", other="x"):
        charge()
        charge(user_id="8")
        pbmon.track_refund("1", "EUR", transaction_id="t1", refund_id="r")
    assert [entry.user_id for entry in seen.entries] == ["7", "8", None]
    assert [entry.segments for entry in seen.entries] == [{"plan": "pro"}] * 3


def test_in_an_outbox_it_is_a_row_of_the_applications_transaction(seen, tmp_path):
    import sqlite3

    from pbmon.business.intake import Intake
    from pbmon.spool.entries import decode
    from pbmon.store.access import make_outbox, open_engine

    made = open_engine(f"sqlite:///{tmp_path}/app.sqlite3")
    make_outbox(made)
    made.dispose()
    nothing = Intake(lambda: pytest.fail("no journal"), lambda _: None)
    nothing._ended = True
    runtime.active.revenue._intake = nothing
    connection = sqlite3.connect(tmp_path / "app.sqlite3")
    with connection, pbmon.outbox(connection):
        assert charge()
        assert pbmon.track_refund("1", "EUR", transaction_id="t1", refund_id="r")
    found = connection.execute("SELECT payload FROM pbmon_outbox ORDER BY id").fetchall()
    connection.close()
    assert [decode(payload).kind for (payload,) in found] == ["charge", "refund"]


@pytest.mark.parametrize("transaction_id", ["x", "x" * 255, "é ✓"])
def test_transaction_ids(seen, transaction_id):
    assert charge(transaction_id=transaction_id)
    assert seen.entries[0].key == transaction_id


def test_what_can_not_be_taken_says_why(seen):
    runtime.active.revenue._intake = type("Full", (), {"put": lambda self, payload: "full"})()
    assert charge() == pbmon.Refused("full")


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
        totals = Counter()
        for entry in seen.entries:
            totals[entry.currency] += entry.amount_minor
        assert totals == wanted
        assert len(seen.entries) == len(made)


# --- refused ---


class Nowhere(tzinfo):
    def utcoffset(self, when):
        return None


REFUSED = [
    ({"currency": "XBT"}, "unknown_currency", "is not in ISO 4217"),
    ({"currency": "eur"}, "unknown_currency", "is not in ISO 4217"),
    ({"amount": "twelve"}, "invalid_amount", "amount is no number"),
    ({"amount": Decimal("NaN")}, "invalid_amount", "amount is no number"),
    ({"amount": -1}, "negative_amount", "must be 0 or more; what reduces"),
    ({"amount": "0.001"}, "too_precise", "more decimals than the 2 that EUR has"),
    ({"amount": 10**20}, "too_large", "is above 1000000000000000 minor units"),
    ({"transaction_id": ""}, "bad_transaction_id", "1 to 255 characters"),
    ({"transaction_id": "x" * 256}, "bad_transaction_id", "1 to 255 characters"),
    ({"status": "done"}, "bad_status", "is not one of pending, completed, failed, cancelled"),
    ({"occurred_at": datetime(2026, 1, 1)}, "naive_datetime", "needs a time zone"),
    ({"occurred_at": datetime(2026, 1, 1, tzinfo=Nowhere())}, "naive_datetime", "a time zone"),
    ({"occurred_at": datetime(1999, 12, 31, tzinfo=timezone.utc)}, "bad_occurred_at", "2000"),
    (
        {"occurred_at": datetime.now(timezone.utc) + timedelta(days=1, hours=1)},
        "bad_occurred_at",
        "more than a day ahead",
    ),
    ({"user_id": ""}, "bad_user_id", "1 to 255 characters"),
]


@pytest.mark.parametrize(("given", "reason", "remedy"), REFUSED)
def test_refused_counted_and_told(seen, given, reason, remedy):
    verdict = charge(**given)
    assert verdict == pbmon.Refused(reason)
    assert not verdict
    assert seen.metrics["pbmon.refused_calls"] == {
        (("pbmon.call", "track_revenue"), ("pbmon.reason", reason)): 1
    }
    assert seen.entries == []
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
        ({"user_id": 1.5}, "user_id must be str or int, not float"),
    ],
)
def test_a_wrong_type_raises_in_any_mode(strict, given, message):
    with capture(strict=strict) as seen:
        with pytest.raises(TypeError, match=message):
            charge(**given)
        assert "pbmon.refused_calls" not in seen.metrics


REFUSED_OTHERS = [
    (lambda: pbmon.track_refund("-1", "EUR", transaction_id="t", refund_id="r"),
     "track_refund", "negative_amount"),
    (lambda: pbmon.track_refund("1", "EUR", transaction_id="", refund_id="r"),
     "track_refund", "bad_transaction_id"),
    (lambda: pbmon.track_refund("1", "EUR", transaction_id="t", refund_id="x" * 256),
     "track_refund", "bad_refund_id"),
    (lambda: pbmon.track_chargeback("1", "EUR", transaction_id="t", chargeback_id=""),
     "track_chargeback", "bad_chargeback_id"),
    (lambda: pbmon.track_adjustment("1", "EUR", adjustment_id=""),
     "track_adjustment", "bad_adjustment_id"),
    (lambda: pbmon.track_adjustment("-0.001", "EUR", adjustment_id="a"),
     "track_adjustment", "too_precise"),
    (lambda: pbmon.track_adjustment(-(10**20), "EUR", adjustment_id="a"),
     "track_adjustment", "too_large"),
    (lambda: pbmon.track_adjustment(1, "EUR", adjustment_id="a", occurred_at=datetime(2026, 1, 1)),
     "track_adjustment", "naive_datetime"),
]  # fmt: skip


@pytest.mark.parametrize(("report", "call", "reason"), REFUSED_OTHERS)
def test_the_others_refuse_likewise_where_they_are_called(seen, report, call, reason):
    assert report() == pbmon.Refused(reason)
    assert seen.metric("pbmon.refused_calls", pbmon__call=call, pbmon__reason=reason) == 1
    assert seen.entries == []
    (log,) = seen.logs
    assert f"pbmon.{call} refused at {__file__}:{report.__code__.co_firstlineno}: " in log.message


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (lambda: pbmon.track_refund(1.5, "EUR", transaction_id="t", refund_id="r"), "not float"),
        (lambda: pbmon.track_refund(1, "EUR", transaction_id="t", refund_id=5), "refund_id must"),
        (lambda: pbmon.track_chargeback(1, "EUR", transaction_id=None, chargeback_id="b"),
         "transaction_id must be str, not NoneType"),
        (lambda: pbmon.track_adjustment(1, "EUR", adjustment_id=5), "adjustment_id must be str"),
    ],
)  # fmt: skip
def test_a_wrong_type_of_theirs_raises(seen, report, message):
    with pytest.raises(TypeError, match=message):
        report()


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
