"""What became of a spool's items, and how far each channel was read: one small mapped file.

Every number stands beside its complement, so a damaged one is known for what it is. The file is
also what a process locks (flock) as long as it lives.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pbmon.spool.frames import CHANNELS

REASONS = ("expired", "rejected", "corrupt", "lost")
"""Why accepted items were dropped: older than the limit; refused by the receiver; damaged on the
disk; gone with a process that had no directory to leave them in."""

FIELDS = ("accepted", "delivered", *REASONS, "segment", "offset")
"""Of each channel. segment and offset: where the next unread record is."""

NAME = "ledger"
SIZE = 4096
_MAGIC = b"pbmonldg"
_VERSION = 1
_START = struct.Struct("<8sII36s4xQQ")
_PAIR = struct.Struct("<QQ")
_BASE = 128
_ALL = 2**64 - 1
_COUNTS = len(FIELDS) - 2


class Origin(NamedTuple):
    """When a spool began, on both clocks: monotonic times are comparable within one boot."""

    boot: str
    wall_ns: int
    monotonic_ns: int

    def age_s(self, monotonic_ns: int) -> float:
        """Seconds since a record was written; a stepped wall clock counts only over a reboot."""
        if self.boot == boot_id():
            return (time.monotonic_ns() - monotonic_ns) / 1e9
        written_ns = self.wall_ns + monotonic_ns - self.monotonic_ns
        return max(0.0, (time.time_ns() - written_ns) / 1e9)


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

    def __init__(self, fd: int, *, fresh: bool) -> None:
        self.fd = fd
        self.damaged: set[tuple[str, str]] = set()
        """(channel, field) whose number could not be read."""
        if fresh:
            os.posix_fallocate(fd, 0, SIZE)
        if os.fstat(fd).st_size < SIZE:
            raise ValueError("the ledger is cut short")
        self._map = mmap.mmap(fd, SIZE)
        if fresh:
            self.origin = Origin(boot_id(), time.time_ns(), time.monotonic_ns())
            _START.pack_into(
                self._map, 0, _MAGIC, _VERSION, 0, self.origin.boot.encode(),
                self.origin.wall_ns, self.origin.monotonic_ns,
            )  # fmt: skip
            self.rows = {channel: dict.fromkeys(FIELDS, 0) for channel in CHANNELS}
            self.reported = {channel: dict.fromkeys(FIELDS[:_COUNTS], 0) for channel in CHANNELS}
            for channel in CHANNELS:
                for name in FIELDS:
                    self.set(channel, name, 0)
                self.report(channel, self.reported[channel])
            return
        magic, version, _, boot, wall_ns, monotonic_ns = _START.unpack_from(self._map)
        if magic != _MAGIC or version != _VERSION:
            raise ValueError("the ledger is none of this version")
        self.origin = Origin(boot.rstrip(b"\0").decode("ascii", "replace"), wall_ns, monotonic_ns)
        self.rows = {channel: self._read(channel, FIELDS, 0) for channel in CHANNELS}
        self.reported = {
            channel: self._read(channel, FIELDS[:_COUNTS], len(FIELDS)) for channel in CHANNELS
        }

    def _read(self, channel: str, names: tuple[str, ...], shift: int) -> dict[str, int]:
        values = {}
        for index, name in enumerate(names):
            value, complement = _PAIR.unpack_from(self._map, _place(channel, shift + index))
            if value ^ complement != _ALL:
                self.damaged.add((channel, name))
                value = 0
            values[name] = value
        return values

    def set(self, channel: str, name: str, value: int) -> None:
        self.rows[channel][name] = value
        _PAIR.pack_into(self._map, _place(channel, FIELDS.index(name)), value, value ^ _ALL)

    def add(self, channel: str, name: str, count: int) -> None:
        if count:
            self.set(channel, name, self.rows[channel][name] + count)

    def report(self, channel: str, counts: Mapping[str, int]) -> None:
        """Counts that metrics on their way say; fields of FIELDS without the position."""
        for index, name in enumerate(FIELDS[:_COUNTS]):
            value = counts[name]
            self.reported[channel][name] = value
            place = _place(channel, len(FIELDS) + index)
            _PAIR.pack_into(self._map, place, value, value ^ _ALL)

    def settled(self, channel: str) -> int:
        """Items of which the end is known."""
        row = self.rows[channel]
        return row["delivered"] + sum(row[reason] for reason in REASONS)

    def waiting(self, channel: str) -> int:
        return max(0, self.rows[channel]["accepted"] - self.settled(channel))

    def close(self) -> None:
        """Gives up the lock with the file."""
        self._map.close()
        os.close(self.fd)


def _place(channel: str, index: int) -> int:
    per_channel = len(FIELDS) + _COUNTS
    return _BASE + (CHANNELS.index(channel) * per_channel + index) * _PAIR.size
