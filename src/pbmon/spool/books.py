"""What this process did with items, by channel: the numbers behind `pbmon.spool.records`."""

from __future__ import annotations

import threading
from collections import Counter
from typing import NamedTuple


class Entry(NamedTuple):
    channel: str
    outcome: str
    """accepted, delivered, dropped, or refused: never taken, so no part of the sum."""
    reason: str = ""


class Books:
    """accepted = delivered + dropped + what waits, for every channel."""

    def __init__(self) -> None:
        self._counts: Counter[Entry] = Counter()
        self._lock = threading.Lock()

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
        self._lock = threading.Lock()
        self._counts = Counter()
