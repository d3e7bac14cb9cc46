"""The store as the application's functions read it: opened once, at the first question."""

from __future__ import annotations

import threading

import pytest

import pbmon
from pbmon import runtime, settings
from pbmon.runtime import StoreError
from pbmon.worker.reader import LazyReader
from tests.fresh import python
from tests.stack.process import unused_port


def reader(tmp_path, **more):
    resolved, problems = settings.resolve({"state_dir": str(tmp_path / "state"), **more})
    assert problems == []
    return LazyReader(lambda: resolved, lambda: "shop")


def test_a_store_in_sqlite_is_made_by_the_first_question(tmp_path, monkeypatch):
    made = reader(tmp_path)
    assert not (tmp_path / "state").exists()
    monkeypatch.setattr(runtime.active, "reader", made.open)
    assert pbmon.revenue_metrics().count == 0
    assert (tmp_path / "state" / "store" / "shop.sqlite3").exists()
    made.close()


def test_it_is_opened_once_however_many_ask(tmp_path):
    made, found = reader(tmp_path), []
    threads = [threading.Thread(target=lambda: found.append(made.open())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 6
    assert len(set(map(id, found))) == 1
    made.close()
    assert made.open() is not found[0]
    made.close()


def test_a_forked_child_opens_its_own(tmp_path):
    made = reader(tmp_path)
    first = made.open()
    made._lock.acquire()  # by another thread, which is not in the child
    made.forget()
    assert made.open() is not first
    made.close()
    first.close()


def test_what_is_wrong_is_said_without_the_password(tmp_path, monkeypatch):
    away = f"postgresql://app:hunter2@127.0.0.1:{unused_port()}/x"
    monkeypatch.setattr(runtime.active, "reader", reader(tmp_path, store_url=away).open)
    with pytest.raises(pbmon.StoreError, match="can't be used") as failed:
        pbmon.revenue_metrics()
    assert "hunter2" not in str(failed.value)


def test_without_a_state_directory_the_remedy_is_said(tmp_path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StoreError, match="PBMON_STATE_DIR"):
        reader(tmp_path, store_url=f"sqlite:///{tmp_path}/x").open()


def test_from_track_revenue_to_revenue_metrics_in_a_process(tmp_path):
    done = python(
        """
        import pbmon
        pbmon.configure(service_name="shop", segments=["plan"])
        with pbmon.context(user_id=7, plan="pro"):
            assert pbmon.track_revenue("12.50", "USD", transaction_id="t1")
        assert pbmon.track_revenue("12.50", "USD", transaction_id="t1")
        assert pbmon.track_refund("2.50", "USD", transaction_id="t1", refund_id="r1")
        assert pbmon.track_chargeback("1", "USD", transaction_id="t1", chargeback_id="b1")
        assert pbmon.track_adjustment("-0.50", "USD", adjustment_id="a1")
        assert pbmon.flush(60)
        found = pbmon.revenue_metrics("hour")
        print(found.gross, found.refunds, found.net, found.count, found.average)
        """,
        PBMON_STATE_DIR=str(tmp_path),
    )
    assert done.stdout.strip() == "12.50 4.00 8.50 1 12.50"
