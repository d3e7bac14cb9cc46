"""Spools whose process is dead: found by their free lock, read like one's own, then removed."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pbmon.spool import frames, latest, ledger, queue, segment
from pbmon.spool.books import Books
from pbmon.spool.directory import Home, lock
from pbmon.spool.frames import CHANNELS
from pbmon.spool.latest import Written
from pbmon.spool.ledger import FIELDS, REASONS, Ledger, OtherVersionError
from pbmon.spool.shelf import MAX_AGE_S, Shelf

_HIDDEN_AGE_S = 60.0
_HIDDEN = re.compile(r"\.[0-9]+-[0-9a-f]{8,32}(\.done)?")


class Orphan(Shelf):
    """A dead process's spool, locked by this one. Its items are counted in this one's books.

    Its ledger notes only what metrics of this process have told: the next adopter tells the rest.

    Raises OSError where it can't be read now.
    """

    def __init__(self, directory: Path, books: Books, found: Ledger) -> None:
        super().__init__(found, books)
        self.directory = directory
        self._segments = {c: segment.numbers(directory, c) for c in CHANNELS}
        self._data: tuple[str, int, bytes] = ("", 0, b"")
        items = {channel: self._found(channel) for channel in CHANNELS}
        books.join(self)
        with self._lock:
            self._recount(items)

    def _recount(self, found: Mapping[str, int]) -> None:
        """A process killed between a record and its count, or a damaged ledger: what is found
        counts. And what the dead one could no longer tell is told by this one."""
        for channel in CHANNELS:
            if channel in self.ledger.damaged:  # no sum holds: begin with what is there
                for name in FIELDS:
                    self.ledger.set(channel, name, 0)
                self.ledger.report(channel, self.ledger.rows[channel])
            row, reported = self.ledger.rows[channel], self.ledger.reported[channel]
            known = self.ledger.settled(channel) + found[channel]
            if row["accepted"] < known:
                self.ledger.set(channel, "accepted", known)
            self._books.add(channel, "accepted", row["accepted"] - reported["accepted"])
            self._books.add(channel, "delivered", row["delivered"] - reported["delivered"])
            for reason in REASONS:
                self._books.add(channel, "dropped", row[reason] - reported[reason], reason)
            self._free(channel)

    def _found(self, channel: str) -> int:
        """Items of the whole records behind the position. Where nothing follows them, the room
        that was kept for more is given back."""
        position = self.ledger.positions[channel]
        items = 0
        for number in self._segments[channel]:
            data, end = self._view(channel, number)
            whole = frames.START
            for record, behind in frames.read(data, frames.START, end):
                if record is not None:
                    whole = behind
                    if (number, behind) > position:
                        items += record.items
            if data and not bytes(data[whole:]).strip(b"\0"):
                segment.cut(self.directory / segment.name(channel, number), whole)
        return items

    def last_metrics(self) -> Written | None:
        """The dead one's newest metrics, where it did not come to spool them or newer ones.

        None also where they are too old. They are counted nowhere then, as all that were
        overwritten: only what is appended is accepted.
        """
        written = latest.read(self.directory)
        if written is None or written.after < self.ledger.rows["metrics"]["accepted"]:
            return None
        if written.monotonic_ns < self.ledger.origin.limit_ns(MAX_AGE_S):
            return None
        return written

    def forget_latest(self) -> None:
        """They are in this process's spool now: no later adopter sends them again."""
        with suppress(OSError):
            (self.directory / latest.NAME).unlink(missing_ok=True)

    def is_done(self) -> bool:
        return not any(self.waiting(channel) for channel in CHANNELS)

    def is_told(self) -> bool:
        """Whether metrics have left this process that say all of its counts."""
        with self._lock:
            return self.ledger.rows == self.ledger.reported

    def close(self) -> None:
        """Remove it when it is empty, else leave it for the next adopter."""
        with self._lock:
            if self._closed:
                return
            self._drop_passed()
            self._closed = True
            if not any(self.ledger.waiting(channel) for channel in CHANNELS):
                queue.remove(self.directory)  # while its lock is still held
            self.ledger.close()

    def forget(self) -> None:
        """In a forked child: it is the parent's."""
        self._closed = True
        self.ledger.close()

    def _numbers(self, channel: str) -> list[int]:
        return list(self._segments[channel])

    def _view(self, channel: str, number: int) -> tuple[bytes | memoryview, int]:
        if self._data[:2] != (channel, number):
            self._data = (channel, number, self._read(channel, number))
        data = self._data[2]
        return data, len(data)

    def _read(self, channel: str, number: int) -> bytes:
        """Read, never mapped: a file that another cuts short would kill this process."""
        try:
            data = (self.directory / segment.name(channel, number)).read_bytes()
        except FileNotFoundError:
            return b""
        return data if data.startswith(frames.header(channel, number)) else b""

    def _is_sealed(self, channel: str, number: int) -> bool:
        return True

    def _remove(self, channel: str, number: int) -> None:
        self._segments[channel].remove(number)
        with suppress(OSError):  # it goes with its directory
            (self.directory / segment.name(channel, number)).unlink()


def adopt(home: Home, books: Books, own: Path | None) -> list[Orphan]:
    """Every dead process's spool of this service that nobody else has taken.

    What is none of ours in the place, or of another version, is left alone.
    """
    taken = []
    for path in entries(home.path):
        if path == own:
            continue
        if path.name.startswith("."):
            clear_hidden(path, ledger.NAME)
        elif (orphan := _take(path, books)) is not None:
            taken.append(orphan)
    return taken


def entries(directory: Path) -> list[Path]:
    """The directories in a service's place, hidden ones too; empty where it is gone."""
    try:
        return sorted(
            Path(e.path) for e in os.scandir(directory) if e.is_dir(follow_symlinks=False)
        )
    except OSError:  # its state directory was removed, or can't be read now
        return []


def _take(path: Path, books: Books) -> Orphan | None:
    try:
        fd = os.open(path / ledger.NAME, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if lock(fd):
            return Orphan(path, books, _ledger(fd))
    except (OSError, OtherVersionError):  # removed since by another adopter, or tried again later
        pass
    os.close(fd)
    return None


def _ledger(fd: int) -> Ledger:
    """Never mapped, as little as the segments."""
    try:
        return Ledger(fd, fresh=False, mapped=False)
    except OtherVersionError:
        raise
    except ValueError:
        # Cut short or overwritten: the records may still be whole.
        return Ledger(fd, fresh=True, mapped=False)


def clear_hidden(path: Path, lock_name: str) -> None:
    """What a process left that was killed while it made or removed its spool; lock_name: of the
    file whose lock it held."""
    if not _HIDDEN.fullmatch(path.name):
        return
    try:
        old = time.time() - path.stat().st_mtime > _HIDDEN_AGE_S
        fd = os.open(path / lock_name, os.O_RDWR) if old else -1
    except FileNotFoundError:
        shutil.rmtree(path, ignore_errors=True)
        return
    except OSError:
        return
    if fd >= 0:
        if lock(fd):
            shutil.rmtree(path, ignore_errors=True)
        os.close(fd)
