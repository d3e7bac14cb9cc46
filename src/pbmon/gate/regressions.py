"""Whether the requests of a run are slower than those of another, route by route.

The first request of a route in the one run is compared with the first in the other, the second with
the second. So where the same load went to both in turns, the two of a pair asked for the same thing
at the same moment, and what the machine did meanwhile is in both.

The pairs are cut, in their order, into pieces, of each of which stands the middle of the ratios: a
disturbance is longer than a request, and pairs that stand side by side share it. The middle is that
of the even pairs and that of the odd ones, halfway: who comes second may be much faster, and where
the two are first in turns, one middle of all would lie anywhere between.

A route is slower where the middle of all ratios is above the tolerance, and the pieces agree too
well for chance: Wilcoxon's signed-rank test, exact and one-sided, at 1 % over all routes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from pbmon.gate.runs import Request
from pbmon.gate.verdicts import Outcome, shown_s

TOLERANCE = 0.1
CHANCE = 0.01
"""Of calling a run slower that is the same, over all of its routes."""

FEWEST = 100
"""Requests of a route in each run: below, nothing is said; nor of a few more, where so many routes
are in the runs that chance could do the same to one of them."""

_PIECES, _IN_A_PIECE = 25, 10
_MOST = 700.0  # whose exp() a float can hold

Route = tuple[str, str]
"""Method and route."""

Runs = Mapping[Route, Sequence[float]]
"""Durations in the order of the requests."""


@dataclass(frozen=True, slots=True)
class Change:
    """One route in both runs. requests: of the smaller. before_s, after_s: medians. ratio: the
    middle of the pairs' ratios. chance: of that by chance alone. The last four are None where there
    are too few requests."""

    method: str
    route: str
    requests: int
    outcome: Outcome
    before_s: float | None = None
    after_s: float | None = None
    ratio: float | None = None
    chance: float | None = None
    enough: int = FEWEST

    @property
    def name(self) -> str:
        return f"{self.method} {self.route}"

    def __str__(self) -> str:
        return f"{self.name}: {self.finding}"

    @property
    def finding(self) -> str:
        if self.before_s is None or self.after_s is None or self.ratio is None:
            return f"{self.requests:,} requests; {self.enough} of each run would tell"
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
    chance = CHANCE / max(len(common), 1)
    enough = max(FEWEST, _IN_A_PIECE * math.ceil(-math.log2(chance)))
    changes = []
    for route in common:
        requests = min(len(before[route]), len(after[route]))
        if requests < enough:
            changes.append(Change(*route, requests, Outcome.UNDECIDED, enough=enough))
        else:
            changes.append(_change(route, before[route], after[route], tolerance, chance))
    return changes


def _change(
    route: Route, before: Sequence[float], after: Sequence[float], tolerance: float, allowed: float
) -> Change:
    pairs = [(old, new) for old, new in _pairs(before, after) if old > 0 and new > 0]
    ratios = [math.log(new) - math.log(old) for old, new in pairs]
    ratio = math.exp(min(_middle(ratios), _MOST)) if len(ratios) > 1 else 1.0
    chance = signed_rank(_pieces(ratios))
    slower = ratio > 1 + tolerance and chance <= allowed
    return Change(
        *route, min(len(before), len(after)), Outcome.FAILED if slower else Outcome.PASSED,
        median(before), median(after), ratio, chance,
    )  # fmt: skip


def _pairs(before: Sequence[float], after: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Where one run has more requests, its surplus is left out evenly."""
    pairs = min(len(before), len(after))
    for n in range(pairs):
        yield before[n * len(before) // pairs], after[n * len(after) // pairs]


def _pieces(ratios: Sequence[float]) -> list[float]:
    """The middle of each."""
    pieces = min(_PIECES, len(ratios) // _IN_A_PIECE)
    edges = [len(ratios) * n // pieces for n in range(pieces + 1)] if pieces else []
    return [_middle(ratios[start:end]) for start, end in zip(edges, edges[1:], strict=False)]


def _middle(ratios: Sequence[float]) -> float:
    return (median(ratios[::2]) + median(ratios[1::2])) / 2


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
