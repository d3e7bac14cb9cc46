"""APScheduler: jobs that raised. It catches what they raise, so nothing else sees it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from pbmon import runtime, signals
from pbmon.hooks.patches import Hook, Patch

Dispatch = Callable[..., Any]


def noting_event(dispatch: Dispatch) -> Dispatch:
    """For `BaseScheduler._dispatch_event`: in the scheduler's process, whatever executor the job
    ran in."""

    @functools.wraps(dispatch)
    def dispatch_event(self: Any, event: Any) -> Any:
        try:
            error = getattr(event, "exception", None)
            if isinstance(error, BaseException):
                runtime.active.errors.seen(error)
        except Exception as ours:
            signals.failed("hook apscheduler", ours)
        return dispatch(self, event)

    return dispatch_event


class APSchedulerHook(Hook):
    library = "apscheduler"
    tested = "3.11"
    patches = (Patch("apscheduler.schedulers.base", "BaseScheduler._dispatch_event", noting_event),)
