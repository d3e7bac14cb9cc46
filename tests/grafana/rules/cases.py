"""Cases for `promtool test rules`: known data, and which alerts fire at which minute.

promtool evaluates every group at the one interval that is given, not at the group's own.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.grafana.promtool import Labels
from tests.stack import servers
from tests.stack.plugin import missing
from tests.stack.programs import MissingProgram

FILES = Path(__file__).resolve().parents[3] / "collector-config" / "rules"

SHOP = {"service_name": "pocketbook", "deployment_environment_name": "production"}


def rules(kind: str = "") -> list[dict[str, Any]]:
    """The rules of all files, as Prometheus reads them; kind: record or alert."""
    return [
        rule
        for path in sorted(FILES.glob("*.yml"))
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
        if kind in rule or not kind
    ]


@dataclass
class Case:
    """Input series, and what is wanted of the rules at minutes."""

    name: str
    series: list[dict[str, str]]
    alerts: list[dict[str, Any]] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)

    def silent(self, alert: str, *minutes: int, **labels: str) -> Case:
        """Nothing of that name (with these labels) fires then."""
        if not labels:
            self.alerts += [_alert(alert, at, []) for at in minutes]
        for at in minutes if labels else ():
            self.figure(_firing(alert, labels), at, {})
        return self

    def fires(
        self, alert: str, *minutes: int, summary: str, description: str, **labels: str
    ) -> Case:
        """This and nothing else of that name fires then, and says so in these words."""
        expected = {
            "exp_labels": labels,
            "exp_annotations": {
                "summary": summary,
                "description": description,
                "runbook_url": f"docs/runbooks/{alert}.md",
            },
        }
        self.alerts += [_alert(alert, at, [expected]) for at in minutes]
        return self

    def firing(self, alert: str, *minutes: int, **labels: str) -> Case:
        """An alert with just these labels fires then, whatever it says."""
        every = {"alertname": alert, "alertstate": "firing", "__name__": "ALERTS", **labels}
        for at in minutes:
            self.figure(_firing(alert, labels), at, {tuple(every.items()): 1.0})
        return self

    def figure(self, expr: str, at: int, expected: dict[Labels, float]) -> Case:
        self.figures.append(
            {
                "expr": expr,
                "eval_time": f"{at}m",
                "exp_samples": [
                    {"labels": _braces(dict(names)), "value": value}
                    for names, value in expected.items()
                ],
            }
        )
        return self


def check(file: str, *cases: Case, step: str = "1m", every: str = "1m") -> None:
    """Fail unless the rules of the committed file do what every case wants.

    step: between the samples of the cases' series. every: between evaluations.
    """
    plain = {
        "rule_files": [str(FILES / f"{file}.yml")],
        "evaluation_interval": every,
        "fuzzy_compare": True,
        "tests": [
            {
                "name": case.name,
                "interval": step,
                "input_series": case.series,
                "alert_rule_test": case.alerts,
                "promql_expr_test": case.figures,
            }
            for case in cases
        ],
    }
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "cases.yml"
        path.write_text(json.dumps(plain), encoding="utf-8")  # JSON is YAML
        try:
            servers.promtool("test", "rules", path)
        except MissingProgram as absent:
            missing(absent.name, absent.reason)


def line(metric: str, values: str, **names: str) -> dict[str, str]:
    """An input series in promtool's own notation, such as `0+1x10`."""
    return {"series": metric + _braces(names), "values": values}


def of_shop(metric: str, values: str, instance: str = "a", **names: str) -> dict[str, str]:
    return line(metric, values, **SHOP, instance=instance, **names)


def _firing(alert: str, labels: dict[str, str]) -> str:
    names = {"__name__": "ALERTS", "alertname": alert, "alertstate": "firing", **labels}
    return _braces(names)


def _alert(name: str, at: int, expected: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"eval_time": f"{at}m", "alertname": name, "exp_alerts": list(expected)}


def _braces(names: dict[str, str]) -> str:
    named = {key: value for key, value in names.items() if key != "__name__"}
    inside = ", ".join(f'{key}="{value}"' for key, value in sorted(named.items()))
    return names.get("__name__", "") + "{" + inside + "}"
