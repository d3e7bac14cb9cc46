"""Which thresholds of budgets are edges of the histogram of requests."""

from __future__ import annotations

import math
from collections.abc import Iterable

from pbmon.budgets import Budget

MAX_EDGES = 32
"""Edges that budgets may add to a histogram, each of which is a series of every series of it."""

_NEAR = 1.05


def edges(budgets: Iterable[Budget], fixed: Iterable[float]) -> list[float]:
    """The thresholds of routes' budgets as edges of a histogram beside those it has anyway.

    One that is within 5 % of a fixed edge, or of a smaller threshold that is one, is not worth a
    place of its own. Of more than MAX_EDGES those go first that lie closest to the edge below them.
    """
    places = set(fixed)
    added: list[float] = []
    wanted = {t for b in budgets if b.is_route for t in b.thresholds.values()}
    for threshold in sorted(wanted - places):
        if all(_apart(threshold, place) >= _NEAR for place in (*places, *added[-1:])):
            added.append(threshold)
    while len(added) > MAX_EDGES:
        every = sorted((*places, *added))
        below = dict(zip(every[1:], every, strict=False))
        added.remove(min(added, key=lambda edge: _apart(edge, below.get(edge, 0.0))))
    return added


def _apart(one: float, other: float) -> float:
    low, high = sorted((one, other))
    return high / low if low > 0 else math.inf
