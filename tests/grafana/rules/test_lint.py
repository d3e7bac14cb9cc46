"""The committed rules keep every rule of the lint, and each turns red on what breaks it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.grafana.rules.cases import FILES
from tests.grafana.rules.lint import RULES, lint, load

Groups = list[dict[str, Any]]
GROUPS = [group for path in sorted(FILES.glob("*.yml")) for group in load(path)]


def change(name: str, old: str, new: str) -> Callable[[Groups], None]:
    """Replace a part of a rule's query."""

    def apply(groups: Groups) -> None:
        for group in groups:
            for rule in group["rules"]:
                if name in (rule.get("record"), rule.get("alert")):
                    assert old in rule["expr"]
                    rule["expr"] = rule["expr"].replace(old, new)

    return apply


def put(name: str, *path_and_value: Any) -> Callable[[Groups], None]:
    *path, last, value = path_and_value

    def apply(groups: Groups) -> None:
        for group in groups:
            for rule in group["rules"]:
                if name in (rule.get("record"), rule.get("alert"), group["name"]):
                    place = group if name == group["name"] else rule
                    for key in path:
                        place = place[key]
                    place[last] = value

    return apply


GAIN, SEEN = "pbmon:budget_requests:gain5m", "pbmon:budget_requests:seen5m"
CONNECTIONS = "pbmon:websocket_connections:sum"
BAD = {
    "parses": [("no PromQL", put("ErrorBurst", "expr", "sum by (("), "ErrorBurst")],
    "catalogued": [
        ("an unknown metric", change("ErrorBurst", "pbmon_errors_total", "errors_total"), "errors"),
        ("an unknown label", change("ErrorBurst", "error_type)", "error)"), "grouped by error"),
        ("an unknown matcher", change("SlowQueries", "total[", 'total{x="1"}['), "no label x"),
        ("an unknown recording", change("BudgetExhausted", ":sum30d", ":sum31d"), "sum31d"),
        ("another recording's label", change("FeatureDrop", "feature_name)", "currency)"),
         "pbmon_currency"),
    ],
    "never_merged": [
        ("currencies", change("pbmon:revenue:sum1h", "sum by (instance, pbmon_currency)",
                              "sum by (instance)"), "over pbmon_currency"),
        ("limits", change(GAIN, "pbmon_operation, pbmon_budget_limit", "pbmon_operation"),
         "over pbmon_budget_limit"),
    ],
    "counters_exact": [
        ("a bare counter", put("ErrorBurst", "expr", "pbmon_errors_total > 10"), "counter"),
        ("increase", put("ErrorBurst", "expr", "sum by (service_name, deployment_environment_name)"
                         " (increase(pbmon_errors_total[5m])) > 10"), "increase of"),
        ("half of the form", change("ErrorBurst", "[1d]", "[1h]"), "counter"),
        ("a tile without a base", change(GAIN, "[1d] offset 1m", "[1d]"), "counter"),
        ("a tile of the clock", change(GAIN, "offset 1m", "offset 5m"), "counter"),
        ("a tile that counts what was", change(GAIN, "min_over_time", "max_over_time"), "counter"),
        ("what was seen, least", change(SEEN, "(max_over_time", "(min_over_time"), "counter"),
        ("what was seen, elsewhere", put("BudgetBreached", "expr", SEEN), "is a counter"),
    ],
    "gauges_bounded": [
        ("a bare gauge", change(CONNECTIONS, "last_over_time(pbmon_websocket_connections[90s])",
                                "pbmon_websocket_connections"), "without a look-back"),
        ("another group's recording", change("BudgetExhausted",
         "last_over_time(pbmon:budget_allowed:ratio[10m])", "pbmon:budget_allowed:ratio"),
         "pbmon:budget_allowed:ratio"),
    ],
    "kept_apart": [
        ("services", change("ErrorBurst", "sum by (service_name, ", "sum by ("), "service_name"),
        ("environments", change(CONNECTIONS, "deployment_environment_name, ", ""), "environment"),
        ("stores", change("pbmon:charges:sum1h", "sum by (instance)", "sum"), "instance"),
        ("a store by its service", change("pbmon:charges:sum1h", "sum by (instance)",
                                          "sum by (service_name)"), "instance"),
    ],
    "alerts_told": [
        ("another severity", put("Watchdog", "labels", "severity", "critical"), "critical"),
        ("no summary", put("Watchdog", "annotations", "summary", ""), "no summary"),
        ("no description", put("Watchdog", "annotations", "description", ""), "no description"),
        ("another page", put("Watchdog", "annotations", "runbook_url", "docs/runbooks/X.md"),
         "X.md"),
    ],
    "intervals_fit": [("another interval", put("pbmon budgets", "interval", "1m"), "every 1m")],
}  # fmt: skip


def test_the_committed_rules_keep_every_rule() -> None:
    assert lint(GROUPS) == []


@pytest.mark.parametrize(
    ("rule", "spoil", "finding"),
    [
        pytest.param(rule, spoil, finding, id=f"{rule}: {name}")
        for rule, cases in BAD.items()
        for name, spoil, finding in cases
    ],
)
def test_a_bad_rule_turns_the_lint_red(
    rule: str, spoil: Callable[[Groups], None], finding: str
) -> None:
    groups = copy.deepcopy(GROUPS)
    spoil(groups)
    if rule == "parses":
        with pytest.raises(ValueError, match=r"."):
            lint(groups)
        return
    found = [line for line in lint(groups) if line.startswith(f"{rule}: ")]
    assert any(finding in line for line in found), lint(groups)


def test_every_rule_of_the_lint_has_a_bad_case() -> None:
    assert list(BAD) == [rule.__name__ for rule in RULES]
