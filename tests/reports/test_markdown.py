"""Markdown says what the page says, whatever people wrote."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from pbmon.reports import markdown
from pbmon.reports.page import Amount, Page, Section, Table
from tests.patience import patiently
from tests.reports.samples import NASTY, PAGE


def test_headlines_are_a_table_with_the_change():
    lines = markdown.write(PAGE).splitlines()
    assert "| Net revenue | 1,234.50 USD | 1,000.00 USD | +23.4 % |" in lines
    assert "| NPS | +31 | -4 | +35.0 points |" in lines
    assert "| Active users | few people | 120 | – |" in lines


def test_plain_words_and_numbers_carry_no_backslashes():
    assert markdown.escape("Net (7 days), 12.5 %: -3") == "Net (7 days), 12.5 %: -3"


def test_what_people_wrote_stays_text():
    escaped = markdown.escape(NASTY)
    assert "\n" not in escaped
    assert "\x1b" not in escaped
    assert not re.search(r"(?<!\\)[<>*_`|\[\]#$]", escaped)
    assert markdown.escape("http://a www.b") == r"http\://a www\.b"


@given(st.text(max_size=60))
@patiently()
def test_a_cell_never_breaks_its_row(text):
    table = Table(("name", "count"), ((text, Amount(1)),))
    page = Page("t", "s", (), (Section("x", (), (), (table,)),))
    row = markdown.write(page).splitlines()[-2]
    assert row.startswith("| ")
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 3
    assert row.endswith("| 1 |")
