"""Local days, their beginnings and periods, in zones that change the clock at midnight too."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon import growth
from pbmon.growth import UserGrowth
from tests.patience import patiently

US = dt.timedelta(microseconds=1)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu",
    "Australia/Lord_Howe", "Africa/Cairo", "America/Havana", "America/Sao_Paulo", "Pacific/Chatham",
]  # fmt: skip
zones = st.sampled_from(ZONES).map(growth.zone)
days = st.dates(dt.date(2010, 1, 1), dt.date(2040, 12, 31))


@patiently()
@given(days, zones)
def test_a_day_is_from_its_start_to_the_start_of_the_next(day, zone):
    start = growth.start_of(day, zone)
    end = growth.start_of(day + dt.timedelta(days=1), zone)
    assert growth.day_of(start, zone) == growth.day_of(end - 1, zone) == day
    assert growth.day_of(start - 1, zone) == day - dt.timedelta(days=1)
    assert (end - start) // 3_600_000_000 in (23, 24, 25)


@patiently()
@given(st.integers(1_000_000_000_000_000, 2_000_000_000_000_000), zones)
def test_a_time_is_on_one_day(at, zone):
    day = growth.day_of(at, zone)
    assert growth.start_of(day, zone) <= at < growth.start_of(day + dt.timedelta(days=1), zone)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", dt.date(2026, 3, 29), 23),
        ("Europe/Berlin", dt.date(2026, 10, 25), 25),
        ("America/New_York", dt.date(2026, 3, 8), 23),
        ("America/New_York", dt.date(2026, 11, 1), 25),
        ("America/Havana", dt.date(2026, 3, 8), 23),  # from 0:00 to 1:00
        ("Asia/Kolkata", dt.date(2026, 3, 29), 24),
    ],
)
def test_days_on_which_the_clock_is_changed(zone, day, hours):
    where = growth.zone(zone)
    length = growth.start_of(day + dt.timedelta(days=1), where) - growth.start_of(day, where)
    assert length == hours * 3_600_000_000


def test_a_time_outside_the_calendar_overflows():
    for at in (2**62, -(2**62)):
        with pytest.raises(OverflowError):
            growth.day_of(at, growth.zone("UTC"))


@patiently()
@given(days, st.sampled_from(growth.PERIODS))
def test_periods_follow_each_other_without_a_gap(day, period):
    begin = growth.period_of(day, period)
    after = growth.following(begin, period)
    assert begin <= day < after
    assert growth.period_of(after, period) == after
    assert growth.period_of(after - dt.timedelta(days=1), period) == begin
    assert growth.following(day, period) == after or period != "month"
    if period == "week":
        assert begin.weekday() == 0


@given(st.none() | st.integers(0, 50), st.none() | st.integers(0, 50))
def test_a_share_is_from_0_to_1_or_unknown(part, whole):
    share = growth.share(part, whole)
    assert (share is None) == (part is None or not whole)
    assert share is None or 0 <= share <= 1


def figures(**known):
    unknown = dict.fromkeys(
        ("new", "active_24h", "active_7d", "active_30d", "churned", "before", "total",
         "reactivated")
    )  # fmt: skip
    where = {"day": dt.date(2026, 11, 24), "source": "activity", "timezone": "UTC"}
    return UserGrowth(**where, **unknown | known, computed_at=0)


def test_ratios():
    assert figures(before=40, churned=10).retention == 0.75
    assert figures(before=0, churned=0).retention is None
    assert figures(before=40).retention is None
    assert figures(active_24h=3, active_30d=12).stickiness == 0.25
    assert figures(active_24h=0, active_30d=0).stickiness is None
