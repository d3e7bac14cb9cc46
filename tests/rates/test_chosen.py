"""Which rates the settings mean, and how several are one."""

from __future__ import annotations

import logging
import re
import sys
import types
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from pbmon import signals
from pbmon.money import Rate
from pbmon.rates.chosen import Chosen, open_rates
from pbmon.settings import resolve
from pbmon.spool.directory import Home
from tests.telemetry.answers import Answers, http

DAY = date(2026, 10, 30)


@pytest.fixture(autouse=True)
def told(caplog):
    signals._last_told.clear()
    caplog.set_level(logging.WARNING, "pbmon.internal")
    return caplog


@pytest.fixture
def opened(tmp_path):
    home = Home(tmp_path, "shop")

    def open_(**keywords):
        settings, problems = resolve(keywords, {}, tmp_path)
        assert problems == []
        return open_rates(settings, home)

    yield open_
    home.close()


class Own:
    """A provider that answers what it was given."""

    def __init__(self, answer=None):
        self.answer = answer
        self.wanted = []

    def rate(self, currency, base, day):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def refresh(self, wanted):
        self.wanted.append(list(wanted))
        if isinstance(self.answer, Exception):
            raise self.answer


def of(value="2", day=DAY, source="own"):
    return Rate(Decimal(value), day, source)


# --- several ------------------------------------------------------------------------------------


def test_a_currency_in_itself_is_one():
    assert Chosen([]).rate("EUR", "EUR", DAY) == (Decimal(1), DAY, "same")
    assert Chosen([]).rate("EUR", "USD", DAY) is None


@pytest.mark.parametrize(
    ("answers", "taken"),
    [
        ([of("1"), of("2")], "1"),
        ([None, of("2")], "2"),
        ([of("1", DAY - timedelta(days=1)), of("2")], "2"),
        ([of("1", DAY - timedelta(days=1)), of("2", DAY - timedelta(days=1))], "1"),
        ([of("1", DAY - timedelta(days=1)), None, of("3", DAY - timedelta(days=2))], "1"),
        ([OSError("secret"), of("2")], "2"),
        ([of("0"), of("2")], "2"),
        ([of("-1"), of("2")], "2"),
        ([of("NaN"), of("2")], "2"),
        ([of("1", DAY + timedelta(days=1)), of("2")], "2"),
        ([(1.5, DAY, "float"), of("2")], "2"),
        (["nonsense", of("2")], "2"),
    ],
)
def test_the_newest_is_taken_of_the_first_who_has_it(answers, taken, told):
    rates = Chosen([Own(answer) for answer in answers])
    assert rates.rate("EUR", "USD", DAY).value == Decimal(taken)
    assert "secret" not in told.text


def test_a_fault_of_one_leaves_the_others(told):
    first, second = Own(OSError("hunter2")), Own(of())
    wanted = iter([("USD", DAY)])
    Chosen([first, second]).refresh(wanted)
    assert second.wanted == first.wanted == [[("USD", DAY)]]
    (line,) = told.messages
    assert line == "pbmon: the exchange rates of Own failed: OSError"


def test_a_source_is_cut():
    assert Chosen([Own(of(source="x" * 99))]).rate("EUR", "USD", DAY).source == "x" * 32


# --- the settings -------------------------------------------------------------------------------


def test_by_default_they_are_those_of_the_bank(opened):
    rates = opened()
    rates.refresh([("USD", DAY)])
    assert rates.rate("EUR", "USD", DAY) == (Decimal("1.1172"), DAY, "ecb")


def test_off_is_none(opened):
    rates = opened(rates="off")
    rates.refresh([("USD", DAY)])
    assert rates.rate("EUR", "USD", DAY) is None


def test_a_service_comes_before_the_bank_and_is_kept_in_the_state_directory(
    opened, tmp_path, monkeypatch
):
    body = b'{"base": "EUR", "date": "2026-10-30", "rates": {"USD": 1.5}}'
    with Answers(http(200, body)) as server:
        monkeypatch.setenv("RATES", server.url + "/{date}")
        rates = opened(rates="url", rates_url="env:RATES")
        rates.refresh([("USD", DAY), ("GBP", DAY)])
        assert rates.rate("EUR", "USD", DAY) == (Decimal("1.5"), DAY, "127.0.0.1")
        assert rates.rate("EUR", "GBP", DAY) == (Decimal("0.8338"), DAY, "ecb")
    assert len(list((tmp_path / "rates").glob("*.json"))) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rates": "url"}, '"url" needs rates_url, such as https://api.frankfurter.dev'),
        ({"rates": "url", "rates_url": "http://example.com/{date}"}, "must be https, or http to"),
        ({"rates": "url", "rates_url": "env:PBMON_TEST_ABSENT"}, "PBMON_TEST_ABSENT, which is not"),
        ({"rates": "no_such_module:x"}, "No module named 'no_such_module'"),
        ({"rates": "pbmon.money:absent"}, "has no attribute 'absent'"),
        ({"rates": "builtins:dict"}, "dict has no rate() and refresh()"),
        ({"rates": "builtins:iter"}, "rates: TypeError; until then"),
        ({"rates_url": "https://example.com/{date}"}, 'set rates = "url", which is ecb'),
    ],
)
def test_what_can_not_be_used_leaves_those_of_the_bank(opened, told, settings, words):
    rates = opened(**settings)
    rates.refresh([("USD", DAY)])
    assert rates.rate("EUR", "USD", DAY) == (Decimal("1.1172"), DAY, "ecb")
    assert words in told.text


def test_a_provider_of_the_applications_own(opened, monkeypatch):
    module = types.ModuleType("shop_rates")
    module.provider = types.SimpleNamespace(make=lambda: Own(of("3")))
    monkeypatch.setitem(sys.modules, "shop_rates", module)
    assert opened(rates="shop_rates:provider.make").rate("EUR", "USD", DAY).value == 3
    assert opened(rates=Own(of("4"))).rate("EUR", "USD", DAY).value == 4


def test_the_page_shows_settings_and_a_provider_that_work(opened, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "rates.md").read_text(encoding="utf-8")
    (provider,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    shop: dict = {}
    exec(provider, shop)
    rates = opened(rates=shop["Treasury"]())
    rates.refresh([("USD", DAY)])
    assert rates.rate("USD", "EUR", DAY) == (Decimal("0.92"), DAY, "treasury")
    for toml in re.findall(r"```toml\n(.*?)```", page, re.DOTALL):
        (tmp_path / "pbmon.toml").write_text(toml, encoding="utf-8")
        assert resolve({}, {}, tmp_path)[1] == []
