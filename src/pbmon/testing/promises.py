"""What a test with the marker `budget` promises, and whether its requests kept it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pbmon import catalog
from pbmon.budgets import Budget, Budgets, parse_budget
from pbmon.gate.verdicts import Outcome, count, judge, shown_s
from pbmon.testing.seen import SeenRequest

_LIMITS = ("max", "p95", "p99", "availability")
_ANY = "/any"
"""The endpoint of limits that are for every request of a test."""

_MOST_NAMED = 5


class PromiseError(ValueError):
    """A marker that can't be understood."""


@dataclass(frozen=True, slots=True)
class Promise:
    """One marker. endpoint, method: None for every request. budget: its limits, of _ANY; None where
    it has none. warmup: first requests of each route that are not judged."""

    endpoint: str | None
    method: str | None
    budget: Budget | None
    queries: int | None
    warmup: int

    @property
    def is_bare(self) -> bool:
        """The configured budgets are meant."""
        return self.budget is None and self.queries is None


def promises(markers: Iterable[Any]) -> list[Promise]:
    """markers: as pytest has them. Raises PromiseError."""
    return [_promise(*marker.args, **marker.kwargs) for marker in markers]


def _promise(*args: Any, **options: Any) -> Promise:
    if len(args) > 1:
        raise PromiseError("takes one endpoint; use one marker for each")
    endpoint = args[0] if args else options.pop("endpoint", None)
    if endpoint is not None and not (isinstance(endpoint, str) and endpoint.startswith("/")):
        raise PromiseError(f"endpoint {endpoint!r} must be a route template starting with '/'")
    queries = _whole("queries", options.pop("queries", None))
    warmup = _whole("warmup", options.pop("warmup", 0)) or 0
    method = options.pop("method", None)
    limits = {name: options.pop(name) for name in _LIMITS if options.get(name) is not None}
    if options:
        raise PromiseError(
            f"there is no {next(iter(options))!r}; there are endpoint, method, "
            f"{', '.join(_LIMITS)}, queries, warmup"
        )
    budget = None
    if limits:
        try:
            budget = parse_budget({"endpoint": _ANY, **limits})
        except ValueError as error:
            raise PromiseError(str(error).replace(f"budget for {_ANY}: ", "")) from None
    return Promise(endpoint, method, budget, queries, warmup)


def _whole(name: str, value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise PromiseError(f"{name} {value!r} is not a whole number, 0 or above")


def broken(promise: Promise, requests: Sequence[SeenRequest], budgets: Budgets) -> Iterator[str]:
    """What of it was not kept, in words."""
    if promise.endpoint is not None and promise.is_bare and not _has(budgets, promise):
        yield f"there is no budget for {_name(promise)}; configure it, or give the marker limits"
        return
    wanted = list(_warm([each for each in requests if _is_meant(promise, each)], promise.warmup))
    if not wanted:
        if promise.endpoint is not None or not promise.is_bare:
            seen = ", ".join(dict.fromkeys(each.name for each in requests)) or "none"
            yield f"the test made no request to {_name(promise)} that counts; it made: {seen}"
        return
    if promise.queries is not None:
        yield from _too_many(wanted, promise.queries)
    if promise.budget is not None:
        made = [each.as_request()._replace(route=_ANY) for each in wanted]
        yield from _over(made, Budgets([promise.budget]), _name(promise), wanted)
    elif promise.is_bare:
        yield from _over([each.as_request() for each in wanted], budgets, None, wanted)


def _has(budgets: Budgets, promise: Promise) -> bool:
    methods = [promise.method] if promise.method else [b.method for b in budgets.all]
    return any(budgets.find(method, promise.endpoint) is not None for method in [None, *methods])


def _name(promise: Promise) -> str:
    return " ".join(filter(None, (promise.method, promise.endpoint))) or "any known route"


def _is_meant(promise: Promise, request: SeenRequest) -> bool:
    return promise.endpoint in (None, request.route) and promise.method in (None, request.method)


def _warm(requests: Sequence[SeenRequest], warmup: int) -> Iterator[SeenRequest]:
    made: Counter[str] = Counter()
    for request in requests:
        made[request.name] += 1
        if made[request.name] > warmup:
            yield request


def _over(
    made: list[Any], budgets: Budgets, name: str | None, requests: Sequence[SeenRequest]
) -> Iterator[str]:
    for judgement in map(judge, count(made, budgets)):
        if judgement.outcome is Outcome.FAILED:
            text = str(judgement)
            yield text.replace(_ANY, name, 1) if name is not None else text
            if judgement.count.limit != "availability":
                route = judgement.count.endpoint
                slowest = max(
                    (each for each in requests if route in (_ANY, each.route) and not each.failed),
                    key=lambda each: each.duration_s,
                )
                yield f"  the slowest: {slowest.name} in {shown_s(slowest.duration_s)}"


def _too_many(requests: Sequence[SeenRequest], most: int) -> Iterator[str]:
    over = [each for each in requests if len(each.queries) > most]
    for request in over[:_MOST_NAMED]:
        yield f"{request.name}: {len(request.queries)} queries; {most} may be:"
        texts = Counter(
            str(q.attributes.get(catalog.DB_TEXT.name, q.name)) for q in request.queries
        )
        for text, times in texts.most_common(_MOST_NAMED):
            yield f"  {times} × {text}"
    if len(over) > _MOST_NAMED:
        yield f"and {len(over) - _MOST_NAMED} requests more"
