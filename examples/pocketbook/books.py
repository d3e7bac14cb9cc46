"""The load generator's own books: what it sent and what that means for the business. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from examples.pocketbook.money import PLACES
from examples.pocketbook.rates import BASE, EUROS

Feature = tuple[str, str]


@dataclass(frozen=True)
class Money:
    """One transaction of the ledger. amount: above 0, but of an adjustment."""

    kind: str
    currency: str
    amount: Decimal
    status: str = "completed"
    charge: Decimal | None = None
    """Amount of the charge of which this went back."""

    @property
    def in_base(self) -> Decimal:
        """By the rate of its charge where there is one, each rounded to the cent for itself."""
        if self.charge is None:
            return _cents(self.amount * EUROS[self.currency])
        return _cents(_cents(self.charge * EUROS[self.currency]) * self.amount / self.charge)


def _cents(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal(1).scaleb(-PLACES[BASE]), ROUND_HALF_EVEN)


@dataclass(frozen=True)
class Call:
    """One request, and what it means for the business if it succeeds."""

    method: str
    path: str
    params: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    simulate: str | None = None
    user_id: int | None = None
    money: Money | None = None
    features: tuple[Feature, ...] = ()
    score: int | None = None
    then: Call | None = None
    """What follows, its path filled in from the answer."""


@dataclass
class Amounts:
    """gross: what came in; returned: what went out again, above 0."""

    gross: Decimal = Decimal(0)
    returned: Decimal = Decimal(0)

    def add(self, kind: str, amount: Decimal) -> None:
        if kind in ("refund", "chargeback") or amount < 0:
            self.returned += abs(amount)
        else:
            self.gross += amount


@dataclass
class Sent:
    """Everything that was answered. shy: the user of whom nothing may be kept."""

    shy: int | None = None
    requests: int = 0
    websockets: int = 0
    lost: int = 0
    """Requests and WebSockets without an answer: nobody knows whether the app has seen them."""
    statuses: Counter[int] = field(default_factory=Counter)
    transactions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By kind and status."""
    revenue: defaultdict[str, Amounts] = field(default_factory=lambda: defaultdict(Amounts))
    base: Amounts = field(default_factory=Amounts)
    features: Counter[Feature] = field(default_factory=Counter)
    users: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Feature → who used it and may be known."""
    active: set[int] = field(default_factory=set)
    """Who did anything that is kept."""
    variants: dict[int, str] = field(default_factory=dict)
    """User → what they were shown."""
    scores: list[tuple[int | None, int]] = field(default_factory=list)
    """User and what they answered."""

    def add(self, call: Call, status: int, answer: Mapping[str, Any]) -> None:
        self.requests += 1
        self.statuses[status] += 1
        if status >= 400:
            return
        for feature in call.features:
            self.use(feature, call.user_id)
        if call.money is not None:
            self._book(call.money, call.user_id)
        if "layout" in answer and call.user_id is not None:
            self.variants[call.user_id] = answer["layout"]
        if call.score is not None:
            self.scores.append((call.user_id, call.score))

    def use(self, feature: Feature, user_id: int | None) -> None:
        self.features[feature] += 1
        if user_id is not None and self._meet(user_id):
            self.users[feature[0]].add(user_id)

    def _book(self, money: Money, user_id: int | None) -> None:
        self.transactions[money.kind, money.status] += 1
        if user_id is not None:
            self._meet(user_id)
        if money.status == "completed":
            self.revenue[money.currency].add(money.kind, money.amount)
            self.base.add(money.kind, money.in_base)

    def _meet(self, user_id: int) -> bool:
        """Somebody is active; whether anything of it is kept."""
        if user_id == self.shy:
            return False
        self.active.add(user_id)
        return True
