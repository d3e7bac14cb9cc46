"""docs/dashboards.md shows the queries that the dashboards send, and its example works."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pbmon import catalog
from tests.grafana.changes import SCOPE
from tests.grafana.lint import lint
from tests.grafana.panel_queries import DASHBOARDS, load
from tests.grafana.promql_rules import SERIES, exact_form

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "dashboards.md").read_text(encoding="utf-8")


PROMISE = ", ".join(catalog.BUDGET_REQUESTS.prometheus_labels())
"""That one limit of a budget is named by."""


def blocks(language: str, text: str = PAGE) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def in_full(shown: str) -> str:
    """With what `gained(…)` stands for on the page."""

    def form(found: re.Match[str]) -> str:
        series, window, ago = found.groups(default="")
        metric = SERIES[series.partition("{")[0]].metric
        return exact_form(metric, series, window, f"{ago}{window}", ago and f" offset {ago}")

    shown = shown.replace("by (promise)", f"by ({PROMISE})")
    return re.sub(r"gained\((\w+\{[^}]*\})\[([^\]]+)\](?: offset (\w+))?\)", form, shown)


def squeezed(expr: str) -> str:
    return re.sub(r"\s+", "", expr.replace("…", SCOPE))


PANELS = [
    pytest.param(load(name)["title"], panel, id=f"{name}: {panel['title']}")
    for name in ("business", "growth", "budgets", "errors")
    for panel in load(name)["panels"]
]


@pytest.mark.parametrize(("title", "panel"), PANELS)
def test_each_panels_query_is_shown(title, panel):
    section = re.search(rf"## {re.escape(title)}\n(.*?)(?=\n## )", PAGE, re.DOTALL)
    part = re.search(rf"### {re.escape(panel['title'])}\n(.*?)(?=\n###|\Z)", section[1], re.DOTALL)
    shown = [squeezed(in_full(block)) for block in blocks("promql", part[1])]
    sent = [squeezed(target["expr"]) for target in panel["targets"]]
    assert shown == sent[: len(shown)] != []


def test_the_forms_are_those_of_the_queries():
    of_process, of_store = (squeezed(block) for block in blocks("")[1:3])
    for metric, shown in ((catalog.FEATURE_USAGE, of_process), (catalog.REVENUE, of_store)):
        form = exact_form(metric, "m{…}", "24h", "24h", "")
        labels = ", ".join(metric.prometheus_labels())
        assert shown == squeezed(form.replace(f"instance, {labels}", "instance, labels of m"))


def test_the_query_of_the_marks_is_shown():
    (shown,) = (block for block in blocks("") if "pbmon_mark_time_seconds" in block)
    assert squeezed(shown) == squeezed(load("errors")["annotations"]["list"][0]["target"]["expr"])


def test_each_dashboard_is_listed():
    for path in DASHBOARDS.glob("*.json"):
        assert f"| {load(path.stem)['title']} | `{path.name}` |" in PAGE


def test_the_example_keeps_every_rule():
    build = pytest.importorskip(
        "grafana.build", reason="grafana-foundation-sdk needs Python 3.11", exc_type=ImportError
    )
    (example,) = blocks("python")
    names: dict = {}
    exec(compile(example, "docs/dashboards.md", "exec"), names)
    assert lint(json.loads(build.render(names["DASHBOARD"]))) == []
