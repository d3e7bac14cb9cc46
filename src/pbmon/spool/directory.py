"""Where the spools of a service stand, who may use the place, and how much of it.

    <state directory>/spool/            0700, ours alone
                          /<service>/   one directory for each process: ledger, segments, latest
                     /events/           likewise, for what the business hands over
                          /<service>/   one directory for each process: lock, segments

A process dead or alive is told by the lock on its ledger (flock), which the kernel gives up with
the process.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: no flock, so no directory; the memory queue is used
    fcntl = None  # type: ignore[assignment]

MAX_BYTES = 512 * 1024 * 1024
"""Of all spools of a state directory together, or a tenth of the free space if that is less."""

_SHARE_OF_FREE = 10
_SHARE_OF_CHANNEL = 0.7
_LARGEST_SEGMENT = 1024 * 1024
_SMALLEST_SEGMENT = 64 * 1024
_SEGMENTS_OF_LIMIT = 64

# A full disk or a lost server is an error of write(2) there, but kills a process that has the
# file mapped: no space is promised by posix_fallocate (copy on write), or none can be (network).
_NO_MAPPING = re.compile(
    r"nfs.*|cifs|smb.*|fuse.*|virtiofs|vboxsf|9p|afs|ceph|glusterfs|lustre|btrfs|zfs|bcachefs"
)

_LOCK_WAIT_S = 0.1


class UnusableError(OSError):
    """The state directory can't be used; the text says which, why and the remedy."""


def candidates(configured: str | None, environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Where to try, in order. A configured directory is the only one."""
    if configured is not None:
        return [Path(os.path.expanduser(configured)).absolute()]  # noqa: PTH111  never raises
    found = []
    if systemd := _absolute(environ.get("STATE_DIRECTORY", "").split(":")[0]):
        found.append(systemd / "pbmon")
    if xdg := _absolute(environ.get("XDG_STATE_HOME", "")):
        found.append(xdg / "pbmon")
    elif home := _absolute(environ.get("HOME", "")):
        found.append(home / ".local" / "state" / "pbmon")
    uid = os.geteuid() if hasattr(os, "geteuid") else 0
    found.append(Path(tempfile.gettempdir()).absolute() / f"pbmon-{uid}")
    return found


def _absolute(value: str) -> Path | None:
    """A relative path in these variables is to be ignored, says the XDG specification."""
    path = Path(value.strip())
    return path if path.is_absolute() else None


def slug(service: str) -> str:
    """A service's name as a directory's, different for different services."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", service)[:48] or "_"
    if plain == service:
        return plain
    return f"{plain}-{zlib.crc32(service.encode('utf-8', 'surrogatepass')):08x}"


class Home:
    """The spools of one service in a usable state directory."""

    def __init__(self, state_directory: Path, service: str, area: str = "spool") -> None:
        """Raises UnusableError."""
        if fcntl is None:
            raise UnusableError("this system has no flock")
        self.state_directory = state_directory
        self.service = service
        self.root = state_directory / area
        self.path = self.root / slug(service)
        try:
            state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_owner(state_directory)
            _make_private(self.root)
            _make_private(self.path)
            self._lock_fd = self._open_lock()
            self.limit = self._limit(self.used())
        except UnusableError:
            raise
        except OSError as error:
            raise self._unusable(error) from error
        self.mapped = not _NO_MAPPING.fullmatch(filesystem(self.path))

    @property
    def segment_size(self) -> int:
        """Small enough that many processes find a place each on a small volume."""
        share = self.limit // _SEGMENTS_OF_LIMIT & ~4095
        return max(_SMALLEST_SEGMENT, min(_LARGEST_SEGMENT, share))

    def used(self, channel: str = "") -> int:
        """Bytes of all spools of the state directory, or of one channel's segments in them."""
        total = 0
        for directory, _, names in os.walk(self.root):
            for name in names:
                if name.startswith(channel):
                    # Another process may have freed it meanwhile; or it is none of ours.
                    with suppress(OSError):
                        total += os.lstat(os.path.join(directory, name)).st_size  # noqa: PTH118
        return total

    def _limit(self, used: int) -> int:
        volume = os.statvfs(self.root)
        return min(MAX_BYTES, (volume.f_bavail * volume.f_frsize + used) // _SHARE_OF_FREE)

    @contextmanager
    def reserving(self, channel: str, size: int) -> Iterator[None]:
        """Around the making of a file of this size; OSError ENOSPC where it would be too much.

        One process at a time, so that together they stay within the limit. One channel gets no
        more than its share: where only the receiver of the logs is gone, traces go on.
        """
        self._await_turn()
        try:
            used = self.used()
            self.limit = self._limit(used)
            too_much = used + size > self.limit
            if channel and not too_much:
                too_much = self.used(channel) + size > self.limit * _SHARE_OF_CHANNEL
            if too_much:
                raise OSError(errno.ENOSPC, "the spool's limit is reached")
            yield
        finally:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def _await_turn(self) -> None:
        """For a moment: a process that was stopped with the lock must not stop the others. The
        limit may be passed by a segment then."""
        until_s = time.monotonic() + _LOCK_WAIT_S
        while not lock(self._lock_fd) and time.monotonic() < until_s:
            time.sleep(0.001)

    def close(self) -> None:
        os.close(self._lock_fd)
        self._lock_fd = -1

    def forget(self) -> None:
        """In a forked child: a lock of its own, not the parent's. Raises UnusableError; it is not
        to be used any more then."""
        # Its number may be a file's of the application from here on.
        parents, self._lock_fd = self._lock_fd, -1
        try:
            os.close(parents)
            self._lock_fd = self._open_lock()
        except OSError as error:
            raise self._unusable(error) from error

    def _open_lock(self) -> int:
        return os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)

    def _unusable(self, error: OSError) -> UnusableError:
        return UnusableError(
            f"{self.state_directory} can't be used ({error.strerror or error}); give this user "
            "a directory to write to"
        )


def lock(fd: int) -> bool:
    """Take a file's lock if nobody has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def unlock(fd: int) -> None:
    fcntl.flock(fd, fcntl.LOCK_UN)


def is_free(fd: int) -> bool:
    """Whether nobody has a ledger's lock; it is not taken."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True


def is_still_usable(path: Path, owner: int) -> bool:
    """Whether more can be made in a directory that this user (uid) made: a server may have become
    another user since, a cleaner of temporary files may have taken it away."""
    # Not Path.exists(), which raises where it may not look.
    return os.geteuid() == owner and os.path.exists(path)  # noqa: PTH110


def _check_owner(path: Path) -> None:
    """In a public place, such as /tmp, another user may have made it to get at the contents."""
    if path.parent.stat().st_mode & stat.S_ISVTX:
        _check_is_ours(path)


def _check_is_ours(path: Path) -> os.stat_result:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise UnusableError(f"{path} is no directory; remove it")
    if found.st_uid != os.geteuid():
        raise UnusableError(
            f"{path} belongs to another user (uid {found.st_uid}); remove it or chown it to "
            f"{os.geteuid()}"
        )
    return found


def _make_private(path: Path) -> None:
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    else:
        path.chmod(0o700)  # whatever the umask left of it
    found = _check_is_ours(path)
    if mode := stat.S_IMODE(found.st_mode) & 0o077:
        raise UnusableError(
            f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o}, "
            f"{mode:04o} too much); chmod 700 it"
        )


def filesystem(path: Path) -> str:
    """The type of the filesystem a path is on, empty where the system doesn't tell."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    where = os.path.realpath(path)
    best, kind = "", ""
    for line in lines.splitlines():
        fields = line.split(" ")
        if "-" not in fields[6:]:
            continue
        point = fields[4].replace("\\040", " ")
        inside = where == point or where.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fields[fields.index("-", 6) + 1]
    return kind
