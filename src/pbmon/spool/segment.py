"""One segment file that its process writes to."""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from pathlib import Path

from pbmon.spool import disk, frames

_ENDING = ".seg"
_DIGITS = 8


def name(channel: str, number: int) -> str:
    return f"{channel}-{number:0{_DIGITS}d}{_ENDING}"


def numbers(directory: Path, channel: str) -> list[int]:
    """The segments of a channel in a directory, ascending. Raises OSError."""
    # Plainly, as there may be hundreds, and this is asked for each portion that is read.
    start, end = len(channel) + 1, -len(_ENDING)
    found = (
        entry[start:end]
        for entry in os.listdir(directory)  # noqa: PTH208
        if entry.startswith(f"{channel}-") and entry.endswith(_ENDING)
    )
    return sorted(int(n) for n in found if len(n) >= _DIGITS and n.isascii() and n.isdigit())


def cut(path: Path, end: int) -> None:
    """Give back what is allocated behind a segment's records. In whole pages, so that nobody who
    has them mapped is harmed; a file that can't be cut stays as it is."""
    length = -(-end // mmap.PAGESIZE) * mmap.PAGESIZE
    with suppress(OSError):
        if length < path.stat().st_size:
            os.truncate(path, length)


class Segment:
    """Fully allocated before anything is written: a mapped file with holes kills the process
    that touches one on a full disk. Raises OSError where there is no room."""

    def __init__(
        self, directory: Path, channel: str, number: int, size: int, *, mapped: bool
    ) -> None:
        self.path = directory / name(channel, number)
        self.size = size
        self.end = frames.START
        """Where the next record goes."""
        self._map: mmap.mmap | None = None
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            disk.allocate(self._fd, size)
            if mapped:
                self._map = mmap.mmap(self._fd, size)
            self._put(0, frames.header(channel, number))
        except (OSError, ValueError):
            self.remove()
            raise
        if mapped:
            os.close(self._fd)
            self._fd = -1

    def has_room(self, payload_length: int) -> bool:
        return self.end + frames.room(payload_length) <= self.size

    def append(self, content: bytes) -> None:
        """content: frames.body(); has_room() was asked. Raises OSError without a mapping."""
        end = self.end
        # A signal's handler that raises in here leaves it full: what is half written, or published
        # and perhaps read already, is not written over.
        self.end = self.size
        start = end + 8
        stop = start + len(content)
        frame = frames.frame(content)
        if self._map is not None:
            self._map[start:stop] = content
            self._map[end:start] = frame  # published: from here on it is there
        else:
            self._write(content, frame, end)
        self.end = stop + 7 & ~7

    def _write(self, content: bytes, frame: bytes, end: int) -> None:
        try:
            disk.write(self._fd, content, end + 8)
            disk.write(self._fd, frame, end)
        except OSError:
            self.end = end
            raise

    def _put(self, offset: int, data: bytes) -> None:
        if self._map is not None:
            self._map[offset : offset + len(data)] = data
        else:
            disk.write(self._fd, data, offset)

    def view(self) -> bytes | memoryview:
        """Up to `end`; nothing of a file that was removed. Raises OSError without a mapping."""
        if self._map is not None:
            return memoryview(self._map)
        if self._fd >= 0:
            return os.pread(self._fd, self.end, 0)
        try:
            with self.path.open("rb") as file:
                return file.read(self.end)
        except FileNotFoundError:
            return b""

    def close(self) -> None:
        """Nothing more will be written. It can still be viewed, but holds no descriptor, which
        Python keeps of a map too: hundreds of segments may wait."""
        if self._map is not None:
            with suppress(BufferError):  # a reader still looks at it; it goes with its view
                self._map.close()
            self._map = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        """A file that can't be removed is left; it goes with its directory."""
        self.close()
        with suppress(OSError):
            self.path.unlink()
