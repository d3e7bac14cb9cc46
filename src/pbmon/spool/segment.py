"""One segment file that its process writes to."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from pbmon.spool import frames

SUFFIX = ".seg"


def name(channel: str, number: int) -> str:
    return f"{channel}-{number:08d}{SUFFIX}"


def numbers(directory: Path, channel: str) -> list[int]:
    """The segments of a channel in a directory, ascending."""
    found = []
    for entry in directory.iterdir():
        prefix, _, number = entry.stem.rpartition("-")
        if entry.suffix == SUFFIX and prefix == channel and number.isdigit():
            found.append(int(number))
    return sorted(found)


class Segment:
    """Fully allocated before anything is written: a mapped file with holes kills the process
    that touches one on a full disk. Raises OSError where there is no room."""

    def __init__(
        self, directory: Path, channel: str, number: int, size: int, *, mapped: bool
    ) -> None:
        path = self.path = directory / name(channel, number)
        self.size = size
        self.end = frames.START
        """Where the next record goes."""
        self._map: mmap.mmap | None = None
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(self._fd, 0, size)
            if mapped:
                self._map = mmap.mmap(self._fd, size)
            self._put(0, frames.header(channel, number))
        except (OSError, ValueError):
            self.close()
            path.unlink(missing_ok=True)
            raise
        if self._map is not None:
            os.close(self._fd)
            self._fd = -1

    def has_room(self, payload_length: int) -> bool:
        return self.end + frames.room(payload_length) <= self.size

    def append(self, content: bytes) -> None:
        """content: frames.body(); has_room() was asked. Raises OSError without a mapping."""
        self._put(self.end + 8, content)
        self._put(self.end, frames.frame(content))  # published: from here on it is there
        self.end += frames.room(len(content) - frames.OVERHEAD + 8)

    def _put(self, offset: int, data: bytes) -> None:
        if self._map is not None:
            self._map[offset : offset + len(data)] = data
            return
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, offset)
            view, offset = view[written:], offset + written

    def view(self) -> bytes | memoryview:
        if self._map is not None:
            return memoryview(self._map)
        return os.pread(self._fd, self.end, 0)

    def close(self) -> None:
        if self._map is not None:
            try:
                self._map.close()
            except BufferError:  # a reader still looks at it; the mapping goes with its view
                pass
            self._map = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)
