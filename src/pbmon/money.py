"""Amounts of money: exact integers of minor units with an ISO 4217 code; the shape of exchange
rates. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import NamedTuple, Protocol

MAX_MINOR_UNITS = 10**15
"""Largest amount taken, in minor units: ten trillion dollars, and exact as a float64."""

_MAX_DIGITS = 15
_TOO_LARGE = f"amount is above {MAX_MINOR_UNITS} minor units"


class AmountError(ValueError):
    """An amount or currency that can't be counted. reason: a short fixed word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@lru_cache(maxsize=256)
def exponent(currency: str) -> int:
    """Decimal places of a currency's minor unit: USD 2, JPY 0, KWD 3 (ISO 4217).

    Raises AmountError (unknown_currency) for a code that ISO 4217 does not have, or one
    without a minor unit, such as gold (XAU).
    """
    from iso4217 import Currency  # loads its table, 0.1 s: only who counts money pays

    try:
        places = Currency(currency).exponent
    except ValueError:
        places = None
    if places is None:
        raise AmountError(
            "unknown_currency",
            f"currency {currency[:16]!r} is not in ISO 4217; write a code such as USD",
        )
    return int(places)


def minor_units(amount: Decimal | int | str, currency: str) -> int:
    """An amount in major units as an integer of minor units: ("12.50", "EUR") → 1250.

    A float is a TypeError: 0.1 has no exact value. Raises AmountError, with reason
    invalid_amount, negative_amount, too_precise (more decimals than the currency has),
    too_large or unknown_currency.
    """
    if isinstance(amount, bool) or not isinstance(amount, (Decimal, int, str)):
        raise TypeError(f"amount must be Decimal, int or str, not {type(amount).__name__}")
    if not isinstance(currency, str):
        raise TypeError(f"currency must be str, not {type(currency).__name__}")
    places = exponent(currency)
    value = _parsed(amount)
    if not value.is_finite():
        raise AmountError("invalid_amount", "amount is no number; write for example '12.50'")
    if value < 0:
        raise AmountError("negative_amount", "amount is negative; a charge is 0 or more")
    # By its digits, not by Decimal's arithmetic: that rounds to the context's precision, which
    # is the application's to set. The exponent comes first: 1E+999999 must build no huge integer.
    digits = "".join(map(str, value.as_tuple().digits)).rstrip("0")
    if not digits:
        return 0
    decimals = len(digits) - 1 - value.adjusted()
    if value.adjusted() > _MAX_DIGITS:
        raise AmountError("too_large", _TOO_LARGE)
    if decimals > places:
        raise AmountError(
            "too_precise", f"amount has more decimals than the {places} that {currency} has"
        )
    minor: int = int(digits) * 10 ** (places - decimals)
    if minor > MAX_MINOR_UNITS:
        raise AmountError("too_large", _TOO_LARGE)
    return minor


def _parsed(amount: Decimal | int | str) -> Decimal:
    """NaN for a text that is no plain number. Python's own spellings, `1_000` and digits of
    other scripts, are none in a ledger."""
    if isinstance(amount, str) and (len(amount) > 64 or not amount.isascii() or "_" in amount):
        return Decimal("NaN")
    try:
        return Decimal(amount)
    except InvalidOperation:
        return Decimal("NaN")


def major_units(minor: int, currency: str) -> float:
    """Minor units as the nearest float of major units, for a metric's value."""
    return float(minor / 10 ** exponent(currency))


# --- exchange rates ---


class Rate(NamedTuple):
    """What one unit of a currency was worth on a day."""

    value: Decimal
    """Units of the base currency for one of the other."""
    day: date
    """Of which the rate is: on a weekend the last one on which rates were published."""
    source: str
    """Whose word it is, such as `ecb`; at most 32 characters."""


class Rates(Protocol):
    """Where exchange rates come from. Used by one thread at a time."""

    def rate(self, currency: str, base: str, day: date) -> Rate | None:
        """The newest rate known for that day, never a later one; None where there is none. Looks
        at what is in memory only, and never raises."""
        ...

    def refresh(self, wanted: Iterable[tuple[str, date]]) -> None:
        """Get what is needed to answer for these currencies and days. May read files and ask
        other machines, so it is called outside of any transaction."""
        ...
