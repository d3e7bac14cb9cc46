"""Any order of appending, delivering, expiring, crashing, forking and adopting leaves the books
exact."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import warnings
from collections import Counter, deque
from pathlib import Path
from unittest import mock

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pbmon.spool import adoption
from pbmon.spool.books import Books
from pbmon.spool.directory import Home
from pbmon.spool.frames import CHANNELS
from pbmon.spool.ledger import FIELDS
from pbmon.spool.queue import Spool
from pbmon.spool.shelf import MAX_AGE_S
from tests.patience import patiently
from tests.spool.spools import tell, totals

HOUR_NS = 3600 * 10**9
OUTCOMES = ("accepted", "delivered", "dropped")
channels = st.sampled_from(CHANNELS)


class Model:
    """What a spool should be: its waiting records, its counts, what of them was told."""

    def __init__(self):
        self.waiting = {channel: deque() for channel in CHANNELS}
        self.held = dict.fromkeys(CHANNELS, 0)
        """How many of the first a reader has."""
        self.passed = dict.fromkeys(CHANNELS, False)
        """Whether what came after them has expired."""
        self.missing = Counter()
        """Items that a dead process's reader had, and that were passed."""
        self.counts = Counter()
        self.told = Counter()

    def items(self, channel):
        return self.missing[channel] + sum(items for _, items, _ in self.waiting[channel])

    def expire(self, channel, oldest_ns):
        """Returns the items that are dropped."""
        waiting, held = list(self.waiting[channel]), self.held[channel]
        kept = [r for r in waiting[held:] if r[2] >= oldest_ns or channel == "events"]
        dropped = sum(items for _, items, _ in waiting[held:]) - sum(r[1] for r in kept)
        self.waiting[channel] = deque(waiting[:held] + kept)
        self.passed[channel] |= bool(held and dropped)
        return dropped

    def read(self, channel, max_items, max_bytes):
        """The payloads and items that a reader gets."""
        records = list(self.waiting[channel])
        if self.passed[channel]:
            return records[: self.held[channel]]
        wanted, size, items = [], 0, 0
        for record in records:
            payload, count, _ = record
            if wanted and (items + count > max_items or size + len(payload) > max_bytes):
                break
            wanted.append(record)
            size, items = size + len(payload), items + count
        self.held[channel] = len(wanted)
        return wanted

    def settle(self, channel):
        for _ in range(self.held[channel]):
            self.waiting[channel].popleft()
        self.held[channel], self.passed[channel] = 0, False

    def passed_items(self, channel):
        held = list(self.waiting[channel])[: self.held[channel]]
        return sum(items for _, items, _ in held) if self.passed[channel] else 0

    def die(self):
        for channel in CHANNELS:
            if self.passed[channel]:
                self.missing[channel] += self.passed_items(channel)
                self.settle(channel)
            self.held[channel] = 0


class Machine(RuleBasedStateMachine):
    @initialize(mapped=st.booleans())
    def begin(self, mapped):
        self.directory = Path(tempfile.mkdtemp(prefix="pbmon-spool-"))
        self.home = Home(self.directory / "state", "shop")
        self.home.mapped = mapped
        self.dead = {}
        self.orphans = []
        self.number = 0
        self.now_ns = time.monotonic_ns() + 2 * HOUR_NS  # the machine may have started just now
        self.clock = mock.patch.object(time, "monotonic_ns", lambda: self.now_ns)
        self.clock.start()
        self.start()

    def start(self):
        self.books, self.expected = Books(), Counter()
        self.spool, self.model = Spool(self.home, self.books), Model()

    def append_to(self, spool, model, channel, items, size):
        self.number += 1
        payload = str(self.number).encode().ljust(size, b".")
        assert spool.append(channel, payload, items) == ""
        model.waiting[channel].append((payload, items, self.now_ns))
        model.counts[channel, "accepted"] += items

    @rule(channel=channels, items=st.integers(1, 9), size=st.sampled_from([1, 300, 90_000]))
    def append(self, channel, items, size):
        self.append_to(self.spool, self.model, channel, items, size)
        self.expected[channel, "accepted"] += items

    @rule(
        channel=channels, max_items=st.integers(1, 12), max_bytes=st.integers(1, 200_000),
        which=st.integers(0, 5), rejected=st.integers(0, 4), settles=st.booleans(),
    )  # fmt: skip
    def deliver(self, channel, max_items, max_bytes, which, rejected, settles):
        sources = [(self.spool, self.model), *self.orphans]
        source, model = sources[which % len(sources)]
        batch = source.read(channel, max_items, max_bytes)
        self.count(model, channel, dropped=model.expire(channel, self.oldest_ns))
        wanted = model.read(channel, max_items, max_bytes)
        if not wanted:
            assert batch is None
            self.count(model, channel, dropped=model.missing.pop(channel, 0))
            return
        got = [(record.payload, record.items, record.monotonic_ns) for record in batch.records]
        assert got == wanted
        if not settles:
            return
        rejected = min(rejected, batch.items)
        source.settle(batch, batch.items - rejected, {"rejected": rejected})
        model.settle(channel)
        self.count(model, channel, delivered=batch.items - rejected, dropped=rejected)

    def count(self, model, channel, **outcomes):
        for outcome, count in outcomes.items():
            model.counts[channel, outcome] += count
            self.expected[channel, outcome] += count

    @property
    def oldest_ns(self):
        return self.now_ns - int(MAX_AGE_S * 1e9)

    @rule(minutes=st.sampled_from([1, 25, 59, 61]))
    def wait(self, minutes):
        self.now_ns += minutes * 60 * 10**9

    @rule(channel=channels)
    def expire(self, channel):
        for source, model in [(self.spool, self.model), *self.orphans]:
            source.expire(channel)
            dropped = model.expire(channel, self.oldest_ns)
            if not model.waiting[channel] and not source.waiting(channel):
                dropped += model.missing.pop(channel, 0)  # it looked, and found none of them
            self.count(model, channel, dropped=dropped)

    @rule(channel=channels, which=st.integers(0, 5), later=st.booleans())
    def outlast(self, channel, which, later):
        """A reader tries one batch for more than an hour."""
        for items in (1, 2, 3):
            self.append(channel, items, 300)
        self.deliver(channel, 2, 2000, which, 0, settles=False)
        self.wait(61)
        if later:
            self.append(channel, 1, 300)
        self.expire(channel)

    @rule()
    def report(self):
        rows, counts = self.books.snapshot()
        assert set(rows) == {self.spool, *(orphan for orphan, _ in self.orphans)}
        assert set(rows[self.spool]["logs"]) == set(FIELDS)
        assert counts == self.books.totals()
        tell(self.books)
        for model in (self.model, *(model for _, model in self.orphans)):
            model.told = Counter(model.counts)

    @rule()
    def crash(self):
        """The process and all it had adopted."""
        self.dead[self.spool.directory] = self.model
        self.spool.forget()
        for orphan, model in self.orphans:
            self.dead[orphan.directory] = model
            orphan.forget()
        for model in self.dead.values():
            model.die()
        self.orphans = []
        self.start()

    @rule()
    def close(self):
        """In order; another spool takes its place."""
        self.drop_passed(self.model)
        self.spool.close()
        if any(self.model.items(channel) for channel in CHANNELS):
            self.model.die()
            self.dead[self.spool.directory] = self.model
        else:
            assert not self.spool.directory.exists()
        self.spool, self.model = Spool(self.home, self.books), Model()

    def drop_passed(self, model):
        for channel in CHANNELS:
            if dropped := model.passed_items(channel):
                self.count(model, channel, dropped=dropped)
                model.settle(channel)

    @rule()
    def adopt(self):
        for orphan in adoption.adopt(self.home, self.books, self.spool.directory):
            model = self.dead.pop(orphan.directory)
            self.expected.update(model.counts - model.told)
            self.orphans.append((orphan, model))
        assert self.dead == {}

    @precondition(lambda self: self.orphans)
    @rule()
    def close_orphan(self):
        self.report()  # as a process does that goes on
        orphan, model = self.orphans.pop(0)
        self.drop_passed(model)
        done = not any(model.items(channel) for channel in CHANNELS)
        orphan.close()
        model.die()
        assert orphan.directory.exists() is not done
        if not done:
            self.dead[orphan.directory] = model

    @rule(channel=channels, count=st.integers(0, 3))
    def fork(self, channel, count):
        """A child that leaves the parent's alone, appends to its own and is killed."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads of the test runner
            pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self.spool.forget()
                self.home.forget()
                self.books.forget()
                for orphan, _ in self.orphans:
                    orphan.forget()
                spool = Spool(self.home, self.books)
                spool.directory.rename(spool.directory.with_name(f"child-{self.number}"))
                spool.directory = spool.directory.with_name(f"child-{self.number}")
                for _ in range(count):
                    self.append_to(spool, Model(), channel, 2, 100)
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        model = Model()
        for _ in range(count):
            self.number += 1
            payload = str(self.number).encode().ljust(100, b".")
            model.waiting[channel].append((payload, 2, self.now_ns))
            model.counts[channel, "accepted"] += 2
        self.dead[self.home.path / f"child-{self.number - count}"] = model
        self.number += 1

    @invariant()
    def books_are_exact(self):
        for channel in CHANNELS:
            wanted = tuple(self.expected[channel, outcome] for outcome in OUTCOMES)
            assert totals(self.books, channel) == wanted
            for source, model in [(self.spool, self.model), *self.orphans]:
                waits = model.items(channel)
                assert source.waiting(channel) == waits
                if source is not self.spool:
                    assert source.is_told() is (model.told == model.counts)
                accepted, delivered, dropped = (model.counts[channel, o] for o in OUTCOMES)
                assert accepted == delivered + dropped + waits

    def teardown(self):
        self.clock.stop()
        self.spool.forget()
        for orphan, _ in self.orphans:
            orphan.forget()
        os.close(self.home._lock_fd)
        shutil.rmtree(self.directory)


TestMachine = Machine.TestCase
TestMachine.settings = patiently(max_examples=40, stateful_step_count=30)
