from __future__ import annotations

from decimal import Decimal

import pytest

from examples.pocketbook.money import PLACES, to_major, to_minor


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [("12.50", "EUR", 1250), ("0.01", "USD", 1), ("7", "JPY", 7), ("1.125", "KWD", 1125)],
)
def test_there_and_back(amount, currency, minor):
    assert to_minor(Decimal(amount), currency) == minor
    assert to_major(minor, currency) == Decimal(amount)


@pytest.mark.parametrize(
    ("amount", "currency", "problem"),
    [
        ("0", "EUR", "above 0"),
        ("-1", "EUR", "above 0"),
        ("NaN", "EUR", "above 0"),
        ("0.001", "EUR", "2 decimal places"),
        ("1E+999999", "EUR", "too large"),
        ("10000000000.01", "EUR", "too large"),
        ("1", "XXX", "must be one of"),
    ],
)
def test_what_is_no_amount(amount, currency, problem):
    with pytest.raises(ValueError, match=problem):
        to_minor(Decimal(amount), currency)


def test_the_places_are_those_of_iso_4217():
    from iso4217 import Currency

    assert {code: Currency(code).exponent for code in PLACES} == PLACES
