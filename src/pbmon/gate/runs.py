"""A run: the requests of a load or a test, a line of JSON each. docs/testing.md has the format.

Text in, values out, and back; who reads and writes the file is not known here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pbmon.budgets import Limit

LIMITS: Mapping[str, Limit] = {
    "max": "max", "p95": "p95", "p99": "p99", "availability": "availability"
}  # fmt: skip
_MOST = 2**53
"""Of a count: what any reader of JSON keeps exactly."""


class RunError(ValueError):
    """A line that is none of a run; the text says which, and what would be right."""


class Request(NamedTuple):
    """One request, as a budget judges it."""

    method: str
    route: str
    """Template, as in `http.route`."""
    duration_s: float
    """To the last byte; of a stream to the first."""
    failed: bool = False
    """Ended in a 5xx or an exception."""
    queries: int | None = None
    """Statements sent to a database; None: not known."""
    test: str | None = None
    """The test that made it."""


class Tally(NamedTuple):
    """Requests that somebody else has counted already."""

    method: str | None
    route: str
    limit: Limit
    requests: int
    over: int
    allowed: float | None = None
    """Share; None: as the limit says."""


def encode(request: Request) -> str:
    """A line, with its end."""
    fields = {
        "method": request.method,
        "route": request.route,
        "duration_s": round(request.duration_s, 9),
        "failed": request.failed or None,
        "queries": request.queries,
        "test": request.test,
    }
    line = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"


def decode(lines: Iterable[bytes], name: str) -> Iterator[Request | Tally]:
    """What the lines say; empty ones are left out. name: of the file, in messages.

    Raises RunError.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise RunError(f"{name}, line {number}: is no JSON object in one line") from None
        try:
            yield _item(value)
        except ValueError as error:
            raise RunError(f"{name}, line {number}: {error}") from None


def _item(value: Any) -> Request | Tally:
    if not isinstance(value, Mapping):
        raise ValueError("is no JSON object")
    route = value.get("route")
    if not isinstance(route, str) or not route.startswith("/"):
        raise ValueError("route must be a route template that starts with '/'")
    method = value.get("method")
    if method is not None and not isinstance(method, str):
        raise ValueError("method must be text, such as GET")
    return _tally(value, method, route) if "limit" in value else _request(value, method, route)


def _request(value: Mapping[str, Any], method: str | None, route: str) -> Request:
    if method is None:
        raise ValueError("method is missing, such as GET")
    failed = value.get("failed", False)
    if not isinstance(failed, bool):
        raise ValueError("failed must be true or false")
    queries = _count(value, "queries") if value.get("queries") is not None else None
    test = value.get("test")
    return Request(
        method, route, _number(value, "duration_s"), failed, queries,
        test if isinstance(test, str) else None,
    )  # fmt: skip


def _tally(value: Mapping[str, Any], method: str | None, route: str) -> Tally:
    limit = LIMITS.get(str(value["limit"]))
    if limit is None:
        raise ValueError(f"limit must be one of {', '.join(LIMITS)}")
    requests, over = _count(value, "requests"), _count(value, "over")
    if over > requests:
        raise ValueError("over is more than requests")
    allowed = _number(value, "allowed") if value.get("allowed") is not None else None
    if allowed is not None and allowed > 1:
        raise ValueError("allowed is a share, such as 0.05")
    return Tally(method, route, limit, requests, over, allowed)


def _number(value: Mapping[str, Any], name: str) -> float:
    number = value.get(name)
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= _MOST:
        return float(number)
    if isinstance(number, float) and math.isfinite(number) and number >= 0:
        return number
    raise ValueError(f"{name} must be a number, 0 or above")


def _count(value: Mapping[str, Any], name: str) -> int:
    number = value.get(name)
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= _MOST:
        return number
    raise ValueError(f"{name} must be a whole number, 0 or above")
