"""Errors of a process: each counts once, whatever it is, and nothing of what it says is kept."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import pbmon
from pbmon import runtime, signals
from pbmon.business import refusals, tallies
from pbmon.runtime import Accepted, Refused
from pbmon.spool import entries
from pbmon.spool.entries import Failure
from pbmon.testing import capture
from tests.test_errors import Hostile

HERE = __name__
CANARY = "canary.4711@example.com"


@pytest.fixture
def seen():
    with capture(release="1.4.2") as seen:
        yield seen


def caught(error=None):
    try:
        raise error if error is not None else KeyError(CANARY)
    except BaseException as found:
        return found


def failures(seen):
    runtime.active.errors.write_sums()
    return [entry for entry in seen.entries if isinstance(entry, Failure)]


def counted(seen):
    return sum(seen.metrics.get("pbmon.errors", {}).values())


def stored(seen):
    return sum(entry.errors for entry in failures(seen))


# --- track_error() ---


def test_before_configure_it_is_a_no_op(monkeypatch):
    monkeypatch.setattr(runtime.active, "errors", runtime.Runtime().errors)
    assert pbmon.track_error(caught()) == Refused("not_configured")


def test_an_error_is_an_entry_and_a_count(seen):
    with pbmon.context(user_id=7, session_id="s"):
        assert pbmon.track_error(caught()) == Accepted()
    (entry,) = failures(seen)
    assert entry[1:] == (
        entry.fingerprint, "KeyError", f"{HERE}:caught", 1, True, None, "1.4.2", entry.frames,
        "7", "s", None,
    )  # fmt: skip
    assert len(entry.fingerprint) == 32
    assert entry.frames.endswith(" in caught")
    assert seen.metrics["pbmon.errors"] == {(("error.type", "KeyError"),): 1}
    assert CANARY not in repr(entry)


def test_a_user_may_be_named(seen):
    with pbmon.context(user_id="outer"):
        pbmon.track_error(caught(), user_id=12)
        pbmon.track_error(caught(), "13")
    assert [entry.user_id for entry in failures(seen)] == ["12", "13"]


@pytest.mark.parametrize("wrong", ["text", KeyError, None, 7])
def test_what_is_no_exception_is_a_type_error(seen, wrong):
    with pytest.raises(TypeError, match="must be an exception"):
        pbmon.track_error(wrong)


def test_wrong_users(monkeypatch):
    monkeypatch.setattr(refusals, "_told", set())
    with capture(strict=False) as seen:
        assert pbmon.track_error(caught(), "x" * 256) == Refused("bad_user_id")
        with pytest.raises(TypeError, match="user_id"):
            pbmon.track_error(caught(), 1.5)
        assert counted(seen) == 0
    with capture(), pytest.raises(ValueError, match="user_id"):
        pbmon.track_error(caught(), "")


def test_what_is_not_taken_is_told_and_of_what_nobody_handled_tried_again(seen, monkeypatch):
    monkeypatch.setattr(seen, "put", lambda payload: "full")
    assert pbmon.track_error(caught()) == Refused("full")
    runtime.active.errors.seen(caught())
    runtime.active.errors.write_sums()
    monkeypatch.undo()
    assert (counted(seen), stored(seen)) == (2, 1)


def test_without_the_monitor_only_the_metric_moves():
    with capture(error_monitor=False) as seen:
        assert pbmon.track_error(caught()) == Accepted()
        assert (counted(seen), failures(seen)) == (1, [])


def test_an_error_outlives_the_transaction_it_broke(seen, monkeypatch):
    boxes = []
    monkeypatch.setattr(seen, "put", lambda payload: boxes.append(runtime.outbox.get()) or "")
    token = runtime.outbox.set([])
    try:
        pbmon.track_error(caught())
        assert runtime.outbox.get() == []
    finally:
        runtime.outbox.reset(token)
    assert boxes == [None]


# --- once ---


def test_the_same_object_counts_once_however_often_it_is_seen(seen):
    error = caught()
    for _ in range(3):
        runtime.active.errors.seen(error)
        assert pbmon.track_error(error) == Accepted()
    assert (counted(seen), stored(seen)) == (1, 1)


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


class Slotted(Exception):
    __slots__ = ("code",)


MADE = {
    "frozen": lambda: Frozen(3), "slots": Slotted, "hostile": Hostile, "memory": MemoryError,
    "os": lambda: OSError(2, "x"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MADE)
def test_so_does_one_whose_attributes_can_not_be_set(seen, kind):
    error = caught(MADE[kind]())
    runtime.active.errors.seen(error)
    runtime.active.errors.seen(error)
    assert (counted(seen), stored(seen)) == (1, 1)


def test_nothing_keeps_an_exception_alive(seen):
    class Own(Exception):
        pass

    error = caught(Own())
    pbmon.track_error(error)
    runtime.active.errors.seen(error)
    gone = weakref.ref(error)
    del error
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    "error",
    [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(0), GeneratorExit()],
    ids=repr,
)
def test_what_ends_work_is_no_error(seen, error):
    runtime.active.errors.seen(caught(error))
    assert (counted(seen), stored(seen)) == (0, 0)


def test_from_many_threads_none_is_lost(seen):
    def work():
        for _ in range(500):
            pbmon.track_error(caught())

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (counted(seen), stored(seen)) == (3000, 3000)
    assert len(failures(seen)) < 200


def test_deep_in_a_recursion_nothing_is_raised(seen, monkeypatch):
    verdicts, taken = [], []
    monkeypatch.setattr(seen, "put", lambda payload: taken.append(payload) or "")

    def fall():
        try:
            fall()
        except RecursionError as error:
            verdicts.append(pbmon.track_error(error))
            raise

    with pytest.raises(RecursionError) as found:
        fall()
    assert set(verdicts) <= {Accepted(), Refused("failed")}
    runtime.active.errors.seen(found.value)
    assert (len(taken), counted(seen)) == (1, 1)


def test_a_fault_of_ours_is_told_and_never_raised(seen, monkeypatch, caplog):
    monkeypatch.setattr(signals, "reraise", False)
    monkeypatch.setattr(signals, "_last_told", {})

    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("pbmon.errors.fingerprint", fail)
    runtime.active.errors.seen(caught())
    assert pbmon.track_error(caught()) == Refused("failed")
    assert "pbmon: error monitor failed with ZeroDivisionError" in caplog.text


def test_a_forked_child_writes_no_sum_of_its_parent(seen):
    for _ in range(50):
        pbmon.track_error(caught())
    runtime.active.errors.forget()
    assert len(failures(seen)) == tallies.PER_FINGERPRINT


# --- in requests ---


async def fail(request):
    raise KeyError(CANARY)


async def handle(request):
    try:
        await fail(request)
    except KeyError as error:
        pbmon.track_error(error)
        raise


async def handled(request):
    pbmon.track_error(caught(), user_id="9")
    return PlainTextResponse("fine")


async def late(request):
    return PlainTextResponse("fine", background=BackgroundTask(fail, None))


async def missing(request):
    raise HTTPException(404)


async def gone(request):
    raise asyncio.CancelledError


shared = ValueError(CANARY)


async def share(request):
    raise shared


APP = Starlette(routes=[
    Route(f"/{view.__name__}/{{id}}", view)
    for view in (fail, handle, handled, late, missing, gone, share)
])  # fmt: skip


def ask(*paths):
    async def go():
        transport = httpx.ASGITransport(APP, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            for path in paths:
                await client.get(path)

    asyncio.run(go())


@pytest.mark.parametrize("view", ["fail", "handle", "handled", "late"])
def test_an_error_of_a_request_counts_once_with_its_route_and_trace(seen, view):
    ask(f"/{view}/7")
    (entry,) = failures(seen)
    (span,) = seen.spans
    assert (entry.route, entry.trace_id, entry.errors) == (f"/{view}/{{id}}", span.trace_id, 1)
    assert entry.handled is (view in ("handle", "handled"))
    assert entry.place == f"{HERE}:{'caught' if view == 'handled' else 'fail'}"
    assert entry.user_id == ("9" if view == "handled" else None)
    assert list(seen.metrics["pbmon.errors"].items()) == [
        ((("error.type", "KeyError"), ("http.route", entry.route)), 1)
    ]
    assert CANARY not in str(seen.entries) + str(seen.spans) + str(seen.logs)


def test_an_answer_and_a_cancellation_are_no_errors(seen):
    ask("/missing/1", "/nowhere")
    with pytest.raises(asyncio.CancelledError):
        ask("/gone/1")
    assert (counted(seen), stored(seen)) == (0, 0)


def test_one_object_that_many_requests_raise_counts_in_each(seen):
    vars(shared).pop("_pbmon_counted", None)
    ask("/share/1", "/share/2", "/share/3")
    assert (counted(seen), stored(seen)) == (3, 3)


def test_one_that_a_thread_of_the_request_tracked_counts_once(seen):
    """There the request's span is not the current one."""
    shared.__dict__.pop("_pbmon_counted", None)
    pbmon.track_error(shared)
    ask("/share/1")
    assert (counted(seen), stored(seen)) == (1, 1)
    ask("/share/2")
    assert (counted(seen), stored(seen)) == (2, 2)


def test_who_met_it_is_the_user_of_the_request():
    with capture(user_from="header:x-user") as seen:

        async def go():
            transport = httpx.ASGITransport(APP, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
                await client.get("/fail/1", headers={"x-user": "ann"})

        asyncio.run(go())
        assert [entry.user_id for entry in failures(seen)] == ["ann"]


# --- floods ---


def flood(count, distinct):
    """Exceptions of as many types, raised in a function of its own each."""
    for number in range(count):
        made = type(f"Error{number % distinct}", (Exception,), {"__module__": "shop"})
        yield caught(made())


@pytest.mark.parametrize("distinct", [1, 30, 5000])
def test_a_flood_is_whole_and_takes_little_room(seen, distinct):
    for error in flood(5000, distinct):
        runtime.active.errors.seen(error)
    found = failures(seen)
    assert sum(entry.errors for entry in found) == counted(seen) == 5000
    # Of one slot, of two where the clock passed into the next one meanwhile.
    assert len(found) <= 2 * (tallies.PER_SLOT + tallies.REMEMBERED)
    assert sum(len(entries.encode(entry)) for entry in found) < 1_000_000
    if distinct <= 30:
        by_type = Counter()
        for entry in found:
            by_type[entry.error_type] += entry.errors
        assert set(by_type.values()) <= {5000 // distinct, 5000 // distinct + 1}


# --- error_summary() ---


class Shelf:
    def __init__(self):
        self.asked = []

    def errors(self, *asked):
        self.asked.append(asked)
        return []


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"limit": 0}, ValueError), ({"limit": 1001}, ValueError), ({"limit": "5"}, TypeError),
        ({"limit": True}, TypeError), ({"since": "1h"}, TypeError), ({"release": 3}, TypeError),
        ({"since": datetime(2026, 1, 1)}, ValueError), ({"since": timedelta.max}, ValueError),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_summary_can_not_be_asked(seen, arguments, fault):
    with pytest.raises(fault, match=next(iter(arguments))):
        pbmon.error_summary(**arguments)


def test_a_summary_asks_the_store(seen, monkeypatch):
    shelf = Shelf()
    monkeypatch.setattr(runtime.active, "reader", lambda: shelf)
    at = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)
    pbmon.error_summary()
    pbmon.error_summary(3, since=at, release="1.0")
    pbmon.error_summary(since=timedelta(hours=1))
    now = datetime.now(timezone.utc).timestamp() * 1e6
    assert shelf.asked[:2] == [(10, None, None), (3, 1_795_608_000_000_000, "1.0")]
    assert shelf.asked[2][1] == pytest.approx(now - 3_600_000_000, abs=60_000_000)


def test_before_configure_a_summary_says_so():
    with pytest.raises(pbmon.StoreError):
        pbmon.error_summary()
