"""Making, crashing, adopting and draining spools; what every test of them does."""

from __future__ import annotations

from pbmon.spool import adoption
from pbmon.spool.books import Books
from pbmon.spool.frames import CHANNELS
from pbmon.spool.queue import Spool


class Spools:
    """The spools of one service; whatever is still open in the end is let go."""

    def __init__(self, home, books):
        self.home = home
        self.books = books
        self.open = []

    def make(self, books=None):
        made = Spool(self.home, books or self.books)
        self.open.append(made)
        return made

    def crash(self, spool):
        """All that the death of a process does: the lock is free, the files stay."""
        self.open.remove(spool)
        spool.forget()
        return spool.directory

    def adopt(self, books=None, own=None):
        taken = adoption.adopt(self.home, books or self.books, own)
        self.open += taken
        return taken

    def adopt_one(self, books=None):
        (orphan,) = self.adopt(books)
        return orphan

    def let_go(self):
        for each in self.open:
            each.forget() if not each._closed else None


def drain(source, channel, max_items=512, max_bytes=2**20):
    """Every payload, each batch delivered."""
    payloads = []
    while (batch := source.read(channel, max_items, max_bytes)) is not None:
        payloads += [record.payload for record in batch.records]
        source.settle(batch, batch.items, {})
    return payloads


def tell(books: Books):
    """Metrics with these books have left the process."""
    for part, rows in books.snapshot()[0].items():
        part.report(rows)


def totals(books: Books, channel):
    """accepted, delivered, dropped."""
    return tuple(books.total(channel, outcome) for outcome in ("accepted", "delivered", "dropped"))


def is_balanced(books: Books, *sources):
    return all(
        accepted == delivered + dropped + sum(source.waiting(channel) for source in sources)
        for channel in CHANNELS
        for accepted, delivered, dropped in [totals(books, channel)]
    )


def fill(spool, channel, count, size=400):
    """Append records until there are so many; returns their payloads."""
    payloads = [f"{number:08d}".encode().ljust(size, b".") for number in range(count)]
    for payload in payloads:
        assert spool.append(channel, payload, 1) == ""
    return payloads
