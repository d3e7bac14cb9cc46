"""A spool's records in their order, read and settled by channel: the reading side of them all."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from pbmon.spool import frames
from pbmon.spool.books import Books
from pbmon.spool.frames import Record
from pbmon.spool.ledger import REASONS, Ledger, Position

MAX_AGE_S = 3600.0
"""Telemetry older than this is dropped as expired. Events have no age."""


class Batch(NamedTuple):
    """What a reader takes at once; it waits until it is settled."""

    channel: str
    records: list[Record]
    expired: int
    """Items found too old on the way; settling the batch drops them."""
    position: Position

    @property
    def items(self) -> int:
        return sum(record.items for record in self.records)


class Source(Protocol):
    """Something to be delivered. One reader for each channel at a time."""

    def read(self, channel: str, max_items: int, max_bytes: int) -> Batch | None:
        """The next records in their order, or None where nothing waits."""

    def settle(self, batch: Batch, delivered: int, dropped: Mapping[str, int]) -> None:
        """The batch is done: items delivered, and dropped by reason (of ledger.REASONS)."""

    def waiting(self, channel: str) -> int:
        """Items accepted and not settled."""


class Shelf(ABC):
    """Segments of one process with their ledger."""

    def __init__(self, ledger: Ledger, books: Books) -> None:
        self.ledger = ledger
        self._books = books
        self._lock = threading.Lock()
        self._closed = False

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

    def waiting(self, channel: str) -> int:
        with self._lock:
            return self.ledger.waiting(channel)

    def read(self, channel: str, max_items: int, max_bytes: int) -> Batch | None:
        """None also where the disk can't be read now: what may be there is not given up."""
        with self._lock:
            if self._closed or not self.ledger.waiting(channel):
                return None
            try:
                batch = self._collect(channel, max_items, max_bytes)
            except OSError:
                return None
            if batch.records or batch.expired:
                return batch
            # Everything was read, and not all of it found: it was damaged.
            self._settle(batch, 0, {"corrupt": self.ledger.waiting(channel)})
            return None

    def _collect(self, channel: str, max_items: int, max_bytes: int) -> Batch:
        position = self.ledger.positions[channel]
        oldest_ns = self.ledger.origin.limit_ns(MAX_AGE_S)
        records: list[Record] = []
        items = size = expired = 0
        for number in [n for n in self._numbers(channel) if n >= position.segment]:
            offset = position.offset if number == position.segment else frames.START
            data, end = self._view(channel, number)
            position = Position(number, offset)
            for record, behind in frames.read(data, offset, end):
                if record is None:
                    position = Position(number, end)
                    break
                if record.monotonic_ns < oldest_ns and channel != "events":
                    expired += record.items
                elif records and (
                    items + record.items > max_items or size + len(record.payload) > max_bytes
                ):
                    return Batch(channel, records, expired, position)
                else:
                    records.append(record)
                    items += record.items
                    size += len(record.payload)
                position = Position(number, behind)
        return Batch(channel, records, expired, position)

    def settle(self, batch: Batch, delivered: int, dropped: Mapping[str, int]) -> None:
        """After close() nothing is noted: whoever comes next delivers the batch."""
        with self._lock:
            if not self._closed:
                self._settle(batch, delivered, dropped)

    def _settle(self, batch: Batch, delivered: int, dropped: Mapping[str, int]) -> None:
        channel = batch.channel
        # The position first: killed in between, items are missed in the counts, not sent twice.
        self.ledger.move(channel, batch.position)
        self.ledger.add(channel, "delivered", delivered)
        self._books.add(channel, "delivered", delivered)
        for reason in REASONS:
            count = dropped.get(reason, 0) + (batch.expired if reason == "expired" else 0)
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
