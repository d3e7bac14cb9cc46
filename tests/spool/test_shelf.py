"""Any order of appending, delivering, crashing, forking and adopting leaves the books exact."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections import Counter, deque
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pbmon.spool import adoption
from pbmon.spool.books import Books
from pbmon.spool.directory import Home
from pbmon.spool.frames import CHANNELS
from pbmon.spool.ledger import FIELDS
from pbmon.spool.queue import Spool
from tests.patience import patiently
from tests.spool.spools import totals

OUTCOMES = ("accepted", "delivered", "dropped")
channels = st.sampled_from(CHANNELS)


class Model:
    """What a spool should be: its waiting records, its counts, what of them was told."""

    def __init__(self):
        self.waiting = {channel: deque() for channel in CHANNELS}
        self.counts = Counter()
        self.told = Counter()

    def items(self, channel):
        return sum(items for _, items in self.waiting[channel])


class Machine(RuleBasedStateMachine):
    @initialize(mapped=st.booleans())
    def begin(self, mapped):
        self.directory = Path(tempfile.mkdtemp(prefix="pbmon-spool-"))
        self.home = Home(self.directory / "state", "shop")
        self.home.mapped = mapped
        self.dead = {}
        self.orphans = []
        self.number = 0
        self.start()

    def start(self):
        self.books, self.expected = Books(), Counter()
        self.spool, self.model = Spool(self.home, self.books), Model()

    def append_to(self, spool, model, channel, items, size):
        self.number += 1
        payload = str(self.number).encode().ljust(size, b".")
        assert spool.append(channel, payload, items) == ""
        model.waiting[channel].append((payload, items))
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
        wanted, size, items = [], 0, 0
        for payload, count in model.waiting[channel]:
            if wanted and (items + count > max_items or size + len(payload) > max_bytes):
                break
            wanted.append((payload, count))
            size, items = size + len(payload), items + count
        if not wanted:
            assert batch is None
            return
        assert [(record.payload, record.items) for record in batch.records] == wanted
        if not settles:
            return
        rejected = min(rejected, items)
        source.settle(batch, items - rejected, {"rejected": rejected})
        for _ in wanted:
            model.waiting[channel].popleft()
        for outcome, count in (("delivered", items - rejected), ("dropped", rejected)):
            model.counts[channel, outcome] += count
            self.expected[channel, outcome] += count
            if source is not self.spool:
                model.told = Counter(model.counts)

    @rule()
    def report(self):
        rows, _ = self.spool.snapshot()
        assert set(rows["logs"]) == set(FIELDS)
        self.spool.report(rows)
        self.model.told = Counter(self.model.counts)

    @rule()
    def crash(self):
        """The process and all it had adopted."""
        self.dead[self.spool.directory] = self.model
        self.spool.forget()
        for orphan, model in self.orphans:
            self.dead[orphan.directory] = model
            orphan.forget()
        self.orphans = []
        self.start()

    @rule()
    def adopt(self):
        for orphan in adoption.adopt(self.home, self.books, self.spool.directory):
            model = self.dead.pop(orphan.directory)
            self.expected.update(model.counts - model.told)
            model.told = Counter(model.counts)
            self.orphans.append((orphan, model))
        assert self.dead == {}

    @precondition(lambda self: self.orphans)
    @rule()
    def close_orphan(self):
        orphan, model = self.orphans.pop(0)
        done = orphan.is_done()
        orphan.close()
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
            model.waiting[channel].append((str(self.number).encode().ljust(100, b"."), 2))
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
                accepted, delivered, dropped = (model.counts[channel, o] for o in OUTCOMES)
                assert accepted == delivered + dropped + waits

    def teardown(self):
        self.spool.forget()
        for orphan, _ in self.orphans:
            orphan.forget()
        os.close(self.home._lock_fd)
        shutil.rmtree(self.directory)


TestMachine = Machine.TestCase
TestMachine.settings = patiently(max_examples=40, stateful_step_count=30)
