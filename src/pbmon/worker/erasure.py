"""Deletions of people: one that somebody asks for, and what is outstanding of all of them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pbmon import catalog, runtime, signals
from pbmon.delivery.events import Destination
from pbmon.erasure import JOURNALS, OUTBOX, Receipt
from pbmon.store.access import open_deletions

if TYPE_CHECKING:
    from pbmon.store.erasure import Deletions

_POLL_S = 0.05
_AT_ONCE = 100
_LONGEST_S = 3600.0
_LOOK_EVERY_S = 2.0
_SETTLE_EVERY_S = 60.0


def delete(
    deletions: Deletions,
    user_id: str,
    destinations: Sequence[str],
    *,
    has_outbox: bool,
    deadline_s: float,
    ship: Callable[[float], object],
) -> Receipt:
    """Delete a person, and wait until the deadline (monotonic) for what waits on this host.
    ship: has what waits brought into the store, until a deadline. Raises StoreError."""
    ship(min(deadline_s, time.monotonic() + 1.0))  # what is stored by then is found, and removed
    receipt_id, _ = deletions.begin(user_id, destinations, has_outbox=has_outbox)
    sweep(deletions, receipt_id)
    while True:
        receipt = deletions.receipt(receipt_id)
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not receipt.outstanding.keys() & {JOURNALS, OUTBOX}:
            return receipt
        ship(time.monotonic() + min(left_s, 1.0))
        time.sleep(min(_POLL_S, left_s))


def sweep(deletions: Deletions, receipt_id: bytes) -> None:
    """Empty the tables, and say so once they are empty."""
    counts = deletions.sweep(receipt_id)
    if counts is None:
        return
    record = catalog.USER_DELETED
    receipt = deletions.receipt(receipt_id)
    places = ",".join(sorted(receipt.outstanding)) or "-"
    values = dict(
        zip(record.fields, (receipt.receipt_id, sum(counts.values()), places), strict=True)
    )
    text = " ".join(f"{name}={value}" for name, value in values.items())
    runtime.logger("privacy").info("%s", f"{record.message} {text}", extra=values)


class Outstanding:
    """What the leader does of it. url: of the store."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._deletions: Deletions | None = None
        self._look_at_s = self._settle_at_s = 0.0

    def step(
        self, destinations: Callable[[], Sequence[Destination]], *, at_once: bool = False
    ) -> None:
        """Every two seconds, or at once. Raises StoreError."""
        now_s = time.monotonic()
        if now_s < self._look_at_s and not at_once:
            return
        self._look_at_s = now_s + _LOOK_EVERY_S
        if self._deletions is None:
            self._deletions = open_deletions(self._url)
        for receipt_id in self._deletions.unswept():
            sweep(self._deletions, receipt_id)
        if now_s >= self._settle_at_s or at_once:
            self._settle_at_s = now_s + _SETTLE_EVERY_S
            self._deletions.settle_journals()
        if due := self._deletions.destinations():
            by_name = {each.name: each for each in destinations()}
            for name, attempts in due:
                self._ask(name, by_name.get(name), attempts)

    def _ask(self, name: str, destination: Destination | None, attempts: int) -> None:
        assert self._deletions is not None
        asked = self._deletions.asked_of(name, _AT_ONCE)
        targets = [target for each in asked for target in each.targets]
        if destination is None:
            fault, wait_s = f"[destinations.{name}] is not set", _LONGEST_S
            taken: frozenset[str] = frozenset()
        else:
            found = destination.forget(targets)
            taken, fault = frozenset(found.asked), found.fault
            wait_s = found.retry_after_s or _wait_s(attempts)
        done = [each.receipt_id for each in asked if taken.issuperset(each.targets)]
        again = [each.receipt_id for each in asked if not taken.issuperset(each.targets)]
        if again:
            signals.tell(
                f"forget:{name}",
                "pbmon: %s has not taken %d deletions (%s); they are tried again: "
                "`pbmon privacy status`",
                name, len(again), fault,
            )  # fmt: skip
        self._deletions.settle(
            name,
            done,
            again,
            due_at=time.time_ns() // 1000 + int(wait_s * 1e6),
            fault=fault,
        )

    def close(self) -> None:
        if self._deletions is not None:
            self._deletions.close()
            self._deletions = None

    def let_go(self) -> None:
        """In a forked child: the connections are the parent's."""
        if self._deletions is not None:
            self._deletions.let_go()
            self._deletions = None


def _wait_s(attempts: int) -> float:
    longest_s = min(_LONGEST_S, 10.0 * 2.0 ** min(attempts, 20))
    return longest_s * random.uniform(0.5, 1.0)  # noqa: S311
