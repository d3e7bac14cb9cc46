"""Does the store agree with others? Amounts of each day in, findings out. Pure.

A day in Prometheus ends with the last export in it: what counted after that shows on the next day.
So the days are compared as they follow each other. Of each midnight it is known how much may have
been on its way, the *tail*: what counted within one export before it. A difference that fits what
was on its way at both ends of the day is `late`, and none.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum


class Finding(Enum):
    EQUAL = "agrees"
    LATE = "late by one export"
    CONVERTED = "converted on another day"
    NEIGHBOUR = "on the day beside it"
    MISSING = "missing in Prometheus"
    MORE = "more in Prometheus"
    SHIFTED = "in Prometheus on a later day"
    EARLIER = "of a day before, which Prometheus got late"
    NO_SAMPLES = "no samples"
    NOT_STORED = "missing in the store"
    ONLY_STORED = "more in the store"
    OTHER_AMOUNT = "as many, of another amount"
    NOT_OVER = "not over yet"
    BEFORE_STORE = "before the store was made"
    NOT_KEPT = "older than Prometheus keeps"


_NOT_COMPARED = {Finding.NOT_OVER, Finding.BEFORE_STORE, Finding.NOT_KEPT}
_LOST = {Finding.MISSING, Finding.MORE, Finding.SHIFTED, Finding.EARLIER}
_NO_DIFFERENCE = {Finding.EQUAL, Finding.LATE, Finding.CONVERTED, Finding.NEIGHBOUR}


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of a day. ours: of the store. theirs: None where there is none. Both are minor
    units of `currency`, of which there are 10**exponent, or counts where it is empty."""

    day: dt.date
    figure: str
    currency: str
    exponent: int
    ours: int
    theirs: int | None
    finding: Finding

    @property
    def difference(self) -> int:
        return (self.theirs or 0) - self.ours

    @property
    def is_compared(self) -> bool:
        return self.finding not in _NOT_COMPARED

    @property
    def is_different(self) -> bool:
        if self.finding is Finding.NO_SAMPLES:
            return self.ours != 0
        return self.is_compared and self.finding not in _NO_DIFFERENCE


@dataclass(frozen=True, slots=True)
class Day:
    """outside: why it is not compared, if it is not."""

    day: dt.date
    outside: Finding | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of each day: what the store counted, what Prometheus shows (None: no samples), and
    one more tail than days, before the first and at the end of each.

    others: what of it is of other currencies, which Prometheus shows when there is a rate;
    others_ever: the same of all time.
    """

    name: str
    currency: str
    exponent: int
    ours: Sequence[int]
    theirs: Sequence[int | None]
    tails: Sequence[int]
    others: Sequence[int] = ()
    others_ever: int = 0

    def difference(self, i: int) -> int:
        return (self.theirs[i] or 0) - self.ours[i]


# --- with Prometheus, by the time counted ---


def compare(days: Sequence[Day], figures: Sequence[Figure]) -> list[Row]:
    """Rows by day. The last figure is the number of transactions, which no conversion changes."""
    found = [_findings(days, figure) for figure in figures]
    numbers = found[-1]
    for figure, of_it in zip(figures[:-1], found, strict=False):
        for i, finding in enumerate(of_it):
            if (
                finding in _LOST
                and numbers[i] in _NO_DIFFERENCE
                and -figure.others[i] <= figure.difference(i) <= figure.others_ever
            ):
                of_it[i] = Finding.CONVERTED
    return [
        Row(
            day.day, each.name, each.currency, each.exponent, each.ours[i], each.theirs[i], of_it[i]
        )
        for i, day in enumerate(days)
        for each, of_it in zip(figures, found, strict=True)
    ]


def _findings(days: Sequence[Day], figure: Figure) -> list[Finding]:
    found: list[Finding] = []
    # What is on its way at the end of each day, as far as it is known.
    least, most = 0, figure.tails[0]
    for i, day in enumerate(days):
        difference, tail = figure.difference(i), figure.tails[i + 1]
        least, most = max(least - difference, 0), min(most - difference, tail)
        fits = least <= most
        if not fits:
            least, most = 0, tail
        if day.outside is not None:
            found.append(day.outside)
        elif figure.theirs[i] is None:
            found.append(Finding.NO_SAMPLES)
        elif not difference:
            found.append(Finding.EQUAL)
            if not fits:
                _revoke(figure, found)
        elif fits:
            found.append(Finding.LATE)
        else:
            found.append(Finding.MISSING if difference < 0 else Finding.MORE)
    _match(figure, found)
    return found


def _revoke(figure: Figure, found: list[Finding]) -> None:
    """What was taken for late has not come."""
    for i in reversed(range(len(found))):
        if found[i] is Finding.LATE and figure.difference(i) < 0:
            found[i] = Finding.MISSING
            return


def _match(figure: Figure, found: list[Finding]) -> None:
    """What is missing of some days and is all there on a later one, was never lost."""
    waiting: list[int] = []
    for i, finding in enumerate(found):
        if finding in (Finding.MISSING, Finding.NO_SAMPLES):
            waiting.append(i)
        elif finding is Finding.MORE and waiting:
            owed = -sum(map(figure.difference, waiting))
            slack = figure.tails[waiting[0]] + figure.tails[i + 1]
            if owed and abs(figure.difference(i) - owed) <= slack:
                found[i] = Finding.EARLIER
                for j in waiting:
                    if found[j] is Finding.MISSING:
                        found[j] = Finding.SHIFTED
                waiting = []


# --- with the application, by the time occurred ---

Payments = Mapping[tuple[dt.date, str], tuple[int, int]]
"""Day and currency → amount in minor units, and how many."""


def compare_payments(
    days: Sequence[Day], made_on: dt.date, exponents: Mapping[str, int], ours: Payments,
    theirs: Payments,
) -> list[Row]:  # fmt: skip
    """Two rows for each day and currency that either side has: amount, and number. made_on: the
    day on which the store was made."""
    rows: list[Row] = []
    for day in days:
        for currency in sorted({c for d, c in (*ours, *theirs) if d == day.day}):
            (amount, count), (other, others) = (
                side.get((day.day, currency), (0, 0)) for side in (ours, theirs)
            )
            finding = _judge(amount, count, other, others)
            if day.outside is not None:
                finding = day.outside
            elif day.day <= made_on and finding is Finding.NOT_STORED:
                finding = Finding.BEFORE_STORE
            elif finding is not Finding.EQUAL:
                difference = (other - amount, others - count)
                for beside in (day.day - dt.timedelta(days=1), day.day + dt.timedelta(days=1)):
                    if _differ(beside, currency, ours, theirs) == tuple(-x for x in difference):
                        finding = Finding.NEIGHBOUR
            exponent = exponents[currency]
            rows += [
                Row(day.day, f"charges in {currency}", currency, exponent, amount, other, finding),
                Row(day.day, f"number in {currency}", "", 0, count, others, finding),
            ]
    return rows


def _differ(day: dt.date, currency: str, ours: Payments, theirs: Payments) -> tuple[int, int]:
    (amount, count), (other, others) = (
        side.get((day, currency), (0, 0)) for side in (ours, theirs)
    )
    return other - amount, others - count


def _judge(amount: int, count: int, other: int, others: int) -> Finding:
    if (amount, count) == (other, others):
        return Finding.EQUAL
    if count == others:
        return Finding.OTHER_AMOUNT
    return Finding.NOT_STORED if others > count else Finding.ONLY_STORED
