"""How figures read, the same in the terminal and on the page."""

from __future__ import annotations

from decimal import Decimal

from examples.pocketbook.money import PLACES
from examples.pocketbook.summary import Limit

WINDOWS = {"24h": "24 hours", "7d": "7 days", "30d": "30 days"}


def duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    if seconds >= 0.0995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds * 1000:.1f} ms"


def money(value: Decimal, currency: str) -> str:
    return f"{value:,.{PLACES.get(currency, 2)}f}"


def share(value: float) -> str:
    return f"{value * 100:.1f} %"


def promise(limit: Limit) -> str:
    """`p95 ≤ 300 ms`, as the budget says it."""
    if limit.threshold_s is None:
        return f"{limit.name} ≥ {1 - limit.allowed:.3%}"
    return f"{limit.name} ≤ {duration(limit.threshold_s)}"


def error_type(name: str) -> str:
    """An exception's class with the module it is in, without the packages around them."""
    return ".".join(name.split(".")[-2:])
