"""Each rule about the page turns red on a page that breaks it."""

from __future__ import annotations

import pytest

from tests.grafana.changes import FEATURES, RATE, REVENUE, USERS, ask, drop, findings, put
from tests.grafana.page_rules import RULES

OTHER = {"type": "prometheus", "uid": "abc"}


def variable(index, field, value):
    return put("templating", "list", index, field, value)


def no_variable(index, *field):
    return drop("templating", "list", index, *field)


def panel(index, *path):
    return put("panels", index, *path)


def no_panel(index, *path):
    return drop("panels", index, *path)


def query(index, number, field, value):
    return put("panels", index, "targets", number, field, value)


# rule: (what is wrong, change, part of the finding)
BAD = {
    "identified": [
        ("no title", put("title", ""), "no title"),
        ("no uid", drop("uid"), "no uid"),
        ("no description", drop("description"), "no description"),
        ("old schema", put("schemaVersion", 39), "schemaVersion 39"),
        ("untagged", put("tags", []), "no tag"),
        ("unlinked", put("links", []), "no link"),
    ],
    "datasource_chosen": [
        ("no variable", no_variable(0), "no variable"),
        ("a variable of Loki", variable(0, "query", "loki"), "no variable"),
        ("a panel's own", panel(REVENUE, "datasource", OTHER), "'Revenue (24h)' has its own"),
        ("a query's own", query(RATE, 0, "datasource", OTHER), "'Transaction Rate' has its own"),
        ("a query's none", no_panel(RATE, "targets", 0, "datasource"), "'Transaction Rate'"),
        ("a variable's none", no_variable(1, "datasource"), "service"),
    ],
    "marked": [
        ("no deploys", put("annotations", "list", []), "no annotation Deploys"),
        ("no changes", drop("annotations", "list", 1), "no annotation Changes"),
        ("switched off", put("annotations", "list", 0, "enable", False), "Deploys is off"),
        ("by sample", put("annotations", "list", 0, "useValueForTime", False), "for each sample"),
        ("its own", put("annotations", "list", 1, "datasource", OTHER), "its own data source"),
        ("seconds", put("annotations", "list", 0, "target", "expr", "time()"), "as ms"),
    ],
    "variables_fresh": [
        ("loaded once", variable(1, "refresh", 1), "refresh is 1"),
        ("never loaded", no_variable(2, "refresh"), "refresh is None"),
        ("Grafana's own All", no_variable(2, "allValue"), "allValue"),
        ("All that needs the label", variable(2, "allValue", ".+"), "allValue"),
        ("no All", variable(1, "includeAll", False), "includeAll"),
        ("one value only", variable(1, "multi", False), "multi"),
        ("starts with one", variable(1, "current", {}), "start with All"),
        ("no environment", no_variable(2), "no variable environment"),
        ("no service", variable(1, "name", "app"), "no variable service"),
    ],
    "variables_unspoilt": [
        ("the SDK's fields", variable(1, "auto_min", "10s"), "auto_min"),
        ("on the data source", variable(0, "auto", False), "datasource: auto"),
    ],
    "panels_complete": [
        ("no title", panel(RATE, "title", ""), f"number {RATE + 1} has no title"),
        ("a removed type", panel(RATE, "type", "graph"), "'graph'"),
        ("a type that never was", panel(FEATURES, "type", "bar"), "'bar'"),
        ("no description", no_panel(RATE, "description"), "no description"),
        ("no unit", no_panel(USERS, "fieldConfig", "defaults", "unit"), "no unit"),
        ("no queries", panel(USERS, "targets", []), "no query"),
        ("an empty query", ask(""), "no query"),
    ],
    "queries_suit_panels": [
        ("a line of one moment", query(RATE, 0, "instant", True), "needs range"),
        ("a figure over a range", query(USERS, 0, "range", True), "needs instant"),
        ("one letter twice", query(USERS, 1, "refId", "A"), "refIds"),
        ("no letter", no_panel(USERS, "targets", 1, "refId"), "refIds"),
    ],
    "values_shown": [
        ("no reduction", panel(USERS, "options", "reduceOptions", "calcs", []), "empty calcs"),
        ("red from 80", no_panel(REVENUE, "fieldConfig", "defaults", "thresholds"), "thresholds"),
    ],
    "ids_unique": [
        ("one id twice", panel(1, "id", 1), "[1, 1, 3, 4"),
        ("no id", no_panel(RATE, "id"), "None"),
    ],
    "layout_fits": [
        ("past column 24", panel(RATE, "gridPos", "w", 25), "column 25"),
        ("left of column 0", panel(REVENUE, "gridPos", "x", -1), "'Revenue (24h)'"),
        ("side over side", panel(RATE, "gridPos", "x", 1), "overlap"),
        ("line over line", panel(USERS, "gridPos", "y", 23), "overlap"),
    ],
}


@pytest.mark.parametrize(
    ("rule", "change", "finding"),
    [
        pytest.param(rule, change, finding, id=f"{rule}: {name}")
        for rule, cases in BAD.items()
        for name, change, finding in cases
    ],
)
def test_a_bad_page_turns_the_rule_red(rule, change, finding):
    found = findings(change, f"{rule}: ")
    assert any(finding in line for line in found), findings(change)


def test_every_rule_has_a_bad_page():
    assert list(BAD) == [rule.__name__ for rule in RULES]


def test_the_page_is_good_unspoilt():
    assert findings(lambda board: None) == []
