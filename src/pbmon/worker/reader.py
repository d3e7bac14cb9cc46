"""The store as functions of the application read it: opened at the first question."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pbmon import signals
from pbmon.runtime import Reader, StoreError
from pbmon.settings import Settings
from pbmon.spool import journal
from pbmon.spool.directory import UnusableError
from pbmon.store.access import open_reader
from pbmon.worker.urls import store_url

if TYPE_CHECKING:
    from pbmon.store.queries import Queries


class LazyReader:
    """settings, service: those in force at the first question."""

    def __init__(self, settings: Callable[[], Settings], service: Callable[[], str]) -> None:
        self._settings = settings
        self._service = service
        self._lock = threading.Lock()
        self._queries: Queries | None = None
        signals.enlist(self)

    def open(self) -> Reader:
        """Raises StoreError."""
        with self._lock:
            if self._queries is None:
                settings = self._settings()
                try:
                    home = journal.open_home(settings.state_dir, self._service())
                except UnusableError as error:
                    raise StoreError(
                        f"has no state directory ({error}); set PBMON_STATE_DIR to a directory "
                        "that this user can write to"
                    ) from None
                try:
                    self._queries = open_reader(store_url(settings, home))
                finally:
                    home.close()
            return self._queries

    def close(self) -> None:
        with self._lock:
            queries, self._queries = self._queries, None
        if queries is not None:
            queries.close()

    def forget(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._lock = threading.Lock()
        queries, self._queries = self._queries, None
        if queries is not None:
            queries.let_go()
