"""Ways to spoil a dashboard, for the tests of the lint."""

from __future__ import annotations

from collections.abc import Callable

from tests.grafana.lint import lint
from tests.grafana.panel_queries import load

Change = Callable[[dict], None]


def _places(*titles: str) -> list[int]:
    """Of panels of the business dashboard."""
    there = [panel["title"] for panel in load("business")["panels"]]
    return [there.index(title) for title in titles]


REVENUE, RATE, USERS, FEATURES = _places(
    "Revenue (24h)", "Transaction Rate", "Active Users", "Feature Usage"
)

SCOPE = 'service_name=~"$service", deployment_environment_name=~"$environment"'


def put(*path) -> Change:
    """Set the value at a path of keys; the last word is the value."""
    *keys, last, value = path

    def change(board):
        place = board
        for key in keys:
            place = place[key]
        place[last] = value

    return change


def drop(*path) -> Change:
    *keys, last = path

    def change(board):
        place = board
        for key in keys:
            place = place[key]
        del place[last]

    return change


def ask(expr: str, panel: int = REVENUE) -> Change:
    """Put another query into a panel; `@@` stands for the matchers of the scope."""
    return put("panels", panel, "targets", 0, "expr", expr.replace("@@", SCOPE))


def findings(change: Change, rule: str = "") -> list[str]:
    """What the lint finds (by one rule) in the business dashboard after the change."""
    board = load("business")
    change(board)
    return [line for line in lint(board) if line.startswith(rule)]
