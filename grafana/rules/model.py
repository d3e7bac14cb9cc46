"""What a file of rules is made of, and how it becomes YAML."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

RUNBOOKS = "docs/runbooks"
"""Below the repository; `pbmon rules export --runbooks URL` puts an address in its place."""

Severity = Literal["page", "ticket", "none"]


@dataclass(frozen=True)
class Recording:
    """A series that a rule writes. Rules name it by this object, so it can't be misspelt.

    name: `pbmon:<what>:<how>`, which no metric of an application can have.
    """

    name: str
    expr: str

    def __str__(self) -> str:
        return self.name

    def last(self, lookback: str = "10m", ago: str = "") -> str:
        """Its newest value; of a group with another interval, whose samples lie elsewhere."""
        return f"last_over_time({self.name}[{lookback}]{_offset(ago)})"

    def added(self, window: str, ago: str = "") -> str:
        """The sum of its values in the window."""
        return f"sum_over_time({self.name}[{window}]{_offset(ago)})"

    def least(self, window: str, ago: str = "") -> str:
        return f"min_over_time({self.name}[{window}]{_offset(ago)})"

    def rule(self) -> dict[str, Any]:
        return {"record": self.name, "expr": self.expr}


@dataclass(frozen=True)
class Alert:
    """page: somebody is woken. ticket: somebody looks in the morning. none: for machines.

    summary: one line, with the labels that say where. description: what it means, in a sentence or
    two, with `$value`. name: also of its page in docs/runbooks.
    """

    name: str
    expr: str
    severity: Severity
    summary: str
    description: str
    pending: str = ""
    keep_firing: str = ""
    labels: dict[str, str] = field(default_factory=dict)

    def rule(self) -> dict[str, Any]:
        waits = {"for": self.pending, "keep_firing_for": self.keep_firing}
        return {
            "alert": self.name,
            "expr": self.expr,
            **{name: wait for name, wait in waits.items() if wait},
            "labels": {"severity": self.severity, **self.labels},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{RUNBOOKS}/{self.name}.md",
            },
        }


@dataclass(frozen=True)
class Group:
    """Rules that are evaluated one after the other, at the same moments."""

    name: str
    interval: str
    rules: tuple[Recording | Alert, ...]


def render(groups: Iterable[Group], source: str) -> str:
    """The YAML of a file. source: the module that has the groups."""
    plain = {
        "groups": [
            {
                "name": group.name,
                "interval": group.interval,
                "rules": [rule.rule() for rule in group.rules],
            }
            for group in groups
        ]
    }
    text = yaml.dump(plain, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
    return f"# Made from {source} by `python -m grafana.build`: change it there.\n{text}"


class _Dumper(yaml.SafeDumper):
    """Queries of several lines as blocks."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)  # items of a list are set in


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _text)


def _offset(ago: str) -> str:
    return f" offset {ago}" if ago else ""
