"""What the application asks the store with: opened at the first question, and kept."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pbmon import privacy, signals
from pbmon.settings import Settings
from pbmon.spool.directory import Home, UnusableError
from pbmon.store.access import StoreError, may_be_there, open_engine, read
from pbmon.worker.urls import store_url

if TYPE_CHECKING:
    from pbmon.store.queries import Queries


class Reader:
    """settings, open_home: those in force at each question."""

    def __init__(self, settings: Callable[[], Settings], open_home: Callable[[], Home]) -> None:
        self._settings = settings
        self._open_home = open_home
        self._url = ""
        self._queries: Queries | None = None
        self._lock = threading.Lock()
        signals.enlist(self)

    def open(self) -> Queries:
        """Raises StoreError."""
        try:
            home = self._open_home()
        except UnusableError as error:
            raise StoreError(f"the store has no place: {error}; set PBMON_STATE_DIR") from None
        url = store_url(self._settings(), home)
        home.close()
        with self._lock:
            if self._queries is None or url != self._url:
                self.close()
                self._url = url
                try:
                    self._queries = _read(url)
                except StoreError as error:
                    raise StoreError(f"the store {privacy.mask_url(url)} {error}") from None
            return self._queries

    def close(self) -> None:
        if self._queries is not None:
            self._queries.close()
        self._queries = None

    def forget(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._lock = threading.Lock()
        if self._queries is not None:
            self._queries.let_go()
        self._queries = None


def _read(url: str) -> Queries:
    if not may_be_there(url):
        raise StoreError("is not there yet; the first event makes it")
    return read(open_engine(url))
