"""What became of a spool's items, and how far each channel was read: one small file.

Every number is one word with its own check, stored at once: a process killed at any moment leaves
the old one or the new one, and a damaged one is known for what it is. The file is also what a
process locks (flock) as long as it lives.
"""

from __future__ import annotations

import functools
import mmap
import os
import struct
import sys
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pbmon.spool import disk
from pbmon.spool.frames import CHANNELS

REASONS = ("expired", "rejected", "corrupt", "lost")
"""Why accepted items were dropped: older than the limit; refused by the receiver; damaged on the
disk; gone with a process that had no directory to leave them in."""

FIELDS = ("accepted", "delivered", *REASONS)
"""The counts of each channel."""

NAME = "ledger"
SIZE = 4096
_MAGIC = b"pbmonldg"
_VERSION = 2
"""Of the whole spool: 2 since the newest metrics carry their time."""
_START = struct.Struct("<8sI36sQQ")
_CRC = struct.Struct("<I")
_FIRST_WORD = 16  # 128 bytes
_POSITION = 2 * len(FIELDS)  # behind the counts and what was reported of them
_WORDS = _POSITION + 1
_PLACES = {
    (channel, name): _FIRST_WORD + row * _WORDS + column
    for row, channel in enumerate(CHANNELS)
    for column, name in enumerate(FIELDS)
}
_PRIME = 65521
_LARGEST = 2**48 - 1
_OFFSETS = 2**21  # of eight bytes each


class OtherVersionError(ValueError):
    """A whole ledger, but one that this version can't read."""


class Position(NamedTuple):
    """Where the next unread record is."""

    segment: int
    offset: int


class Origin(NamedTuple):
    """When a spool began, on both clocks: monotonic times are comparable within one boot."""

    boot: str
    wall_ns: int
    monotonic_ns: int

    def limit_ns(self, age_s: float) -> int:
        """CLOCK_MONOTONIC of a record that is this old; the wall clock counts only over a
        reboot."""
        if self.boot == boot_id():
            now_ns = time.monotonic_ns()
        else:
            now_ns = time.time_ns() - self.wall_ns + self.monotonic_ns
        return now_ns - int(age_s * 1e9)


@functools.cache
def boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


class Ledger:
    """Counts and positions by channel.

    rows: channel → field → number. reported: the same counts as the last metrics that left this
    process's hands said them; an adopter reports what came after.
    """

    def __init__(self, fd: int, *, fresh: bool, mapped: bool) -> None:
        """fresh: begin a new one, whatever is there. Raises OSError, ValueError where the file
        is no ledger, OtherVersionError."""
        self.fd = fd
        self._map: mmap.mmap | None = None
        self._words: memoryview | None = None
        if fresh:
            disk.allocate(fd, SIZE)
            disk.write(fd, _blank(), 0)
        data = os.pread(fd, SIZE, 0)
        self.origin = _origin(data)
        words = memoryview(data).cast("Q")
        self.rows: dict[str, dict[str, int]] = {}
        self.reported: dict[str, dict[str, int]] = {}
        self.positions: dict[str, Position] = {}
        self.damaged: set[str] = set()
        """Channels with a count that could not be read; a damaged position is the beginning."""
        for channel in CHANNELS:
            first = _PLACES[channel, FIELDS[0]]
            counts = [_number(word) for word in words[first : first + _POSITION]]
            if None in counts:
                self.damaged.add(channel)
            known = [count or 0 for count in counts]
            self.rows[channel] = dict(zip(FIELDS, known, strict=False))
            self.reported[channel] = dict(zip(FIELDS, known[len(FIELDS) :], strict=True))
            segment, offset = divmod(_number(words[first + _POSITION]) or 0, _OFFSETS)
            self.positions[channel] = Position(segment, offset * 8)
        if mapped:
            self._map = mmap.mmap(fd, SIZE)
            self._words = memoryview(self._map).cast("Q")

    def _put(self, place: int, number: int) -> None:
        if self._words is not None:
            self._words[place] = _word(number)  # one store
            return
        with suppress(OSError):  # the next one of this place makes up for it
            os.pwrite(self.fd, _word(number).to_bytes(8, sys.byteorder), place * 8)

    def set(self, channel: str, name: str, value: int) -> None:
        self.rows[channel][name] = value
        self._put(_PLACES[channel, name], value)

    def add(self, channel: str, name: str, count: int) -> None:
        if count:
            self.set(channel, name, self.rows[channel][name] + count)

    def move(self, channel: str, position: Position) -> None:
        """offset: a multiple of eight."""
        self.positions[channel] = position
        number = position.segment * _OFFSETS + min(position.offset // 8, _OFFSETS - 1)
        self._put(_PLACES[channel, FIELDS[0]] + _POSITION, number)

    def report(self, channel: str, counts: Mapping[str, int]) -> None:
        """Counts (of FIELDS) that metrics on their way say."""
        for name in FIELDS:
            self.reported[channel][name] = counts[name]
            self._put(_PLACES[channel, name] + len(FIELDS), counts[name])

    def settled(self, channel: str) -> int:
        """Items of which the end is known."""
        row = self.rows[channel]
        return row["delivered"] + sum(row[reason] for reason in REASONS)

    def waiting(self, channel: str) -> int:
        return max(0, self.rows[channel]["accepted"] - self.settled(channel))

    def close(self) -> None:
        """Gives up the lock with the file."""
        if self._words is not None:
            self._words.release()
        if self._map is not None:
            self._map.close()
        os.close(self.fd)


def _blank() -> bytes:
    start = _START.pack(_MAGIC, _VERSION, boot_id().encode(), time.time_ns(), time.monotonic_ns())
    start = (start + _CRC.pack(zlib.crc32(start))).ljust(_FIRST_WORD * 8, b"\0")
    words = _word(0).to_bytes(8, sys.byteorder) * (_WORDS * len(CHANNELS))
    return (start + words).ljust(SIZE, b"\0")


def _origin(data: bytes) -> Origin:
    if len(data) < SIZE:
        raise ValueError("the ledger is cut short")
    magic, version, boot, wall_ns, monotonic_ns = _START.unpack_from(data)
    # Every version begins like this, so that another one is told from a damaged one.
    if magic != _MAGIC or _CRC.unpack_from(data, _START.size)[0] != zlib.crc32(data[: _START.size]):
        raise ValueError("the ledger is damaged")
    if version != _VERSION:
        raise OtherVersionError(f"the ledger is of version {version}")
    return Origin(boot.rstrip(b"\0").decode("ascii", "replace"), wall_ns, monotonic_ns)


def _word(number: int) -> int:
    """48 bits and a check of 16, never zero."""
    number = min(number, _LARGEST)
    return number << 16 | number % _PRIME + 1


def _number(word: int) -> int | None:
    number, check = divmod(word, 65536)
    return number if check == number % _PRIME + 1 else None
