from __future__ import annotations

import time

import pytest

from pbmon.spool.memory import MAX_BYTES, MemoryQueue
from tests.spool.spools import drain, fill, is_balanced, totals


@pytest.fixture
def queue(books):
    return MemoryQueue(books)


def test_records_come_back_in_their_order_by_batches(queue, books):
    payloads = fill(queue, "logs", 10)
    batch = queue.read("logs", 4, 2**20)
    assert [record.payload for record in batch.records] == payloads[:4]
    queue.settle(batch, 3, {"rejected": 1})
    assert queue.waiting("logs") == 6
    assert len(queue.read("logs", 512, 1000).records) == 2
    assert drain(queue, "logs") == payloads[4:]
    assert queue.read("logs", 4, 2**20) is None
    assert totals(books, "logs") == (10, 9, 1)
    assert queue.size("logs") == 0


def test_it_is_full_at_four_megabytes_and_takes_again(queue, books):
    payload = bytes(MAX_BYTES // 4)
    assert [queue.append("traces", payload, 1) for _ in range(5)] == ["", "", "", "", "full"]
    assert books.total("traces", "refused", "full") == 1
    assert queue.size("traces") == MAX_BYTES
    assert len(drain(queue, "traces")) == 4
    assert queue.append("traces", payload, 1) == ""
    assert is_balanced(books, queue)


def test_telemetry_expires_and_events_do_not(queue, books, monkeypatch):
    for channel in ("traces", "events"):
        fill(queue, channel, 3)
    later_ns = time.monotonic_ns() + 3601 * 10**9
    monkeypatch.setattr(time, "monotonic_ns", lambda: later_ns)
    assert drain(queue, "traces") == []
    assert len(drain(queue, "events")) == 3
    assert books.total("traces", "dropped", "expired") == 3
    assert is_balanced(books, queue)


def test_what_expires_behind_a_batch_that_is_held_makes_room(queue, books, monkeypatch):
    held = fill(queue, "traces", 5)
    batch = queue.read("traces", 3, 2**20)
    later_ns = time.monotonic_ns() + 3601 * 10**9
    monkeypatch.setattr(time, "monotonic_ns", lambda: later_ns)
    recent = fill(queue, "traces", 2)
    queue.expire("traces")
    assert totals(books, "traces") == (7, 0, 2)
    assert queue.size("traces") == 5 * 400
    again = queue.read("traces", 512, 2**20)
    assert [record.payload for record in again.records] == held[:3] + recent
    queue.settle(batch, 2, {"rejected": 1})
    assert drain(queue, "traces") == recent
    assert totals(books, "traces") == (7, 4, 3)
    assert queue.size("traces") == 0


def test_what_waits_in_the_end_is_lost_and_counted_once(queue, books):
    fill(queue, "logs", 5)
    batch = queue.read("logs", 2, 2**20)
    queue.close()
    queue.settle(batch, 2, {})  # the receiver's answer came too late
    queue.close()
    assert books.total("logs", "dropped", "lost") == 5
    assert totals(books, "logs") == (5, 0, 5)
    assert queue.append("logs", b"late", 1) == "full"
    assert is_balanced(books, queue)


def test_a_forked_child_begins_with_nothing(queue, books):
    fill(queue, "logs", 5)
    queue.forget()
    books.forget()
    assert queue.waiting("logs") == 0
    assert queue.append("logs", b"the child's", 1) == ""
    assert totals(books, "logs") == (1, 0, 0)
