"""People as the spans of this process name them.

A request must not ask a database: the first one of a user finds nothing in memory and goes without,
and a thread asks the store for the keys of all that were missed. What is remembered ends with
whatever changes what the store says of people, as a withdrawal or a deletion does, and with a store
that does not answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pbmon import privacy, signals
from pbmon.purposes import ANALYTICS, terms_of
from pbmon.runtime import StoreError
from pbmon.settings import Settings

if TYPE_CHECKING:
    from pbmon.store.reader import Reader

_EVERY_S = 0.5
_FOR_S = 10.0
"""For how long what was known is said while the store does not answer."""

_NOBODY_FOR_S = 30.0
"""Until it is asked again whether something may be said of somebody by now."""

_MOST = 20_000
_AT_ONCE = 500


class Known:
    """A runtime.PseudonymOf."""

    __slots__ = ("_key", "_label", "_last", "user")

    def __init__(self, key: bytes, label: str) -> None:
        self.user = privacy.pseudonym(key, label).hex()
        self._key = key
        self._label = label
        self._last = ("", "")

    def session(self, session_id: str) -> str:
        last = self._last  # one object: threads read and write it whole
        if last[0] != session_id:
            made = privacy.pseudonym(self._key, f"{self._label}|session|{session_id}").hex()
            last = self._last = (session_id, made)
        return last[1]


class SpanPseudonyms:
    """A runtime.Pseudonyms. open_reader: of the store in force; raises StoreError."""

    def __init__(self, settings: Callable[[], Settings], open_reader: Callable[[], Reader]) -> None:
        self._settings = settings
        self._open_reader = open_reader
        self._begin()
        signals.enlist(self)

    def _begin(self) -> None:
        self._known: dict[str, Known | None] = {}
        self._wanted: dict[str, None] = {}
        """In the order in which they were missed."""
        self._version = ""
        self._answered_s = self._nobodies_s = time.monotonic()
        self._stopped = threading.Event()
        self._started = False

    def of(self, user_id: str) -> Known | None:
        try:
            return self._known[user_id]
        except KeyError:
            self._miss(user_id)
            return None

    def _miss(self, user_id: str) -> None:
        if len(self._wanted) < _MOST:
            self._wanted[user_id] = None
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, name="pbmon-pseudonyms", daemon=True).start()

    def _run(self) -> None:
        stopped = self._stopped
        while not stopped.wait(_EVERY_S):
            with signals.guard("looking up pseudonyms"):
                self.look_up()

    def look_up(self) -> None:
        """Ask the store for those who were missed, and whether what is known still holds."""
        try:
            self._look_up(self._open_reader())
        except StoreError as error:
            if time.monotonic() - self._answered_s > _FOR_S:
                self._known = {}
            signals.tell("pseudonyms", "pbmon: %s. Spans name no users meanwhile.", error)

    def _look_up(self, reader: Reader) -> None:
        settings = self._settings()
        terms = terms_of(settings.consent, settings.consent_version)[ANALYTICS]
        while True:
            asked = list(self._wanted)[:_AT_ONCE]
            answer = reader.keys(asked, terms)
            self._answered_s = now_s = time.monotonic()
            if answer.version != self._version or len(self._known) > _MOST:
                self._known = {}
                self._version = answer.version
            elif now_s - self._nobodies_s > _NOBODY_FOR_S:
                self._nobodies_s = now_s
                self._known = {user: each for user, each in self._known.copy().items() if each}
            for user in asked:
                key = answer.of.get(user)
                self._known[user] = Known(key, answer.label) if key is not None else None
                self._wanted.pop(user, None)
            if len(asked) < _AT_ONCE:
                return

    def stop(self) -> None:
        self._stopped.set()

    def forget(self) -> None:
        """In a forked child: the thread is the parent's."""
        self._begin()
