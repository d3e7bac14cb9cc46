"""The ledger: each transaction once, whatever comes again, late, or in another order.

- A charge is `completed` for good; before, the status that was said last stands. Only what is
  completed counts.
- Refunds of a charge are at most the charge, and chargebacks have the whole charge to themselves: a
  bank may take back what was refunded before. Without a completed charge they are held.
- What contradicts what is booked is kept beside it and told, and changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pbmon import signals
from pbmon.spool.entries import RETURNS, Transaction
from pbmon.store import conversion, lines
from pbmon.store.conversion import Base
from pbmon.store.lines import COMPLETED, HELD, Line
from pbmon.store.tables import transaction_conflicts, transactions
from pbmon.store.totals import Totals

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pbmon.store.writer import Batch

OTHER_BODY = "other_body"
OTHER_CURRENCY = "other_currency"
FINAL = "final"
OVER = {"refund": "over_refund", "chargeback": "over_chargeback"}
REMEDIES = {
    OTHER_BODY: "an id comes again with another amount, currency or charge: give each transaction "
    "an id of its own",
    OTHER_CURRENCY: "a refund or chargeback is not in the currency of its charge: say it in the "
    "charge's",
    FINAL: "a completed charge is to be failed or cancelled: use pbmon.track_refund()",
    "over_refund": "the refunds of a charge are more than the charge: correct the amount, or use "
    "pbmon.track_adjustment()",
    "over_chargeback": "the chargebacks of a charge are more than the charge: correct the amount, "
    "or use pbmon.track_adjustment()",
}
"""Reason of a conflict → what to do."""

_RANKS = {"pending": 0, "failed": 1, "cancelled": 2, COMPLETED: 3}
"""Of two statuses that were said at the same moment the higher one stands."""


class Ledger:
    """The writer.Book of transactions."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._entries: list[tuple[str, Transaction]] = []
        self._lines: dict[tuple[str, str], Line] = {}
        self._fresh: dict[tuple[str, str], Line] = {}
        self._changed: dict[tuple[str, str], Line] = {}
        self._removed: list[Line] = []
        self._held: defaultdict[str, list[Line]] = defaultdict(list)
        """Those of each charge that concern this batch."""
        self._conflicts: dict[tuple[str, str, str, bytes], Line] = {}
        self._totals = Totals()
        self._base: Base

    def add(self, source: str, key: bytes, entry: Transaction, *, again: bool) -> None:
        """By its own key it is known, wherever it comes from."""
        self._entries.append((source, entry))

    def people(self) -> Iterable[tuple[str, bool | None]]:
        return [(entry.user_id, None) for _, entry in self._entries if entry.user_id is not None]

    def store(self, connection: Connection) -> None:
        writer = self._batch.writer
        self._base = conversion.claim_base(connection, writer.insert, writer.base_currency)
        self._find(connection)
        for source, entry in self._entries:
            self._book(source, entry)
        lines.remove(connection, self._removed)
        lines.add(connection, list(self._fresh.values()))
        lines.change(connection, list(self._changed.values()))
        self._keep_conflicts(connection)
        self._totals.store(connection, writer.insert)

    def _find(self, connection: Connection) -> None:
        """What is booked of all that this batch concerns."""
        keys: defaultdict[str, set[str]] = defaultdict(set)
        for _, entry in self._entries:
            keys[entry.kind].add(entry.key)
            if entry.charge is not None:
                keys["charge"].add(entry.charge)
        found = lines.by_key(connection, keys)
        if keys["charge"]:
            found += lines.find(
                connection,
                transactions.c.charge.in_(keys["charge"]),
                transactions.c.status == HELD,
            )
        for line in found:
            if self._lines.setdefault((line.kind, line.key), line) is line and line.status == HELD:
                self._held[str(line.charge)].append(line)

    def _book(self, source: str, entry: Transaction) -> None:
        new = self._line_of(entry)
        line = self._lines.get((entry.kind, entry.key))
        if line is None:
            reason = self._open(new)
        elif bytes(line.body_hash) != new.body_hash:
            reason = OTHER_BODY
        else:
            reason = self._meet(line, new)
        if reason in REMEDIES:
            self._note_conflict(new, reason)
            reason = "conflict"
        if reason:
            self._batch.drop(source, reason)
        else:
            self._batch.keep(source)

    def _line_of(self, entry: Transaction) -> Line:
        subject = None
        if entry.user_id is not None:
            person = self._batch.people.person(entry.user_id)
            if self._batch.people.may_keep(person, None, entry.at):
                subject = person.subject
        body = [entry.charge, entry.amount_minor, entry.currency, entry.exponent]
        return Line(
            entry.kind,
            entry.key,
            entry.charge,
            entry.status,
            entry.amount_minor,
            entry.currency,
            entry.exponent,
            hashlib.blake2b(json.dumps(body).encode(), digest_size=16).digest(),
            entry.occurred_at,
            entry.at,
            subject,
            entry.segments,
        )

    # --- one that is new, and one that is known ---

    def _open(self, line: Line) -> str:
        """Book a new one; the reason of the conflict where it can't be."""
        if line.kind in RETURNS:
            charge = self._lines.get(("charge", str(line.charge)))
            if charge is not None and (reason := self._against(line, charge)):
                return reason
            self._enter(line)
            if charge is None or charge.status != COMPLETED:
                line.status = HELD
                self._held[str(line.charge)].append(line)
            else:
                self._return(line, charge)
            return ""
        self._enter(line)
        self._reach(line)
        return ""

    def _enter(self, line: Line) -> None:
        self._lines[line.kind, line.key] = self._fresh[line.kind, line.key] = line

    def _meet(self, line: Line, new: Line) -> str:
        """The same one came before: why this is not stored, or an empty text for a new status."""
        if line.kind != "charge":
            return "duplicate"
        if line.status == COMPLETED:
            if new.status == COMPLETED:
                return "duplicate"
            is_later = new.reported_at > line.reported_at
            return FINAL if is_later and new.status != "pending" else "superseded"
        if new.status == line.status:
            line.reported_at = max(line.reported_at, new.reported_at)
            self._change(line)
            return "duplicate"
        if new.status != COMPLETED and _moment(new) < _moment(line):
            return "superseded"
        line.status, line.occurred_at = new.status, new.occurred_at
        line.reported_at, line.subject = new.reported_at, line.subject or new.subject
        self._change(line)
        self._reach(line)
        return ""

    def _change(self, line: Line) -> None:
        if (line.kind, line.key) not in self._fresh:
            self._changed[line.kind, line.key] = line

    def _reach(self, line: Line) -> None:
        """A charge or adjustment has come to its status."""
        if line.status != COMPLETED:
            self._totals.reach(line)
            return
        conversion.convert(line, self._base, self._batch.writer.rates)
        self._count(line)
        if line.kind == "charge":
            held = self._held.pop(line.key, [])
            for each in sorted(held, key=lambda each: (each.reported_at, each.kind, each.key)):
                self._release(each, line)

    def _count(self, line: Line) -> None:
        line.counted_at = self._batch.now
        self._totals.count(line)

    # --- refunds and chargebacks ---

    def _against(self, line: Line, charge: Line) -> str:
        """Why it can't be of this charge, or an empty text."""
        if (line.currency, line.exponent) != (charge.currency, charge.exponent):
            return OTHER_CURRENCY
        is_over = _gone(charge, line.kind) + line.amount_minor > charge.amount_minor
        return OVER[line.kind] if is_over else ""

    def _release(self, line: Line, charge: Line) -> None:
        """Its charge has completed."""
        if reason := self._against(line, charge):
            self._note_conflict(line, reason)
            del self._lines[line.kind, line.key]
            self._changed.pop((line.kind, line.key), None)
            if self._fresh.pop((line.kind, line.key), None) is None:
                self._removed.append(line)
            return
        line.status = COMPLETED
        self._change(line)
        self._return(line, charge)

    def _return(self, line: Line, charge: Line) -> None:
        """It goes back of the charge, and counts."""
        before_minor = _gone(charge, line.kind)
        conversion.convert_return(line, charge, before_minor)
        if line.kind == "refund":
            charge.refunded_minor = before_minor + line.amount_minor
        else:
            charge.charged_back_minor = before_minor + line.amount_minor
        self._change(charge)
        self._count(line)

    # --- conflicts ---

    def _note_conflict(self, line: Line, reason: str) -> None:
        self._conflicts[line.kind, line.key, reason, bytes(line.body_hash)] = line

    def _keep_conflicts(self, connection: Connection) -> None:
        if not self._conflicts:
            return
        connection.execute(
            self._batch.writer.insert(transaction_conflicts).on_conflict_do_nothing(),
            [
                {
                    "kind": kind, "key": key, "reason": reason, "body_hash": body_hash,
                    "charge": line.charge, "status": line.status,
                    "amount_minor": line.amount_minor, "currency": line.currency,
                    "exponent": line.exponent, "occurred_at": line.occurred_at,
                    "reported_at": line.reported_at, "stored_at": self._batch.now,
                }
                for (kind, key, reason, body_hash), line in sorted(
                    self._conflicts.items(), key=lambda item: item[0]
                )
            ],
        )  # fmt: skip
        for reason in sorted({reason for _, _, reason, _ in self._conflicts}):
            signals.tell(
                f"ledger:{reason}",
                "pbmon: a transaction is not booked: %s. The table transaction_conflicts has it",
                REMEDIES[reason],
            )


def _gone(charge: Line, kind: str) -> int:
    return charge.refunded_minor if kind == "refund" else charge.charged_back_minor


def _moment(line: Line) -> tuple[int, int]:
    return line.reported_at, _RANKS[line.status]
