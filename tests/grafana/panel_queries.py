"""The queries of the committed dashboards as Grafana would send them, for any test."""

from __future__ import annotations

import json
import re
from pathlib import Path

DASHBOARDS = Path(__file__).resolve().parents[2] / "grafana" / "dashboards"


def load(name: str) -> dict:
    """A committed dashboard; name is the file's stem."""
    return json.loads((DASHBOARDS / f"{name}.json").read_text(encoding="utf-8"))


def interpolate(
    expr: str,
    *,
    service=".*",
    environment=".*",
    endpoint=".*",
    range_="24h",
    rate_interval="4m",
):
    """The expression with Grafana's variables replaced; `.*` is what All stands for."""
    for variable, value in (
        ("$__rate_interval", rate_interval),
        ("$__range", range_),
        ("$service", service),
        ("$environment", environment),
        ("$endpoint", endpoint),
    ):
        expr = expr.replace(variable, value)
    assert not re.search(r"\$(?!1\b)", expr), expr  # $1 is of label_replace
    return expr


def panel_queries(dashboard: str, title: str, **values: str) -> list[str]:
    """The interpolated queries of one panel, in order. values: as for `interpolate`."""
    panels = [panel for panel in load(dashboard)["panels"] if panel["title"] == title]
    assert len(panels) == 1, f"{dashboard}.json has {len(panels)} panels {title!r}"
    return [interpolate(target["expr"], **values) for target in panels[0]["targets"]]
