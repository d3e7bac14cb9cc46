"""What the business of this process hands over: appended here, read and removed by the shipper.

    <pid>-<uuid>/lock                   held (flock) as long as the process lives
                /events-<number>.seg    segments as the telemetry's, one record for each item

Its directory's name is the source by which the store knows how far it was read. The journal keeps
no counts: what becomes of an item is decided, and counted, where it is stored.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
import uuid
from contextlib import suppress

from pbmon.spool import directory, disk, frames, segment
from pbmon.spool.directory import Home, UnusableError, lock
from pbmon.spool.segment import Segment

AREA = "events"
CHANNEL = "events"
LOCK = "lock"
MAX_RECORD = 48 * 1024
"""A payload above this is refused as too_large."""

_RETRY_S = 1.0


class Journal:
    """Raises UnusableError where its directory can't be made; nothing else raises later."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.source = f"{os.getpid()}-{uuid.uuid4().hex}"
        self.directory = home.path / self.source
        self._owner = os.geteuid()
        self._lock = threading.RLock()
        self._writing = False
        self._segment: Segment | None = None
        self._number = 0
        self._full = ("", 0.0)
        self._closed = False
        self._turned = ""
        self._synced = (0, 0)
        """Number of the segment, and its end, up to which all is on the disk itself."""
        self._are_names_synced = False
        self._doubtful: set[int] = set()
        """Segments that the disk failed to take."""
        hidden = home.path / f".{self.source}"
        self._fd = -1
        try:
            hidden.mkdir(mode=0o700)
            hidden.chmod(0o700)  # whatever the umask left of it
            self._fd = os.open(hidden / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            if not lock(self._fd):
                raise OSError("the filesystem knows no flock")  # noqa: TRY301
            hidden.rename(self.directory)
        except OSError as error:
            shutil.rmtree(hidden, ignore_errors=True)
            if self._fd >= 0:
                os.close(self._fd)
            raise UnusableError(
                f"{home.path} has no room or can't be written to ({error.strerror or error}); "
                "free disk space, or give this user a directory to write to"
            ) from error

    @property
    def is_usable(self) -> bool:
        return directory.is_still_usable(self.directory, self._owner)

    @property
    def is_there(self) -> bool:
        return os.path.lexists(self.directory)

    def append(self, payload: bytes) -> str:
        """Take one item: it survives this process from here on. Or say why not: full, io_error,
        too_large; busy for a signal's handler or a finalizer that comes in the middle of another
        append of the same thread."""
        if len(payload) > MAX_RECORD:
            return "too_large"
        with self._lock:
            if self._writing:
                return "busy"
            self._writing = True
            try:
                current = self._segment
                if current is None or not current.has_room(len(payload)):
                    current = self._add_segment()
                    if current is None:
                        return self._full[0]
                current.append(frames.body(1, 0, payload))
            except OSError as error:  # without a mapping
                return self._refuse(error)
            finally:
                self._writing = False
        return ""

    def _add_segment(self) -> Segment | None:
        if time.monotonic() < self._full[1]:
            return None
        if self._closed:
            self._full = ("io_error", time.monotonic() + _RETRY_S)
            return None
        # Closed before the next one is begun: whoever sees that, takes the last for finished.
        if self._segment is not None:
            self._segment.close()
            self._segment = None
        # A number whose file could not be made is not taken again: something may be left of it.
        self._number += 1
        size = self.home.segment_size
        try:
            with self.home.reserving("", size):
                made = Segment(self.directory, CHANNEL, self._number, size, mapped=self.home.mapped)
        except OSError as error:
            self._refuse(error)
            return None
        self._segment = made
        return made

    def turn(self, request: str) -> None:
        """Begin another segment, unless that was done for this request: what is in the others goes
        once it is stored. Without room for one it is tried again at the next call."""
        with self._lock:
            if request == self._turned or self._closed or self._writing:
                return
            current = self._segment
            is_used = current.end > frames.START if current is not None else self._number > 0
            if not is_used or self._add_segment() is not None:
                self._turned = request

    def _refuse(self, error: OSError) -> str:
        reason = disk.reason(error)
        self._full = (reason, time.monotonic() + _RETRY_S)
        return reason

    def sync(self) -> None:
        """Have on the disk itself what was appended before, whatever comes meanwhile; of two calls
        the second is to come after the first. Raises OSError.

        What is not there any more is in the store: only the shipper removes a segment, and, once it
        is closed, the directory.
        """
        with self._lock:
            mark = (self._number, self._segment.end if self._segment is not None else 0)
            is_closed = self._closed
        if mark == self._synced:
            return
        for number in range(self._synced[0], mark[0] + 1):
            with suppress(FileNotFoundError):
                self._sync_segment(number)
        try:
            self._sync_names()
        except FileNotFoundError:
            if not is_closed:
                raise
        self._synced = mark

    def _sync_segment(self, number: int) -> None:
        path = self.directory / segment.name(CHANNEL, number)
        if number in self._doubtful:
            # The system may say of what it failed to write that it is written, when it is asked
            # once more. So that nobody believes it, only the store can make up for it.
            path.lstat()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        try:
            disk.sync(path)
        except FileNotFoundError:
            raise
        except OSError:
            self._doubtful.add(number)
            with self._lock:  # what comes now goes elsewhere
                if self._number == number and self._segment is not None:
                    self._segment.close()
                    self._segment = None
            raise

    def _sync_names(self) -> None:
        """Of the segments; at the first time of the directories above too."""
        disk.sync(self.directory)
        if self._are_names_synced:
            return
        for path in self.directory.resolve().parents:
            try:
                disk.sync(path)
            except OSError:
                if path.is_relative_to(self.home.state_directory.resolve()):
                    raise  # above it are others' places, which this user may not read
        self._are_names_synced = True

    def close(self) -> None:
        """Leave what waits to the shipper, which removes the directory once it is empty."""
        with self._lock:
            self._let_go()

    def forget(self) -> None:
        """In a forked child: the files, and the lock on them, are the parent's."""
        self._lock = threading.RLock()
        self._writing = False
        self._let_go()

    def _let_go(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._segment is not None:
            self._segment.close()
            self._segment = None
        with suppress(OSError):
            os.close(self._fd)


def open_home(state_dir: str | None, service: str) -> Home:
    """The place of a service's journals; state_dir: as configured. Raises UnusableError, which
    names all that were tried."""
    refused = []
    for path in directory.candidates(state_dir):
        try:
            return Home(path, service, AREA)
        except UnusableError as error:
            refused.append(str(error))
    raise UnusableError("; ".join(refused))
