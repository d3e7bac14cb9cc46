"""Work that many ask for at once and that is done once for all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from pbmon import signals


class Rounds:
    """One round of the work after the other, in a thread that is there as long as there is one.

    do: the work, given the longest time in s that anybody waits for it; whether it succeeded.
    """

    def __init__(self, name: str, do: Callable[[float], bool]) -> None:
        self._name = name
        self._do = do
        self._begin()
        signals.enlist(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._next: Future[bool] | None = None
        self._timeout_s = 0.0
        self._running = False

    def forget(self) -> None:
        """In a forked child: the thread is the parent's, and so are those who wait."""
        self._begin()

    def join(self, timeout_s: float) -> Future[bool]:
        """What the next round gives that begins after this call. Nobody can cancel it, as it is
        the others' too."""
        with self._lock:
            if self._next is None:
                self._next = Future()
                self._next.set_running_or_notify_cancel()
                self._timeout_s = 0.0
            joined = self._next
            self._timeout_s = max(self._timeout_s, timeout_s)
            starts, self._running = not self._running, True
        if starts:
            try:
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
            except RuntimeError:  # the interpreter is exiting
                self._run()
        return joined

    def _run(self) -> None:
        while True:
            with self._lock:
                future, self._next = self._next, None
                timeout_s = self._timeout_s
                if future is None:
                    self._running = False
                    return
            done = False
            try:
                with signals.guard(f"a round of {self._name}"):
                    done = self._do(timeout_s)
            finally:
                future.set_result(done)
