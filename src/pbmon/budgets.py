"""A performance budget and its verdict on one duration. Pure: no I/O, no clock, no state."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from pbmon.catalog import KNOWN_METHODS

Limit = Literal["max", "p95", "p99", "availability"]

ALLOWED: Mapping[Limit, float] = {"max": 0.0, "p95": 0.05, "p99": 0.01}
"""Share of requests that may pass the threshold. max 0 means: alert by count, not by share."""

MAX_NAME = 100
"""Characters of an operation's name."""

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h)")
_METHOD = re.compile(r"[A-Z]+")
_MAX_S = 1e12  # an int may be too large for a float


def seconds(value: object) -> float:
    """A duration as float seconds, from a number of seconds or text such as `300ms` or `1.5s`.

    Raises ValueError for anything else, a negative or an infinite one included.
    """
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is no duration; write seconds, or text such as '300ms'")
    if isinstance(value, (int, float)):
        number = float(value) if abs(value) <= _MAX_S else float("inf")
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        number = float(match[1]) * _UNITS[match[2]]
    else:
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise ValueError(
                f"{value!r} is no duration; write seconds, or text such as '300ms'"
            ) from None
    if not 0 <= number < float("inf"):
        raise ValueError(f"{value!r} is no duration; it must be finite and not negative")
    return number


@dataclass(frozen=True, slots=True)
class Budget:
    """What one endpoint promises.

    endpoint: route template, as in `http.route` (`/api/users/{user_id}`); or the name of an
        operation that no hook measures and check_budget() judges, as `nightly-import`: 1 to 100
        printable characters without a `/`.
    max_s: no request may take longer (seconds). p95_s, p99_s: at most 5 % and 1 % of the
        requests may take longer than this.
    availability: share of requests that must not end in a 5xx, for example 0.999; of an
        operation, that must not fail.
    method: the budget is for this method only; None is every method. An operation has none.

    Raises ValueError naming the field and the remedy.
    """

    endpoint: str
    max_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    availability: float | None = None
    method: str | None = None
    thresholds: Mapping[Limit, float] = field(init=False, repr=False, compare=False)
    """Limit → seconds, only those that are set."""

    def __post_init__(self) -> None:
        self._check_endpoint(self.endpoint)
        self._check_method(self.method)
        self._set_thresholds()
        if self.availability is not None:
            self._check_availability(self.availability)
        if not self.thresholds and self.availability is None:
            raise ValueError(
                f"budget for {self.endpoint} promises nothing; "
                "give max_s, p95_s, p99_s or availability"
            )
        self._check_order()

    @staticmethod
    def _check_endpoint(value: object) -> None:
        if isinstance(value, str) and (value.startswith("/") or is_operation(value)):
            return
        raise ValueError(
            f"budget endpoint {value!r} must be a route template starting with '/', or the name "
            f"of an operation: 1 to {MAX_NAME} printable characters without '/'"
        )

    def _check_method(self, value: object) -> None:
        if value is None:
            return
        if not isinstance(value, str) or not _METHOD.fullmatch(value):
            raise ValueError(
                f"budget for {self.endpoint}: method {value!r} must be upper case, as GET"
            )
        if not self.is_route:
            raise ValueError(
                f"budget for {self.endpoint}: an operation has no method; leave {value} out, or "
                f"write /{self.endpoint} if it is a route"
            )

    def _set_thresholds(self) -> None:
        thresholds: dict[Limit, float] = {}
        for limit in ALLOWED:
            name = f"{limit}_s"
            if (value := getattr(self, name)) is not None:
                thresholds[limit] = self._positive(name, value)
                object.__setattr__(self, name, thresholds[limit])
        object.__setattr__(self, "thresholds", thresholds)

    def _positive(self, name: str, value: object) -> float:
        try:
            number = seconds(value)
        except ValueError as error:
            raise ValueError(f"budget for {self.endpoint}: {name}: {error}") from None
        if number == 0:
            raise ValueError(f"budget for {self.endpoint}: {name} must be above 0")
        return number

    def _check_availability(self, value: object) -> None:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= 1:
            raise ValueError(
                f"budget for {self.endpoint}: availability {value!r} must be above 0 and at "
                "most 1, for example 0.999"
            )

    def _check_order(self) -> None:
        ordered = [(n, t) for n in ("p95", "p99", "max") if (t := self.thresholds.get(n))]
        for (low, low_s), (high, high_s) in zip(ordered, ordered[1:], strict=False):
            if low_s > high_s:
                raise ValueError(
                    f"budget for {self.endpoint}: {low} ({low_s:g} s) is above {high} "
                    f"({high_s:g} s); the order is p95 ≤ p99 ≤ max"
                )

    @property
    def is_route(self) -> bool:
        """Whether the hooks measure it; else it is an operation, for check_budget()."""
        return self.endpoint.startswith("/")

    @property
    def limits(self) -> tuple[Limit, ...]:
        """Every promise this budget makes, availability included."""
        promised: tuple[Limit, ...] = tuple(self.thresholds)
        return (*promised, "availability") if self.availability is not None else promised

    def allowed(self, limit: Limit) -> float:
        """Share that may break a promise: 0 of `max`, and of an availability of 1."""
        if limit in ALLOWED:
            return ALLOWED[limit]
        # Rounded: 1 - 0.999 is 0.0010000000000000009.
        return round(1 - (1 if self.availability is None else self.availability), 12)

    def judge(self, duration_s: float) -> Verdict:
        """The verdict on a request that took duration_s; a threshold itself is not passed."""
        passed = tuple(n for n, limit in self.thresholds.items() if duration_s > limit)
        excess = duration_s - self.max_s if "max" in passed and self.max_s is not None else 0.0
        return Verdict(self, duration_s, passed, excess)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a budget says of one duration. True when it stayed within `max`, or there is no budget.

    limits: those of max, p95, p99 that were passed. excess_s: seconds beyond `max`.
    """

    budget: Budget | None
    duration_s: float
    limits: tuple[Limit, ...] = ()
    excess_s: float = 0.0

    @property
    def exceeded(self) -> bool:
        return "max" in self.limits

    def __bool__(self) -> bool:
        return not self.exceeded


class Budgets:
    """The configured budgets, looked up by method and route, or by an operation's name; the
    narrower one wins."""

    __slots__ = ("_by_key", "all")

    def __init__(self, budgets: Iterable[Budget] = ()) -> None:
        self._by_key = {(b.method, b.endpoint): b for b in budgets}
        self.all = tuple(self._by_key.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Budgets) and self.all == other.all

    def __hash__(self) -> int:
        return hash(self.all)

    def find(self, method: str | None, route: str | None) -> Budget | None:
        if route is None:
            return None
        return self._by_key.get((method, route)) or self._by_key.get((None, route))


def is_operation(name: str) -> bool:
    """Whether a budget may be for this name, as for something that is no route."""
    fits = 0 < len(name) <= MAX_NAME and name.isprintable() and name.strip() == name
    return fits and "/" not in name


# --- parsing ------------------------------------------------------------------------------------


def _refuse_milliseconds(name: str, value: object) -> None:
    """A bare `max = 500` would be 500 seconds, and never exceeded."""
    text = str(value).strip()
    if text.replace(".", "", 1).isdigit() and float(text) > _LONGEST_BARE_S:
        raise ValueError(f"budget {name} {text} would be seconds; write '{text}ms', or '{text}s'")


_LONGEST_BARE_S = 60
_FIELDS = frozenset(f.name for f in fields(Budget) if f.init)


def parse_budget(value: object) -> Budget:
    """A Budget from a Budget, a table of `pbmon.toml`, or text.

    Text: `[METHOD] /route name=value …`, for example
    `/api/transactions max=500ms p95=300ms p99=400ms`, `GET /api/users max=0.2
    availability=0.999` or `nightly-import max=1h`. Raises ValueError.
    """
    if isinstance(value, Budget):
        return value
    if isinstance(value, str):
        value = _table(value)
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is no budget; write a table or '/route max=500ms'")
    given: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{key}_s" if key in ALLOWED else str(key)
        if name not in _FIELDS:
            raise ValueError(
                f"budget has no field {key!r}; the fields are endpoint, method, max, p95, p99, "
                "availability"
            )
        if key in ALLOWED:
            _refuse_milliseconds(str(key), item)
        if name in given:
            raise ValueError(f"budget for {value.get('endpoint')}: {key} is given twice")
        given[name] = item
    if "endpoint" not in given:
        raise ValueError(f"budget {dict(value)!r} names no endpoint")
    return Budget(**given)


def _table(text: str) -> dict[str, object]:
    words = text.split()
    table: dict[str, object] = {}
    if words and (words[0] in KNOWN_METHODS or (len(words) > 1 and words[1].startswith("/"))):
        table["method"] = words.pop(0)
    if words and (words[0].startswith("/") or "=" not in words[0]):
        table["endpoint"] = words.pop(0)
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not value:
            raise ValueError(f"budget {text!r}: {word!r} is not name=value, for example max=500ms")
        if name in table:
            raise ValueError(f"budget {text!r}: {name} is given twice")
        table[name] = _share(text, value) if name == "availability" else value
    return table


def _share(text: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(
            f"budget {text!r}: availability {value!r} must be a number, for example 0.999"
        ) from None
