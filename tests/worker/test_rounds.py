"""Many who ask at once, one round of the work."""

from __future__ import annotations

import os
import threading
from concurrent.futures import wait

import pytest

from pbmon import signals
from pbmon.worker.rounds import Rounds
from tests.spool.test_queue import in_fork

PATIENCE_S = 60


class Work:
    """Stands in the middle of a round until it is let go."""

    def __init__(self):
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.rounds = []

    def __call__(self, timeout_s):
        self.rounds.append(timeout_s)
        self.begun.set()
        assert self.go_on.wait(PATIENCE_S)
        return True


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def rounds(work):
    yield Rounds("test-rounds", work)
    work.go_on.set()


def test_all_who_come_during_a_round_share_the_next(work, rounds):
    first = rounds.join(1.0)
    assert work.begun.wait(PATIENCE_S)
    later = [rounds.join(n) for n in (2.0, 7.0, 3.0)]
    assert first not in later
    assert len(set(map(id, later))) == 1
    work.go_on.set()
    wait([first, *later], PATIENCE_S)
    assert [each.result(0) for each in (first, *later)] == [True] * 4
    assert work.rounds == [1.0, 7.0]
    assert rounds.join(4.0).result(PATIENCE_S)  # the thread has ended, and another begins
    assert work.rounds == [1.0, 7.0, 4.0]


def test_nobody_cancels_what_is_the_others_too(work, rounds):
    joined = rounds.join(1.0)
    assert not joined.cancel()
    work.go_on.set()
    assert joined.result(PATIENCE_S)


def test_a_round_that_fails_is_told_and_keeps_no_one_waiting(monkeypatch, caplog):
    def fail(_timeout_s):
        raise KeyError

    monkeypatch.setattr(signals, "reraise", False)
    rounds = Rounds("failing", fail)
    assert rounds.join(1.0).result(PATIENCE_S) is False
    assert rounds.join(1.0).result(PATIENCE_S) is False
    assert "a round of failing failed with KeyError" in caplog.text


def test_where_no_thread_can_start_it_is_done_at_once(work, rounds, monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    work.go_on.set()
    assert rounds.join(1.0).done()


def test_a_forked_child_has_rounds_of_its_own(work, rounds):
    joined = rounds.join(1.0)
    assert work.begun.wait(PATIENCE_S)

    def child():
        rounds.forget()
        work.go_on.set()
        assert rounds.join(2.0).result(PATIENCE_S)
        os._exit(0)

    assert in_fork(child) == 0
    work.go_on.set()
    assert joined.result(PATIENCE_S)
