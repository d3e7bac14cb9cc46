"""Numbers as people read them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from pbmon.reports.page import Amount, Headline, change, shown


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (Amount(Decimal("1234.50"), "USD"), "1,234.50 USD"),
        (Amount(Decimal("-0.5"), "USD"), "-0.5 USD"),
        (Amount(12345, "JPY"), "12,345 JPY"),
        (Amount(0), "0"),
        (Amount(1234.56), "1,234.6"),
        (Amount(0.123456, "%"), "12.3 %"),
        (Amount(-31.4, "points"), "-31"),
        (Amount(31.5, "points"), "+32"),
        (Amount(None), "–"),
        (Amount(None, "USD"), "–"),
        (Amount(7, hidden=True), "few people"),
        ("a text", "a text"),
    ],
)
def test_shown(amount, text):
    assert shown(amount) == text


@pytest.mark.parametrize(
    ("now", "before", "text"),
    [
        (Amount(Decimal(1234)), Amount(Decimal(1000)), "+23.4 %"),
        (Amount(50), Amount(100), "-50.0 %"),
        (Amount(Decimal(10), "USD"), Amount(Decimal(-10), "USD"), "+200.0 %"),
        (Amount(1), Amount(0), "new"),
        (Amount(0), Amount(0), "±0"),
        (Amount(0.25, "%"), Amount(0.2, "%"), "+5.0 points"),
        (Amount(-4, "points"), Amount(31, "points"), "-35.0 points"),
        (Amount(None), Amount(1), "–"),
        (Amount(1), Amount(None), "–"),
        (Amount(20, hidden=True), Amount(10), "–"),
        (Amount(20), Amount(10, hidden=True), "–"),
    ],
)
def test_change(now, before, text):
    assert change(Headline("x", now, before)) == text
