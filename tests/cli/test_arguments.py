"""What the arguments of several commands have in common."""

from __future__ import annotations

import datetime as dt
from argparse import ArgumentTypeError

import pytest

from pbmon.cli import arguments

UTC = dt.timezone.utc


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("10", 10), ("007", 7)])
def test_a_whole_number(text, number):
    assert arguments.whole(1, 10)(text) == number


@pytest.mark.parametrize("text", ["0", "11", "-1", "1.0", "abc", "", "²", "9" * 5000])
def test_what_is_no_whole_number(text):
    with pytest.raises(ArgumentTypeError, match="is not a whole number, 1 to 10$"):
        arguments.whole(1, 10)(text)


@pytest.mark.parametrize(
    ("text", "length_s"), [("30m", 1800.0), ("7d", 604_800.0), ("0d", 0.0), ("300ms", 0.3)]
)
def test_a_length_of_time(text, length_s):
    assert arguments.length_s(text) == length_s


@pytest.mark.parametrize("text", ["d", "-1d", "1.5d", "soon", "9" * 400 + "d"])
def test_what_is_no_length_of_time(text):
    with pytest.raises(ValueError, match="is no duration"):
        arguments.length_s(text)


def test_a_moment_has_the_zone_it_names():
    assert arguments.moment("2026-11-24T12:30") == dt.datetime(2026, 11, 24, 12, 30)  # noqa: DTZ001
    assert arguments.moment("2026-11-24T12:30Z") == dt.datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
    with pytest.raises(ArgumentTypeError, match="'soon' is no time such as"):
        arguments.moment("soon")


def test_since_is_a_length_or_a_moment():
    before = dt.datetime.now(UTC)
    assert before <= arguments.since("2d") + dt.timedelta(days=2) <= dt.datetime.now(UTC)
    noon = dt.datetime(2026, 11, 24, 12, tzinfo=UTC)
    assert [arguments.since(f"2026-11-24T12:00{zone}") for zone in ("", "Z", "+00:00")] == [
        noon
    ] * 3
    for text in ("soon", "9" * 11 + "h"):
        with pytest.raises(ArgumentTypeError, match="is no length of time"):
            arguments.since(text)
