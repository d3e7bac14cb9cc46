"""docs/dashboards.md shows the queries that the dashboards send, and its example works."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.grafana.changes import SCOPE
from tests.grafana.lint import lint
from tests.grafana.panel_queries import DASHBOARDS, load

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "dashboards.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = PAGE) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def squeezed(expr: str) -> str:
    return re.sub(r"\s+", "", expr.replace("…", SCOPE))


@pytest.mark.parametrize("panel", load("business")["panels"], ids=lambda panel: panel["title"])
def test_each_panels_query_is_shown(panel):
    section = re.search(rf"### {re.escape(panel['title'])}\n(.*?)(?=\n##)", PAGE, re.DOTALL)
    (shown,) = blocks("promql", section[1])
    assert squeezed(shown) == squeezed(panel["targets"][0]["expr"])


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
