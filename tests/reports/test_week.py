"""ISO weeks of a zone."""

from __future__ import annotations

import datetime as dt

import pytest

from pbmon.reports.week import Week, newest, parse

HOUR = 3_600_000_000


@pytest.mark.parametrize(
    ("name", "monday"),
    [
        ("2026-W47", dt.date(2026, 11, 16)),
        ("2026W01", dt.date(2025, 12, 29)),
        ("2020-W53", dt.date(2020, 12, 28)),
    ],
)
def test_a_name_is_a_monday(name, monday):
    assert parse(name) == monday
    assert Week(monday, "UTC").name.replace("-", "") == name.replace("-", "")


@pytest.mark.parametrize(
    "name", ["", "2026-47", "2026-W54", "2025-W53", "2026-W00", "1999-W01", "2026-W1", "٢٠٢٦-W01"]
)
def test_what_is_no_week(name):
    with pytest.raises(ValueError, match=r"no ISO week|[Ii]nvalid week"):
        parse(name)


def test_days_are_as_long_as_the_clock_on_the_wall_says():
    week = Week(dt.date(2026, 10, 19), "Europe/Berlin")
    lengths = [end - start for start, end in map(week.bounds, week.days)]
    assert [length // HOUR for length in lengths] == [24] * 6 + [25]
    assert week.end - week.start == sum(lengths)
    assert week.before.end == week.start


@pytest.mark.parametrize(
    ("zone", "now", "name"),
    [
        ("UTC", dt.datetime(2026, 11, 22, 23, 59, tzinfo=dt.timezone.utc), "2026-W46"),
        ("UTC", dt.datetime(2026, 11, 23, tzinfo=dt.timezone.utc), "2026-W47"),
        ("Asia/Kolkata", dt.datetime(2026, 11, 22, 19, tzinfo=dt.timezone.utc), "2026-W47"),
        ("America/New_York", dt.datetime(2026, 11, 23, 4, tzinfo=dt.timezone.utc), "2026-W46"),
    ],
)
def test_the_newest_week_is_over_where_it_is_lived(zone, now, name):
    assert newest(zone, now).name == name
