"""Files of a known size, whose room is taken before anything is written to them, and why not."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def allocate(fd: int, size: int) -> None:
    """Raises OSError where there is no room."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    else:  # macOS
        write(fd, bytes(size), 0)


def write(fd: int, data: bytes, offset: int) -> None:
    """All of it; the system may take less at once. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def sync(path: Path) -> None:
    """Have a file, or the names in a directory, on the disk itself; what is mapped of it too.
    Raises OSError, of which FileNotFoundError says that nothing was tried."""
    fd = os.open(path, os.O_RDONLY)
    try:
        # Not mmap.flush(), which keeps the interpreter for as long as the disk takes.
        os.fsync(fd)
    finally:
        os.close(fd)


def reason(error: OSError) -> str:
    """Why something was not taken, as `pbmon.reason` says it."""
    return "full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "io_error"
