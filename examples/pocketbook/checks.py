"""The load generator's books against the telemetry's and the store's: equal, or something was lost.
Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from examples.pocketbook.books import Amounts, Sent
from examples.pocketbook.business import FEW, Business
from examples.pocketbook.schema import USERS
from examples.pocketbook.summary import Summary
from examples.pocketbook.wording import money, nps, people, transaction


@dataclass(frozen=True)
class Check:
    what: str
    sent: str
    shown: str

    @property
    def ok(self) -> bool:
        return self.sent == self.shown

    def __str__(self) -> str:
        return f"{self.what}: sent {self.sent}, telemetry shows {self.shown}"


def compare(sent: Sent, summary: Summary, business: Business, *, probes: int = 0) -> list[Check]:
    """probes: requests made beside the traffic, such as the one for readiness."""
    return [
        *_requests(sent, summary, probes),
        *_money(sent, summary, business),
        *_people(sent, summary, business),
    ]


def _requests(sent: Sent, summary: Summary, probes: int) -> Iterator[Check]:
    requests = sent.requests + probes
    yield _count("requests (spans)", requests, summary.requests)
    yield _count("requests (histogram)", requests, summary.counted)
    yield _count("WebSockets", sent.websockets, summary.sessions)
    yield _count("WebSockets left open", 0, sum(w.open_now for w in summary.websockets))
    server_errors = sum(count for status, count in sent.statuses.items() if status >= 500)
    yield _count("answers 5xx", server_errors, summary.server_errors)
    if sent.lost:  # then every count may differ by as many, and nobody can tell
        yield _count("requests without an answer", 0, sent.lost)


def _money(sent: Sent, summary: Summary, business: Business) -> Iterator[Check]:
    base = business.currency
    metric = summary.revenue.get(base, Amounts())
    for place, found in (("metric", metric), ("store", business.revenue)):
        yield from _amounts(f"in {base} ({place})", base, sent.base, found)
    for currency in sorted(sent.revenue.keys() | business.by_currency.keys()):
        yield from _amounts(
            f"of {currency} (store)",
            currency,
            sent.revenue.get(currency, Amounts()),
            business.by_currency.get(currency, Amounts()),
        )
    yield _count("transactions that wait for a rate", 0, business.unconverted)
    yield _count("refunds without their charge", 0, business.held)
    for kind, status in sorted(sent.transactions.keys() | summary.transactions.keys()):
        key = kind, status
        what = transaction(kind, status)
        yield _count(what, sent.transactions[key], summary.transactions.get(key, 0))


def _amounts(where: str, currency: str, sent: Amounts, shown: Amounts) -> Iterator[Check]:
    yield Check(f"taken {where}", money(sent.gross, currency), money(shown.gross, currency))
    yield Check(
        f"given back {where}", money(sent.returned, currency), money(shown.returned, currency)
    )


def _people(sent: Sent, summary: Summary, business: Business) -> Iterator[Check]:
    used = sum(sent.features.values())
    yield _count("feature uses", used, sum(sum(a.values()) for a in summary.features.values()))
    yield Check("active people", people(len(sent.active)), people(business.active))
    # Nobody sends it; but a figure that is missing must not go unnoticed.
    yield Check("registered users", people(USERS), people(business.registered))
    found = {feature.name: feature.people for feature in business.features}
    for name in sorted(sent.users.keys() | found.keys()):
        yield Check(
            f"people who used {name}", people(len(sent.users[name])), people(found.get(name))
        )
    yield _count(f"people who met {business.experiment}", len(sent.variants), summary.exposures)
    met = Counter(variant for user, variant in sent.variants.items() if user != sent.shy)
    for variant in business.variants:
        yield Check(
            f"people with {variant.name}", people(met[variant.name]), people(variant.people)
        )
    yield _count("answers to NPS", len(sent.scores), summary.answers)
    kept = [(user, score) for user, score in sent.scores if user != sent.shy]
    is_told = len({user for user, _ in kept}) >= FEW
    yield Check(
        "answers that are kept", people(len(kept) if is_told else None), people(business.answers)
    )
    if business.nps is not None:  # where a few gave one score, it may not be told either
        yield Check("NPS", nps(_nps([score for _, score in kept])), nps(business.nps))


def _nps(scores: list[int]) -> float:
    return 100 * (sum(s >= 9 for s in scores) - sum(s <= 6 for s in scores)) / len(scores)


def _count(what: str, sent: int, shown: int) -> Check:
    return Check(what, f"{sent:,}", f"{shown:,}")
