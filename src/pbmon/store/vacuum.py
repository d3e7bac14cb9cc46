"""What is left in the files of a database of rows that are gone.

Takes long, and the space of the store once more; so only `pbmon worker` and the commands do it.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

from pbmon.runtime import StoreError
from pbmon.store.engine import SCHEMA
from pbmon.store.holdings import HELD
from pbmon.store.tables import event_keys

if TYPE_CHECKING:
    from sqlalchemy import Engine

_WAIT_S = 10.0


def vacuum(engine: Engine, *, rewrites: bool = False) -> None:
    """SQLite's file is written anew and its log cut to nothing. In PostgreSQL the tables that hold
    people's rows are vacuumed; rewrites: they are written anew, each locked meanwhile, as what was
    in a page is else overwritten only when the page is used again.

    Raises StoreError where others read for too long, SQLAlchemyError.
    """
    if engine.dialect.name == "sqlite":
        _vacuum_file(engine)
        if not truncate_log(engine, _WAIT_S):
            raise StoreError("is read by others for too long to cut its log; try it again")
        return
    how = "VACUUM (FULL)" if rewrites else "VACUUM"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in (*(held.table for held in HELD), event_keys):
            connection.exec_driver_sql(f"{how} {SCHEMA}.{table.name}")


def _vacuum_file(engine: Engine) -> None:
    from sqlalchemy.exc import OperationalError

    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        try:  # by the driver alone: SQLAlchemy would begin a transaction
            driver.execute("VACUUM").close()
        except driver.OperationalError as error:
            raise OperationalError("VACUUM", None, error) from None


def truncate_log(engine: Engine, patience_s: float = 0.0) -> bool:
    """Have all that is in SQLite's log in its file, and nothing in the log; whether it is so. Where
    another reads just now it is not."""
    if engine.dialect.name != "sqlite":
        return True
    until_s = time.monotonic() + patience_s
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        with closing(driver.execute("PRAGMA busy_timeout")) as asked:
            (usual,) = asked.fetchone()
        driver.execute("PRAGMA busy_timeout=50").close()
        try:
            while True:
                with closing(driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")) as asked:
                    is_busy = bool(asked.fetchone()[0])
                if not is_busy or time.monotonic() > until_s:
                    return not is_busy
        finally:
            driver.execute(f"PRAGMA busy_timeout={usual}").close()
