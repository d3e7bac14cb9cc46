"""Asking the processes of a service to begin another segment of their journals, so that what they
hold is removed as soon as it is in the store, and not once the segment is full.

    <state directory>/events/<service>/.turn    says another text for each request
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from pbmon.spool import frames, segment
from pbmon.spool.directory import Home
from pbmon.spool.journal import CHANNEL

_MARK = ".turn"


def ask(home: Home) -> None:
    """Each looks about once a second. Raises OSError."""
    new = home.path / f"{_MARK}-{os.getpid()}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, str(time.time_ns()).encode())
    finally:
        os.close(fd)
    new.replace(home.path / _MARK)


def asked(home: Home) -> str:
    """The last request; empty where there was none."""
    try:
        return (home.path / _MARK).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def last_used(path: Path) -> int:
    """Number of a journal's newest segment that anything was written into; 0: none. Raises
    OSError."""
    try:
        numbers = segment.numbers(path, CHANNEL)
    except FileNotFoundError:
        return 0
    for number in reversed(numbers):
        try:
            data = (path / segment.name(CHANNEL, number)).read_bytes()
        except FileNotFoundError:  # stored, and removed, meanwhile
            continue
        if data[frames.START :].strip(b"\0"):
            return number
    return 0


def is_cleared(path: Path, upto: int) -> bool:
    """Whether no segment of a journal up to this number is there. Raises OSError."""
    try:
        numbers = segment.numbers(path, CHANNEL)
    except FileNotFoundError:
        return True
    return not numbers or numbers[0] > upto
