"""What this process did with items, by channel: the numbers behind `pbmon.spool.records`."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple, Protocol


class Entry(NamedTuple):
    channel: str
    outcome: str
    """accepted, delivered, dropped, or refused: never taken, so no part of the sum."""
    reason: str = ""


class Part(Protocol):
    """A spool whose counts are in these books, and whose ledger notes what of them was told."""

    def is_closed(self) -> bool: ...

    def standing_still(self) -> AbstractContextManager[object]:
        """While it lasts, nothing is counted."""

    def rows(self) -> Mapping[str, Mapping[str, int]]:
        """Channel → field → count, as in its ledger."""

    def report(self, rows: Mapping[str, Mapping[str, int]]) -> None:
        """Metrics that say these rows have left this process's hands."""


Rows = Mapping[Part, Mapping[str, Mapping[str, int]]]


class Books:
    """accepted = delivered + dropped + what waits, for every channel."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._counts: Counter[Entry] = Counter()
        self._lock = threading.Lock()
        self._parts: list[Part] = []
        self._joining = threading.Lock()

    def join(self, part: Part) -> None:
        """Before its first count is added; it leaves by being closed."""
        with self._joining:
            self._parts.append(part)

    def snapshot(self) -> tuple[Rows, dict[Entry, int]]:
        """The rows of all ledgers and the totals at one moment."""
        with self._joining, ExitStack() as still:
            for part in self._parts:
                still.enter_context(part.standing_still())
            self._parts = [part for part in self._parts if not part.is_closed()]
            return {part: part.rows() for part in self._parts}, self.totals()

    def add(self, channel: str, outcome: str, count: int, reason: str = "") -> None:
        if count:
            with self._lock:
                self._counts[Entry(channel, outcome, reason)] += count

    def totals(self) -> dict[Entry, int]:
        with self._lock:
            return dict(self._counts)

    def total(self, channel: str, outcome: str, reason: str | None = None) -> int:
        """All reasons together where none is given."""
        return sum(
            count
            for entry, count in self.totals().items()
            if entry[:2] == (channel, outcome) and reason in (None, entry.reason)
        )

    def forget(self) -> None:
        """In a forked child: what the parent counted is the parent's."""
        self._begin()
