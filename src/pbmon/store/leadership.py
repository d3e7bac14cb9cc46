"""Who of all that share a store leads: a lock that goes with the process, or its connection."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sqlalchemy import text

from pbmon.spool import directory
from pbmon.store.access import StoreError, asking

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_KEY = 0x70626D6F6E4C  # "pbmonL": of pg_try_advisory_lock


class ServerLock:
    """An advisory lock of PostgreSQL, which the server gives up with the connection."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    def take(self) -> bool:
        def ask() -> bool:
            if self._connection is not None:
                self._connection.execute(text("SELECT 1"))  # is it still ours?
                self._connection.commit()
                return True
            connection = self._engine.connect()
            has = connection.execute(
                text("SELECT pg_try_advisory_lock(:key)"), {"key": _KEY}
            ).scalar_one()
            connection.commit()
            if has:
                self._connection = connection
            else:
                connection.close()
            return bool(has)

        try:
            return asking(ask)
        except StoreError:
            if self._connection is not None:
                self._connection.invalidate()
                self._connection = None
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._engine.dispose()

    def forget(self) -> None:
        self._engine.dispose(close=False)


class FileLock:
    """A lock on a file beside the one of SQLite."""

    def __init__(self, path: str) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError(f"can't be led ({error.strerror})") from None

    def take(self) -> bool:
        return directory.lock(self._fd)

    def close(self) -> None:
        os.close(self._fd)

    def forget(self) -> None:
        os.close(self._fd)
