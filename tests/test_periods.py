"""Periods: golden days on which naive arithmetic fails, and laws that hold in every zone."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon.periods import previous, span
from tests.patience import patiently

UTC = timezone.utc
PERIODS = ("hour", "day", "week", "month")
KINDS = ("rolling", "calendar")
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York",
    "Australia/Lord_Howe",  # its summer is half an hour
    "Pacific/Apia",  # had no 30 December 2011
    "Asia/Kathmandu",  # UTC+05:45
    "Africa/Casablanca",  # winter time in Ramadan
    "Africa/Cairo", "America/Havana", "America/Sao_Paulo",  # change at midnight
    "America/St_Johns",  # changed at 00:01
)  # fmt: skip
zones = st.sampled_from(ZONES)
instants = st.datetimes(
    datetime(1971, 1, 1), datetime(2037, 12, 31), timezones=st.just(UTC)
) | st.builds(
    # Close to changes of these zones.
    lambda day, offset_s: day + timedelta(seconds=offset_s),
    st.sampled_from(
        [datetime(2011, 12, 30, 10, tzinfo=UTC), datetime(2026, 3, 29, 1, tzinfo=UTC),
         datetime(2026, 10, 25, 1, tzinfo=UTC), datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
         datetime(2026, 4, 4, 15, tzinfo=UTC), datetime(2026, 4, 23, 22, tzinfo=UTC),
         datetime(2018, 11, 4, 3, tzinfo=UTC), datetime(2005, 10, 30, 2, 31, tzinfo=UTC)]
    ),
    st.integers(-200_000, 200_000),
)  # fmt: skip


def at(zone, text, fold=0):
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)


def shown(moment, zone):
    return moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None).isoformat(sep=" ")


# --- golden -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "start"),
    [
        ("2026-03-31 12:00", "2026-02-28 12:00"),
        ("2024-03-31 12:00", "2024-02-29 12:00"),
        ("2024-02-29 12:00", "2024-01-29 12:00"),
        ("2026-03-28 12:00", "2026-02-28 12:00"),
        ("2026-05-31 00:00", "2026-04-30 00:00"),
        ("2026-01-15 08:30", "2025-12-15 08:30"),
    ],
)
def test_a_rolling_month_begins_on_the_same_day_or_the_last_one(now, start):
    assert span("month", "rolling", "UTC", at("UTC", now)) == (at("UTC", start), at("UTC", now))


@pytest.mark.parametrize(
    ("zone", "now", "hours"),
    [
        ("Europe/Berlin", "2026-03-29 12:00", 23),
        ("Europe/Berlin", "2026-10-25 12:00", 25),
        ("Europe/Berlin", "2026-07-01 12:00", 24),
        ("Australia/Lord_Howe", "2026-10-04 12:00", 23.5),
        ("Australia/Lord_Howe", "2026-04-05 12:00", 24.5),
        ("Africa/Casablanca", "2026-02-15 12:00", 25),
        ("Asia/Kathmandu", "2026-03-29 12:00", 24),
        ("UTC", "2026-03-29 12:00", 24),
    ],
)
def test_a_rolling_day_begins_at_the_same_time_of_yesterday(zone, now, hours):
    start, end = span("day", "rolling", zone, at(zone, now))
    assert end - start == timedelta(hours=hours)


@pytest.mark.parametrize(
    ("period", "zone", "now", "start"),
    [
        # 02:30 never was on 29 March, and came twice on 25 October.
        ("day", "Europe/Berlin", "2026-03-30 02:30", "2026-03-29 00:30+00:00"),
        ("day", "Europe/Berlin", "2026-10-26 02:30", "2026-10-25 00:30+00:00"),
        ("week", "Europe/Berlin", "2026-11-01 02:30", "2026-10-25 00:30+00:00"),
        ("month", "Europe/Berlin", "2026-04-29 02:30", "2026-03-29 00:30+00:00"),
        ("month", "Europe/Berlin", "2026-11-25 02:30", "2026-10-25 00:30+00:00"),
        ("day", "Pacific/Apia", "2011-12-31 10:00", "2011-12-29 20:00+00:00"),
    ],
)
def test_a_start_that_was_twice_or_never_is_the_earlier_one(period, zone, now, start):
    assert span(period, "rolling", zone, at(zone, now))[0] == datetime.fromisoformat(start)


@pytest.mark.parametrize(
    ("period", "zone", "now", "start"),
    [
        ("hour", "UTC", "2026-03-31 12:34:56.789", "2026-03-31 12:00:00"),
        ("day", "Europe/Berlin", "2026-03-29 12:34", "2026-03-29 00:00:00"),
        ("week", "Europe/Berlin", "2026-03-29 23:59", "2026-03-23 00:00:00"),
        ("week", "Europe/Berlin", "2026-03-30 00:00", "2026-03-30 00:00:00"),
        ("week", "UTC", "2027-01-01 12:00", "2026-12-28 00:00:00"),
        ("month", "Europe/Berlin", "2026-03-31 12:00", "2026-03-01 00:00:00"),
        ("hour", "Asia/Kathmandu", "2026-03-31 12:34", "2026-03-31 12:00:00"),
        ("day", "Africa/Cairo", "2026-04-24 12:00", "2026-04-24 01:00:00"),  # had no midnight
        ("hour", "Australia/Lord_Howe", "2026-10-04 02:45", "2026-10-04 02:30:00"),
        ("day", "Pacific/Apia", "2011-12-31 10:00", "2011-12-31 00:00:00"),
    ],
)
def test_a_calendar_period_begins_with_its_first_instant(period, zone, now, start):
    found, end = span(period, "calendar", zone, at(zone, now))
    assert (shown(found, zone), end) == (start, at(zone, now))


def test_an_hour_that_comes_twice_is_two_hours():
    for fold, start in ((0, "2026-10-25 00:00+00:00"), (1, "2026-10-25 01:00+00:00")):
        now = at("Europe/Berlin", "2026-10-25 02:20", fold)
        found, _ = span("hour", "calendar", "Europe/Berlin", now)
        assert found == datetime.fromisoformat(start)


def test_half_an_hour_that_comes_twice_makes_an_hour_longer():
    now = at("Australia/Lord_Howe", "2026-04-05 01:45", fold=1)
    start, end = span("hour", "calendar", "Australia/Lord_Howe", now)
    assert end - start == timedelta(minutes=75)


def test_the_day_before_one_that_follows_none():
    start, end = previous("day", "calendar", "Pacific/Apia", at("Pacific/Apia", "2011-12-31 10:00"))
    assert shown(start, "Pacific/Apia") == "2011-12-29 00:00:00"
    assert end - start == timedelta(hours=24)


def test_week_over_week():
    now = at("Europe/Berlin", "2026-04-01 09:00")
    last = previous("week", "calendar", "Europe/Berlin", now)
    assert [shown(m, "Europe/Berlin") for m in last] == [
        "2026-03-23 00:00:00", "2026-03-30 00:00:00",
    ]  # fmt: skip
    assert last[1] - last[0] == timedelta(days=7, hours=-1)  # the clocks went forward


def test_the_rolling_month_before():
    start, end = previous("month", "rolling", "UTC", at("UTC", "2026-03-31 12:00"))
    assert (start, end) == (at("UTC", "2026-01-28 12:00"), at("UTC", "2026-02-28 12:00"))


# --- laws ---------------------------------------------------------------------------------------


@patiently(max_examples=400)
@given(st.sampled_from(PERIODS), st.sampled_from(KINDS), zones, instants)
def test_a_span_ends_now_and_the_one_before_where_it_begins(period, kind, zone, now):
    start, end = span(period, kind, zone, now)
    assert end == now
    assert start < end or (kind == "calendar" and start == end)
    before, until = previous(period, kind, zone, now)
    assert before < until == start
    assert {m.tzinfo for m in (before, start, end)} == {UTC}


LENGTHS = {"hour": (1, 1), "day": (24, 24), "week": (168, 168), "month": (28 * 24, 31 * 24)}


@patiently(max_examples=400)
@given(st.sampled_from(PERIODS), zones, instants)
def test_a_rolling_span_is_as_long_as_its_name_says(period, zone, now):
    start, end = span(period, "rolling", zone, now)
    least, most = LENGTHS[period]
    slack_h = 0 if period == "hour" else 25 if zone == "Pacific/Apia" else 1
    assert least - slack_h <= (end - start) / timedelta(hours=1) <= most + slack_h
    walls = [m.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for m in (start, end)]
    if period == "day" and end - start != timedelta(days=1):  # else that time never was
        assert walls[1] - walls[0] == timedelta(days=1)


@patiently(max_examples=400)
@given(st.sampled_from(("day", "week", "month")), zones, instants)
def test_calendar_periods_follow_one_another_without_gap_or_overlap(period, zone, now):
    """Whatever instant of it one asks at, a period begins where the one before it ended."""
    start, _ = span(period, "calendar", zone, now)
    assert span(period, "calendar", zone, start) == (start, start)
    assert previous(period, "calendar", zone, now) == span(
        period, "calendar", zone, start - timedelta(microseconds=1)
    )[:1] + (start,)
    midnight = start.astimezone(ZoneInfo(zone))
    just_before = (start - timedelta(microseconds=1)).astimezone(ZoneInfo(zone))
    assert just_before.date() < midnight.date()


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("year", "rolling", "UTC"), "period 'year' is not one of hour, day, week, month"),
        (("day", "sliding", "UTC"), "kind 'sliding' is not one of rolling, calendar"),
        (("day", "rolling", "Europe/Bonn"), "'Europe/Bonn' is no time zone that is known here"),
        (("day", "rolling", "../UTC"), "'../UTC' is no time zone that is known here"),
    ],
)
def test_what_is_unknown_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        span(*arguments, datetime(2026, 1, 1, tzinfo=UTC))


def test_a_naive_time_is_refused():
    with pytest.raises(ValueError, match="now needs a time zone"):
        span("day", "rolling", "UTC", datetime(2026, 1, 1))
