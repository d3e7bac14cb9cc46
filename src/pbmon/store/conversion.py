"""Into the base currency: once for each transaction, by a dated rate that is kept with it.

What has no rate yet counts all the same, and is converted when there is one. Nothing is ever
converted anew.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import func, select

from pbmon import money, signals
from pbmon.money import Rate, Rates
from pbmon.spool.entries import RETURNS
from pbmon.store import lines, schema
from pbmon.store.access import asking
from pbmon.store.engine import reading
from pbmon.store.lines import Line
from pbmon.store.schema import DAY
from pbmon.store.tables import insert_of, ledger_totals, meta, transactions
from pbmon.store.totals import Totals

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

BASE_CURRENCY = "base_currency"
BASE_EXPONENT = "base_exponent"
SAME = "same currency"
"""The source of a rate of 1."""

_LARGEST = 2**63 - 1
_UNCONVERTED = (transactions.c.base_minor.is_(None), transactions.c.counted_at.is_not(None))
_BY_A_RATE = transactions.c.kind.not_in(RETURNS)


class Base(NamedTuple):
    """What a store's figures are in. exponent: of its minor unit, for good."""

    currency: str
    exponent: int


def base_of(connection: Connection) -> Base | None:
    """None before the first transaction."""
    query = select(meta.c.key, meta.c.value).where(meta.c.key.in_((BASE_CURRENCY, BASE_EXPONENT)))
    found = {row.key: row.value for row in connection.execute(query)}
    if BASE_CURRENCY not in found:
        return None
    return Base(found[BASE_CURRENCY], int(found[BASE_EXPONENT]))


def claim_base(connection: Connection, insert: Any, wanted: str) -> Base:
    """The base of this store; the first one who wants one decides. Until the transaction ends,
    nobody else changes the ledger."""
    connection.execute(
        insert(meta).on_conflict_do_nothing(),
        [
            {"key": BASE_CURRENCY, "value": wanted},
            {"key": BASE_EXPONENT, "value": str(money.exponent(wanted))},
        ],
    )
    _lock(connection)
    base = base_of(connection)
    assert base is not None
    if base.currency != wanted:
        signals.tell(
            "base_currency",
            "pbmon: the setting base_currency says %s, and this store has counted in %s since its "
            "first transaction; it goes on so. Set base_currency to %s, or store_url to a new "
            "store",
            wanted, base.currency, base.currency,
        )  # fmt: skip
    return base


def _lock(connection: Connection) -> None:
    query = select(meta.c.value).where(meta.c.key == BASE_CURRENCY)
    connection.execute(query.with_for_update()).scalar()


def convert(line: Line, base: Base, rates: Rates | None) -> None:
    """By the rate of the day (UTC) on which it occurred, if there is one."""
    day = schema.day_of(line.occurred_at)
    rate: Rate | None = None
    if line.currency == base.currency:
        rate = Rate(money.ONE, day, SAME)
    elif rates is not None:
        rate = rates.rate(line.currency, base.currency, day)
    if rate is None or not rate.value.is_finite() or rate.value <= 0:
        return
    amount = money.converted(line.amount_minor, line.exponent, rate.value, base.exponent)
    if abs(amount) <= _LARGEST:
        line.base_minor, line.fx_rate = amount, str(rate.value)
        line.fx_date, line.fx_source = rate.day, rate.source


def convert_return(line: Line, charge: Line, before_minor: int) -> None:
    """A refund or chargeback by its charge's rate, so that all of the parts give exactly what the
    charge gave. before_minor: what went back of it before this one, likewise."""
    if charge.base_minor is None:
        return
    after_minor = before_minor + line.amount_minor
    line.base_minor = _share(charge, after_minor) - _share(charge, before_minor)
    line.fx_rate, line.fx_date, line.fx_source = charge.fx_rate, charge.fx_date, charge.fx_source


def _share(charge: Line, part_minor: int) -> int:
    """Of the charge in the base currency, what a part of it is."""
    assert charge.base_minor is not None
    if charge.amount_minor == 0:
        return 0
    return money.rounded(charge.base_minor * part_minor, charge.amount_minor)


def wanted(connection: Connection) -> list[tuple[str, dt.date]]:
    """Currency and day (UTC) of what waits for a rate."""
    day = transactions.c.occurred_at // DAY
    query = select(transactions.c.currency, day).where(*_UNCONVERTED, _BY_A_RATE).distinct()
    found = connection.execute(query.order_by(transactions.c.currency, day))
    return [(currency, schema.day_of(number * DAY)) for currency, number in found]


def convert_waiting(connection: Connection, rates: Rates, limit: int) -> int:
    """Convert up to `limit` of what waits and has a rate now, with what went back of it; how many.

    In one transaction, in which the totals change as well. Asks `rates`, and nobody else.
    """
    _lock(connection)
    base = base_of(connection)
    if base is None:
        return 0
    totals = Totals()
    changed: list[Line] = []
    charges: dict[str, Line] = {}
    for currency, day in wanted(connection):
        if len(changed) >= limit:
            break
        if rates.rate(currency, base.currency, day) is None:
            continue
        start = schema.micros(day)
        for line in lines.find(
            connection,
            *_UNCONVERTED,
            _BY_A_RATE,
            transactions.c.currency == currency,
            transactions.c.occurred_at >= start,
            transactions.c.occurred_at < start + DAY,
            limit=limit - len(changed),
        ):
            convert(line, base, rates)
            if line.base_minor is not None:
                changed.append(line)
                if line.kind == "charge":
                    charges[line.key] = line
    converted = len(changed)
    changed += _convert_returns(connection, charges)
    for line in changed:
        totals.convert(line)
    lines.change(connection, changed)
    totals.store(connection, insert_of(connection.engine))
    return converted


def _convert_returns(connection: Connection, charges: dict[str, Line]) -> list[Line]:
    """What counts of the refunds and chargebacks of charges that were converted just now."""
    changed: list[Line] = []
    gone = {(kind, key): 0 for kind in RETURNS for key in charges}
    if charges:
        changed = lines.find(connection, *_UNCONVERTED, transactions.c.charge.in_(charges))
    for line in changed:
        assert line.charge is not None
        convert_return(line, charges[line.charge], gone[line.kind, line.charge])
        gone[line.kind, line.charge] += line.amount_minor
    return changed


class Conversions:
    """What waits for rates in a store. Each method raises StoreError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def waiting(self) -> int:
        """How many transactions that count are not converted, of a few rows of totals."""
        query = select(func.coalesce(func.sum(ledger_totals.c.unconverted), 0))

        def ask() -> int:
            with reading(self._engine).connect() as connection:
                return int(connection.execute(query).scalar_one())

        return asking(ask)

    def wanted(self) -> list[tuple[str, dt.date]]:
        def ask() -> list[tuple[str, dt.date]]:
            with reading(self._engine).connect() as connection:
                return wanted(connection)

        return asking(ask)

    def convert(self, rates: Rates, limit: int) -> int:
        """As convert_waiting()."""

        def attempt() -> int:
            with self._engine.begin() as connection:
                return convert_waiting(connection, rates, limit)

        return asking(attempt)

    def close(self) -> None:
        self._engine.dispose()

    def let_go(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._engine.dispose(close=False)
