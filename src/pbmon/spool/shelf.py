"""A spool's records in their order, read and settled by channel: the reading side of them all."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from typing import NamedTuple, Protocol

from pbmon.spool import frames
from pbmon.spool.books import Books
from pbmon.spool.frames import CHANNELS, Record
from pbmon.spool.ledger import REASONS, Ledger, Position

MAX_AGE_S = 3600.0
"""Telemetry older than this is dropped as expired. Events have no age."""


class Batch(NamedTuple):
    """What a reader takes at once; it waits until it is settled."""

    channel: str
    records: list[Record]
    position: Position
    """Behind the last of them."""

    @property
    def items(self) -> int:
        return sum(record.items for record in self.records)


class Source(Protocol):
    """Something to be delivered. One reader for each channel at a time."""

    def read(self, channel: str, max_items: int, max_bytes: int) -> Batch | None:
        """The next records in their order, or None where nothing waits."""

    def settle(self, batch: Batch, delivered: int, dropped: Mapping[str, int]) -> None:
        """The batch is done: items delivered, and dropped by reason (of ledger.REASONS)."""

    def expire(self, channel: str) -> None:
        """Drop what is too old, also where nobody reads. A batch that was read and not settled
        stays its reader's, whatever its age."""

    def waiting(self, channel: str) -> int:
        """Items accepted and not settled."""


class Shelf(ABC):
    """Segments of one process with their ledger."""

    def __init__(self, ledger: Ledger, books: Books) -> None:
        self.ledger = ledger
        self._books = books
        self._lock = threading.Lock()
        self._closed = False
        self._held: dict[str, Batch] = {}
        """Channel → what was read last and is not settled."""
        self._young_ns: dict[str, int] = {}
        """Channel → no record that nobody holds is older than this."""

    @abstractmethod
    def _numbers(self, channel: str) -> list[int]:
        """The segments there are, ascending."""

    @abstractmethod
    def _view(self, channel: str, number: int) -> tuple[bytes | memoryview, int]:
        """A segment's bytes and where its records end at the latest. Raises OSError."""

    @abstractmethod
    def _remove(self, channel: str, number: int) -> None: ...

    @abstractmethod
    def _is_sealed(self, channel: str, number: int) -> bool:
        """Whether nothing more will be written to it."""

    def is_closed(self) -> bool:
        return self._closed

    def standing_still(self) -> AbstractContextManager[object]:
        return self._lock

    def rows(self) -> dict[str, dict[str, int]]:
        return {channel: dict(row) for channel, row in self.ledger.rows.items()}

    def report(self, rows: Mapping[str, Mapping[str, int]]) -> None:
        with self._lock:
            if not self._closed:
                for channel, row in rows.items():
                    self.ledger.report(channel, row)

    def waiting(self, channel: str) -> int:
        with self._lock:
            return self.ledger.waiting(channel)

    def read(self, channel: str, max_items: int, max_bytes: int) -> Batch | None:
        """None also where the disk can't be read now: what may be there is not given up."""
        with self._lock:
            if self._closed or not self.ledger.waiting(channel):
                return None
            try:
                self._expire(channel)
                if (passed := self._passed(channel)) is not None:
                    return passed
                batch = self._collect(channel, max_items, max_bytes)
            except OSError:
                return None
            if batch.records:
                self._held[channel] = batch
                return batch
            # Everything was read, and not all of it found: it was damaged.
            self._settle(channel, batch.position, 0, {"corrupt": self.ledger.waiting(channel)})
            return None

    def _collect(self, channel: str, max_items: int, max_bytes: int) -> Batch:
        position = self.ledger.positions[channel]
        records: list[Record] = []
        items = size = 0
        for record, behind in self._walk(channel, position):
            if record is not None:
                if records and (
                    items + record.items > max_items or size + len(record.payload) > max_bytes
                ):
                    break
                records.append(record)
                items += record.items
                size += len(record.payload)
            position = behind
        return Batch(channel, records, position)

    def _walk(self, channel: str, position: Position) -> Iterator[tuple[Record | None, Position]]:
        """The records from a position on, each with the position behind it; a position alone where
        a segment begins, and behind what is damaged. Raises OSError."""
        for number in [n for n in self._numbers(channel) if n >= position.segment]:
            offset = position.offset if number == position.segment else frames.START
            data, end = self._view(channel, number)
            yield None, Position(number, offset)
            for record, behind in frames.read(data, offset, end):
                yield record, Position(number, end if record is None else behind)

    def expire(self, channel: str) -> None:
        with self._lock, suppress(OSError):  # it can't be read now
            if not self._closed:
                self._expire(channel)

    def _expire(self, channel: str) -> None:
        if channel == "events" or not self.ledger.waiting(channel):
            return
        limit_ns = self.ledger.origin.limit_ns(MAX_AGE_S)
        young_ns = self._young_ns.get(channel)
        if young_ns is not None and limit_ns <= young_ns:
            return
        position, expired, corrupt = self.ledger.positions[channel], 0, 0
        if (held := self._held.get(channel)) is not None:
            position = max(position, held.position)
        for record, behind in self._walk(channel, position):
            if record is not None:
                if record.monotonic_ns >= limit_ns:
                    self._young_ns[channel] = record.monotonic_ns
                    break
                expired += record.items
            position = behind
        else:
            if held is None:  # that was all, and the rest is not to be found
                corrupt = max(0, self.ledger.waiting(channel) - expired)
        if expired or corrupt:
            self._settle(channel, position, 0, {"expired": expired, "corrupt": corrupt})

    def _passed(self, channel: str) -> Batch | None:
        """The batch that is held while what came after it has expired: only its reader has it."""
        held = self._held.get(channel)
        passed = held is not None and held.position < self.ledger.positions[channel]
        return held if passed else None

    def _drop_passed(self) -> None:
        """At the end: after a kill an adopter does not find them, and counts them as corrupt."""
        for channel in CHANNELS:
            if (passed := self._passed(channel)) is not None:
                self._settle(channel, passed.position, 0, {"expired": passed.items})

    def settle(self, batch: Batch, delivered: int, dropped: Mapping[str, int]) -> None:
        """After close() nothing is noted: whoever comes next delivers the batch."""
        with self._lock:
            if not self._closed:
                self._held.pop(batch.channel, None)
                self._settle(batch.channel, batch.position, delivered, dropped)

    def _settle(
        self, channel: str, position: Position, delivered: int, dropped: Mapping[str, int]
    ) -> None:
        # The position first: killed in between, items are missed in the counts, not sent twice.
        # Never back: what came after the batch may have expired.
        self.ledger.move(channel, max(position, self.ledger.positions[channel]))
        self.ledger.add(channel, "delivered", delivered)
        self._books.add(channel, "delivered", delivered)
        for reason in REASONS:
            count = dropped.get(reason, 0)
            self.ledger.add(channel, reason, count)
            self._books.add(channel, "dropped", count, reason)
        self._free(channel)

    def _free(self, channel: str) -> None:
        """Remove the segments that are done with."""
        done = not self.ledger.waiting(channel)
        current = self.ledger.positions[channel].segment
        for number in self._numbers(channel):
            if self._is_sealed(channel, number) and (done or number < current):
                self._remove(channel, number)
