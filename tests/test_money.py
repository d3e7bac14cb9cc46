"""Money: exact minor units, checked against fractions, and the odd amounts of real life."""

from __future__ import annotations

import decimal
import enum
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon.money import (
    MAX_MINOR_UNITS,
    AmountError,
    converted,
    exponent,
    major,
    major_units,
    minor_units,
    rounded,
)
from tests.patience import patiently

PLACES = {"JPY": 0, "USD": 2, "EUR": 2, "KWD": 3, "CLF": 4}
currencies = st.sampled_from(sorted(PLACES))


def refusal(amount, currency="USD"):
    with pytest.raises(AmountError) as caught:
        minor_units(amount, currency)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value.reason


# --- currencies ---


@pytest.mark.parametrize(("currency", "places"), PLACES.items())
def test_exponents(currency, places):
    assert exponent(currency) == places


@pytest.mark.parametrize("currency", ["XAU", "XXX", "XTS"])
def test_codes_without_a_minor_unit_are_unknown(currency):
    assert refusal("1", currency) == "unknown_currency"


@pytest.mark.parametrize(
    "currency", ["", "usd", "US", "USDT", "DEM", "840", "ＵＳＤ", " USD", "US\nD", "\ud800"]
)
def test_what_is_no_code_is_unknown(currency):
    assert refusal("1", currency) == "unknown_currency"


def test_a_huge_currency_is_cut_in_the_message():
    with pytest.raises(AmountError) as caught:
        minor_units("1", "X" * 10_000)
    assert len(str(caught.value)) < 100


# --- amounts ---


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("12.50", "EUR", 1250),
        (Decimal("12.5"), "EUR", 1250),
        (12, "EUR", 1200),
        (12, "JPY", 12),
        ("0.001", "KWD", 1),
        ("0.0001", "CLF", 1),
        ("0", "USD", 0),
        ("-0", "USD", 0),
        (Decimal("-0.00"), "USD", 0),
        ("0E+999999", "USD", 0),
        ("0E-999999", "USD", 0),
        ("1.10000000000000000000000000000000000000", "USD", 110),
        ("1e3", "USD", 100_000),
        ("1E+3", "JPY", 1000),
        ("1500E-2", "JPY", 15),
        (" 12.50\n", "USD", 1250),
        ("+5", "USD", 500),
        (".5", "USD", 50),
        ("5.", "USD", 500),
        ("10000000000000.00", "USD", MAX_MINOR_UNITS),
        (MAX_MINOR_UNITS, "JPY", MAX_MINOR_UNITS),
    ],
)
def test_minor_units(amount, currency, minor):
    result = minor_units(amount, currency)
    assert (result, type(result)) == (minor, int)


@pytest.mark.parametrize(
    ("amount", "reason"),
    [
        ("", "invalid_amount"),
        (" ", "invalid_amount"),
        ("twelve", "invalid_amount"),
        ("1,000", "invalid_amount"),
        ("1.000,50", "invalid_amount"),
        ("$5", "invalid_amount"),
        ("5 USD", "invalid_amount"),
        ("0x10", "invalid_amount"),
        ("1_000", "invalid_amount"),
        ("١٢", "invalid_amount"),
        ("１２", "invalid_amount"),
        ("\u20031", "invalid_amount"),
        ("NaN", "invalid_amount"),
        (Decimal("NaN"), "invalid_amount"),
        (Decimal("sNaN"), "invalid_amount"),
        ("sNaN", "invalid_amount"),
        ("Infinity", "invalid_amount"),
        ("-inf", "invalid_amount"),
        (Decimal("Infinity"), "invalid_amount"),
        ("-0.01", "negative_amount"),
        (-1, "negative_amount"),
        ("-1E+999999", "negative_amount"),
        ("-1E-999999", "negative_amount"),
        ("0.001", "too_precise"),
        ("1E-999999", "too_precise"),
        ("1.0000000000000000000000000000000000001", "too_precise"),
        ("10000000000000.01", "too_large"),
        ("1E+16", "too_large"),
        ("1E+999999", "too_large"),
        (Decimal("1E+999999"), "too_large"),
        (10**30, "too_large"),
        ("9" * 60, "too_large"),
        ("9" * 3_000_000, "invalid_amount"),
    ],
)
def test_refused(amount, reason):
    assert refusal(amount) == reason


@pytest.mark.parametrize("amount", [1.5, True, None, b"1", [1], 1j, Fraction(1, 2)])
def test_a_wrong_type_is_a_type_error(amount):
    with pytest.raises(TypeError, match="amount must be Decimal, int or str, not"):
        minor_units(amount, "USD")


@pytest.mark.parametrize("currency", [None, 840, b"USD"])
def test_a_currency_of_the_wrong_type_is_a_type_error(currency):
    with pytest.raises(TypeError, match="currency must be str, not"):
        minor_units("1", currency)


def test_subclasses_count_as_what_they_are():
    class Text(str):
        __slots__ = ()

        def __str__(self):
            return "99"

    class Number(int):
        def __repr__(self):
            return "99"

    class Price(enum.IntEnum):
        BASIC = 7

    class Cents(Decimal):
        pass

    assert minor_units(Text("1.25"), Text("USD")) == 125
    assert minor_units(Number(3), "USD") == 300
    assert minor_units(Price.BASIC, "USD") == 700
    assert minor_units(Cents("0.05"), "USD") == 5


@pytest.mark.parametrize("amount", ["1E+999999999999", "1E-999999999999", "9E+999999"])
def test_a_huge_exponent_costs_nothing(amount):
    """Built as an integer, it would take the machine's whole memory."""
    assert refusal(amount) in ("too_large", "too_precise", "invalid_amount")


@patiently()
@given(st.decimals(min_value=0, max_value=10**11, allow_nan=False, places=6), currencies)
def test_exactly_what_the_fraction_says(amount, currency):
    scaled = Fraction(amount) * 10 ** PLACES[currency]
    if scaled.denominator == 1:
        assert minor_units(amount, currency) == scaled
        assert minor_units(str(amount), currency) == scaled
    else:
        assert refusal(amount, currency) == "too_precise"


@patiently()
@given(st.decimals(allow_nan=True, allow_infinity=True), currencies)
def test_any_decimal_is_exact_or_refused(amount, currency):
    try:
        minor = minor_units(amount, currency)
    except AmountError:
        return
    assert minor == Fraction(amount) * 10 ** PLACES[currency]
    assert 0 <= minor <= MAX_MINOR_UNITS


@patiently()
@given(st.text(max_size=12) | st.text(alphabet="0123456789.eE+-_ ", max_size=12), currencies)
def test_any_text_is_exact_or_refused(amount, currency):
    try:
        minor = minor_units(amount, currency)
    except AmountError:
        return
    assert minor == Fraction(Decimal(amount)) * 10 ** PLACES[currency]


@patiently()
@given(st.integers(min_value=-MAX_MINOR_UNITS, max_value=MAX_MINOR_UNITS), currencies)
def test_every_amount_of_minor_units_comes_back(minor, currency):
    amount = Decimal(minor).scaleb(-PLACES[currency])
    assert minor_units(amount, currency, signed=True) == minor
    assert major_units(minor, PLACES[currency]) == float(amount)
    assert major(minor, PLACES[currency]) == amount
    if minor < 0:
        with pytest.raises(AmountError) as refused:
            minor_units(amount, currency)
        assert refused.value.reason == "negative_amount"


def test_a_decimal_keeps_all_of_its_places_in_any_context():
    with decimal.localcontext() as context:
        context.prec = 3
        assert str(major(123_456_789, 2)) == "1234567.89"
        assert str(major(-1250, 2)) == "-12.50"
        assert str(major(7, 0)) == "7"


@patiently()
@given(st.integers(-(10**20), 10**20), st.integers(1, 10**12))
def test_rounding_is_half_to_even_and_exact(numerator, denominator):
    assert rounded(numerator, denominator) == round(Fraction(numerator, denominator))


@patiently()
@given(
    st.integers(-MAX_MINOR_UNITS, MAX_MINOR_UNITS),
    st.integers(0, 4),
    st.decimals("0.0000000001", "100000", places=10) | st.sampled_from([Decimal("1E+3")]),
    st.integers(0, 4),
)
def test_a_conversion_is_exact_but_for_one_rounding(minor, places, rate, base_places):
    exact = Fraction(minor, 10**places) * Fraction(rate) * 10**base_places
    assert converted(minor, places, rate, base_places) == round(exact)


def test_the_applications_decimal_context_changes_nothing():
    with decimal.localcontext() as context:
        context.prec = 3
        assert minor_units("12345678.91", "USD") == 1_234_567_891
        assert refusal("1.001") == "too_precise"
        context.traps[decimal.Inexact] = True
        assert minor_units("12345678.91", "USD") == 1_234_567_891
        context.traps[decimal.InvalidOperation] = False
        assert refusal("twelve") == "invalid_amount"


def test_major_units_is_the_nearest_float_even_of_a_sum_beyond_them():
    assert major_units(10**22 + 1, 2) == 1e20
    assert major_units(1, 0) == 1.0
