"""check_budget(): the verdict of a budget on a duration that the application measured itself."""

from __future__ import annotations

from pbmon import runtime
from pbmon.budgets import Verdict
from pbmon.business.refusals import note, refuse

_MOST_S = 1e12  # an int may be too large to be subtracted from a float


def check_budget(
    endpoint: str, duration_s: float, *, method: str | None = None, failed: bool = False
) -> Verdict:
    """Judge a duration by the budget of an endpoint.

        began = time.monotonic()
        import_all()
        if not pbmon.check_budget("nightly-import", time.monotonic() - began):
            ...    # it took longer than `max`

    endpoint: name of an operation that no hook measures, as a budget names it: it is counted, and
        a breach of `max` is logged. Or a route template, `/api/users`: judged and not counted, as
        the hooks have done that.
    duration_s: seconds, as int or float; finite and not below 0.
    method: of a route, where budgets for single methods are to apply.
    failed: the operation did not do its work. It spends `availability` and no other promise, or a
        failure at once would look like good time.

    Returns a Verdict, true within `max`: budget, duration_s, limits (those of max, p95, p99 that
    were passed), exceeded, excess_s (seconds beyond `max`). Its budget is None where there is none,
    before configure() too; an operation without one is told once for each line and counted as
    unknown_budget in pbmon.refused_calls.
    Raises TypeError. A wrong duration_s is told and counted likewise (bad_duration) and not judged;
    under strict, ValueError.
    Goes to the metrics pbmon.budget.requests and pbmon.budget.breaches.
    """
    sink = runtime.active.budgets
    if sink is None:
        return Verdict(None, duration_s)
    if not isinstance(endpoint, str):
        raise TypeError(f"endpoint must be str, not {type(endpoint).__name__}")
    if not isinstance(duration_s, (int, float)) or isinstance(duration_s, bool):
        raise TypeError(f"duration_s must be int or float, not {type(duration_s).__name__}")
    if method is not None and not isinstance(method, str):
        raise TypeError(f"method must be str or None, not {type(method).__name__}")
    if not isinstance(failed, bool):
        raise TypeError(f"failed must be bool, not {type(failed).__name__}")
    if not 0 <= duration_s <= _MOST_S:
        refuse("check_budget", "bad_duration", "duration_s must be finite seconds, not below 0")
        return Verdict(None, duration_s)
    verdict = sink.check(endpoint, duration_s, method, failed=failed)
    if verdict is None:
        if not endpoint.startswith("/"):
            note("check_budget", "unknown_budget", f"no budget is named {endpoint[:100]!r}; add it")
        return Verdict(None, duration_s)
    return verdict
