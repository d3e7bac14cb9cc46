"""The store as functions of the application read it: opened at the first question."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pbmon import privacy, signals
from pbmon.runtime import StoreError
from pbmon.settings import Settings
from pbmon.spool import journal
from pbmon.spool.directory import UnusableError
from pbmon.store.access import open_reader
from pbmon.worker.peppers import pepper_of
from pbmon.worker.urls import store_url

if TYPE_CHECKING:
    from pbmon.store.reader import Reader


class LazyReader:
    """settings, service: those in force at each question."""

    def __init__(self, settings: Callable[[], Settings], service: Callable[[], str]) -> None:
        self._settings = settings
        self._service = service
        self._lock = threading.Lock()
        self._reader: Reader | None = None
        self._url = ""
        signals.enlist(self)

    def open(self) -> Reader:
        """The one of the store in force; opened anew where that is another. Raises StoreError."""
        settings = self._settings()
        try:
            home = journal.open_home(settings.state_dir, self._service())
        except UnusableError as error:
            raise StoreError(
                f"there is no state directory ({error}); set PBMON_STATE_DIR to a directory that "
                "this user can write to"
            ) from None
        url = store_url(settings, home)
        home.close()
        with self._lock:
            if self._reader is None or url != self._url:
                self._close()
                try:
                    self._reader = open_reader(
                        url, makes=settings.timezone, pepper=pepper_of(settings.pepper)
                    )
                except StoreError as error:
                    raise StoreError(f"the store {privacy.mask_url(url)} {error}") from None
                self._url = url
            return self._reader

    @property
    def url(self) -> str:
        """Of the store that was opened last."""
        return self._url

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def forget(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._lock = threading.Lock()
        if self._reader is not None:
            self._reader.let_go()
            self._reader = None
