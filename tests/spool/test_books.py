from __future__ import annotations

import threading

from pbmon.spool.books import Books, Entry


def test_totals_by_channel_outcome_and_reason():
    books = Books()
    books.add("logs", "accepted", 5)
    books.add("logs", "dropped", 1, "expired")
    books.add("logs", "dropped", 2, "corrupt")
    books.add("traces", "accepted", 0)
    assert books.totals() == {
        Entry("logs", "accepted"): 5,
        Entry("logs", "dropped", "expired"): 1,
        Entry("logs", "dropped", "corrupt"): 2,
    }
    assert books.total("logs", "dropped") == 3
    assert books.total("logs", "dropped", "expired") == 1
    assert books.total("traces", "accepted") == 0


def test_totals_are_a_copy():
    books = Books()
    books.add("logs", "accepted", 1)
    books.totals().clear()
    assert books.total("logs", "accepted") == 1


def test_many_threads_lose_no_count():
    books = Books()

    def count():
        for _ in range(5000):
            books.add("logs", "accepted", 1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert books.total("logs", "accepted") == 20_000


def test_a_forked_child_counts_from_nothing_even_if_a_thread_was_counting():
    books = Books()
    books.add("logs", "accepted", 1)
    books._lock.acquire()
    books.forget()
    books.add("logs", "accepted", 2)
    assert books.total("logs", "accepted") == 2
