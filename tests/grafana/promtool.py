"""Ask Prometheus' own engine, through `promtool test rules`, what a query says on known data.

A `Process` exports once a minute what it has counted since its start, under an instance id of
its own, and a `Store` what it holds, as pbmon does. What is true is known from the events, not from
the samples.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.stack import servers
from tests.stack.plugin import missing
from tests.stack.programs import MissingProgram

MINUTE, HOUR, DAY = 1, 60, 1440
WEEK = 7 * DAY
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
    silent: Container[int] = ()
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
            found.append(self.line(metric, dict(wanted), samples))
        return found

    def line(self, metric: str, own: dict[str, str], samples: dict[int, float]) -> dict[str, str]:
        return series(metric, {**self.resource, "instance": self.instance, **own}, samples)

    def gauge(self, metric: str, value: float, minutes: range, **own: str) -> dict[str, str]:
        return self.line(metric, own, dict.fromkeys(minutes, value))

    def arrived(self, after: int, until: int) -> dict[Labels, float]:
        """What was counted, by the minute of the export that carried it: after < m <= until."""
        exports = self.exports(until)
        sums: dict[Labels, float] = defaultdict(float)
        for minute, which, amount in self.events:
            carried = next((m for m in exports if m >= minute), NEVER)
            if after < carried <= until:
                sums[which] += amount
        return sums


@dataclass
class Store(Process):
    """`start`: when Prometheus began to hear of it; each of its counters was at `before` then."""

    before: float = 0

    def series(self, metric: str, until: int) -> list[dict[str, str]]:
        found = []
        for wanted in sorted({event[1] for event in self.events}):
            samples = {
                minute: self.before
                + sum(amount for m, which, amount in self.events if which == wanted and m <= minute)
                for minute in self.exports(until)
            }
            found.append(self.line(metric, dict(wanted), samples))
        return found


def data(sources: Sequence[Process], metric: str, until: int) -> list[dict[str, str]]:
    return [line for source in sources for line in source.series(metric, until)]


def truth(sources: Sequence[Process], window: int, at: int) -> dict[Labels, float]:
    """What all of them counted in the window."""
    sums: dict[Labels, float] = defaultdict(float)
    for source in sources:
        for which, amount in source.arrived(at - window, at).items():
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
    check_all(data, [(expr, at, expected)])


def check_all(
    data: list[dict[str, str]], wanted: Sequence[tuple[str, int, dict[Labels, float]]]
) -> None:
    """The same of many queries and minutes, at the cost of one."""
    questions = [
        {
            "expr": expr,
            "eval_time": f"{at}m",
            "exp_samples": [
                {
                    "labels": "{" + ", ".join(f'{name}="{value}"' for name, value in names) + "}",
                    "value": value,
                }
                for names, value in expected.items()
            ],
        }
        for expr, at, expected in wanted
    ]
    case = {
        "evaluation_interval": "1m",
        "fuzzy_compare": True,  # a rate may differ in the last bit
        "tests": [
            {
                "interval": "1m",
                "input_series": data,
                "promql_expr_test": questions,
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
