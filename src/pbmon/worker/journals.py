"""The journals that a shipper reads: which there are, and what of each comes next."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING

from pbmon import signals
from pbmon.spool.backlog import Backlog, backlogs
from pbmon.spool.directory import Home
from pbmon.spool.ledger import Position
from pbmon.store.access import asking

if TYPE_CHECKING:
    from pbmon.store.writer import Portion, Writer

_PORTION_BYTES = 512 * 1024


class Journals:
    """dropped: reason → items, where damage is counted."""

    def __init__(self, home: Home, dropped: Counter[str]) -> None:
        self._home = home
        self._backlogs: dict[str, Backlog] = {}
        self._positions: dict[str, Position] = {}
        self._dropped = dropped
        self.is_all_readable = True
        """Whether each could be read at the last time."""

    @property
    def sources(self) -> Collection[str]:
        return self._backlogs.keys()

    def look(self) -> None:
        """Which there are now."""
        found = {path.name: path for path in backlogs(self._home)}
        self._backlogs = {
            name: self._backlogs.get(name) or Backlog(path) for name, path in found.items()
        }
        for name in self._positions.keys() - found.keys():
            del self._positions[name]

    def forget_positions(self) -> None:
        """Ask the store anew how far each was read."""
        self._positions.clear()

    def read(self, writer: Writer, limit: int) -> list[Portion]:
        """Up to so many items that come next. Those of dead processes that hold nothing any more
        are removed. Raises StoreError."""
        from pbmon.store.writer import Portion

        portions: list[Portion] = []
        self.is_all_readable = True
        for name, backlog in list(self._backlogs.items()):
            # Next time behind the others: none of them waits for the one with the most.
            self._backlogs[name] = self._backlogs.pop(name)
            position = self._position(writer, name)
            abandoned = backlog.is_abandoned()
            try:
                chunk = backlog.read(position, limit, _PORTION_BYTES)
            except FileNotFoundError:  # another shipper was here, and has buried it
                del self._backlogs[name]
                continue
            except OSError as error:  # keeps no other out
                self.is_all_readable = False
                signals.tell(
                    "journal:unreadable",
                    "pbmon: %s can't be read (%s); its events wait there. Give it to this user "
                    "(uid %d), or mend the disk",
                    backlog.path, error.strerror, os.geteuid(),
                )  # fmt: skip
                continue
            if chunk.damaged:
                self._dropped["corrupt"] += chunk.damaged
                signals.tell(
                    "journal:damaged",
                    "pbmon: %s is damaged in %d places; what was there is lost and counted as "
                    "corrupt",
                    backlog.path, chunk.damaged,
                )  # fmt: skip
            if chunk.items or chunk.position != position:
                portions.append(
                    Portion(name, position, chunk.items, chunk.position, backlog.begun_at)
                )
                limit -= len(chunk.items)
                if limit <= 0:
                    break
            elif abandoned and backlog.bury():
                del self._backlogs[name]
                asking(partial(writer.forget, name))
        return portions

    def _position(self, writer: Writer, name: str) -> Position:
        known = self._positions.get(name)
        if known is None:
            known = self._positions[name] = asking(lambda: writer.position(name))
            # Whoever stored what is before it may not have come to removing it.
            self._backlogs[name].release(known)
        return known

    def settle(self, portion: Portion) -> None:
        """It is in the store."""
        self._positions[portion.source] = portion.end
        if portion.end.segment != portion.begin.segment:
            self._backlogs[portion.source].release(portion.end)
