"""What is booked, what is not and why; the same on both engines."""

from __future__ import annotations

from decimal import Decimal

import pytest

from pbmon import signals
from pbmon.spool import entries
from pbmon.store import tables
from pbmon.store.access import RejectedError, asking, open_writer
from pbmon.store.schema import DAY, HOUR, day_of
from pbmon.store.writer import SupersededError
from tests.store.money import (
    TableOfRates,
    check_books,
    earned,
    figures,
    refund,
    rows,
    status,
    transaction,
)  # fmt: skip
from tests.store.test_writer import NOON, event, portion

RATES = TableOfRates(EUR="1.0825", JPY="0.0064385", KWD="3.2541")


class Books:
    """A writer, and what it is given, each time as another journal."""

    def __init__(self, url, **options):
        self.writer = open_writer(url, options.pop("basis", "opt-in"), rates=RATES, **options)
        self.journals = 0

    def write(self, *payloads):
        """Reason → items; "" for those that were stored."""
        self.journals += 1
        source = f"{id(self)}-{self.journals}"
        written = self.writer.write([portion(*payloads, source=source)])
        return {k: v for k, v in {"": written.stored, **written.dropped}.items() if v}


@pytest.fixture
def url(quick_url):
    return quick_url


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch):
    monkeypatch.setattr(signals, "_last_told", {})


@pytest.fixture
def books(url):
    made = Books(url)
    yield made
    made.writer.close()


def conflicts(engine):
    return sorted(
        (row.kind, row.key, row.reason, row.amount_minor)
        for row in rows(engine, tables.transaction_conflicts)
    )


# --- charges ---


def test_a_charge_becomes_a_row_and_counts(books, engine):
    assert books.write(transaction(amount=1250, segments={"plan": "pro"})) == {"": 1}
    (row,) = rows(engine)
    assert (row.kind, row.key, row.charge, row.status) == ("charge", "c1", None, "completed")
    assert (row.amount_minor, row.currency, row.exponent, row.base_minor) == (1250, "USD", 2, 1250)
    assert (row.fx_rate, row.fx_date, row.fx_source) == ("1", day_of(NOON), "same currency")
    assert (row.occurred_at, row.subject, row.segments) == (NOON, None, {"plan": "pro"})
    assert row.counted_at is not None
    assert earned(engine) == (1250, 0)
    check_books(engine)


def test_of_no_segments_there_is_null(books, engine):
    books.write(transaction())
    with engine.connect() as connection:
        query = tables.transactions.select().where(tables.transactions.c.segments.is_(None))
        assert len(connection.execute(query).all()) == 1


def test_the_same_one_counts_once_however_often_it_comes(books, engine):
    charge = transaction(amount=1250)
    assert books.write(charge, charge) == {"": 1, "duplicate": 1}
    assert books.write(transaction(amount=1250, at=NOON + DAY), charge) == {"duplicate": 2}
    assert earned(engine) == (1250, 0)
    (row,) = check_books(engine)
    assert row.occurred_at == NOON


def test_the_outbox_and_a_journal_book_it_once(books, engine):
    assert books.writer.write_outbox([(b"a" * 16, transaction())]).stored == 1
    assert books.writer.write_outbox([(b"a" * 16, transaction())]).dropped == {"duplicate": 1}
    assert books.write(transaction()) == {"duplicate": 1}
    assert earned(engine) == (1000, 0)


def test_ids_are_those_of_their_kind(books, engine):
    books.write(transaction(key="7"), transaction("adjustment", "7", 5), refund("7", charge="7"))
    assert len(check_books(engine)) == 3
    assert earned(engine) == (1005, 100)


@pytest.mark.parametrize(
    "other",
    [{"amount": 1001}, {"currency": "EUR"}, {"amount": 0}],
    ids=["amount", "currency", "nothing"],
)
def test_another_amount_or_currency_is_a_conflict(books, engine, caplog, other):
    books.write(transaction())
    changed = transaction(**other)
    assert books.write(changed, changed) == {"conflict": 2}
    assert books.write(changed) == {"conflict": 1}
    assert conflicts(engine) == [("charge", "c1", "other_body", other.get("amount", 1000))]
    assert "give each transaction an id of its own" in caplog.text
    assert "transaction_conflicts" in caplog.text
    assert earned(engine) == (1000, 0)
    check_books(engine)


def test_amounts_of_every_exponent(books, engine):
    books.write(
        transaction(key="usd", amount=1, currency="USD"),
        transaction(key="jpy", amount=1000, currency="JPY"),
        transaction(key="kwd", amount=1001, currency="KWD"),
    )
    found = {row.key: (row.exponent, row.base_minor) for row in rows(engine)}
    # ¥1000 × 0.0064385 = $6.4385; KWD 1.001 × 3.2541 = $3.2573541
    assert found == {"usd": (2, 1), "jpy": (0, 644), "kwd": (3, 326)}
    check_books(engine)


def test_halves_go_to_the_even_neighbour(url, engine):
    writer = open_writer(url, "opt-in", rates=TableOfRates(EUR="0.5"))
    amounts = {"1": 0, "3": 2, "5": 2, "7": 4}
    writer.write([portion(*(transaction(key=n, amount=int(n), currency="EUR") for n in amounts))])
    assert {row.key: row.base_minor for row in rows(engine)} == amounts
    writer.close()


# --- statuses ---


def test_a_status_change_is_a_transition(books, engine):
    assert books.write(transaction(status="pending")) == {"": 1}
    assert status(engine) == ("pending", False)
    assert earned(engine) == (0, 0)
    assert books.write(transaction(at=NOON + HOUR)) == {"": 1}
    assert status(engine) == ("completed", True)
    assert earned(engine) == (1000, 0)
    (row,) = check_books(engine)
    assert row.occurred_at == NOON + HOUR  # when it became revenue
    found = figures(engine)["pbmon.transactions"]
    assert (found["charge", "pending"], found["charge", "completed"]) == (1, 1)


SAID = ["pending", "failed", "cancelled", "completed"]


@pytest.mark.parametrize(
    ("order", "end", "last"),
    [
        (["pending", "completed"], "completed", ""),
        (["completed", "pending"], "completed", "superseded"),
        (["pending", "failed"], "failed", ""),
        (["failed", "pending"], "failed", "superseded"),
        (["pending", "cancelled"], "cancelled", ""),
        (["failed", "completed"], "completed", ""),  # tried again, under the same id
        (["completed", "failed"], "completed", "superseded"),
        (["failed", "cancelled"], "cancelled", ""),
        (["cancelled", "failed"], "cancelled", "superseded"),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_the_order_of_arrival_does_not_matter(books, engine, order, end, last, apart):
    """Each was said at the time of its place in SAID."""
    said = [transaction(status=each, at=NOON + SAID.index(each)) for each in order]
    if apart:
        assert [books.write(each) for each in said] == [{"": 1}, {last: 1}]
    else:
        assert books.write(*said) == ({"": 2} if last == "" else {"": 1, last: 1})
    assert status(engine) == (end, end == "completed")
    check_books(engine)


def test_pending_again_after_a_failure(books, engine):
    first, failed, again = (
        transaction(status=each, at=NOON + n)
        for n, each in enumerate(["pending", "failed", "pending"])
    )
    books.write(first, failed, again)
    assert status(engine) == ("pending", False)
    assert books.write(first) == {"duplicate": 1}
    assert books.write(failed) == {"superseded": 1}
    assert status(engine) == ("pending", False)


@pytest.mark.parametrize("later", ["failed", "cancelled"])
def test_what_is_completed_is_final(books, engine, caplog, later):
    books.write(transaction())
    assert books.write(transaction(status=later, at=NOON + 1)) == {"conflict": 1}
    assert conflicts(engine) == [("charge", "c1", "final", 1000)]
    assert "track_refund" in caplog.text
    assert earned(engine) == (1000, 0)


# --- refunds and chargebacks ---


def test_refunds_in_parts_up_to_the_charge(books, engine):
    books.write(transaction(amount=1000))
    assert books.write(refund("r1", 400), refund("r2", 600)) == {"": 2}
    assert books.write(refund("r1", 400)) == {"duplicate": 1}
    assert earned(engine) == (1000, 1000)
    assert books.write(refund("r3", 1)) == {"conflict": 1}
    assert conflicts(engine) == [("refund", "r3", "over_refund", 1)]
    assert earned(engine) == (1000, 1000)
    check_books(engine)


def test_one_that_is_too_much_may_be_corrected(books, engine):
    books.write(transaction(amount=1000))
    assert books.write(refund("r1", 1001)) == {"conflict": 1}
    assert books.write(refund("r1", 1000)) == {"": 1}
    assert earned(engine) == (1000, 1000)
    check_books(engine)


def test_chargebacks_have_the_whole_charge_to_themselves(books, engine):
    back = {"kind": "chargeback"}
    books.write(transaction(amount=1000), refund("r1", 1000))
    assert books.write(refund("b1", 700, **back), refund("b2", 301, **back)) == {
        "": 1, "conflict": 1,
    }  # fmt: skip
    assert conflicts(engine) == [("chargeback", "b2", "over_chargeback", 301)]
    assert earned(engine) == (1000, 1700)
    check_books(engine)


def test_a_refund_in_another_currency_is_a_conflict(books, engine):
    books.write(transaction(status="pending"))
    assert books.write(refund(currency="EUR")) == {"conflict": 1}
    assert conflicts(engine) == [("refund", "r1", "other_currency", 100)]


@pytest.mark.parametrize("apart", [False, True])
def test_a_refund_is_held_until_its_charge_has_completed(books, engine, apart):
    assert books.write(refund("r2", 300, at=NOON + 2), refund("r1", 700, at=NOON + 1)) == {"": 2}
    assert status(engine, "refund", "r1") == ("held", False)
    assert earned(engine) == (0, 0)
    said = [transaction(status="pending"), transaction(at=NOON + 3)]
    if apart:
        assert books.write(said[0]) == {"": 1}
        assert status(engine, "refund", "r1") == ("held", False)
        assert books.write(said[1]) == {"": 1}
    else:
        assert books.write(*said) == {"": 2}
    assert status(engine, "refund", "r1") == status(engine, "refund", "r2") == ("completed", True)
    assert earned(engine) == (1000, 1000)
    assert len(check_books(engine)) == 3


def test_a_refund_before_its_charge_in_one_transaction(books, engine):
    assert books.write(refund("r1", 300), transaction()) == {"": 2}
    assert earned(engine) == (1000, 300)
    check_books(engine)


def test_of_those_held_what_fits_in_the_order_in_which_it_was_said(books, engine, caplog):
    books.write(refund("first", 900, at=NOON + 3), refund("third", 600, at=NOON + 1))
    books.write(refund("r4", 1, "EUR", at=NOON + 4))
    assert books.write(transaction(), refund("second", 400, at=NOON + 2)) == {"": 2}
    assert earned(engine) == (1000, 1000)
    assert conflicts(engine) == [
        ("refund", "first", "over_refund", 900), ("refund", "r4", "other_currency", 1),
    ]  # fmt: skip
    assert "the refunds of a charge are more than the charge" in caplog.text
    assert {row.key for row in rows(engine)} == {"c1", "third", "second"}
    check_books(engine)


@pytest.mark.parametrize("parts", [[1000], [333, 333, 334], [1] * 1000, [999, 1], [1, 0, 999]])
def test_what_goes_back_is_exactly_what_came(books, engine, parts):
    books.write(transaction(amount=1000, currency="KWD"))  # KWD 1 is $3.2541
    books.write(*(refund(f"r{n}", part, "KWD") for n, part in enumerate(parts)))
    assert earned(engine) == (325, 325)
    check_books(engine)


def test_a_charge_of_nothing(books, engine):
    assert books.write(transaction(amount=0), refund(amount=0)) == {"": 2}
    assert books.write(refund("r2", 1)) == {"conflict": 1}
    assert earned(engine) == (0, 0)
    check_books(engine)


def test_adjustments_count_by_their_sign(books, engine):
    books.write(
        transaction("adjustment", "a1", 250), transaction("adjustment", "a2", -100),
        transaction("adjustment", "a3", 0), transaction("adjustment", "a4", -1, "KWD"),
    )  # fmt: skip
    assert earned(engine) == (250, 100)
    assert {row.key: row.base_minor for row in rows(engine)} == {
        "a1": 250, "a2": -100, "a3": 0, "a4": 0,
    }  # fmt: skip
    check_books(engine)


# --- the base currency ---


def test_without_a_rate_it_counts_and_waits(books, engine):
    books.write(transaction(amount=50_000, currency="VND"), refund(amount=10_000, currency="VND"))
    assert earned(engine) == (0, 0)
    assert figures(engine)["pbmon.revenue.unconverted"] == {("USD",): 0, ("VND",): 2}
    assert {row.base_minor for row in check_books(engine)} == {None}


def test_a_store_keeps_the_base_currency_of_its_first_transaction(books, url, engine, caplog):
    books.write(transaction(amount=1000))
    other = Books(url, base_currency="EUR")
    other.write(transaction(key="c2", amount=1000, currency="EUR"))
    other.writer.close()
    assert earned(engine) == (2082, 0)  # €10 × 1.0825 = $10.825
    assert "Set base_currency to USD, or store_url to a new store" in caplog.text
    check_books(engine)


def test_a_base_without_minor_units(url, engine):
    writer = open_writer(url, "opt-in", base_currency="JPY")
    writer.write([portion(transaction(amount=1050, currency="JPY"))])
    writer.close()
    assert figures(engine)["pbmon.revenue"] == {("JPY",): 1050.0}


def test_before_the_first_transaction_every_figure_is_0(engine):
    assert figures(engine) == {
        "pbmon.revenue": {("USD",): 0.0},
        "pbmon.refunds": {("USD",): 0.0},
        "pbmon.transactions": {
            ("charge", "pending"): 0, ("charge", "completed"): 0, ("charge", "failed"): 0,
            ("charge", "cancelled"): 0, ("refund", "completed"): 0, ("chargeback", "completed"): 0,
            ("adjustment", "completed"): 0,
        },
        "pbmon.revenue.unconverted": {("USD",): 0},
        "pbmon.revenue.booked": {("USD", "gross", "24h"): 0, ("USD", "refunds", "24h"): 0},
    }  # fmt: skip


@pytest.mark.parametrize("rate", ["0", "-1", "NaN", "Infinity"])
def test_what_is_no_rate_converts_nothing(url, engine, rate):
    writer = open_writer(url, "opt-in", rates=TableOfRates(EUR=rate))
    writer.write([portion(transaction(currency="EUR"))])
    writer.close()
    assert [row.base_minor for row in check_books(engine)] == [None]


def test_an_amount_that_no_column_can_hold_is_left_unconverted(url, engine):
    writer = open_writer(url, "opt-in", rates=TableOfRates(KWD="1E+9"))
    writer.write([portion(transaction(amount=10**15, currency="KWD"))])
    writer.close()
    assert [row.base_minor for row in check_books(engine)] == [None]


def test_sums_that_would_not_be_exact_any_more_are_refused(books, engine):
    full = [transaction(key=f"c{n}", amount=10**15, at=NOON + n) for n in range(5)]
    books.write(*full)
    with engine.begin() as connection:
        for table in (tables.revenue_totals, tables.counted_totals, tables.ledger_totals):
            connection.execute(table.update().values(base_minor=2**63 - 1 - 10**15))
    with pytest.raises(RejectedError):
        asking(lambda: books.write(transaction(key="x", amount=10**15 + 1)))
    assert books.write(transaction(key="y", amount=10**15)) == {"": 1}


# --- people ---


@pytest.mark.parametrize(
    ("basis", "decision", "kept"),
    [("opt-in", None, False), ("opt-in", True, True), ("opt-out", None, True),
     ("opt-out", False, False), ("not-required", None, True)],
)  # fmt: skip
def test_whose_it_is_is_kept_with_consent_and_the_money_in_any_case(
    url, engine, basis, decision, kept
):
    books = Books(url, basis=basis)
    if decision is not None:
        books.write(entries.encode(entries.Consent(NOON, "7", "analytics", decision)))
    assert books.write(transaction(user="7")) == {"": 1}
    (row,) = rows(engine)
    people = rows(engine, tables.subjects)
    assert (row.subject is not None) == kept
    assert len(people) == (kept or decision is not None)
    books.writer.close()


def test_a_deleted_persons_money_is_nobodys(url, engine):
    books = Books(url, basis="opt-out")
    books.write(event(user="7"))
    with engine.begin() as connection:
        from pbmon.store import schema

        connection.execute(tables.subjects.update().values(key=None, deleted_at=NOON))
        schema.note_change_of_people(connection)
    assert books.write(transaction(user="7")) == {"": 1}
    assert [row.subject for row in rows(engine)] == [None]
    assert earned(engine) == (1000, 0)
    books.writer.close()


# --- one transaction ---


def test_what_is_rolled_back_leaves_nothing(books, engine, monkeypatch):
    from pbmon.store.writer import Batch

    def fail(*_):
        raise RuntimeError("killed")

    charge = portion(transaction(), refund(), refund("r2", 5000), source="one")
    with monkeypatch.context() as patched:
        patched.setattr(Batch, "_note_counts", fail)
        with pytest.raises(RuntimeError):
            books.writer.write([charge])
    for table in (tables.transactions, tables.revenue_totals, tables.counted_totals,
                  tables.ledger_totals, tables.transaction_conflicts):  # fmt: skip
        assert rows(engine, table) == []
    assert books.writer.write([charge]).stored == 2
    with pytest.raises(SupersededError):
        books.writer.write([charge])
    assert earned(engine) == (1000, 100)
    check_books(engine)


def test_rates_keep_their_digits(url, engine):
    value = Decimal("1.0825000000000000000000000001")
    writer = open_writer(url, "opt-in", rates=TableOfRates(EUR=value))
    writer.write([portion(transaction(currency="EUR"))])
    writer.close()
    (row,) = rows(engine)
    assert (row.fx_rate, row.fx_date, row.fx_source) == (str(value), day_of(NOON), "table")
