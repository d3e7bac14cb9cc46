"""Active users by the configured query on the application's own users table."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from opentelemetry.instrumentation.utils import suppress_instrumentation

from pbmon import privacy, signals
from pbmon.store import engine

if TYPE_CHECKING:
    from sqlalchemy import Engine

WINDOWS = {"24h": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}
_EVERY_S = 60.0
_AGAIN_S = 5.0
_FIRST_WAIT_S = 5.0


class UsersTable:
    """A StoreReader over the application's users table.

    url: SQLAlchemy URL. query: one SELECT giving one number; with `:since` (the start of the
    window in UTC) it is asked for 24 h, 7 d and 30 d, without it for 24 h.

    The query runs on a connection of its own, in a thread of its own, at most once a minute (5 s
    after a failure) and within 5 s: no request ever waits for it, and an export
    waits for the first one only. It is not traced.
    """

    def __init__(self, url: str, query: str) -> None:
        self._url = url
        self._query = query
        self._counts: dict[str, int] = {}
        self.forget()
        signals.enlist(self)

    def forget(self) -> None:
        """In a forked child: the parent's connection and thread are not its own."""
        self._lock = threading.Lock()
        self._asked_s: float | None = None
        self._worker: threading.Thread | None = None
        self._engine: Engine | None = None

    def active_users(self) -> Mapping[str, int]:
        """The newest figures; empty until the first query has answered or while it fails.

        Starts a refresh when they are a minute old, and waits for the first one only.
        """
        with self._lock:
            now = time.monotonic()
            first = self._asked_s is None
            # Sooner after a failure: the application may only just be making its tables.
            wait_s = _EVERY_S if self._counts else _AGAIN_S
            due = self._asked_s is None or now - self._asked_s >= wait_s
            if due and self._worker is not None and self._worker.is_alive():
                self._counts = {}  # a query that hangs: its last figures are no longer true
            elif due:
                self._asked_s = now
                self._worker = self._start()
            worker = self._worker
        if first and worker is not None:
            worker.join(_FIRST_WAIT_S)
        return dict(self._counts)

    def _start(self) -> threading.Thread | None:
        worker = threading.Thread(target=self._refresh, name="pbmon-users", daemon=True)
        try:
            worker.start()
        except RuntimeError:  # the interpreter is exiting
            return None
        return worker

    def _refresh(self) -> None:
        counts: dict[str, int] = {}
        try:
            with suppress_instrumentation():
                counts = self._ask()
        except ImportError as error:
            signals.tell(
                "users_query",
                "pbmon: users_url %s needs a driver that is not installed (%s); for PostgreSQL: "
                "pip install 'pbmon[postgres]'",
                privacy.mask_url(self._url),
                error.name,
            )
        except Exception as error:
            signals.tell(
                "users_query",
                "pbmon: users_query on %s failed with %s; pbmon.users.active has no value until "
                "it works. Check the settings users_url and users_query.",
                privacy.mask_url(self._url),
                privacy.error_type(error),
            )
        finally:
            with self._lock:
                self._counts = counts

    def _ask(self) -> dict[str, int]:
        with signals.importing:
            from sqlalchemy import DateTime, bindparam, text

        connected = self._engine or self._connect()
        statement = text(self._query)
        windows = list(WINDOWS.items())
        # SQLAlchemy knows the names it bound; one in a literal is written `\:since`.
        if "since" not in statement.compile().params:
            windows = windows[:1]
        else:
            aware = connected.dialect.name != "sqlite"
            statement = statement.bindparams(bindparam("since", type_=DateTime(timezone=aware)))
        now = datetime.now(timezone.utc)
        counts: dict[str, int] = {}
        with connected.connect() as connection:
            for window, length in windows:
                bound = {"since": now - length} if len(windows) > 1 else {}
                counts[window] = int(connection.execute(statement, bound).scalar_one())
            connection.rollback()
        return counts

    def _connect(self) -> Engine:
        from sqlalchemy.pool import NullPool

        url = engine.parse(self._url)
        arguments: dict[str, object] = {}
        if url.get_backend_name() == "postgresql" and "psycopg" in url.get_driver_name():
            arguments = {
                "connect_timeout": engine.TIMEOUT_S,
                "options": f"-c statement_timeout={engine.TIMEOUT_S * 1000}"
                " -c default_transaction_read_only=on",
            }
        elif url.get_backend_name() == "sqlite":
            arguments = {"timeout": engine.TIMEOUT_S}
        self._engine = engine.make(url, arguments, poolclass=NullPool)
        return self._engine
