"""What people do over time, read from the store: growth, cohorts, funnels, adoption of features."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from pbmon.business import reading
from pbmon.growth import PERIODS, Cohort, FeatureAdoption, FunnelStep, UserGrowth, following

MAX_PERIODS = 100
MAX_STEPS = 10
MAX_WINDOW_S = 366 * 86_400.0


def user_growth(day: dt.date | None = None) -> UserGrowth | None:
    """The growth figures of a day that is over, as the daily job took them.

    day: in the zone of the store; the newest there is if left out.

    Returns UserGrowth: day, source (activity, or users: the table of the setting `users`), new,
    active_24h, active_7d, active_30d, churned, total, reactivated, and the ratios retention and
    stickiness, from 0 to 1. None in it: the source can't tell. None in its place: no figures of
    that day were taken; `pbmon run growth --from` makes up for it.
    Raises StoreError where the store can't be read. It waits for the store, 10 s at most: in a
    coroutine call it in a thread.
    """
    _check_day("user_growth", "day", day or dt.date.min)
    found: UserGrowth | None = reading.store().user_growth(day)
    return found


def cohorts(start: dt.date, end: dt.date, *, period: str = "week") -> list[Cohort]:
    """Who comes back: people by the period of their first activity.

    start, end: days in the zone of the store; from the period of the one to that of the other, 100
        periods at most. period: day, week (from Monday) or month.

    Returns a Cohort for each period: begin (its first day), size, and retained, for each following
    period up to the last one how many were active in it. A number below 10 is None.
    Raises ValueError, and StoreError where the store can't be read, or one cohort takes longer than
    10 s. It waits for the store: in a coroutine call it in a thread.
    """
    for name, day in (("start", start), ("end", end)):
        _check_day("cohorts", name, day)
    if period not in PERIODS:
        raise ValueError(f"pbmon.cohorts: period must be one of {', '.join(PERIODS)}")
    if start > end:
        raise ValueError("pbmon.cohorts: start is after end")
    last = start
    for _ in range(MAX_PERIODS):
        last = following(last, period)
    if last <= end:
        raise ValueError(f"pbmon.cohorts: start to end is more than {MAX_PERIODS} periods")
    found: list[Cohort] = reading.store().cohorts(start, end, period)
    return found


def funnel(
    steps: Sequence[str], *, start: dt.datetime, end: dt.datetime, window_s: float
) -> list[FunnelStep]:
    """How many people came how far in a sequence of events.

    steps: names of events, 1 to 10, each later than the one before. start, end: aware; of the
        first step, end itself without. window_s: the last step is no more than so many seconds
        after the first one, a year at most.

    Returns a FunnelStep for each step: event, and people who came so far at least once; None if
    they are fewer than 10. Who was never known counts once for each session.
    Raises ValueError, and StoreError where the store can't be read, or it takes longer than 10 s.
    It waits for the store: in a coroutine call it in a thread.
    """
    if isinstance(steps, str) or not all(isinstance(step, str) for step in steps):
        raise TypeError("pbmon.funnel: steps must be names of events")
    if not 0 < len(steps) <= MAX_STEPS:
        raise ValueError(f"pbmon.funnel: steps must be 1 to {MAX_STEPS} names of events")
    if isinstance(window_s, bool) or not isinstance(window_s, (int, float)):
        raise TypeError(f"pbmon.funnel: window_s must be a number, not {type(window_s).__name__}")
    if not 0 < window_s <= MAX_WINDOW_S:
        raise ValueError("pbmon.funnel: window_s must be above 0 and no more than a year")
    within = _span("funnel", start, end)
    found: list[FunnelStep] = reading.store().funnel(
        tuple(steps), *within, round(window_s * 1_000_000)
    )
    return found


def feature_adoption(
    start: dt.datetime, end: dt.datetime, *, segment: str | None = None
) -> list[FeatureAdoption]:
    """Who uses which features, and how far they come: the ten with the most people.

    start, end: aware; end itself is without. segment: name of a segment of context(), such as
        "plan"; then each feature by its values, "" where an event has none.

    Returns a FeatureAdoption for each: feature, segment, uses, people, adoption (people as a share
    of those who did anything), and viewed, clicked, completed: people who came so far, in this
    order. A number of people below 10, and its share, is None.
    Raises ValueError, and StoreError where the store can't be read, or it takes longer than 10 s.
    It waits for the store: in a coroutine call it in a thread.
    """
    if segment is not None and not isinstance(segment, str):
        raise TypeError(
            f"pbmon.feature_adoption: segment must be str, not {type(segment).__name__}"
        )
    within = _span("feature_adoption", start, end)
    found: list[FeatureAdoption] = reading.store().feature_adoption(*within, segment)
    return found


def _check_day(call: str, name: str, value: Any) -> None:
    if not isinstance(value, dt.date) or isinstance(value, dt.datetime):
        raise TypeError(f"pbmon.{call}: {name} must be a date, not {type(value).__name__}")


def _span(call: str, start: Any, end: Any) -> tuple[int, int]:
    """In µs since the epoch."""
    for name, value in (("start", start), ("end", end)):
        if not isinstance(value, dt.datetime):
            raise TypeError(f"pbmon.{call}: {name} must be a datetime, not {type(value).__name__}")
        if value.tzinfo is None:
            raise ValueError(f"pbmon.{call}: {name} has no time zone; give an aware datetime")
    if start > end:
        raise ValueError(f"pbmon.{call}: start is after end")
    return reading.micros(start), reading.micros(end)
