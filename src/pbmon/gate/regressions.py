"""Whether the requests of a run are slower than those of another, route by route.

Each route's requests of a run are cut, in their order, into as many pieces as those of the other.
Of a piece stands its lower quartile, which what else the machine does moves least. Pieces at the
same place are a pair: where the runs were taken in turns, a pair is of the same moments.

A route is slower where the middle of the pairs' ratios is above the tolerance and the pairs agree
too well for chance: Wilcoxon's signed-rank test, exact and one-sided, at 1 % over all routes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from pbmon.gate.runs import Request
from pbmon.gate.verdicts import Outcome, shown_s

TOLERANCE = 0.15
CHANCE = 0.01
"""Of calling a run slower that is the same, over all of its routes."""

FEWEST = 100
"""Requests of a route in each run: below, nothing is said."""

_PIECES = 20
_QUANTILE = 0.25

Route = tuple[str, str]
"""Method and route."""

Runs = Mapping[Route, Sequence[float]]
"""Durations in the order of the requests."""


@dataclass(frozen=True, slots=True)
class Change:
    """One route in both runs. requests: of the smaller. before_s, after_s: the middle of the lower
    quartiles. ratio: of after to before. chance: of that by chance alone. The last three are None
    where there are too few requests."""

    method: str
    route: str
    requests: int
    outcome: Outcome
    before_s: float | None = None
    after_s: float | None = None
    ratio: float | None = None
    chance: float | None = None

    @property
    def name(self) -> str:
        return f"{self.method} {self.route}"

    def __str__(self) -> str:
        return f"{self.name}: {self.finding}"

    @property
    def finding(self) -> str:
        if self.before_s is None or self.after_s is None or self.ratio is None:
            return f"{self.requests:,} requests; {FEWEST} of each run would tell"
        return (
            f"{shown_s(self.before_s)} before, {shown_s(self.after_s)} now: {self.ratio - 1:+.1%} "
            f"(by chance: {self.chance:.2g})"
        )


def durations(requests: Iterable[Request]) -> dict[Route, list[float]]:
    """Of each route, without those that failed: a fast failure is no good answer."""
    found: dict[Route, list[float]] = {}
    for each in requests:
        if not each.failed:
            found.setdefault((each.method, each.route), []).append(each.duration_s)
    return found


def compare(before: Runs, after: Runs, tolerance: float = TOLERANCE) -> list[Change]:
    """Routes that are in both runs. tolerance: 0.15 lets a route be 15 % slower."""
    common = [route for route in after if route in before]
    told = [r for r in common if min(len(before[r]), len(after[r])) >= FEWEST]
    changes = []
    for route in common:
        requests = min(len(before[route]), len(after[route]))
        if route in told:
            chance = CHANCE / len(told)
            changes.append(_change(route, before[route], after[route], tolerance, chance))
        else:
            changes.append(Change(*route, requests, Outcome.UNDECIDED))
    return changes


def _change(
    route: Route, before: Sequence[float], after: Sequence[float], tolerance: float, allowed: float
) -> Change:
    old, new = _pieces(before), _pieces(after)
    logs = [math.log(b / a) for a, b in zip(old, new, strict=True) if a > 0 and b > 0]
    ratio = math.exp(median(logs)) if logs else 1.0
    chance = signed_rank(logs)
    slower = ratio > 1 + tolerance and chance <= allowed
    return Change(
        *route, min(len(before), len(after)), Outcome.FAILED if slower else Outcome.PASSED,
        median(old), median(new), ratio, chance,
    )  # fmt: skip


def _pieces(durations: Sequence[float]) -> list[float]:
    """The lower quartile of each piece."""
    edges = [len(durations) * n // _PIECES for n in range(_PIECES + 1)]
    return [
        _quantile(sorted(durations[start:end]))
        for start, end in zip(edges, edges[1:], strict=False)
    ]


def _quantile(ordered: Sequence[float]) -> float:
    place = (len(ordered) - 1) * _QUANTILE
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def signed_rank(differences: Sequence[float]) -> float:
    """The chance of ranks so far above 0 where each difference is as likely below as above it.
    Differences of 0 are left out; equal ones share their ranks."""
    ordered = sorted((each for each in differences if each), key=abs)
    doubled = _doubled_ranks([abs(each) for each in ordered])
    reached = sum(r for r, each in zip(doubled, ordered, strict=True) if each > 0)
    ways = [1] + [0] * sum(doubled)
    for rank in doubled:
        for total in range(len(ways) - 1, rank - 1, -1):
            ways[total] += ways[total - rank]
    return float(sum(ways[reached:]) / 2 ** len(ordered))


def _doubled_ranks(sizes: Sequence[float]) -> list[int]:
    """Twice the ranks from 1, so that those that are shared are whole."""
    ranks: list[int] = []
    while len(ranks) < len(sizes):
        start = len(ranks)
        same = sum(1 for each in sizes[start:] if each == sizes[start])
        ranks += [2 * start + same + 1] * same
    return ranks
