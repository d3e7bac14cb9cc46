"""Connections to databases, ours and the application's, by SQLAlchemy URL."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pbmon import signals
from pbmon.spool import disk

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

SCHEMA = "pbmon"
"""Where our tables are in PostgreSQL; nothing outside it is touched. SQLite has no schemas."""

TIMEOUT_S = 5
_READS = "pbmon_reads"
_FILE = "pbmon_file"
_LOCK_WAIT_S = 10
_STEPS = 10_000  # of SQLite's machine, well below a millisecond


class RemovedError(OSError):
    """The file of SQLite is not the one any more that was opened."""


class DriverError(ImportError):
    """The URL needs a driver that is not installed; the text says which and the remedy."""


def parse(url: str) -> URL:
    """Raises ValueError where it is no URL."""
    with signals.importing:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError
    try:
        made = make_url(url.replace("postgres://", "postgresql://", 1))
    except ArgumentError:  # its text holds the URL
        raise ValueError(
            "is no SQLAlchemy URL, such as postgresql://user:password@host/name"
        ) from None
    if made.drivername == "postgresql" and find_spec("psycopg2") is not None:
        # SQLAlchemy 2.1 means psycopg 3 by this name, 2.0 psycopg2: the one that is here.
        made = made.set(drivername="postgresql+psycopg2")
    return made


def make(url: URL, arguments: dict[str, Any], **options: Any) -> Engine:
    """Raises DriverError."""
    with signals.importing:
        from sqlalchemy import create_engine
        from sqlalchemy.exc import NoSuchModuleError
    try:
        return create_engine(url, connect_args=arguments, **options)
    except (NoSuchModuleError, ImportError) as error:
        name = getattr(error, "name", None) or url.drivername
        raise DriverError(
            f"needs a driver that is not installed ({name}); for PostgreSQL: "
            "pip install 'pbmon[postgres]'",
            name=name,
        ) from None


def open_store(url: str, *, patience_s: float = 0.0, ours: bool = True) -> Engine:
    """The engine of pbmon's own store; patience_s: how long a statement may take in PostgreSQL, 0:
    for ever. ours: false of a database of the application's, whose owner says who may read it.
    Raises ValueError, DriverError.

    In SQLite every transaction begins as a writing one, so that none fails in the middle for the
    lock; the file is in WAL mode, and what is deleted is overwritten.
    """
    parsed = parse(url)
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return _open_sqlite(parsed, ours=ours)
    if backend != "postgresql":
        raise ValueError(f"names {backend}; the store is PostgreSQL or SQLite")
    arguments: dict[str, Any] = {}
    options: dict[str, Any] = {}
    if parsed.get_driver_name() == "psycopg2":
        # A hundred statements in one message; alone it sends each, and waits for its answer.
        options["executemany_mode"] = "values_plus_batch"
    if "psycopg" in parsed.get_driver_name():
        arguments = {
            "connect_timeout": TIMEOUT_S,
            "application_name": "pbmon",
            # What is committed is removed from the journals: it must outlive the server, whatever
            # its own setting is.
            "options": f"-c synchronous_commit=on -c statement_timeout={int(patience_s * 1000)}",
            # Whoever has gone without a word is noticed.
            "tcp_user_timeout": TIMEOUT_S * 4000,
        }
    return make(parsed, arguments, pool_size=2, max_overflow=0, pool_pre_ping=True, **options)


def _check_is_ours_alone(file: Path) -> None:
    """Raises ValueError where others may read or write it, as after it was copied."""
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        raise ValueError(f"is open to others (mode {mode:04o}); chmod 600 {file}*")


def _open_sqlite(url: URL, *, ours: bool) -> Engine:
    file = Path(url.database) if url.database and url.database != ":memory:" else None
    if file is not None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            # Ours alone; SQLite gives its other files the same mode. Never one that is there: to
            # close any descriptor of it gives up all locks that this process has on it.
            os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            for above in file.parent.parents:  # of the file's own name SQLite takes care
                with suppress(OSError):
                    disk.sync(above)
        if ours:
            _check_is_ours_alone(file)
    made = make(url, {"timeout": _LOCK_WAIT_S})
    from sqlalchemy import event

    @event.listens_for(made, "connect")
    def prepare(connection: Any, record: Any) -> None:
        record.info[_FILE] = _identity(file)
        connection.isolation_level = None  # the driver begins nothing by itself
        _use_wal(connection)
        # What is committed is removed from the journals: it must outlive the machine.
        for pragma in ("synchronous=FULL", "secure_delete=ON", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(made, "checkout")
    def look(_connection: Any, record: Any, _proxy: Any) -> None:
        # SQLite would go on in a file that nobody can find any more.
        if _identity(file) != record.info[_FILE]:
            raise RemovedError(errno.ENOENT, "was removed or replaced while it was in use")

    @event.listens_for(made, "begin")
    def begin(connection: Any) -> None:
        reads = connection.get_execution_options().get(_READS)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    _files.add(made)
    # One schema name in all statements; here it is none.
    return made.execution_options(schema_translate_map={SCHEMA: None})


def _identity(file: Path | None) -> tuple[int, int] | None:
    """Which file it is; none where there is none."""
    if file is None:
        return None
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def reading(made: Engine) -> Engine:
    """The same for transactions that only read: in SQLite they keep no writer waiting."""
    return made.execution_options(**{_READS: True})


@contextmanager
def within(connection: Connection, patience_s: float) -> Iterator[None]:
    """For SQLite, which has no limit of its own: all statements together may take so long."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.dbapi_connection
    until_s = time.monotonic() + patience_s
    driver.set_progress_handler(lambda: time.monotonic() > until_s, _STEPS)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)


def _use_wal(connection: Any) -> None:
    """The file stays in this mode. SQLite does not wait for another who changes it just now."""
    until_s = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode=WAL").close()
        except connection.OperationalError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.01)
        else:
            return


class _Files:
    """SQLite's connections, none of which may be open over a fork: a child that only lets go of
    its copy undoes, in the index that both have mapped, what the parent is about to commit.

    Before a fork the transactions under way are waited for, and all connections are closed; no
    new one begins until it is over.
    """

    def __init__(self) -> None:
        self._using = threading.RLock()
        self._engines: weakref.WeakSet[Engine] = weakref.WeakSet()
        self._resting = False
        self._enlisted = False

    def add(self, made: Engine) -> None:
        from sqlalchemy import event

        if not self._enlisted:
            self._enlisted = True
            signals.enlist_for_forks(self)
            signals.enlist(self)
        self._engines.add(made)

        @event.listens_for(made, "checkout")
        def take(_connection: Any, record: Any, _proxy: Any) -> None:
            using = record.info["pbmon_using"] = self._using
            using.acquire()

        @event.listens_for(made, "checkin")
        def give_back(_connection: Any, record: Any) -> None:
            using = record.info.pop("pbmon_using", None)
            if using is not None:
                using.release()

    def begin_fork(self) -> None:
        self._resting = self._using.acquire(timeout=_FORK_WAIT_S)
        if self._resting:
            for made in list(self._engines):
                made.dispose()

    def end_fork(self) -> None:
        if self._resting:
            self._using.release()

    def forget(self) -> None:
        """In a forked child."""
        self._using = threading.RLock()


_FORK_WAIT_S = 2.0
_files = _Files()
