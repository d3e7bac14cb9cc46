"""Sums of the ledger: by hour for questions about a period, of all time for the metrics.

They are changed in the transaction that changes the rows, and read instead of them.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from pbmon.store.lines import COMPLETED, Line
from pbmon.store.schema import HOUR
from pbmon.store.tables import counted_totals, ledger_totals, revenue_totals

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

_SUMS = ("transactions", "amount_minor", "base_minor", "unconverted")


class Totals:
    """What one transaction of the store adds."""

    def __init__(self) -> None:
        self._added: dict[Table, defaultdict[tuple[Any, ...], list[int]]] = {
            table: defaultdict(lambda: [0, 0, 0, 0])
            for table in (revenue_totals, counted_totals, ledger_totals)
        }

    def reach(self, line: Line) -> None:
        """It came to a status that does not count."""
        self._added[ledger_totals][_place_in_all(line)][0] += 1

    def count(self, line: Line) -> None:
        """It counts from now on, converted or not."""
        base = line.base_minor
        self._add(line, 1, abs(line.amount_minor), abs(base or 0), int(base is None))

    def convert(self, line: Line) -> None:
        """It counted, and is converted now."""
        assert line.base_minor is not None
        self._add(line, 0, 0, abs(line.base_minor), -1)

    def _add(self, line: Line, *amounts: int) -> None:
        assert line.counted_at is not None
        for table, place in (
            (revenue_totals, _place_in_hours(line, line.occurred_at)),
            (counted_totals, _place_in_hours(line, line.counted_at)),
            (ledger_totals, _place_in_all(line)),
        ):
            sums = self._added[table][place]
            for i, amount in enumerate(amounts):
                sums[i] += amount

    def store(self, connection: Connection, insert: Any) -> None:
        for table, found in self._added.items():
            if found:
                _store(connection, insert, table, found)


def _place_in_hours(line: Line, at: int) -> tuple[Any, ...]:
    return (at // HOUR * HOUR, line.kind, *_of_money(line))


def _place_in_all(line: Line) -> tuple[Any, ...]:
    return (line.kind, COMPLETED if line.counted_at is not None else line.status, *_of_money(line))


def _of_money(line: Line) -> tuple[int, str, int]:
    return (line.sign, line.currency, line.exponent)


def _store(
    connection: Connection, insert: Any, table: Table, found: dict[tuple[Any, ...], list[int]]
) -> None:
    keys = [column.name for column in table.primary_key.columns]
    add = insert(table)
    connection.execute(
        add.on_conflict_do_update(
            index_elements=keys,
            set_={name: table.c[name] + add.excluded[name] for name in _SUMS},
        ),
        # In one order in every transaction: two of them never wait for each other.
        [
            dict(zip((*keys, *_SUMS), (*place, *sums), strict=True))
            for place, sums in sorted(found.items())
        ],
    )
