"""Amounts of money: `Decimal` text at the edge, integer minor units inside, never a float."""

from __future__ import annotations

from decimal import Decimal

PLACES = {"USD": 2, "EUR": 2, "GBP": 2, "CHF": 2, "JPY": 0, "KWD": 3}
"""The currencies Pocketbook keeps, with the decimal places of their minor unit (ISO 4217)."""

MAX_MINOR = 10**12


def to_minor(amount: Decimal, currency: str) -> int:
    """Major units as an integer of minor units: 12.50 EUR → 1250.

    Raises ValueError saying what would be right.
    """
    if currency not in PLACES:
        raise ValueError(f"currency must be one of {', '.join(PLACES)}")
    if not amount.is_finite() or amount <= 0:
        raise ValueError("amount must be above 0")
    if amount.adjusted() > 12:  # before scaling, which would write out an exponent of any size
        raise ValueError("amount is too large")
    scaled = amount.scaleb(PLACES[currency])
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{currency} has {PLACES[currency]} decimal places at most")
    if scaled > MAX_MINOR:
        raise ValueError("amount is too large")
    return int(scaled)


def to_major(minor: int, currency: str) -> Decimal:
    """Minor units as the exact amount in major units, with all its decimal places."""
    return Decimal(minor).scaleb(-PLACES[currency])
