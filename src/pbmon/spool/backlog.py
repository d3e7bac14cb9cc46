"""What waits in the journals of a service, of processes dead or alive, as its shipper reads it.

Nothing here is written but by removal: how far a journal was read is a matter of the store, which
takes the items and the position in one transaction.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pbmon.spool import directory, frames, segment
from pbmon.spool.adoption import clear_hidden, entries
from pbmon.spool.directory import Home, lock
from pbmon.spool.journal import CHANNEL, LOCK
from pbmon.spool.ledger import Position
from pbmon.spool.queue import remove

BEGIN = Position(0, 0)
_SHIPPER = ".shipper"


class Item(NamedTuple):
    """One item; its place in its journal is its identity."""

    place: Position
    payload: bytes


class Chunk(NamedTuple):
    items: list[Item]
    position: Position
    """Behind the last of them."""
    damaged: int
    """Places where records could not be read and were passed over."""


class Backlog:
    """One journal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = path.name
        self.begun_at = _begun_at(path)
        """When it was made, µs since the epoch; 0 where that can't be said."""
        self._data: tuple[int, bytes] = (-1, b"")

    def is_abandoned(self) -> bool:
        """Whether its process is dead, so that nothing more will come."""
        try:
            fd = os.open(self.path / LOCK, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            return directory.is_free(fd)
        finally:
            os.close(fd)

    def read(self, position: Position, max_items: int, max_bytes: int) -> Chunk:
        """The next items in their order, with at most one above max_bytes. Raises OSError."""
        abandoned = self.is_abandoned()  # asked first: what is there now is all there will be
        numbers = [n for n in segment.numbers(self.path, CHANNEL) if n >= position.segment]
        items: list[Item] = []
        damaged = size = 0
        for number in numbers:
            sealed = abandoned or number != numbers[-1]
            offset = position.offset if number == position.segment else frames.START
            data = self._read(number, sealed=sealed)
            position = Position(number, offset)
            if offset > frames.START and offset >= len(data):
                continue
            if not data.startswith(frames.header(CHANNEL, number)):
                if not sealed:
                    break  # it is being made
                # All zeros: killed before it had written anything.
                damaged += bool(data.strip(b"\0"))
                position = _behind(number, data)
                continue
            for record, behind in frames.read(data, offset, len(data)):
                if record is None:
                    # In a segment that is written to, a record on its way may look like this.
                    if sealed:
                        damaged += 1
                        position = _behind(number, data)
                    break
                if items and (len(items) >= max_items or size + len(record.payload) > max_bytes):
                    return Chunk(items, position, damaged)
                items.append(Item(position, record.payload))
                size += len(record.payload)
                position = Position(number, behind)
        return Chunk(items, position, damaged)

    def _read(self, number: int, *, sealed: bool) -> bytes:
        """Read, never mapped: a file that another cuts short would kill this process."""
        if self._data[0] == number:
            return self._data[1]
        try:
            data = (self.path / segment.name(CHANNEL, number)).read_bytes()
        except FileNotFoundError:
            return b""
        if sealed:
            self._data = (number, data)
        return data

    def release(self, position: Position) -> None:
        """What is before this position is in the store for good: give its room back."""
        with suppress(OSError):
            for number in segment.numbers(self.path, CHANNEL):
                if number < position.segment:
                    (self.path / segment.name(CHANNEL, number)).unlink(missing_ok=True)

    def bury(self) -> bool:
        """Remove the journal of a dead process whose items are all in the store; whether that
        was done."""
        return remove(self.path)


def _begun_at(path: Path) -> int:
    try:
        return (path / LOCK).stat().st_mtime_ns // 1000  # nobody writes into it
    except OSError:
        return 0


def _behind(number: int, data: bytes) -> Position:
    """Where nothing of a segment is left to read, so that its damage is met once."""
    return Position(number, max(len(data) + 7 & ~7, frames.START + 8))


def backlogs(home: Home) -> list[Path]:
    """The journals of a service. What was left in the making or removing of one is cleared."""
    found = []
    for path in entries(home.path):
        if path.name.startswith("."):
            clear_hidden(path, LOCK)
        else:
            found.append(path)
    return found


class Duty:
    """The shipper's role: one process of a service in a state directory has it. It is given up
    with the process."""

    def __init__(self, home: Home) -> None:
        """Raises OSError."""
        self._fd = os.open(home.path / _SHIPPER, os.O_RDWR | os.O_CREAT, 0o600)

    def take(self) -> bool:
        """Whether this process has it now."""
        return lock(self._fd)

    def is_void(self) -> bool:
        """Whether its file was removed, so that another process may have the role as well."""
        return os.fstat(self._fd).st_nlink == 0

    def give_up(self) -> None:
        directory.unlock(self._fd)

    def forget(self) -> None:
        """In a forked child: the lock is the parent's, and goes with the last descriptor of it."""
        os.close(self._fd)
