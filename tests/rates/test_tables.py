"""What is read of an answer, and what is not."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon.rates.tables import Table, table_of
from tests.patience import patiently

GOOD = {"amount": 1.0, "base": "EUR", "date": "2026-10-30", "rates": {"USD": 1.1172, "JPY": 175}}


def read(value):
    text = value if isinstance(value, str) else json.dumps(value)
    return table_of(json.loads(text, parse_float=Decimal, parse_int=Decimal))


def test_a_table_keeps_the_digits():
    table = read(GOOD)
    assert (table.day, table.base) == (date(2026, 10, 30), "EUR")
    assert {code: str(rate) for code, rate in table.rates.items()} == {
        "USD": "1.1172", "JPY": "175",
    }  # fmt: skip
    assert str(table.value("EUR", "USD")) == "1.1172"
    assert str(table.value("USD", "JPY")) == "156.64160401002506266"
    assert table.value("USD", "GBP") is table.value("GBP", "USD") is None


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"rates": None}, "no table of rates"),
        ({"rates": ["USD"]}, "no table of rates"),
        ({"base": None}, "does not say what its rates are for one unit of"),
        ({"base": "eur"}, "does not say what its rates are for one unit of"),
        ({"amount": 100}, "does not say what its rates are for one unit of"),
        ({"date": None}, "does not say of which day"),
        ({"date": "yesterday"}, "does not say of which day"),
        ({"date": 20261030}, "does not say of which day"),
        ({"date": "20261030"}, "does not say of which day"),
        ({"date": "2026-02-30"}, "does not say of which day"),
    ],
)
def test_what_is_no_table_is_refused(change, fault):
    with pytest.raises(ValueError, match=fault):
        read({**GOOD, **change})


@pytest.mark.parametrize("value", ["[]", "1", '"x"', "null", "{}"])
def test_what_is_no_object_is_refused(value):
    with pytest.raises(ValueError, match="no table of rates"):
        read(value)


@pytest.mark.parametrize(
    "rate",
    ["0", "-1.5", "null", "true", '"x"', '"NaN"', '"-Infinity"', "[1]", "{}", "NaN", "Infinity",
     "1e13", "1e-13", "1e999999", '"1_000 "', f"1.{'3' * 50}"],
)  # fmt: skip
def test_a_rate_that_is_no_plain_number_is_left_out(rate):
    rates = f'{{"USD": {rate}, "GBP": 0.8, "gbp": 1, "": 1}}'
    text = f'{{"base": "EUR", "date": "2026-10-30", "rates": {rates}}}'
    assert read(text).rates == {"GBP": Decimal("0.8")}


def test_numbers_may_be_texts():
    assert read({**GOOD, "rates": {"USD": "1.1172"}}).rates == {"USD": Decimal("1.1172")}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@patiently(max_examples=100)
@given(st.dictionaries(st.sampled_from(["base", "date", "rates", "amount"]), values) | values)
def test_whatever_is_answered_is_a_table_or_a_value_error(value):
    try:
        found = read(value)
    except ValueError:
        return
    assert isinstance(found, Table)
    assert all(rate > 0 for rate in found.rates.values())
