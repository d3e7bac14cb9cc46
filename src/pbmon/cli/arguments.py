"""What the arguments of several commands have in common: whole numbers, times, lengths of time."""

from __future__ import annotations

import datetime as dt
from argparse import ArgumentTypeError
from collections.abc import Callable

from pbmon.budgets import seconds

DAY_S = 86_400.0


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """The parser of a whole number."""
    allowed = f"{least} or above" if most is None else f"{least} to {most}"

    def parse(text: str) -> int:
        number = int(text) if text.isdecimal() and len(text) < 20 else -1
        if number < least or (most is not None and number > most):
            raise ArgumentTypeError(f"{text[:50]!r} is not a whole number, {allowed}")
        return number

    return parse


def length_s(text: str) -> float:
    """Seconds of a length of time such as `30m`, `1h`, `7d`. Raises ValueError."""
    days = text.removesuffix("d")
    if days != text and days.isdecimal():
        return seconds(float(days) * DAY_S)
    return seconds(text)


def moment(text: str) -> dt.datetime:
    """Of ISO 8601, `Z` too; without a zone where it names none."""
    try:
        return dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ArgumentTypeError(
            f"{text!r} is no time such as 2026-11-24T12:30 or 2026-11-24T12:30+01:00"
        ) from None


def since(text: str) -> dt.datetime:
    """A length of time before now, or a moment, in UTC where it names no zone."""
    try:
        return dt.datetime.now(dt.timezone.utc) - dt.timedelta(seconds=length_s(text))
    except (ValueError, OverflowError):
        pass
    try:
        at = moment(text)
    except ArgumentTypeError:
        raise ArgumentTypeError(
            f"{text!r} is no length of time, such as 15m or 7d, and no time, such as "
            "2026-11-25T12:00+00:00"
        ) from None
    return at if at.utcoffset() is not None else at.replace(tzinfo=dt.timezone.utc)
