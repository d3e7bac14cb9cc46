"""SIGTERM and SIGINT: what waits is handed over before a signal ends the process.

Without a handler SIGTERM ends Python at once and no atexit runs. Ours stands only where nothing
else ends the process in an orderly way:

| what was there | what happens |
|---|---|
| the default action (SIG_DFL) | flush, then the default action: the exit status is the same |
| a handler in Python | it is called; flush if it raises; if it returns, the process goes on |
| ignored, or a handler in C | untouched |
| KeyboardInterrupt, Python's own SIGINT | untouched: it unwinds, and atexit flushes |

Python's own SIGINT handler must stay the very object: asyncio.run() and trio look for it and
cancel the main task only where they find it. Servers that put their handlers over ours are never
in our way, nor we in theirs.

The flush runs in a thread of its own, and the handler waits for it within a deadline: the signal
may have come while the main thread holds the very lock that the flush needs. A second signal
ends the wait, unless it follows the first so closely that it is the same order, given twice: a
server terminates its workers and multiprocessing does so again, or a signal goes to the group
and is passed on by the parent as well.
"""

from __future__ import annotations

import _thread
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from pbmon import signals

Flush = Callable[[bool], object]
"""Called with True: send everything. With False: only what takes milliseconds, since an event
loop stands still meanwhile."""

FLUSH_S = 5.0
QUICK_S = 0.25
"""The longest wait for flush(True) and for flush(False)."""

REPEAT_S = 1.0
"""How long after the first a signal is no second one."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_handlers: dict[signal.Signals, _Handler] = {}
_flush: Flush | None = None
_flushing_since: float | None = None


def install(flush: Flush) -> None:
    """Stand before SIGTERM and SIGINT where the table above says so.

    A second call only changes `flush`. Outside the main thread of the main interpreter, where
    Python lets nobody set a handler, nothing happens.
    """
    global _flush
    _flush = flush
    for signum in _SIGNALS:
        previous = signal.getsignal(signum)
        if signum in _handlers or previous in (None, signal.SIG_IGN, signal.default_int_handler):
            continue
        handler = _Handler(previous)
        try:
            signal.signal(signum, handler)
        except ValueError:
            return
        _handlers[signum] = handler


def remove() -> None:
    """Put back what was there, where ours is still in place; elsewhere ours passes through."""
    global _flush
    _flush = None
    for signum, handler in list(_handlers.items()):
        in_place: Any = signal.getsignal(signum)
        if in_place is handler:
            try:
                signal.signal(signum, handler.previous)
            except ValueError:
                return
        del _handlers[signum]


class _Handler:
    """Takes the place of `previous`."""

    def __init__(self, previous: Any) -> None:
        self.previous = previous

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if _flushing_since is not None and time.monotonic() - _flushing_since < REPEAT_S:
            return
        if callable(self.previous):
            try:
                self.previous(signum, frame)
            except BaseException:
                _hand_over()
                raise
        elif signal.getsignal(signum) is self:
            try:
                _hand_over()
            finally:  # whatever another signal raised meanwhile: this one ends the process
                signal.signal(signum, signal.SIG_DFL)
                signal.raise_signal(signum)
        else:
            # Somebody put a handler over ours, which called what it found. The default action
            # can't be called, so without us it would have done nothing here.
            _hand_over()


def _hand_over() -> None:
    """Flush, once at a time: a signal during a flush is the second one, and ends the wait."""
    global _flushing_since
    flush = _flush
    if _flushing_since is not None or flush is None:
        return
    _flushing_since = time.monotonic()
    try:
        _wait_for(flush, full=not _in_event_loop())
    finally:
        _flushing_since = None


def _wait_for(flush: Flush, *, full: bool) -> None:
    finished = _thread.allocate_lock()
    finished.acquire()

    def work() -> None:
        try:
            with signals.guard("flush at a signal"):
                flush(full)
        finally:
            finished.release()

    try:
        # Not threading.Thread, whose start() waits for the new thread without a deadline.
        _thread.start_new_thread(work, ())
    except RuntimeError:  # the interpreter is ending, atexit has flushed
        return
    finished.acquire(timeout=FLUSH_S if full else QUICK_S)


def _in_event_loop() -> bool:
    """Whether an asyncio loop (uvloop's too) runs in this, the main thread."""
    asyncio = sys.modules.get("asyncio.events")  # not imported for the sake of asking
    return asyncio is not None and asyncio._get_running_loop() is not None  # noqa: SLF001
