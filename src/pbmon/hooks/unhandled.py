"""Exceptions that nobody handles outside of requests: in the main thread, in others, in callbacks
and tasks of event loops. Each is reported, and then told as it would be without us."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from pbmon import runtime, signals
from pbmon.hooks.patches import Hook, Patch

Told = Callable[..., Any]


def noting_main(told: Told) -> Told:
    """For `sys.excepthook`."""

    @functools.wraps(told)
    def excepthook(exc_type: Any, error: Any, trace: Any) -> None:
        _report(error)
        told(exc_type, error, trace)

    return excepthook


def noting_thread(told: Told) -> Told:
    """For `threading.excepthook`. A thread may end by SystemExit, whatever its code."""

    @functools.wraps(told)
    def excepthook(args: Any) -> None:
        if not isinstance(args.exc_value, SystemExit):
            _report(args.exc_value)
        told(args)

    return excepthook


def noting_loop(told: Told) -> Told:
    """For a loop's `call_exception_handler`, which calls the application's own handler. A
    connection that broke, as of a client that left, is nobody's failure."""

    @functools.wraps(told)
    def call_exception_handler(self: Any, context: Any) -> None:
        try:
            error = context.get("exception")
            is_broken = isinstance(error, OSError) and not context.keys().isdisjoint(_CONNECTIONS)
        except Exception as ours:
            signals.failed("hook unhandled", ours)
        else:
            if not is_broken:
                _report(error)
        told(self, context)

    return call_exception_handler


_CONNECTIONS = frozenset(("transport", "protocol", "socket"))


def _report(error: Any) -> None:
    if isinstance(error, BaseException):
        runtime.active.errors.seen(error)


class UnhandledHook(Hook):
    library = "unhandled"
    tested = "Python 3.13, uvloop 0.23"
    patches = (
        Patch("sys", "excepthook", noting_main),
        Patch("threading", "excepthook", noting_thread),
        Patch("asyncio.base_events", "BaseEventLoop.call_exception_handler", noting_loop),
        Patch("uvloop", "Loop.call_exception_handler", noting_loop),
    )
