"""What a report is made of, whatever it is written as. Pure.

A report's numbers stay numbers up to here; `shown` is the one place that makes them text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Number = int | float | Decimal

HIDDEN = "few people"
"""In the place of a figure about fewer people than may be told (privacy.K)."""

NONE = "–"

_SMALL = 0.1
"""Percent: of less, one decimal says nothing."""


@dataclass(frozen=True, slots=True)
class Amount:
    """A number with its unit, or none where there is no number.

    unit: an ISO 4217 code, "s", "%" (value 0.25 is 25 %), "points", or "" for a count.
    hidden: there is a number, of too few people to be told.
    """

    value: Number | None
    unit: str = ""
    hidden: bool = False


def of_people(count: int | None) -> Amount:
    """A number of people as the store tells it. None: they are few, or may be."""
    return Amount(count, hidden=count is None)


@dataclass(frozen=True, slots=True)
class Headline:
    """One number of the week and the same of the week before."""

    name: str
    now: Amount
    before: Amount


Cell = str | Amount


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of as many cells as there are columns; the first column names the row."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """series: name → one value for each label; None is a gap. unit: as Amount's.

    title: what a reader who can't see the picture reads in its place.
    """

    title: str
    kind: Literal["bars", "lines"]
    labels: Sequence[str]
    series: Mapping[str, Sequence[Number | None]]
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """notes: sentences below the title; what a reader must know to trust the numbers."""

    title: str
    notes: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True, slots=True)
class Page:
    title: str
    subtitle: str
    headlines: Sequence[Headline]
    sections: Sequence[Section]
    times: tuple[str, str] = ("this week", "week before")
    """What the numbers of the headlines are of: now and before."""


def shown(cell: Cell) -> str:
    """`1,234.50 USD`, `25.0 %`, `1,234`; `–` for no number."""
    if isinstance(cell, str):
        return cell
    if cell.hidden:
        return HIDDEN
    if cell.value is None:
        return NONE
    return _number(cell.value, cell.unit)


def _number(value: Number, unit: str) -> str:
    if unit == "%":
        percent = float(value) * 100
        return f"{percent:.2g} %" if 0 < abs(percent) < _SMALL else f"{percent:.1f} %"
    if unit == "points":
        return f"{float(value):+.0f}"
    text = f"{value:,}" if isinstance(value, int | Decimal) else f"{value:,.1f}"
    return f"{text} {unit}" if unit else text


def change(headline: Headline) -> str:
    """Week over week: `+12.3 %` of a quantity, `+1.2 points` of a share; `–` where it can't be
    said, `new` where there was nothing before."""
    now, before = headline.now, headline.before
    if now.hidden or before.hidden or now.value is None or before.value is None:
        return NONE
    if now.unit in ("%", "points"):
        scale = 100 if now.unit == "%" else 1
        difference = (float(now.value) - float(before.value)) * scale
        return f"{difference:+.1f} points"
    if not before.value:
        return "new" if now.value else "±0"
    difference = (float(now.value) - float(before.value)) / abs(float(before.value))
    return f"{difference:+.1%}".replace("%", " %")
