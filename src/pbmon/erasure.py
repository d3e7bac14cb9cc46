"""What is said of a deletion, and the form of an export. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

STORE = "store"
JOURNALS = "journals"
OUTBOX = "outbox"
DISK = "disk"
OWN_PLACES = (STORE, JOURNALS, OUTBOX, DISK)
"""Places of a deletion that are pbmon's: the tables, the journals of all processes, the outbox, and
what is left of rows in the files of the database. Every other one is a destination."""

EXPORT_FORMAT = "pbmon/export/1"


@dataclass(frozen=True, slots=True)
class Receipt:
    """Of a deletion.

    receipt_id: a random UUID as text, the same one however often the person is deleted.
    deleted_at: since when nothing more is kept of them; aware, UTC.
    counts: place → what was removed there: rows of each table of the store; of `transactions` those
        that are nobody's from now on.
    outstanding: place → why it is not done yet: store, journals, outbox, disk, or a destination.
    """

    receipt_id: str
    deleted_at: datetime
    counts: Mapping[str, int] = field(default_factory=dict)
    outstanding: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is outstanding."""
        return not self.outstanding
