"""The rule by which errors of one fingerprint become an alert, and an alert is over. Pure: who
calls brings the time and the counts.

Errors are counted in slots of ten seconds. A window has every slot that it touches, so it is up to
ten seconds longer than it is set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

SECOND = 1_000_000
SLOT = 10 * SECOND
"""µs of a slot; a slot is known by its beginning."""

LATE = 900 * SECOND
"""How much later than they occurred errors may reach the store, and are still judged."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Strictly more than `errors` of a fingerprint, or than `people` whom they met, within
    window_s; None: not by these.

    It is over when no window has been beyond it for resolve_s (None: as long as a window). For
    cooldown_s after that the fingerprint opens no alert; one that is still beyond it then does.
    repeat_s: how often an open alert is told again; None: never.
    """

    errors: int | None = 10
    people: int | None = None
    window_s: float = 300.0
    cooldown_s: float = 3600.0
    resolve_s: float | None = None
    repeat_s: float | None = None

    @property
    def floor(self) -> int | None:
        """With no more errors than these nothing is beyond it: as many people take as many errors.
        None: nothing ever is."""
        return min((n for n in (self.errors, self.people) if n is not None), default=None)

    @property
    def width(self) -> int:
        """Slots that a window touches, wherever it begins."""
        return -int(-self.window_s * SECOND // SLOT) + 1

    @property
    def quiet(self) -> int:
        """resolve_s in µs."""
        return int((self.window_s if self.resolve_s is None else self.resolve_s) * SECOND)

    def first_slot(self, now: int) -> int:
        """Of the window that ends now."""
        return (now // SLOT - self.width + 1) * SLOT

    def is_beyond(self, errors: int, people: int) -> bool:
        return (self.errors is not None and errors > self.errors) or (
            self.people is not None and people > self.people
        )

    def __str__(self) -> str:
        limits = [
            f"{number:,} {what}"
            for number, what in ((self.errors, "errors"), (self.people, "people"))
            if number is not None
        ]
        return f"more than {' or '.join(limits)} in {duration(self.window_s)}" if limits else "off"


class Known(NamedTuple):
    """The last alert of a fingerprint. Times in µs. last_at: when it was last beyond its rule."""

    last_at: int
    resolved_at: int | None


class Counted(NamedTuple):
    """What there is of a fingerprint in the window that ends now. late_at: the end of the newest
    earlier window that was beyond the rule, among those from judged_from() on."""

    errors: int
    people: int
    late_at: int | None = None


class Step(Enum):
    NOTHING = "nothing"
    OPEN = "open"
    KEEP = "keep"
    """It is open, and was beyond its rule later than was known."""
    WAIT = "wait"
    """It is open, and perhaps over."""
    RESOLVE = "resolve"


def decide(rule: Rule, now: int, counted: Counted, known: Known | None) -> Step:
    """What is to be done about a fingerprint. now: µs."""
    is_beyond = rule.is_beyond(counted.errors, counted.people)
    if known is not None and known.resolved_at is None:
        last_at = max(known.last_at, counted.late_at or 0)
        if not is_beyond and now - last_at >= rule.quiet:
            return Step.RESOLVE
        return Step.KEEP if is_beyond or last_at > known.last_at else Step.WAIT
    if now < judged_from(rule, now, known):
        return Step.NOTHING
    return Step.OPEN if is_beyond or counted.late_at is not None else Step.NOTHING


def judged_from(rule: Rule, now: int, known: Known | None) -> int:
    """A window that ends before this time changes nothing any more."""
    if known is None:
        return now - LATE
    if known.resolved_at is None:
        return max(now - LATE, known.last_at)
    return max(now - LATE, known.resolved_at + int(rule.cooldown_s * SECOND))


def newest_beyond(
    rule: Rule, slots: Mapping[int, int], begin: int, now: int
) -> tuple[int, int] | None:
    """The end of the newest window beyond the rule by its errors, of those that end from begin to
    now, and the most errors in any of these. slots: errors by the slots' beginnings."""
    if rule.errors is None:
        return None
    found: int | None = None
    most = 0
    # A window that ends within the first slot may end before `begin` says: the next one is whole.
    first, last = -(-begin // SLOT), now // SLOT
    count = sum(slots.get(slot * SLOT, 0) for slot in range(first - rule.width, first))
    for end in range(first, last + 1):
        count += slots.get(end * SLOT, 0) - slots.get((end - rule.width) * SLOT, 0)
        if count > rule.errors:
            found = min(end * SLOT + SLOT, now)
            most = max(most, count)
    return None if found is None else (found, most)


def duration(seconds: float) -> str:
    """`5 min`, `1 h`, `90 s`."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
