"""Errors in the store as alerts are judged by them, and a clock that goes on when it is told to."""

from __future__ import annotations

from pbmon.alerting import choices
from pbmon.alerting.rules import SECOND
from pbmon.spool import entries
from pbmon.spool.entries import Failure
from pbmon.store.access import open_judge, open_notifications, open_writer
from tests.store.test_writer import NOON, portion

KEY = "ab" * 16
TRACE = "cd" * 16


class Clock:
    """Of the store. at: s after noon."""

    def __init__(self, at=0.0):
        self.at = at

    def __call__(self, _connection=None):
        return NOON + int(self.at * SECOND)


def chosen(**table):
    return choices.parse({"sinks": {"team": {"url": "http://127.0.0.1:1/"}}, **table})


def fail(url, *ats, key=KEY, kind="shop.PaymentError", users=None, release="1.2", source="1-a"):
    """Errors at these times, s after noon; users: of each."""
    writer = open_writer(url, "opt-out")
    payloads = [
        entries.encode(
            Failure(
                NOON + int(at * SECOND), key, kind, "shop/pay.py:<lambda>", 1, False,
                "/pay/{id}", release, None, users[n] if users else None, None, TRACE,
            )
        )
        for n, at in enumerate(ats)
    ]  # fmt: skip
    written = writer.write([portion(*payloads, source=source)])
    writer.close()
    assert written.stored == len(ats)


class Desk:
    """A judge and the notifications of a store, by one clock."""

    def __init__(self, url, setting=None, lease_s=60.0):
        self.clock = Clock()
        self.judge = open_judge(url, setting or chosen(), clock=self.clock)
        self.book = open_notifications(url, lease_s, clock=self.clock)

    def look(self, at=None, *, late=False):
        """What changed, as text."""
        if at is not None:
            self.clock.at = at
        return [change.step.value for change in self.judge.judge(late=late)]

    def send_all(self, sink="team"):
        """The kinds of what was due, each taken."""
        kinds = []
        while (claim := self.book.claim(sink)) is not None:
            kinds.append(claim.notice.kind)
            self.book.note_sent(sink, claim.notice)
        return kinds

    def close(self):
        self.judge.close()
        self.book.close()
