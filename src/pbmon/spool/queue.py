"""The spool of this process: appended to by it, read by its senders, adopted after its death."""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from pathlib import Path

from pbmon.spool import disk, frames, ledger, segment
from pbmon.spool.books import Books
from pbmon.spool.directory import Home, UnusableError, is_still_usable, lock
from pbmon.spool.frames import CHANNELS
from pbmon.spool.latest import Latest, Written
from pbmon.spool.ledger import Ledger
from pbmon.spool.segment import Segment
from pbmon.spool.shelf import Shelf

MAX_RECORD = 8 * 1024 * 1024
"""A payload above this is refused as too_large; one above a segment's size gets a segment of its
own size."""

_RETRY_S = 1.0


class Spool(Shelf):
    """Raises UnusableError where its directory can't be made; nothing else raises later."""

    def __init__(self, home: Home, books: Books) -> None:
        self.home = home
        self._owner = os.geteuid()
        self.directory = home.path / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        hidden = home.path / f".{self.directory.name}"
        self._segments: dict[str, dict[int, Segment]] = {channel: {} for channel in CHANNELS}
        self._current: dict[str, Segment | None] = dict.fromkeys(CHANNELS)
        self._numbered = dict.fromkeys(CHANNELS, 0)
        self._full = dict.fromkeys(CHANNELS, ("", 0.0))
        fd = -1
        try:
            hidden.mkdir(mode=0o700)
            hidden.chmod(0o700)  # whatever the umask left of it
            fd = _open_locked(hidden / ledger.NAME)
            with home.reserving("", ledger.SIZE):
                super().__init__(Ledger(fd, fresh=True, mapped=home.mapped), books)
            self._latest = Latest(hidden, home)
            hidden.rename(self.directory)
            self._latest.move(self.directory)
            books.join(self)
        except (OSError, ValueError) as error:
            shutil.rmtree(hidden, ignore_errors=True)
            if fd >= 0:
                os.close(fd)
            raise UnusableError(
                f"{home.path} has no room or can't be written to "
                f"({getattr(error, 'strerror', None) or error}); free disk space, or give this "
                "user a directory to write to"
            ) from error

    @property
    def is_usable(self) -> bool:
        return is_still_usable(self.directory, self._owner)

    # --- writing ---

    def append(self, channel: str, payload: bytes, items: int, *, again: bool = False) -> str:
        """Take a record; returns why not (full, io_error, too_large), or an empty text.

        A refusal is counted, but not again; accepted records survive this process.
        """
        with self._lock:
            reason = self._append(channel, payload, items)
            if not (reason and again):
                self._books.add(channel, "refused" if reason else "accepted", items, reason)
        return reason

    def _append(self, channel: str, payload: bytes, items: int) -> str:
        if len(payload) > MAX_RECORD:
            return "too_large"
        if self._closed:
            return "io_error"
        current = self._current[channel]
        try:
            if current is None or not current.has_room(len(payload)):
                reason, until_s = self._full[channel]
                if time.monotonic() < until_s:
                    return reason
                needed = frames.START + frames.room(len(payload))
                size = max(self.home.segment_size, needed + 4095 & ~4095)
                current = self._add_segment(channel, size)
            current.append(frames.body(items, time.monotonic_ns(), payload))
        except OSError as error:
            reason = disk.reason(error)
            self._full[channel] = reason, time.monotonic() + _RETRY_S
            return reason
        self.ledger.add(channel, "accepted", items)
        return ""

    def _add_segment(self, channel: str, size: int) -> Segment:
        # A number whose file could not be made is not taken again: something may be left of it.
        number = self._numbered[channel] = self._numbered[channel] + 1
        with self.home.reserving(channel, size):
            made = Segment(self.directory, channel, number, size, mapped=self.home.mapped)
        if (full := self._current[channel]) is not None:
            full.close()
        self._segments[channel][number] = self._current[channel] = made
        return made

    def keep_latest(self, payload: bytes, items: int) -> str:
        """Overwrite the newest metrics; returns why not, or an empty text."""
        with self._lock:
            after = self.ledger.rows["metrics"]["accepted"]
        try:
            if self._closed:
                return "io_error"
            self._latest.write(Written(after, items, time.monotonic_ns(), payload))
        except OSError as error:
            return disk.reason(error)
        return ""

    # --- reading ---

    def _numbers(self, channel: str) -> list[int]:
        return sorted(self._segments[channel])

    def _view(self, channel: str, number: int) -> tuple[bytes | memoryview, int]:
        found = self._segments[channel][number]
        return found.view(), found.end

    def _is_sealed(self, channel: str, number: int) -> bool:
        return self._segments[channel][number] is not self._current[channel]

    def _remove(self, channel: str, number: int) -> None:
        self._segments[channel].pop(number).remove()

    def size(self, channel: str) -> int:
        """Bytes on the disk."""
        with self._lock:
            return sum(found.size for found in self._segments[channel].values())

    # --- the end ---

    def close(self) -> None:
        """Leave what waits to whoever comes next, and no more room taken than it needs; with
        nothing waiting, leave nothing."""
        with self._lock:
            if self._closed:
                return
            self._drop_passed()
            self._current = dict.fromkeys(CHANNELS)
            for channel in CHANNELS:
                self._free(channel)
                for found in self._segments[channel].values():
                    found.close()
                    segment.cut(found.path, found.end)
            if not any(self.ledger.waiting(channel) for channel in CHANNELS):
                remove(self.directory)  # while its lock is still held
            self._let_go()

    def forget(self) -> None:
        """In a forked child: the files, and the lock on them, are the parent's."""
        if not self._closed:
            self._let_go()

    def _let_go(self) -> None:
        self._closed = True
        for segments in self._segments.values():
            for found in segments.values():
                found.close()
            segments.clear()
        self._latest.close()
        self.ledger.close()


def _open_locked(file: Path) -> int:
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    if lock(fd):
        return fd
    os.close(fd)
    raise OSError(errno.ENOLCK, "the filesystem knows no flock")


def remove(directory: Path) -> bool:
    """Out of sight first, so that nobody adopts half of it; whether that was done."""
    hidden = directory.with_name(f".{directory.name}.done")
    try:
        directory.rename(hidden)
    except OSError:
        return False
    shutil.rmtree(hidden, ignore_errors=True)
    return True
