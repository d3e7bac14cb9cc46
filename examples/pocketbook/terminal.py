"""The summary as a person reads it in the terminal."""

from __future__ import annotations

from collections.abc import Collection

from rich import box
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from examples.pocketbook.books import Amounts
from examples.pocketbook.business import Business
from examples.pocketbook.checks import Check
from examples.pocketbook.summary import Limit, Route, Summary
from examples.pocketbook.wording import (
    duration,
    error_type,
    money,
    nps,
    people,
    promise,
    share,
    transaction,
)

# A line under the heads and nothing between the columns.
_RULE = box.Box("    \n    \n ── \n    \n    \n    \n    \n    \n")

_STATES = {
    "kept": Text("✓ kept", "green"),
    "over": Text("✗ over", "bold red"),
    "": Text("–", "dim"),
}


def show(console: Console, summary: Summary, business: Business, checks: list[Check]) -> None:
    parts: list[RenderableType] = [
        _headline(summary),
        _routes(summary.routes),
        _budgets(summary.budgets),
        _slow_queries(summary),
        _errors(summary),
        Columns([_revenue(business), _people(business)], padding=(1, 3)),
        Columns([_features(summary, business), _experiment(business)], padding=(1, 3)),
        _also(summary),
        _verdict(checks),
    ]
    for part in parts:
        console.print()
        console.print(part)


def _table(title: str, *columns: str, right: Collection[str] = ()) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=_RULE,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for column in columns:
        if column in right:
            table.add_column(column, justify="right", no_wrap=True)
        else:
            table.add_column(column, overflow="fold")
    return table


def _count(number: int, style: str = "") -> Text:
    return Text(f"{number:,}" if number else "–", style if number else "dim")


def _headline(summary: Summary) -> Text:
    over = sum(not all(limit.kept for limit in limits) for _, limits in summary.budgets)
    return Text.assemble(
        (f"{summary.requests:,} requests", "bold"),
        f" · {summary.server_errors:,} failed · {summary.slow_requests:,} slow (over 1 s) · ",
        f"{over} of {len(summary.budgets)} budgets exceeded · {summary.queries:,} queries, "
        f"p95 {duration(summary.query_p95_s)}",
    )


def _routes(routes: list[Route]) -> Table:
    numbers = ("count", "p50", "p95", "p99", "failed")
    table = _table("Routes", "route", *numbers, "budget", right=numbers)
    for route in routes:
        table.add_row(
            Text(f"{route.method:<5}{route.route}"),
            f"{route.count:,}",
            *(duration(route.percentile(part)) for part in (0.5, 0.95, 0.99)),
            _count(route.server_errors, "red"),
            _STATES[route.budget_state],
        )
    return table


def _budgets(budgets: list[tuple[str, tuple[Limit, ...]]]) -> Table:
    numbers = ("over it", "of", "share", "allowed")
    table = _table("Budgets", "endpoint", "promise", *numbers, "state", right=numbers)
    for name, limits in budgets:
        for position, limit in enumerate(limits):
            table.add_row(
                Text("" if position else name),
                promise(limit),
                _count(limit.breaches, "" if limit.kept else "red"),
                f"{limit.requests:,}",
                share(limit.share),
                share(limit.allowed) if limit.allowed else "none",
                _STATES["kept" if limit.kept else "over"],
            )
    return table


def _slow_queries(summary: Summary) -> Table:
    numbers = ("count", "slowest")
    table = _table("Slow queries (over 100 ms)", "statement", *numbers, right=numbers)
    if not summary.slow_queries:
        table.add_row("none", "–", "–")
    for query in summary.slow_queries:
        table.add_row(
            Text(query.text or query.summary),
            f"{len(query.durations_s):,}",
            duration(query.percentile(1)),
        )
    return table


def _errors(summary: Summary) -> Table:
    table = _table("Errors", "in", "type", "where", "count", right=("count",))
    if not summary.errors:
        table.add_row("none", "–", "–", "–")
    for error in summary.errors:
        table.add_row(
            error.kind, Text(error_type(error.type), "red"), Text(error.where), f"{error.count:,}"
        )
    return table


def _revenue(business: Business) -> Table:
    numbers = ("taken", "given back", "net")
    table = _table("Revenue", "currency", *numbers, right=numbers)

    def add(name: str, currency: str, sums: Amounts, style: str = "") -> None:
        amounts = (sums.gross, sums.returned, sums.gross - sums.returned)
        shown = (Text(money(amount, currency)) for amount in amounts)
        table.add_row(Text(name), *shown, style=style)

    for currency, sums in business.by_currency.items():
        add(currency, currency, sums)
    add(f"all in {business.currency}", business.currency, business.revenue, "bold")
    return table


def _features(summary: Summary, business: Business) -> Table:
    numbers = ("viewed", "clicked", "completed")
    table = _table("Features", "feature", *numbers, "people", right=(*numbers, "people"))
    who = {feature.name: feature.people for feature in business.features}
    for name, actions in summary.features.items():
        uses = (_count(actions.get(action, 0)) for action in numbers)
        table.add_row(Text(name), *uses, people(who.get(name)))
    return table


def _experiment(business: Business) -> Table:
    numbers = ("people", "converted")
    table = _table("Experiment", business.experiment, *numbers, right=numbers)
    for variant in business.variants:
        table.add_row(Text(variant.name), people(variant.people), people(variant.converted))
    return table


def _people(business: Business) -> Table:
    table = _table("People", "who", "number", right=("number",))
    table.add_row("active today", people(business.active))
    table.add_row("registered", people(business.registered))
    table.add_row("new yesterday", "–" if business.new is None else f"{business.new:,}")
    table.add_row("NPS", nps(business.nps))
    return table


def _also(summary: Summary) -> Text:
    states = ", ".join(
        f"{count:,} {transaction(*key)}" for key, count in summary.transactions.items()
    )
    lines = [f"Transactions: {states or 'none'}"]
    lines += [
        f"WebSockets on {found.route}: {found.sessions:,}, longest {duration(found.longest_s)}, "
        f"{found.open_now or 'none'} left open"
        for found in summary.websockets
    ]
    return Text("\n".join(lines))


def _verdict(checks: list[Check]) -> Group:
    """One line if all agrees: the first figure stands for the rest."""
    wrong = [check for check in checks if not check.ok]
    if wrong:
        lines = [Text(f"✗ {check}", "bold red") for check in wrong]
        return Group(Text("The telemetry does not match what was sent:", "bold red"), *lines)
    first = checks[0]
    return Group(
        Text(
            f"✓ sent {first.sent} requests, telemetry shows {first.shown}; "
            f"{len(checks) - 1} more figures match (money, people, features, experiment, NPS …)",
            "green",
        )
    )
