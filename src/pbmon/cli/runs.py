"""Run files, as a command finds them on the disk."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from pbmon.gate.runs import Request, RunError, Tally, decode

STANDARD_INPUT = "-"


def read(names: Sequence[str], warmup: int = 0) -> tuple[list[Request], list[Tally]]:
    """Requests and tallies of files, in their order. warmup: the first requests of each route and
    file that are left out. Raises RunError."""
    requests: list[Request] = []
    tallies: list[Tally] = []
    for name in names:
        made: Counter[tuple[str, str]] = Counter()
        for item in _items(name):
            if isinstance(item, Tally):
                tallies.append(item)
                continue
            made[item.method, item.route] += 1
            if made[item.method, item.route] > warmup:
                requests.append(item)
    return requests, tallies


def _items(name: str) -> Iterator[Request | Tally]:
    if name == STANDARD_INPUT:
        yield from decode(sys.stdin.buffer, "standard input")
        return
    try:
        with open(name, "rb") as file:  # noqa: PTH123 - a name that is no path raises here alone
            yield from decode(file, name)
    except (OSError, ValueError) as error:
        if isinstance(error, RunError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunError(f"{name}: {reason}") from None
