"""The callbacks of the application's observable instruments, which may take long or ask a database.

They are asked in a thread of their own before an export; everywhere else what they said last is
replayed. One that hangs holds up its own figures and those behind it, and nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pbmon import signals


class Observables:
    def __init__(self) -> None:
        self._asks: list[tuple[str, Callable[[], None]]] = []
        self._thread: threading.Thread | None = None
        self._were_asked = False
        self._local = threading.local()

    def add(self, instrument: str, ask: Callable[[], None]) -> None:
        self._asks.append((instrument, ask))

    # --- asking ---

    def start(self) -> None:
        """Begin to ask all of them, unless they are being asked."""
        if self.are_answering or not self._asks:
            return
        thread = threading.Thread(target=self._ask, name="pbmon-observe", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is exiting: what they said last counts
            if not self._were_asked:
                self._ask()
            return
        self._thread = thread

    @property
    def are_answering(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def wait(self, timeout_s: float) -> None:
        """Until all have answered, but no longer than this."""
        if self._thread is not None:
            self._thread.join(max(0.0, timeout_s))

    def _ask(self) -> None:
        self._were_asked = True
        for instrument, ask in self._asks.copy():
            try:
                ask()
            except Exception as error:
                signals.tell(
                    f"observing:{instrument}",
                    "pbmon: a callback of %s failed with %s; what it gave until then counts",
                    instrument, type(error).__name__, exc_info=True,
                )  # fmt: skip

    # --- replaying ---

    @property
    def are_replaying(self) -> bool:
        return getattr(self._local, "are_replaying", False)

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """While it lasts, what the calling thread collects is what they said last."""
        self._local.are_replaying = True
        try:
            yield
        finally:
            self._local.are_replaying = False

    def forget(self) -> None:
        """In a forked child: the thread is the parent's."""
        self._thread = None
        self._were_asked = False
