"""The way of what is handed over into this process's journal, which is made at the first use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from pbmon import runtime, signals
from pbmon.spool.directory import Home, UnusableError
from pbmon.spool.journal import MAX_RECORD, Journal

NO_DIRECTORY = "no_state_directory"


class Intake:
    """Called from every thread. open_home: gives the place of the journals, or raises
    UnusableError; on_first: starts what ships them."""

    def __init__(self, open_home: Callable[[], Home], on_first: Callable[[Home], None]) -> None:
        self._open_home = open_home
        self._on_first = on_first
        self._journal: Journal | None = None
        self._opening = threading.Lock()
        self._accepted = signals.Cell()
        self._refused: dict[str, signals.Cell] = {}
        signals.enlist(self)

    def put(self, payload: bytes) -> str:
        """Take an item: from here on it survives this process. Or say why not: full, io_error,
        too_large, busy, no_state_directory."""
        box = runtime.outbox.get()
        if box is not None:
            return self._put_into(box, payload)
        journal = self._journal or self._open()
        reason = journal.append(payload) if journal is not None else NO_DIRECTORY
        if reason:
            self._refuse(reason)
        else:
            self._accepted.up()
        return reason

    def _put_into(self, box: list[bytes], payload: bytes) -> str:
        if len(payload) > MAX_RECORD:
            self._refuse("too_large")
            return "too_large"
        box.append(payload)
        if self._journal is None:
            self._open()  # for the shipper, which drains the outbox too
        return ""

    def _refuse(self, reason: str) -> None:
        cell = self._refused.get(reason) or self._refused.setdefault(reason, signals.Cell())
        cell.up()
        if reason == "full":
            signals.tell(
                "journal",
                "pbmon: there is no room for more events; they are refused and counted. Free disk "
                "space, or mend the way to the store (`pbmon doctor` says where it is)",
            )

    def _open(self) -> Journal | None:
        if not self._opening.acquire(blocking=False):
            return None  # another thread is at it, or this one is called in the middle of it
        try:
            if self._journal is None:
                home = self._open_home()
                self._journal = Journal(home)
                self._on_first(home)
        except UnusableError as error:
            signals.tell(
                "journal",
                "pbmon: no state directory for events: %s. They are refused and counted. Set "
                "PBMON_STATE_DIR to a directory that this user can write to.",
                error,
            )
        finally:
            self._opening.release()
        return self._journal

    def look_after(self) -> None:
        """About once a second: another journal where nothing more can be put into this one."""
        journal = self._journal
        if journal is not None and not journal.is_usable:
            self._journal = None
            journal.close()
            self._open()

    def totals(self) -> Mapping[tuple[str, str], int]:
        """(outcome, reason) → items of this process."""
        refused = {("refused", reason): cell.value for reason, cell in self._refused.items()}
        return {("accepted", ""): self._accepted.value, **refused}

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def forget(self) -> None:
        """In a forked child: the journal is the parent's; the child makes one of its own."""
        self._opening = threading.Lock()
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.forget()
            journal.home.close()
        for cell in (self._accepted, *self._refused.values()):
            cell.forget()
