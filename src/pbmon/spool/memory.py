"""The queue where no directory can be used: the same, in memory, gone with the process."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping

from pbmon.spool.books import Books
from pbmon.spool.frames import CHANNELS, Record
from pbmon.spool.ledger import Position
from pbmon.spool.shelf import MAX_AGE_S, Batch

MAX_BYTES = 4 * 1024 * 1024


class MemoryQueue:
    is_usable = True

    def __init__(self, books: Books) -> None:
        self._books = books
        self._lock = threading.Lock()
        self._records: dict[str, deque[Record]] = {channel: deque() for channel in CHANNELS}
        self._held = dict.fromkeys(CHANNELS, 0)
        """How many of the first were read and are not settled."""
        self._size = 0
        self._closed = False

    def append(self, channel: str, payload: bytes, items: int, *, again: bool = False) -> str:
        with self._lock:
            full = self._closed or self._size + len(payload) > MAX_BYTES
            if not full:
                self._records[channel].append(Record(items, time.monotonic_ns(), payload))
                self._size += len(payload)
        if full and not again:
            self._books.add(channel, "refused", items, "full")
        elif not full:
            self._books.add(channel, "accepted", items)
        return "full" if full else ""

    def keep_latest(self, payload: bytes, items: int) -> str:
        return ""

    def waiting(self, channel: str) -> int:
        with self._lock:
            return sum(record.items for record in self._records[channel])

    def size(self, channel: str) -> int:
        """Bytes held."""
        with self._lock:
            return sum(len(record.payload) for record in self._records[channel])

    def read(self, channel: str, max_items: int, max_bytes: int) -> Batch | None:
        self.expire(channel)
        taken: list[Record] = []
        items = size = 0
        with self._lock:
            for record in self._records[channel]:
                if taken and (
                    items + record.items > max_items or size + len(record.payload) > max_bytes
                ):
                    break
                taken.append(record)
                items += record.items
                size += len(record.payload)
            self._held[channel] = len(taken)
        return Batch(channel, taken, Position(0, len(taken))) if taken else None

    def expire(self, channel: str) -> None:
        if channel == "events":
            return
        oldest_ns = time.monotonic_ns() - int(MAX_AGE_S * 1e9)
        expired = 0
        with self._lock:
            records, held = self._records[channel], self._held[channel]
            records.rotate(-held)
            while len(records) > held and records[0].monotonic_ns < oldest_ns:
                record = records.popleft()
                self._size -= len(record.payload)
                expired += record.items
            records.rotate(held)
        self._books.add(channel, "dropped", expired, "expired")

    def settle(self, batch: Batch, delivered: int, dropped: Mapping[str, int]) -> None:
        with self._lock:
            if self._closed:
                return  # counted as lost
            records = self._records[batch.channel]
            for _ in range(batch.position.offset):
                self._size -= len(records.popleft().payload)
            self._held[batch.channel] = 0
        self._books.add(batch.channel, "delivered", delivered)
        for reason, count in dropped.items():
            self._books.add(batch.channel, "dropped", count, reason)

    def close(self) -> None:
        """What still waits is lost, and counted as that."""
        with self._lock:
            self._closed = True
            for channel, records in self._records.items():
                lost = sum(record.items for record in records)
                records.clear()
                self._books.add(channel, "dropped", lost, "lost")
            self._size = 0

    def forget(self) -> None:
        self.__init__(self._books)  # type: ignore[misc]
