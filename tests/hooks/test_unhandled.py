"""What nobody handles outside of requests: each counts once, and is told as without us."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading

import pytest
import uvloop

from pbmon import runtime
from pbmon.hooks.unhandled import UnhandledHook
from pbmon.testing import capture
from tests.fresh import run
from tests.hooks.recorder import hooked

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def seen():
    with capture() as seen:
        yield seen


def types(seen):
    return [entry.error_type for entry in seen.entries]


def raised(error):
    try:
        raise error
    except BaseException as caught:
        return caught


# --- the main thread and others ---


def test_what_ends_a_program_counts_and_is_told_as_before(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "excepthook", lambda *given: told.append(given))
    with capture() as seen:
        error = raised(KeyError(1))
        sys.excepthook(KeyError, error, error.__traceback__)
        sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert types(seen) == ["KeyError"]
    assert [given[0] for given in told] == [KeyError, KeyboardInterrupt]


def test_a_thread_that_fails_counts_and_one_that_exits_does_not(monkeypatch):
    told = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_type))

    def fail():
        raise ValueError

    with capture() as seen:
        for target in (fail, lambda: sys.exit(3)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join(20)
    assert types(seen) == ["ValueError"]
    assert told == [ValueError, SystemExit]


# --- event loops ---


@pytest.mark.parametrize("kind", LOOPS)
def test_a_task_that_nobody_waits_for_and_a_callback_count(seen, kind):
    told = []

    async def fail():
        raise ValueError

    async def go():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: told.append(context["exception"]))
        loop.call_soon(lambda: 1 / 0)
        task = loop.create_task(fail())
        await asyncio.wait([task])
        del task
        gc.collect()
        await asyncio.sleep(0)

    loop = LOOPS[kind]()
    loop.run_until_complete(go())
    loop.close()
    assert sorted(types(seen)) == ["ValueError", "ZeroDivisionError"]
    assert len(told) == 2  # by the application's own handler


@pytest.mark.parametrize("kind", LOOPS)
def test_a_connection_that_breaks_is_nobodys_failure(seen, kind):
    loop = LOOPS[kind]()
    loop.set_exception_handler(lambda _loop, context: None)
    for error in (ConnectionResetError(), ValueError()):
        loop.call_exception_handler({"message": "x", "exception": error, "transport": object()})
    loop.call_exception_handler({"message": "no exception at all"})
    loop.call_exception_handler({"message": "x", "exception": None})
    loop.close()
    assert types(seen) == ["ValueError"]


def test_whatever_a_context_is_the_loop_gets_it(seen, monkeypatch):
    monkeypatch.setattr("pbmon.signals.reraise", False)
    told = []

    class Loop:
        def call_exception_handler(self, context):
            told.append(context)

    from pbmon.hooks.unhandled import noting_loop

    noting_loop(Loop.call_exception_handler)(Loop(), None)
    assert told == [None]


# --- in and out ---


def test_taken_out_by_identity():
    places = (
        (sys, "excepthook"), (threading, "excepthook"),
        (asyncio.BaseEventLoop, "call_exception_handler"),
    )  # fmt: skip
    before = [getattr(*place) for place in places]
    inherited = uvloop.Loop.call_exception_handler
    with hooked(UnhandledHook):
        assert all(getattr(*p) is not b for p, b in zip(places, before, strict=True))
        assert "call_exception_handler" in vars(uvloop.Loop)
    assert [getattr(*place) for place in places] == before
    assert "call_exception_handler" not in vars(uvloop.Loop)
    assert uvloop.Loop.call_exception_handler == inherited


def test_it_can_be_turned_off():
    before = sys.excepthook
    with hooked(UnhandledHook, unhandled="off"):
        assert sys.excepthook is before
        assert runtime.active.hooks["unhandled"].state == "skipped"


PROGRAM = """
import os, threading, pbmon
pbmon.configure()
def fail():
    raise ValueError("canary")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
if os.environ["ENDS"] == "raise":
    fail()
"""


def test_a_program_that_fails_ends_as_it_would_without_us(tmp_path):
    done = run(
        sys.executable, "-c", PROGRAM, ENDS="raise", OTEL_LOGS_EXPORTER="none",
        PBMON_STATE_DIR=str(tmp_path / "state"),
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("ValueError: canary") == 2
    assert "pbmon" not in done.stderr
