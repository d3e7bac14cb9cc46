"""The way of what is handed over into this process's journal, which is made at the first use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from pbmon import runtime, signals
from pbmon.spool import turning
from pbmon.spool.directory import Home, UnusableError
from pbmon.spool.journal import MAX_RECORD, Journal

NO_DIRECTORY = "no_state_directory"
SHUT_DOWN = "shut_down"


class Taker(Protocol):
    """What takes an item: this process's journal."""

    def put(self, payload: bytes) -> str:
        """Why it was not taken, or an empty text."""


class Intake:
    """Called from every thread. open_home: gives the place of the journals, or raises
    UnusableError; on_first: starts what ships them."""

    def __init__(self, open_home: Callable[[], Home], on_first: Callable[[Home], None]) -> None:
        self._open_home = open_home
        self._on_first = on_first
        self._journal: Journal | None = None
        self._left: list[Journal] = []
        """Those before it that may not be on the disk itself."""
        self._has_lost = False
        self._ended = False
        self._making = False
        self._opening = threading.RLock()
        self._accepted = signals.Cell()
        self._refused: dict[str, signals.Cell] = {}
        signals.enlist(self)

    def put(self, payload: bytes) -> str:
        """Take an item: from here on it survives this process. Or say why not: full, io_error,
        too_large, busy, no_state_directory, shut_down."""
        box = runtime.outbox.get()
        if box is not None:
            return self._put_into(box, payload)
        journal = self._journal or self._open()
        if isinstance(journal, Journal):
            reason = journal.append(payload)
            if not reason:
                self._accepted.up()
                return ""
        else:
            reason = journal
        self._refuse(reason)
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
        elif reason == "io_error":
            signals.tell(
                "journal",
                "pbmon: events can't be written to %s; they are refused and counted. Look whether "
                "its file system is mounted read-only, was removed or fails",
                self._journal.directory if self._journal is not None else "the state directory",
            )

    def _open(self) -> Journal | str:
        """The journal, or why there is none. Threads that come meanwhile wait for it; what this
        very thread hands over in the middle, as a finalizer may, does not."""
        with self._opening:
            if self._journal is not None:
                return self._journal
            if self._ended:
                return SHUT_DOWN
            if self._making:
                return "busy"
            self._making = True
            try:
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
                return NO_DIRECTORY
            finally:
                self._making = False
            return self._journal

    def begin(self) -> None:
        """Have a journal before anything comes, and with it what brings journals into the store."""
        if self._journal is None:
            self._open()

    def look_after(self) -> None:
        """About once a second: another journal where nothing more can be put into this one, and
        another segment where somebody asks for it."""
        journal = self._journal
        if journal is None:
            return
        if journal.is_usable:
            journal.turn(turning.asked(journal.home))
            return
        if not journal.is_there:
            self._has_lost = True
            signals.tell(
                "journal:removed",
                "pbmon: %s was removed while it was in use; events in it that were not in the "
                "store are lost. Others go to a new one. Keep cleaners of temporary files away "
                "from the state directory, or set PBMON_STATE_DIR",
                journal.directory,
            )
        self._leave(journal)
        self._open()

    def _leave(self, journal: Journal) -> None:
        self._left.append(journal)  # first, so that sync() finds it in one place or the other
        self._journal = None
        journal.close()

    def sync(self) -> bool:
        """Have on the disk itself what was taken before; whether it is. One call at a time."""
        journal = self._journal
        is_there, self._has_lost = not self._has_lost, False
        for each in [*self._left, *([journal] if journal is not None else [])]:
            try:
                each.sync()
            except OSError as error:
                is_there = False
                signals.tell(
                    "journal:sync",
                    "pbmon: events in %s can't be written to the disk itself (%s); they survive "
                    "this process, but perhaps no loss of power. Look at the disk, and at the "
                    "kernel's log",
                    each.directory, error.strerror or error,
                )  # fmt: skip
            else:
                if each in self._left:
                    self._left.remove(each)
        return is_there

    def totals(self) -> Mapping[tuple[str, str], int]:
        """(outcome, reason) → items of this process."""
        refused = {("refused", reason): cell.value for reason, cell in self._refused.items()}
        return {("accepted", ""): self._accepted.value, **refused}

    def close(self) -> None:
        """Nothing more is taken."""
        self._ended = True
        if self._journal is not None:
            self._leave(self._journal)

    def forget(self) -> None:
        """In a forked child: the journal is the parent's; the child makes one of its own."""
        self._opening = threading.RLock()
        self._making = False
        self._left = []
        self._has_lost = False
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.forget()
            journal.home.close()
        for cell in (self._accepted, *self._refused.values()):
            cell.forget()
