"""What the writers send under each number, and how it is found in the store again.

The harness of the kills knows nothing else of it: to have something more proved, such as a charge
beside each event, add it to WORKS. A number counts as accepted when each work took it.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any, Protocol

import pbmon
from pbmon.store.engine import SCHEMA
from tests.store.money import check_books


class Work(Protocol):
    name: str

    def send(self, number: int) -> bool:
        """In a writer, within its transaction where there is one; whether it was accepted."""

    def find(self, engine: Any) -> Counter[int]:
        """In the store: number → how often it is there."""


class Events:
    name = "events"

    def send(self, number: int) -> bool:
        return bool(pbmon.track("numbered", {"n": number}, user_id=number % 100))

    def find(self, engine: Any) -> Counter[int]:
        table = "events" if engine.dialect.name == "sqlite" else f"{SCHEMA}.events"
        query = f"SELECT properties->>'n' FROM {table} WHERE name = 'numbered'"
        with engine.connect() as connection:
            return Counter(int(n) for (n,) in connection.exec_driver_sql(query))


class Charges:
    """A number is a charge of as many cents as its last three digits say, booked in totals that
    agree with the rows."""

    name = "charges"

    def send(self, number: int) -> bool:
        amount = Decimal(number % 1000).scaleb(-2)
        return bool(pbmon.track_revenue(amount, "USD", transaction_id=str(number)))

    def find(self, engine: Any) -> Counter[int]:
        charges = {int(row.key): row.amount_minor for row in check_books(engine)}
        assert all(cents == number % 1000 for number, cents in charges.items())
        return Counter(charges.keys())


WORKS: list[Work] = [Events(), Charges()]


def send(number: int) -> bool:
    """Every work of this number, whatever became of the one before."""
    taken = [work.send(number) for work in WORKS]
    return all(taken)
