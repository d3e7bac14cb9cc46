"""Flood control of errors: which occurrence is written down by itself, and the sums of the others.

A process tells REMEMBERED fingerprints apart, so its memory is bounded; in a slot of ten seconds it
writes PER_SLOT entries at most, so that a flood of errors leaves the journal's room to the rest.
What goes beyond is counted all the same.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from pbmon.errors import OTHER, Fingerprint

SLOT_S = 10
PER_FINGERPRINT = 20
"""Entries that one fingerprint has of its own in a slot; one of a user who has none in it yet is
written beyond them."""

PER_SLOT = 1000
REMEMBERED = 1000

_SLOT = SLOT_S * 1_000_000


class Sum(NamedTuple):
    """Occurrences that are still to be written down. last_at: µs since the epoch, of the last one,
    as route and trace_id."""

    fingerprint: Fingerprint
    errors: int
    last_at: int
    route: str | None
    trace_id: str | None


class Choice(NamedTuple):
    """is_own: write it down by itself. is_first: of its fingerprint, as far as is remembered.
    ended: a sum that is to be written down now, as its slot is over or its room is needed."""

    is_own: bool
    is_first: bool
    ended: Sum | None


class _Tally:
    __slots__ = ("fingerprint", "last_at", "route", "slot", "summed", "trace_id", "written")

    def __init__(self, fingerprint: Fingerprint) -> None:
        self.fingerprint = fingerprint
        self.slot = self.last_at = self.summed = self.written = 0
        self.route: str | None = None
        self.trace_id: str | None = None

    def add(self, count: int, at: int, route: str | None, trace_id: str | None) -> None:
        self.summed += count
        self.last_at, self.route, self.trace_id = at, route, trace_id

    def take(self) -> Sum | None:
        count, self.summed = self.summed, 0
        if not count:
            return None
        return Sum(self.fingerprint, count, self.last_at, self.route, self.trace_id)


class Tallies:
    """Of one process; from every thread."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin with nothing, as in a forked child: what is summed is the parent's."""
        # One that a finalizer or a signal's handler may take again in the middle.
        self._lock = threading.RLock()
        self._tallies: dict[str, _Tally] = {}
        self._slot = self._written = 0
        self._met: set[tuple[str, str]] = set()
        """Fingerprint and user of the entries of this slot."""

    def choose(
        self, fingerprint: Fingerprint, at: int, whom: str | None, route: str | None,
        trace_id: str | None,
    ) -> Choice:  # fmt: skip
        """What becomes of an occurrence. at: µs since the epoch. whom: its user or session."""
        slot = at // _SLOT
        with self._lock:
            if slot != self._slot:
                self._slot, self._written = slot, 0
                self._met.clear()
            has_room = self._written < PER_SLOT
            ended = None
            tally = self._tallies.get(fingerprint.key)
            is_first = tally is None
            if tally is None:
                tally, ended = self._remember(fingerprint if has_room else OTHER)
            if tally.slot != slot:
                ended = ended or tally.take()
                tally.slot, tally.written = slot, 0
            met = (fingerprint.key, whom) if whom is not None else None
            is_new = met is not None and met not in self._met
            if not has_room or (tally.written >= PER_FINGERPRINT and not is_new):
                tally.add(1, at, route, trace_id)
                return Choice(False, False, ended)
            tally.written += 1
            self._written += 1
            if met is not None:
                self._met.add(met)
        return Choice(True, is_first, ended)

    def _remember(self, fingerprint: Fingerprint) -> tuple[_Tally, Sum | None]:
        """The tally of a fingerprint, and the sum of one that had to make room for it."""
        known = self._tallies.get(fingerprint.key)
        if known is not None:
            return known, None
        ended = None
        if len(self._tallies) >= REMEMBERED:
            ended = self._tallies.pop(next(iter(self._tallies))).take()
        made = self._tallies[fingerprint.key] = _Tally(fingerprint)
        return made, ended

    def put_back(self, sum_: Sum) -> None:
        """It could not be written down."""
        with self._lock:
            tally = self._tallies.get(sum_.fingerprint.key)
            if tally is None:
                tally = self._tallies.setdefault(OTHER.key, _Tally(OTHER))
            tally.add(*sum_[1:])

    def take(self) -> list[Sum]:
        """All that is summed."""
        with self._lock:
            taken = [tally.take() for tally in self._tallies.values()]
        return [sum_ for sum_ in taken if sum_ is not None]
