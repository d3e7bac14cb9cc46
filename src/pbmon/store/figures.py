"""All figures that are exported of a store, as they were at one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from pbmon.runtime import Figure, Reading
from pbmon.store import schema
from pbmon.store.access import asking
from pbmon.store.engine import reading, within
from pbmon.store.tables import meta

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

Source = Callable[["Connection"], Iterable[Figure]]

PATIENCE_S = 5.0
"""How long one of the statements may take; in SQLite, all of them."""


class Figures:
    """engine: opened with PATIENCE_S."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reading = reading(engine)
        if engine.dialect.name == "postgresql":
            self._reading = self._reading.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )

    def read(self, sources: Sequence[Source]) -> Reading:
        """What all of them say of one snapshot. Raises StoreError."""

        def ask() -> Reading:
            with self._reading.connect() as connection, within(connection, PATIENCE_S):
                at = schema.clock(connection)
                known = {row.key: row.value for row in connection.execute(meta.select())}
                figures = tuple(figure for source in sources for figure in source(connection))
            return Reading(known["store_id"], int(known[schema.MADE_AT]), at, figures)

        return asking(ask)

    def close(self) -> None:
        self._engine.dispose()

    def let_go(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._engine.dispose(close=False)
