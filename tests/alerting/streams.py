"""Errors of one fingerprint as they occur and come to the store, and what the rules make of it."""

from __future__ import annotations

from dataclasses import dataclass

from pbmon.alerting.rules import (
    LATE,
    SECOND,
    SLOT,
    Counted,
    Known,
    Step,
    decide,
    judged_from,
    newest_beyond,
)


@dataclass(frozen=True)
class Told:
    """step: open or resolve. at: s."""

    step: Step
    at: float


def simulate(rule, stream, looks):
    """What is told. stream: pairs of when an error occurred and when it came, s. looks: s."""
    known, told = None, []
    for look in looks:
        now = int(look * SECOND)
        slots: dict[int, int] = {}
        for occurred, came in stream:
            at = int(occurred * SECOND)
            if came <= look and now - LATE - 2 * rule.width * SLOT < at <= now:
                slots[at // SLOT * SLOT] = slots.get(at // SLOT * SLOT, 0) + 1
        first = rule.first_slot(now)
        errors = sum(count for slot, count in slots.items() if slot >= first)
        late = newest_beyond(rule, slots, judged_from(rule, now, known), now) if slots else None
        step = decide(rule, now, Counted(errors, 0, late and late[0]), known)
        if step is Step.OPEN or step is Step.KEEP:
            known = Known(now if rule.is_beyond(errors, 0) else late[0], None)
        elif step is Step.RESOLVE:
            known = Known(known.last_at, now)
        if step in (Step.OPEN, Step.RESOLVE):
            told.append(Told(step, look))
    return told


def most_within(times, begin, end):
    return sum(1 for time in times if begin < time <= end)
