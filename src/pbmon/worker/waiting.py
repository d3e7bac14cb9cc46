"""Since when events have waited for the store, as seen from outside: of all journals of a service,
whoever writes them, and whether or not there is a shipper."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from pbmon.spool import entries
from pbmon.spool.backlog import BEGIN, Backlog, backlogs
from pbmon.spool.directory import Home
from pbmon.spool.ledger import Position


def waiting_since(home: Home, positions: Mapping[str, Position]) -> int | None:
    """When the oldest that waits occurred, µs since the epoch; None where nothing waits. positions:
    journal → how far it is in the store."""
    since = None
    for path in backlogs(home):
        with suppress(OSError):  # read and removed meanwhile
            for item in Backlog(path).read(positions.get(path.name, BEGIN), 1, 1).items:
                with suppress(entries.UnreadableError):
                    occurred_at = entries.decode(item.payload).occurred_at
                    since = occurred_at if since is None else min(since, occurred_at)
    return since
