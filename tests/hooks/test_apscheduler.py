"""Jobs that raised. APScheduler is no part of the tests' environment: its scheduler stands here by
the one method that is patched, whose name and arguments are those of 3.11."""

from __future__ import annotations

import sys
import types

import pytest

from pbmon.hooks.apscheduler import APSchedulerHook
from pbmon.testing import capture
from tests.hooks.recorder import hooked


class Event:
    def __init__(self, code, exception=None):
        self.code = code
        self.exception = exception


class BaseScheduler:
    def __init__(self):
        self.dispatched = []

    def _dispatch_event(self, event):
        self.dispatched.append(event)


@pytest.fixture
def scheduler(monkeypatch):
    names = ("apscheduler", "apscheduler.schedulers", "apscheduler.schedulers.base")
    for name in names:
        module = types.ModuleType(name)
        module.__spec__ = types.SimpleNamespace(name=name, loader=None)
        monkeypatch.setitem(sys.modules, name, module)
    module.BaseScheduler = BaseScheduler
    return BaseScheduler()


def test_a_job_that_raised_counts_once_and_its_event_goes_on(scheduler):
    try:
        raise ValueError("canary")
    except ValueError as caught:
        error = caught
    with capture() as seen, hooked(APSchedulerHook):
        for event in (Event(2**12), Event(2**13, error), Event(2**13, error), Event(1)):
            scheduler._dispatch_event(event)
    (entry,) = seen.entries
    assert (entry.error_type, entry.place.rpartition(":")[0]) == ("ValueError", __name__)
    assert len(scheduler.dispatched) == 4


def test_a_fault_of_ours_leaves_the_event_alone(scheduler, monkeypatch):
    monkeypatch.setattr("pbmon.signals.reraise", False)

    class Odd:
        @property
        def exception(self):
            raise RuntimeError

    with hooked(APSchedulerHook):
        scheduler._dispatch_event(Odd())
    assert len(scheduler.dispatched) == 1


def test_taken_out_by_identity(scheduler):
    before = BaseScheduler._dispatch_event
    with hooked(APSchedulerHook):
        assert BaseScheduler._dispatch_event is not before
    assert BaseScheduler._dispatch_event is before
