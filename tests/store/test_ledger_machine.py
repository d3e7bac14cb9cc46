"""The ledger against a plain one: any order, retries, crashes, two writers and changing rates."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import event as events

from pbmon.spool.entries import decode
from pbmon.store import conversion, tables
from pbmon.store.access import open_engine, open_writer
from tests.patience import patiently
from tests.store.conftest import emptied
from tests.store.money import (
    TableOfRates,
    check_books,
    in_usd,
    refund,
    rows,
    transaction,
)
from tests.store.test_writer import NOON, portion

RANKS = {"pending": 0, "failed": 1, "cancelled": 2}
CURRENCIES = ("USD", "JPY", "KWD", "VND")


class Plain:
    """What a ledger is to say, one entry after the other, without a database."""

    def __init__(self, rates):
        self.rates = rates
        self.first = {}
        """Kind and key → the first entry that was booked."""
        self.status = {}
        """Key of a charge → (completed?, said at, rank)."""
        self.held, self.counting, self.rate = {}, {}, {}
        self.conflicts = set()

    def take(self, entry):
        place = entry.kind, entry.key
        known = self.first.get(place)
        if known is not None and _body(known) != _body(entry):
            self._conflict(entry, "other_body")
        elif entry.kind == "charge":
            self._take_charge(entry, known is None)
        elif known is None and entry.kind == "adjustment":
            self.first[place] = entry
            self._count(entry)
        elif known is None:
            self._take_return(entry)

    def _take_charge(self, entry, is_new):
        if is_new:
            self.first["charge", entry.key] = entry
        said = (entry.status == "completed", entry.at, RANKS.get(entry.status, 3))
        before = self.status.get(entry.key, (False, -1, -1))
        if before[0]:
            if entry.status in ("failed", "cancelled") and entry.at > before[1]:
                self._conflict(entry, "final")
            return
        self.status[entry.key] = max(before, said)
        if said[0]:
            self.status[entry.key] = said
            self._count(self.first["charge", entry.key])
            for held in sorted(self.held.pop(entry.key, []), key=lambda e: (e.at, e.kind, e.key)):
                self._apply(held)

    def _take_return(self, entry):
        charge = self.first.get(("charge", entry.charge))
        if charge is not None and charge.currency != entry.currency:
            self._conflict(entry, "other_currency")
        elif charge is not None and entry.amount_minor > charge.amount_minor:
            self._conflict(entry, f"over_{entry.kind}")
        elif charge is not None and self.status[entry.charge][0]:
            self.first[entry.kind, entry.key] = entry
            self._apply(entry)
        else:
            self.first[entry.kind, entry.key] = entry
            self.held.setdefault(entry.charge, []).append(entry)

    def _apply(self, entry):
        charge = self.first["charge", entry.charge]
        gone = sum(e.amount_minor for e in self.counting.values()
                   if (e.kind, e.charge) == (entry.kind, entry.charge))  # fmt: skip
        reason = None
        if charge.currency != entry.currency:
            reason = "other_currency"
        elif gone + entry.amount_minor > charge.amount_minor:
            reason = f"over_{entry.kind}"
        if reason:
            self._conflict(entry, reason)
            del self.first[entry.kind, entry.key]
        else:
            self._count(entry)

    def _count(self, entry):
        self.counting[entry.kind, entry.key] = entry
        if entry.kind in ("charge", "adjustment"):
            self.rate[entry.kind, entry.key] = self.rates.values.get(entry.currency)

    def convert(self):
        for place, rate in self.rate.items():
            if rate is None:
                self.rate[place] = self.rates.values.get(self.counting[place].currency)

    def _conflict(self, entry, reason):
        self.conflicts.add((entry.kind, entry.key, reason, entry.amount_minor, entry.currency))


def _body(entry):
    return entry.charge, entry.amount_minor, entry.currency


class Machine(RuleBasedStateMachine):
    """Two writers; what is written is killed now and then, and comes again."""

    def __init__(self, url):
        super().__init__()
        self.rates = TableOfRates(USD="1", JPY="0.0064385", KWD="3.2541")
        self.plain = Plain(self.rates)
        self.engine = open_engine(url)
        self.writers = [open_writer(url, "opt-in", rates=self.rates) for _ in range(2)]
        self.waiting = []
        self.journals = 0

    @rule(
        key=st.integers(1, 4), amount=st.sampled_from([0, 1, 1000, 1001]),
        currency=st.sampled_from(CURRENCIES[:2]), at=st.integers(0, 9),
        status=st.sampled_from(["pending", "completed", "completed", "failed", "cancelled"]),
    )  # fmt: skip
    def charge(self, key, amount, currency, status, at):
        self.waiting.append(self._charge(key, amount, currency, status, at))

    @rule(key=st.integers(5, 9), status=st.sampled_from(["pending", "completed", "failed"]),
          at=st.integers(0, 9))  # fmt: skip
    def charge_that_is_always_the_same(self, key, status, at):
        self.waiting.append(self._charge(key, 1000 + key, CURRENCIES[key % 4], status, at))

    def _charge(self, key, amount, currency, status, at):
        return transaction("charge", f"c{key}", amount, currency, status=status, at=NOON + at)

    @rule(
        kind=st.sampled_from(["refund", "chargeback"]), key=st.integers(1, 12),
        charge=st.integers(1, 9), part=st.sampled_from([1, 333, 500, 1001]), at=st.integers(0, 9),
        wrong=st.sampled_from([0, 0, 0, 1]),
    )  # fmt: skip
    def give_back(self, kind, key, charge, part, at, wrong):
        currency = CURRENCIES[(charge + wrong) % 4]
        self.waiting.append(
            refund(f"r{key}", part, currency, charge=f"c{charge}", kind=kind, at=NOON + at)
        )

    @rule(key=st.integers(1, 5), amount=st.integers(-2000, 2000), at=st.integers(0, 9),
          currency=st.sampled_from(CURRENCIES))  # fmt: skip
    def adjust(self, key, amount, currency, at):
        self.waiting.append(transaction("adjustment", f"a{key}", amount, currency, at=NOON + at))

    @rule(who=st.integers(0, 1), again=st.booleans())
    def write(self, who, again):
        """again: the application says all of it once more."""
        payloads = self.waiting * (2 if again else 1)
        self.waiting = []
        for payload in payloads:
            self.plain.take(decode(payload))
        self._write(who, payloads)

    @rule(who=st.integers(0, 1), at=st.integers(0, 25))
    def write_and_be_killed(self, who, at):
        engine, left = self.writers[who]._engine, [at]

        def kill(*_):
            left[0] -= 1
            if left[0] < 0:
                raise ConnectionAbortedError

        events.listen(engine, "before_cursor_execute", kill)
        try:
            self._write(who, self.waiting)
        except ConnectionAbortedError:
            return
        finally:
            events.remove(engine, "before_cursor_execute", kill)
        for payload in self.waiting:
            self.plain.take(decode(payload))
        self.waiting = []

    def _write(self, who, payloads):
        self.journals += 1
        written = self.writers[who].write([portion(*payloads, source=f"j-{self.journals}")])
        assert written.stored + sum(written.dropped.values()) == len(payloads)

    @rule(currency=st.sampled_from(CURRENCIES[1:]),
          rate=st.sampled_from([None, "0.0064385", "3.25411", "0.00003911"]))  # fmt: skip
    def change_a_rate(self, currency, rate):
        self.rates.values.pop(currency, None)
        if rate is not None:
            self.rates.values.update(TableOfRates(**{currency: rate}).values)

    @rule(limit=st.sampled_from([1, 1000]))
    def convert_what_waits(self, limit):
        waiting = conversion.Conversions(self.engine)
        while waiting.convert(self.rates, limit) == limit:
            pass
        self.plain.convert()

    @invariant()
    def books_agree(self):
        counting = check_books(self.engine)
        plain = self.plain
        assert {(row.kind, row.key): row.amount_minor for row in counting} == {
            place: entry.amount_minor for place, entry in plain.counting.items()
        }
        found = {(row.kind, row.key): row.base_minor for row in counting}
        for place, rate in plain.rate.items():
            entry = plain.counting[place]
            wanted = in_usd(entry.amount_minor, entry.currency, rate) if rate is not None else None
            assert found[place] == wanted
        kept = rows(self.engine, tables.transaction_conflicts)
        assert {
            (row.kind, row.key, row.reason, row.amount_minor, row.currency) for row in kept
        } == plain.conflicts

    def teardown(self):
        self.write(0, True)
        self.convert_what_waits(1000)
        self.books_agree()
        for writer in self.writers:
            writer.close()
        self.engine.dispose()


def test_in_sqlite(file):
    with tempfile.TemporaryDirectory() as directory:

        def machine():
            path = Path(directory, "store.sqlite3")
            for old in path.parent.glob("store.sqlite3*"):
                old.unlink()
            shutil.copy(file, path)
            return Machine(f"sqlite:///{path}")

        run_state_machine_as_test(
            machine, settings=patiently(max_examples=15, stateful_step_count=30)
        )


@pytest.mark.server
def test_in_postgresql(emptied_database):
    run_state_machine_as_test(
        lambda: Machine(emptied(emptied_database)),
        settings=patiently(max_examples=8, stateful_step_count=25),
    )


THREADS, CHARGES = 8, 40


def test_eight_threads_with_rollbacks_and_repetitions(quick_url):
    """Each says everything, in an order of its own, in small transactions of which many fail."""
    payloads = []
    for n in range(CHARGES):
        currency = CURRENCIES[n % 3]
        payloads += [
            transaction(key=f"c{n}", amount=1000, currency=currency, status="pending", at=NOON),
            transaction(key=f"c{n}", amount=1000, currency=currency, at=NOON + n * 10**8),
            refund(f"r{n}", 400, currency, charge=f"c{n}"),
            refund(f"s{n}", 600, currency, charge=f"c{n}"),
        ]
    rates = TableOfRates(JPY="0.0064385", KWD="3.2541")
    stored, failed = Counter(), Counter()

    def work(number):
        chance = Random(number)
        writer = open_writer(quick_url, "opt-in", rates=rates)

        def fail(*_):
            if chance.random() < 0.02:
                failed[number] += 1
                raise ConnectionAbortedError

        events.listen(writer._engine, "before_cursor_execute", fail)
        mine = chance.sample(payloads, len(payloads))
        while mine:
            part, rest = mine[:20], mine[20:]
            try:
                outcome = writer.write_outbox([(chance.randbytes(16), each) for each in part])
            except ConnectionAbortedError:
                continue
            stored[number] += outcome.stored
            mine = rest
        writer.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    made = open_engine(quick_url)
    counting = check_books(made)
    assert Counter(row.kind for row in counting) == {"charge": CHARGES, "refund": 2 * CHARGES}
    net = Counter()
    for row in counting:
        net[row.currency] += row.base_minor if row.kind == "charge" else -row.base_minor
    assert set(net.values()) == {0}
    pending = sum(
        row.transactions for row in rows(made, tables.ledger_totals) if row.status == "pending"
    )
    assert sum(stored.values()) == 3 * CHARGES + pending
    assert sum(failed.values()) > 0
    made.dispose()
