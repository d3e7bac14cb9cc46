"""The load generator's books against the telemetry's: equal, or something was lost. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from examples.pocketbook.summary import Summary
from examples.pocketbook.traffic import Sent
from examples.pocketbook.wording import money


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


def compare(sent: Sent, summary: Summary, *, probes: int = 0) -> list[Check]:
    """probes: requests made beside the traffic, such as the one for readiness."""
    requests = sent.requests + probes
    checks = [
        Check("requests (spans)", f"{requests:,}", f"{summary.requests:,}"),
        Check("requests (histogram)", f"{requests:,}", f"{summary.counted:,}"),
        Check("WebSockets", f"{sent.websockets:,}", f"{summary.sessions:,}"),
        Check("WebSockets left open", "0", f"{sum(w.open_now for w in summary.websockets):,}"),
    ]
    server_errors = sum(count for status, count in sent.statuses.items() if status >= 500)
    checks.append(Check("answers 5xx", f"{server_errors:,}", f"{summary.server_errors:,}"))
    used = sum(sent.features.values())
    shown = sum(sum(actions.values()) for actions in summary.features.values())
    checks.append(Check("feature uses", f"{used:,}", f"{shown:,}"))
    checks += [
        Check(
            f"{currency} of sales",
            money(sent.revenue.get(currency, Decimal(0)), currency),
            money(summary.revenue.get(currency, Decimal(0)), currency),
        )
        for currency in sorted(sent.revenue.keys() | summary.revenue.keys())
    ]
    # Nobody sends these; but a figure that is missing must not go unnoticed.
    checks.append(Check("look-backs of active users", "3", f"{len(summary.active_users)}"))
    if sent.lost:  # then the counts above may differ by as many, and nobody can tell
        checks.append(Check("requests without an answer", "0", f"{sent.lost:,}"))
    return checks
