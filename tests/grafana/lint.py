"""All rules a dashboard must keep."""

from __future__ import annotations

from tests.grafana import page_rules, promql_rules

RULES = (*page_rules.RULES, *promql_rules.RULES)


def lint(dashboard: dict) -> list[str]:
    """What is wrong with a dashboard, one line for each finding, each starting with its rule."""
    return [f"{rule.__name__}: {found}" for rule in RULES for found in rule(dashboard)]
