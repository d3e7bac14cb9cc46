"""The application's own database as pbmon reads it: on a connection that can only read. What goes
wrong there is one line with the remedy, never a secret."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.utils import suppress_instrumentation

from pbmon import privacy, signals
from pbmon.store import engine
from pbmon.store.engine import DriverError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


class ApplicationError(Exception):
    """It can't be read; the text says why and the remedy, never a secret."""


@contextmanager
def connected(url: str, setting: str, patience_s: float | None = None) -> Iterator[Connection]:
    """A connection, which no hook sees. setting: where the URL comes from, such as [users].
    patience_s: how long a statement may take in PostgreSQL, TIMEOUT_S if left out.

    Raises ApplicationError, also for a ValueError of whoever uses the connection.
    """
    with signals.importing:
        from sqlalchemy.exc import SQLAlchemyError
    try:
        with suppress_instrumentation():
            made = _open(url, setting, patience_s or engine.TIMEOUT_S)
            try:
                with made.connect() as connection:
                    yield connection
            finally:
                made.dispose()
    except (ValueError, DriverError) as error:
        raise ApplicationError(f"{privacy.mask_url(url)} {error}") from None
    except (SQLAlchemyError, OSError) as error:
        kind = privacy.error_type(getattr(error, "orig", None) or error)
        raise ApplicationError(
            f"{privacy.mask_url(url)} can't be read ({kind}); check {setting} "
            "and what it may read there"
        ) from None


def _open(url: str, setting: str, patience_s: float) -> Engine:
    """That connects once, and only reads. Times without a zone are UTC."""
    from sqlalchemy import event
    from sqlalchemy.pool import NullPool

    parsed = engine.parse(url)
    arguments: dict[str, Any] = {}
    if parsed.get_backend_name() == "postgresql" and "psycopg" in parsed.get_driver_name():
        arguments = {
            "connect_timeout": engine.TIMEOUT_S,
            "options": f"-c statement_timeout={int(patience_s * 1000)}"
            " -c default_transaction_read_only=on -c TimeZone=UTC",
        }
    elif parsed.get_backend_name() == "sqlite":
        if not Path(parsed.database or "").is_file():  # SQLite would make it
            raise ValueError(f"is a file that is not there; check `url` in {setting}")
        arguments = {"timeout": engine.TIMEOUT_S}
    made = engine.make(parsed, arguments, poolclass=NullPool)
    if made.dialect.name == "sqlite":

        @event.listens_for(made, "connect")
        def only_read(connection: Any, _record: Any) -> None:
            connection.execute("PRAGMA query_only=ON").close()

    return made
