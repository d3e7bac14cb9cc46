"""A table in a terminal."""

from __future__ import annotations

from decimal import Decimal

from pbmon.reports.page import Amount, Table
from pbmon.reports.text import write_table
from tests.reports.samples import NASTY


def test_numbers_stand_on_the_right_and_names_on_the_left():
    rows = [("a", Amount(Decimal("1234.50"), "USD"), "x"), ("long name", Amount(None), "")]
    assert list(write_table(Table(("name", "amount", "of"), rows))) == [
        "name             amount  of",
        "a          1,234.50 USD  x",
        "long name             –",
    ]


def test_what_people_wrote_commands_no_terminal():
    lines = list(write_table(Table(("name",), [(NASTY,)])))
    assert len(lines) == 2
    assert "\x1b" not in lines[1]
