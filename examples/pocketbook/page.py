"""The summary as one self-contained HTML page: no script, nothing loaded from anywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from jinja2 import Environment, PackageLoader, StrictUndefined

from examples.pocketbook import wording
from examples.pocketbook.business import Business
from examples.pocketbook.checks import Check
from examples.pocketbook.summary import Route, Second, Summary

TEMPLATE = "page.html.j2"
ACTIONS = ("viewed", "clicked", "completed")
_FLOOR_S = 0.001


@dataclass(frozen=True)
class Run:
    """What the page says about the run itself."""

    started: datetime
    seconds: float
    database: str
    forwarding: str


@dataclass(frozen=True)
class Scale:
    """Durations on a logarithmic axis: position in per cent from the left."""

    top_s: float

    def __call__(self, seconds: float) -> float:
        part = math.log(max(seconds, _FLOOR_S) / _FLOOR_S) / math.log(self.top_s / _FLOOR_S)
        return round(min(1.0, part) * 100, 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        steps = (0.001, 0.01, 0.1, 1, 10)
        names = ("1 ms", "10 ms", "100 ms", "1 s", "10 s")
        pairs = zip(steps, names, strict=True)
        return [(self(step), name) for step, name in pairs if step <= self.top_s]


def scale(routes: list[Route]) -> Scale:
    longest = max((route.percentile(1) for route in routes), default=1.0)
    return Scale(max(1.0, longest * 1.15))


@dataclass(frozen=True)
class Column:
    """One second of the traffic chart; heights in per cent of the chart's."""

    label: str
    second: Second
    ok: float
    client: float
    server: float


def columns(seconds: list[Second]) -> list[Column]:
    top = max((second.total for second in seconds), default=0) or 1

    def height(count: int) -> float:
        return round(100 * count / top, 2)

    return [
        Column(
            f"{number} s",
            second,
            height(second.ok),
            height(second.client_errors),
            height(second.server_errors),
        )
        for number, second in enumerate(seconds, 1)
    ]


def render(summary: Summary, business: Business, checks: list[Check], run: Run) -> str:
    environment = Environment(
        loader=PackageLoader("examples.pocketbook", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = wording.duration
    environment.filters["share"] = wording.share
    uses = [sum(actions.values()) for actions in summary.features.values()]
    return environment.get_template(TEMPLATE).render(
        summary=summary,
        business=business,
        who={feature.name: feature for feature in business.features},
        checks=checks,
        run=run,
        scale=scale(summary.routes),
        columns=columns(summary.seconds),
        busiest=max((second.total for second in summary.seconds), default=0),
        actions=ACTIONS,
        most_used=max(uses, default=0) or 1,
        money=wording.money,
        promise=wording.promise,
        people=wording.people,
        nps=wording.nps,
        transaction=wording.transaction,
        over=sum(not all(limit.kept for limit in limits) for _, limits in summary.budgets),
    )
