"""The spools of a service as they lie there, for people: read, nothing taken or changed."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pbmon.spool import directory, ledger
from pbmon.spool.backlog import Backlog
from pbmon.spool.frames import CHANNELS
from pbmon.spool.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Seen:
    """One process's spool."""

    name: str
    running: bool
    waiting: dict[str, int]
    """Channel → items accepted and not settled."""
    rows: dict[str, dict[str, int]]
    """Channel → accepted, delivered, and dropped by reason."""
    size: int
    """Bytes on the disk."""


def look(path: Path) -> list[Seen]:
    """The spools in a service's directory, empty where there is no such directory."""
    try:
        entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError:
        return []
    return [seen for entry in entries if (seen := _look(entry)) is not None]


def look_at_journals(path: Path) -> list[Seen]:
    """The journals of events in a service's directory, likewise. What waits in them is known to
    the store alone."""
    try:
        entries = sorted(e for e in path.iterdir() if e.is_dir() and not e.name.startswith("."))
    except OSError:
        return []
    found = []
    for entry in entries:
        with suppress(OSError):  # read to its end and removed meanwhile
            size = sum(file.stat().st_size for file in entry.iterdir())
            found.append(Seen(entry.name, not Backlog(entry).is_abandoned(), {}, {}, size))
    return found


def _look(path: Path) -> Seen | None:
    try:
        fd = os.open(path / ledger.NAME, os.O_RDWR)
        size = sum(file.stat().st_size for file in path.iterdir())
    except OSError:
        return None
    try:
        found = Ledger(fd, fresh=False, mapped=False)
    except (OSError, ValueError):
        os.close(fd)
        return Seen(path.name, False, {}, {}, size)
    running = not directory.is_free(fd)
    waiting = {channel: found.waiting(channel) for channel in CHANNELS}
    found.close()
    return Seen(path.name, running, waiting, found.rows, size)
