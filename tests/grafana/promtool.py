"""Ask Prometheus' own engine, through `promtool test rules`, what a query says on known data.

A `Process` exports once a minute what it has counted since its start, under an instance id of
its own, as pbmon does. What is true is known from the events, not from the samples.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from tests.stack import servers
from tests.stack.plugin import missing
from tests.stack.programs import MissingProgram

MINUTE, HOUR, DAY = 1, 60, 1440
NEVER = 10**9

Labels = tuple[tuple[str, str], ...]


def labels(**values: str) -> Labels:
    return tuple(sorted(values.items()))


@dataclass
class Process:
    """Counts from `start` until `end`, exporting at each minute outside `silent`."""

    instance: str
    start: int
    end: int = NEVER
    silent: range = range(0)
    resource: dict[str, str] = field(
        default_factory=lambda: {
            "service_name": "pocketbook",
            "deployment_environment_name": "production",
        }
    )
    events: list[tuple[int, Labels, float]] = field(default_factory=list)

    def count(self, minute: int, amount: float = 1, **values: str) -> None:
        assert self.start <= minute <= self.end
        self.events.append((minute, labels(**values), amount))

    def exports(self, until: int) -> list[int]:
        last = min(self.end, until)
        return [minute for minute in range(self.start, last + 1) if minute not in self.silent]

    def series(self, metric: str, until: int) -> list[dict[str, str]]:
        """The counter's series, one for each set of labels, in promtool's notation."""
        found = []
        for wanted in sorted({event[1] for event in self.events}):
            own = sorted((m, amount) for m, which, amount in self.events if which == wanted)
            samples = {}
            for minute in self.exports(until):
                if minute >= own[0][0]:  # a counter's series begins with its first count
                    samples[minute] = sum(amount for m, amount in own if m <= minute)
            names = {**self.resource, "instance": self.instance, **dict(wanted)}
            found.append(series(metric, names, samples))
        return found

    def arrived(self, after: int, until: int) -> dict[Labels, float]:
        """What was counted, by the minute of the export that carried it: after < m <= until."""
        exports = self.exports(until)
        sums: dict[Labels, float] = defaultdict(float)
        for minute, which, amount in self.events:
            carried = next((m for m in exports if m >= minute), NEVER)
            if after < carried <= until:
                sums[which] += amount
        return sums


def series(metric: str, names: dict[str, str], samples: dict[int, float]) -> dict[str, str]:
    """One input series of promtool from minute -> value."""
    matchers = ", ".join(f'{name}="{value}"' for name, value in sorted(names.items()))
    last = max(samples, default=0)
    values = [f"{samples[m]:.10g}" if m in samples else "_" for m in range(last + 1)]
    return {"series": f"{metric}{{{matchers}}}", "values": " ".join(values)}


def check(data: list[dict[str, str]], expr: str, at: int, expected: dict[Labels, float]) -> None:
    """Fail unless the query's whole answer at that minute is `expected`."""
    samples = [
        {
            "labels": "{" + ", ".join(f'{name}="{value}"' for name, value in names) + "}",
            "value": value,
        }
        for names, value in expected.items()
    ]
    case = {
        "evaluation_interval": "1m",
        "fuzzy_compare": True,  # a rate may differ in the last bit
        "tests": [
            {
                "interval": "1m",
                "input_series": data,
                "promql_expr_test": [{"expr": expr, "eval_time": f"{at}m", "exp_samples": samples}],
            }
        ],
    }
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "case.yaml"
        file.write_text(json.dumps(case), encoding="utf-8")  # JSON is YAML
        try:
            servers.promtool("test", "rules", file)
        except MissingProgram as absent:
            missing(absent.name, absent.reason)
