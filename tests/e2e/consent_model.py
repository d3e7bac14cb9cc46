"""A product that is driven step by step, beside a model of what may be kept of whom: the journal,
the shipper, the store in SQLite, the leader and a webhook are real, spans and metrics are encoded
as they would leave.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

import pbmon
from pbmon import runtime
from pbmon.business.intake import Intake
from pbmon.hooks.asgi import Observed
from pbmon.spool import journal
from pbmon.store.access import make_outbox, open_engine, open_reader
from pbmon.testing import capture
from pbmon.worker.leader import Leader
from pbmon.worker.pseudonyms import SpanPseudonyms
from pbmon.worker.shipper import Shipper
from pbmon.worker.targets import makers

EXPERIMENTS = {"checkout": {"variants": {"control": 50, "new": 50}, "goal": "paid"}}
MANY = 1000


@dataclass
class Item:
    """Something a call handed over. table: where it is a row; whose: of which person, if it may be
    known; asserted: what was said of consent."""

    table: str
    whose: int
    at: int
    asserted: bool | None
    token: str
    by_session: bool = False


@dataclass
class Model:
    """What is to become of the items, from all decisions in their order: (person, purpose, granted,
    at). It knows nothing of how they are stored."""

    analytics: str
    sharing: str
    decisions: list[tuple[int, str, bool, int]] = field(default_factory=list)
    stored_decisions: list[tuple[int, str, bool, int]] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    kept: list[Item] = field(default_factory=list)
    waiting: list[Item] = field(default_factory=list)
    delivered: list[Item] = field(default_factory=list)

    def words(self, whose, purpose):
        return [(g, at) for who, p, g, at in self.stored_decisions if (who, p) == (whose, purpose)]

    def may(self, basis, purpose, item):
        words = self.words(item.whose, purpose)
        if item.asserted and purpose == "analytics":
            return not any(not granted and at >= item.at for granted, at in words)
        if any(not granted and at >= item.at for granted, at in words):
            return False
        before = [granted for granted, at in words if at <= item.at]
        return before[-1] if before else basis != "opt-in"

    def ship(self):
        fresh, self.decisions = self.decisions, []
        self.stored_decisions += fresh
        taken_back = [(who, at) for who, _, granted, at in fresh if not granted]
        self.waiting = [
            item
            for item in self.waiting
            if not any(who == item.whose and at > item.at for who, at in taken_back)
        ]
        for item in self.items:
            if item.asserted is not False and self.may(self.analytics, "analytics", item):
                self.kept.append(item)
                if item.table == "events" and self.may(self.sharing, "sharing", item):
                    self.waiting.append(item)
        self.items = []

    def deliver(self):
        for item in self.waiting:
            last = {p: [g for g, _ in self.words(item.whose, p)][-1:] for p in _PURPOSES}
            if last["analytics"] != [False] and (
                last["sharing"] == [True] or (not last["sharing"] and self.sharing != "opt-in")
            ):
                self.delivered.append(item)
        self.waiting = []


_PURPOSES = ("analytics", "sharing")


class World:
    """directory: empty. template: a store that was made. people: how many."""

    def __init__(self, directory: Path, template: Path, vendor_url: str, basis, sharing, seen):
        self.seen = seen
        self.model = Model(basis, sharing)
        self.at = 0
        self.tokens: dict[str, int] = {}
        """What a call carried → whose it was."""
        self.ledger = 0
        self.settings = runtime.active.settings
        self.home = journal.open_home(str(directory / "state"), "shop")
        self.url = f"sqlite:///{directory}/store.sqlite3"
        shutil.copy(template, directory / "store.sqlite3")
        self.intake = Intake(lambda: self.home, lambda _: None)
        seen.put = self.intake.put
        self.outbox = f"sqlite:///{directory}/app.sqlite3"
        engine = open_engine(self.outbox)
        make_outbox(engine)
        engine.dispose()
        self.shipper = Shipper(
            self.home, self.url, self.settings.consent, outbox_url=self.outbox,
            destinations=("webhook",), portion=MANY,
        )  # fmt: skip
        targets = list(makers(self.settings, "shop").values())
        self.leader = Leader(self.url, self.settings, targets)
        self.reader = open_reader(self.url)
        self.pseudonyms = SpanPseudonyms(lambda: self.settings, lambda: self.reader)
        self.pseudonyms._started = True  # its step is look_up()
        runtime.active.pseudonyms = self.pseudonyms
        self.directory = directory

    # --- who ---

    def user(self, whose):
        return f"user-{whose}-canary"

    def session(self, whose):
        return f"session-{whose}-canary"

    def token(self, whose):
        made = f"property-{len(self.tokens)}-canary"
        self.tokens[made] = whose
        return made

    # --- steps ---

    def call(self, name, whose, consent, request):
        """A call of the public API for a person, in a context or in a request of theirs."""
        self.at += 1
        if request:
            self._serve(lambda: self._within(name, whose, consent), whose)
        else:
            with pbmon.context(user_id=self.user(whose), session_id=self.session(whose)):
                self._within(name, whose, consent)

    def _within(self, name, whose, consent):
        token = self.token(whose)
        with pbmon.context(consent=consent) if consent is not None else _nothing():
            made = CALLS[name](self, whose, token)
        self.model.items += [
            Item(table, whose, self.at, consent if asserts else None, token)
            for table, asserts in made
            if consent is not False
        ]

    def _serve(self, work, whose):
        async def app(scope, receive, send):
            work()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
            "scheme": "http", "path": "/", "raw_path": b"/", "root_path": "", "query_string": b"",
            "headers": [(b"x-session", self.session(whose).encode())],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "user": self.user(whose),
        }  # fmt: skip
        asyncio.run(Observed(app)(scope, None, _swallow))

    def decide(self, whose, purpose, granted):
        self.at += 1
        decide = pbmon.consent.grant if granted else pbmon.consent.withdraw
        assert decide(self.user(whose), purpose)
        self.model.decisions.append((whose, purpose, granted, self.at))

    def ship(self):
        assert self.shipper.take_duty()
        self.shipper._look_at_s = self.shipper._outbox_at_s = 0.0
        while self.shipper.ship() or self.shipper.empty_outbox():
            pass
        self.shipper._outbox_at_s = 0.0
        self.shipper.empty_outbox()
        self.model.ship()
        self.pseudonyms.look_up()

    def deliver(self):
        while self.leader.deliver():
            pass
        self.model.deliver()

    def close(self):
        self.intake.close()
        self.ship()
        self.shipper.stop()
        self.shipper._close()
        self.shipper._leave_duty()
        self.leader._close()
        self.reader.close()

    # --- what there is to see ---

    def otlp(self):
        """All that spans, metrics and log records say, as bytes."""
        spans = encode_spans(self.seen._exporter.get_finished_spans()).SerializeToString()
        metrics = encode_metrics(self.seen._reader.get_metrics_data()).SerializeToString()
        return spans + metrics + repr(self.seen.logs).encode()

    def rows(self, query):
        with sqlite3.connect(self.directory / "store.sqlite3") as connection:
            found = connection.execute(query).fetchall()
        connection.close()
        return found

    def files(self, *parts):
        """Bytes of all files below a directory of this world."""
        below = self.directory.joinpath(*parts)
        return b"".join(path.read_bytes() for path in below.rglob("*") if path.is_file())


class _nothing(suppress):  # noqa: N801
    """A context that says nothing."""


async def _swallow(_message):
    pass


def _accept(*tables, asserts=True):
    return [(table, asserts) for table in tables]


def _track(world, whose, token):
    pbmon.track("bought", {"note": token})
    return _accept("events")


def _track_feature(world, whose, token):
    pbmon.track_feature("export", "viewed", note=token)
    return _accept("events")


def _outbox(world, whose, token):
    path = world.outbox.removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection, pbmon.outbox(connection):
        pbmon.track("bought", {"note": token})
    connection.close()
    return _accept("events")


def _context(world, whose, token):
    with pbmon.context(plan=token):
        pbmon.track("bought")
    return _accept("events")


def _experiment(world, whose, token):
    pbmon.experiment("checkout")
    return _accept("exposures")


def _expose(world, whose, token):
    pbmon.expose("checkout", "new")
    return _accept("exposures")


def _feedback(world, whose, token):
    pbmon.feedback(9, comment=token)
    return _accept("feedback")


def _feedback_app(world, whose, token):
    body = json.dumps({"score": 9, "comment": token}).encode()
    scope = {
        "type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")],
    }  # fmt: skip
    answers = []

    async def receive():
        return {"type": "http.request", "body": body}

    async def send(message):
        answers.append(message)

    asyncio.run(pbmon.feedback_app(scope, receive, send)) if not _is_looping() else _drive(
        pbmon.feedback_app(scope, receive, send)
    )
    assert answers[0]["status"] == 202
    return _accept("feedback")


def _is_looping():
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        return True
    return False


def _drive(coroutine):
    """To its end: nothing in it waits."""
    with suppress(StopIteration):
        coroutine.send(None)


def _identify(world, whose, token):
    pbmon.identify(world.user(whose))
    return _accept("sessions", asserts=False)


def _track_error(world, whose, token):
    try:
        raise LookupError(token)  # what it says is nowhere, whoever agrees
    except LookupError as error:
        assert pbmon.track_error(error)
    return []


def _revenue(world, whose, token):
    world.ledger += 1
    assert pbmon.track_revenue("12.50", "USD", transaction_id=f"t{world.ledger}")
    return _accept("transactions", asserts=False)


def _refund(world, whose, token):
    world.ledger += 1
    key = f"t{world.ledger}"
    assert pbmon.track_refund("1", "USD", transaction_id=key, refund_id=key)
    return []


def _chargeback(world, whose, token):
    world.ledger += 1
    key = f"t{world.ledger}"
    assert pbmon.track_chargeback("1", "USD", transaction_id=key, chargeback_id=key)
    return []


def _adjustment(world, whose, token):
    world.ledger += 1
    assert pbmon.track_adjustment("1", "USD", adjustment_id=f"t{world.ledger}")
    return []


CALLS = {
    "context": _context,
    "experiment": _experiment,
    "expose": _expose,
    "feedback": _feedback,
    "feedback_app": _feedback_app,
    "identify": _identify,
    "outbox": _outbox,
    "track": _track,
    "track_adjustment": _adjustment,
    "track_chargeback": _chargeback,
    "track_error": _track_error,
    "track_feature": _track_feature,
    "track_refund": _refund,
    "track_revenue": _revenue,
}
"""Every public function that may take something of a person → how it is called for one, and in
which tables that may leave a row of theirs; with whether consent that is said beside it counts."""


def worlds(basis, sharing, vendor_url):
    """capture() for a World."""
    return capture(
        consent={"analytics": basis, "sharing": sharing}, experiments=EXPERIMENTS,
        segments=["plan"], segment_metrics=[], session_from="header:x-session", user_spans=True,
        destinations={"webhook": {"url": vendor_url}},
    )  # fmt: skip


def settle():
    """So that what comes next has a later time."""
    before = time.time_ns() // 1000
    while time.time_ns() // 1000 == before:
        pass
