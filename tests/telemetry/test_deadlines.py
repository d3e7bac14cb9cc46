"""Tasks and a deadline."""

from __future__ import annotations

import threading
import time

from pbmon import signals
from pbmon.telemetry.deadlines import within


def test_within_runs_side_by_side_and_says_whether_all_was_done():
    barrier = threading.Barrier(2)
    assert within(30, [barrier.wait, barrier.wait]) is True
    assert within(30, [lambda: None, lambda: True]) is True
    assert within(30, [lambda: None, lambda: False]) is False
    assert within(30, []) is True


def test_within_never_waits_longer():
    release = threading.Event()
    began = time.monotonic()
    assert within(0.05, [release.wait, release.wait, lambda: True]) is False
    assert time.monotonic() - began < 20
    release.set()


def test_within_does_the_work_itself_where_no_thread_can_start(monkeypatch):
    """As in Python 3.12 at exit."""

    def refuse(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = []
    assert within(5, [lambda: done.append(1), lambda: done.append(2)]) is True
    assert done == [1, 2]


def test_a_failing_task_is_a_failure(monkeypatch):
    monkeypatch.setattr(signals, "reraise", False)

    def fail():
        raise OSError

    assert within(30, [fail]) is False
