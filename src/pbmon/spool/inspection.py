"""The spools of a service as they lie there, for people: read, nothing taken or changed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pbmon.spool import directory, ledger
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
