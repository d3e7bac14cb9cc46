"""What the writers send under each number, and how it is found in the store again.

The harness of the kills knows nothing else of it: to have something more proved, such as a charge
beside each event, add it to WORKS. A number counts as accepted when each work took it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

import pbmon
from pbmon.store.engine import SCHEMA


class Work(Protocol):
    name: str

    def send(self, number: int) -> bool:
        """In a writer, within its transaction where there is one; whether it was accepted."""

    def find(self, connection: Any) -> Counter[int]:
        """Of a connection to the store: number → how often it is there."""


class Events:
    name = "events"

    def send(self, number: int) -> bool:
        return bool(pbmon.track("numbered", {"n": number}, user_id=number % 100))

    def find(self, connection: Any) -> Counter[int]:
        table = "events" if connection.dialect.name == "sqlite" else f"{SCHEMA}.events"
        query = f"SELECT properties->>'n' FROM {table} WHERE name = 'numbered'"
        return Counter(int(n) for (n,) in connection.exec_driver_sql(query))


WORKS: list[Work] = [Events()]


def send(number: int) -> bool:
    """Every work of this number, whatever became of the one before."""
    taken = [work.send(number) for work in WORKS]
    return all(taken)
