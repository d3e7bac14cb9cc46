"""The newest metrics of a process, overwritten in place: what an adopter still has to send.

Cumulative metrics need no history: a process that is killed loses what happened after the last
writing, not what happened since the last export. Two slots, written in turn, so that one is whole
at any time.
"""

from __future__ import annotations

import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pbmon.spool import disk
from pbmon.spool.directory import Home

NAME = "latest"
_SLOT = struct.Struct("<QQQIII")
_HEAD = struct.Struct("<QQQI")
_ALIGNED = 40
_SMALLEST = 16 * 1024


class Written(NamedTuple):
    after: int
    """Metric items the spool had accepted by then: more of them in the end means that these
    metrics, or newer ones, are among them."""
    items: int
    monotonic_ns: int
    """CLOCK_MONOTONIC of the machine when they were written."""
    payload: bytes


class Latest:
    """Raises OSError where the disk has no room."""

    def __init__(self, directory: Path, home: Home) -> None:
        self._path = directory / NAME
        self._home = home
        self._fd = -1
        self._slot_size = 0
        self._sequence = 0
        self._is_new = False
        """Whether the file still has to take the place of the one before."""
        self._make(_SMALLEST)

    def _make(self, slot_size: int) -> None:
        new = self._path.with_suffix(".new")
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with self._home.reserving("metrics", 2 * slot_size):
                disk.allocate(fd, 2 * slot_size)
        except OSError:
            os.close(fd)
            with suppress(OSError):
                new.unlink()
            raise
        # The old slots stay until the new file holds something: see write().
        self.close()
        self._fd, self._slot_size, self._is_new = fd, slot_size, True

    def write(self, written: Written) -> None:
        """Raises OSError; what was written before is still there then."""
        needed = _ALIGNED + len(written.payload)
        if needed > self._slot_size:
            self._make(2 * needed + 4095 & ~4095)
        self._sequence += 1
        start = self._sequence % 2 * self._slot_size
        known = self._sequence, written.after, written.monotonic_ns, written.items
        crc = zlib.crc32(_HEAD.pack(*known) + written.payload)
        slot = _SLOT.pack(*known, len(written.payload), crc)
        disk.write(self._fd, written.payload, start + _ALIGNED)
        disk.write(self._fd, slot, start)
        if self._is_new:
            self._path.with_suffix(".new").replace(self._path)
            self._is_new = False

    def move(self, directory: Path) -> None:
        """The directory has got another name."""
        self._path = directory / NAME

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read(directory: Path) -> Written | None:
    """The newest whole one, or None."""
    try:
        data = (directory / NAME).read_bytes()
    except OSError:
        return None
    best: tuple[int, Written] | None = None
    half = len(data) // 2
    for start in (0, half):
        if start + _SLOT.size > len(data):
            continue
        sequence, after, monotonic_ns, items, length, crc = _SLOT.unpack_from(data, start)
        payload = data[start + _ALIGNED : start + _ALIGNED + length]
        head = _HEAD.pack(sequence, after, monotonic_ns, items)
        if not sequence or len(payload) != length or zlib.crc32(head + payload) != crc:
            continue
        if best is None or sequence > best[0]:
            best = sequence, Written(after, items, monotonic_ns, payload)
    return best[1] if best is not None else None
