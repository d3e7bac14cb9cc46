"""Whether anything of before a deletion still waits on this host.

Nothing is looked for in what waits: every process begins another segment, and once those of before
are stored and removed, nothing is left of anybody.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from pbmon.spool import turning
from pbmon.spool.backlog import backlogs
from pbmon.spool.directory import Home
from pbmon.store.access import asking

if TYPE_CHECKING:
    from pbmon.store.erasure import Deletions
    from pbmon.store.outbox import Drain

_LOOK_EVERY_S = 2.0


class Clearance:
    """Of the shipper on duty, which calls step() again and again."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._look_at_s = 0.0
        self._at = 0
        """Of which deletion, and all before it, this host is being cleared."""
        self._upto: dict[str, int] | None = None
        """Journal → its last segment of before; none: no journal is waited for."""
        self._row: int | None = None
        """Likewise of the outbox."""

    def hurry(self) -> None:
        self._look_at_s = 0.0

    def step(self, deletions: Deletions, outbox: Drain | None) -> None:
        """Raises StoreError, OSError."""
        if self._upto is None and self._row is None:
            self._begin(deletions, outbox)
        if self._upto is not None and self._are_cleared(self._upto):
            deletions.note_cleared(self._upto.keys(), self._at)
            self._upto = None
        if self._row is not None and (
            outbox is None or not asking(partial(outbox.has_upto, self._row))
        ):
            if outbox is not None:
                deletions.note_outbox(self._at)
            self._row = None

    def _begin(self, deletions: Deletions, outbox: Drain | None) -> None:
        now_s = time.monotonic()
        if now_s < self._look_at_s:
            return
        self._look_at_s = now_s + _LOOK_EVERY_S
        newest = deletions.newest_waiting()
        if newest is None or newest <= self._at:
            return
        # First what there is, then the request: the segment that follows it is a later one.
        self._upto = {path.name: turning.last_used(path) for path in backlogs(self._home)}
        self._row = asking(outbox.newest) if outbox is not None else None
        turning.ask(self._home)
        self._at = newest

    def _are_cleared(self, upto: dict[str, int]) -> bool:
        return all(
            turning.is_cleared(self._home.path / name, number) for name, number in upto.items()
        )
