"""The rates of one day, and what two of them say of each other. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

PRECISION = 20
"""Significant digits of a rate between two currencies, rounded half to even."""

NO_TABLE = "an answer that is no table of rates"

# Not the thread's context, which is the application's to set.
_DIVISION = Context(prec=PRECISION, rounding=ROUND_HALF_EVEN)
_CODE = re.compile(r"[A-Z]{3}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TEXT = re.compile(r"[0-9]+(\.[0-9]+)?")
_LEAST, _MOST = Decimal("1E-12"), Decimal("1E+12")
_MOST_DIGITS = 40


def cross(per_unit: Callable[[str], Decimal | None], currency: str, base: str) -> Decimal | None:
    """Units of base for one of currency, where each is known per unit of a third."""
    one, other = per_unit(currency), per_unit(base)
    return None if one is None or other is None else _DIVISION.divide(other, one)


@dataclass(frozen=True, slots=True)
class Table:
    """day: when these rates were published."""

    day: date
    base: str
    rates: Mapping[str, Decimal]
    """Currency → units of it for one of base."""

    def value(self, currency: str, base: str) -> Decimal | None:
        return cross(self._per_unit, currency, base)

    def _per_unit(self, currency: str) -> Decimal | None:
        return Decimal(1) if currency == self.base else self.rates.get(currency)


def table_of(value: Any) -> Table:
    """From what JSON says: `{"base": "EUR", "date": "2026-10-30", "rates": {"USD": 1.1172}}`, with
    numbers read as Decimal, or texts.

    Raises ValueError where it is anything else. A single rate that is no plain positive number is
    left out.
    """
    if not isinstance(value, Mapping) or not isinstance(found := value.get("rates"), Mapping):
        raise ValueError(NO_TABLE)
    base, day = value.get("base"), value.get("date")
    if not isinstance(base, str) or not _CODE.fullmatch(base) or value.get("amount", 1) != 1:
        raise ValueError("an answer that does not say what its rates are for one unit of")
    try:
        # Python 3.11 reads other forms as well.
        known = isinstance(day, str) and _DAY.fullmatch(day)
        published = date.fromisoformat(known[0] if known else "")
    except ValueError:
        raise ValueError("an answer that does not say of which day it is") from None
    rates = {
        code: rate
        for code, number in found.items()
        if _CODE.fullmatch(code) and (rate := _plain(number)) is not None
    }
    return Table(published, base, rates)


def _plain(number: Any) -> Decimal | None:
    if isinstance(number, str) and _TEXT.fullmatch(number):
        number = Decimal(number)
    if not isinstance(number, Decimal) or len(number.as_tuple().digits) > _MOST_DIGITS:
        return None
    return number if number.is_finite() and _LEAST <= number <= _MOST else None
