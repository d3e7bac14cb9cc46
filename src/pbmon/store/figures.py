"""All figures that are exported of a store, as they were at one moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pbmon.runtime import Figure, Reading
from pbmon.store import schema
from pbmon.store.access import asking
from pbmon.store.engine import reading
from pbmon.store.tables import meta

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

Source = Callable[["Connection"], Iterable[Figure]]

PATIENCE_S = 5.0
"""How long one of the statements may take; in SQLite, all of them."""

_STEPS = 10_000  # of SQLite's machine, well below a millisecond


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
            with self._reading.connect() as connection, _in_time(connection):
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


@contextmanager
def _in_time(connection: Connection) -> Iterator[None]:
    """PostgreSQL looks after the time itself."""
    if connection.dialect.name == "postgresql":
        yield
        return
    driver: Any = connection.connection.dbapi_connection
    until_s = time.monotonic() + PATIENCE_S
    driver.set_progress_handler(lambda: time.monotonic() > until_s, _STEPS)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)
