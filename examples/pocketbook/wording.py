"""How figures read, the same in the terminal and on the page."""

from __future__ import annotations

from decimal import Decimal

from examples.pocketbook.business import FEW
from examples.pocketbook.money import PLACES
from examples.pocketbook.summary import Limit


def duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    if seconds >= 0.0995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds * 1000:.1f} ms"


def money(value: Decimal, currency: str) -> str:
    return f"{value:,.{PLACES.get(currency, 2)}f}"


def people(count: int | None) -> str:
    """As the store tells it, or would."""
    return "not told" if count is None or count < FEW else f"{count:,}"


def nps(figure: float | None) -> str:
    return "not told" if figure is None else f"{figure:+.1f}"


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


def transaction(kind: str, status: str) -> str:
    """What several are called; only a charge has more than one status."""
    return f"{status} charges" if kind == "charge" else f"{kind}s"
