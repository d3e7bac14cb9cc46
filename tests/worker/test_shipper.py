"""From journals to the store: roles, damage, refusals, outages, and the end."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter

import pytest
from sqlalchemy import select

from pbmon import signals
from pbmon.spool import entries, journal
from pbmon.spool.journal import Journal
from pbmon.store import access, engine, schema, tables
from pbmon.worker import shipper as module
from pbmon.worker.shipper import Shipper
from tests.stack.process import unused_port, wait_until

OPT_OUT = {"analytics": "opt-out", "sharing": "opt-in"}
NOON = 1_795_608_000_000_000


def event(number=0, **fields):
    values = {"at": NOON, "user": None, "event_id": None} | fields
    return entries.encode_event(
        values["at"], "bought", values["user"], None, None, None, values["event_id"], None,
        {"n": number},
    )  # fmt: skip


@pytest.fixture
def home(tmp_path):
    return journal.open_home(str(tmp_path / "state"), "shop")


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/store.sqlite3"


@pytest.fixture
def shipper(home, url):
    made = Shipper(home, url, OPT_OUT, portion=10)
    yield made
    made.stop()


def filled(home, *payloads):
    made = Journal(home)
    for payload in payloads:
        assert made.append(payload) == ""
    return made


def ship_all(shipper):
    return shipper.finish(time.monotonic() + 30)


def stored(url):
    made = engine.open_store(url)
    with made.connect() as connection:
        found = connection.execute(select(tables.events.c.properties)).scalars()
        numbers = Counter(properties["n"] for properties in found)
    made.dispose()
    return numbers


def journals(home):
    return sorted(path.name for path in home.path.iterdir() if path.is_dir())


def test_living_and_dead_journals_are_stored_and_the_dead_are_removed(home, url, shipper):
    alive = filled(home, *(event(n) for n in range(25)))
    dead = filled(home, *(event(n) for n in range(25, 50)))
    dead.close()
    assert ship_all(shipper)
    assert stored(url) == Counter(range(50))
    assert (shipper.delivered, shipper.dropped) == (50, {})
    assert journals(home) == [alive.source]
    alive.append(event(50))
    assert ship_all(shipper)
    assert stored(url)[50] == 1
    alive.close()
    assert ship_all(shipper)
    assert journals(home) == []


def test_of_a_removed_journal_nothing_is_left_in_the_store(home, url, shipper):
    filled(home, event()).close()
    assert ship_all(shipper)
    made = engine.open_store(url)
    with made.connect() as connection:
        assert connection.execute(tables.checkpoints.select()).all() == []
    made.dispose()


def test_the_next_shipper_goes_on_where_the_store_says(home, url, shipper):
    kept = filled(home, *(event(n) for n in range(35)))
    shipper.take_duty()
    assert shipper.ship()
    assert shipper.delivered == 10
    shipper._duty.forget()  # as when it dies
    other = Shipper(home, url, OPT_OUT, portion=10)
    assert ship_all(other)
    assert other.delivered == 25
    assert stored(url) == Counter(range(35))
    kept.close()


def test_two_that_both_think_they_are_the_shipper_store_each_item_once(home, url, shipper):
    kept = filled(home, *(event(n) for n in range(60)))
    other = Shipper(home, url, OPT_OUT, portion=7)
    shipper.take_duty()
    other._on_duty = True
    while shipper.ship() | other.ship():
        pass
    assert stored(url) == Counter(range(60))
    assert shipper.delivered + other.delivered == 60
    kept.close()


def test_one_process_is_the_shipper(home, url, shipper):
    other = Shipper(home, url, OPT_OUT)
    assert shipper.take_duty()
    assert not other.take_duty()
    assert other.lag_s() is None
    assert other.finish(time.monotonic() + 1)  # it is the other's to do
    shipper._duty.forget()
    assert other.take_duty()


def test_what_is_full_is_released_segment_by_segment(home, url, shipper, monkeypatch):
    monkeypatch.setattr(type(home), "segment_size", 4096)
    kept = filled(home, *(event(n) for n in range(300)))
    segments = len(list(kept.directory.glob("*.seg")))
    assert segments > 5
    assert ship_all(shipper)
    assert len(list(kept.directory.glob("*.seg"))) == 1
    assert stored(url) == Counter(range(300))
    kept.close()


def test_an_item_that_the_database_refuses_is_found_and_passed_over(home, url, shipper):
    bad = {13, 14, 29}
    made = [event(n, at=2**70 if n in bad else NOON) for n in range(40)]
    kept = filled(home, *made)
    assert ship_all(shipper)
    assert stored(url) == Counter(set(range(40)) - bad)
    assert shipper.dropped == {"rejected": 3}
    kept.close()


def test_one_journals_bad_item_keeps_no_other_journal_out(home, url, shipper):
    kept = [filled(home, event(n), event(n + 100, at=2**70)) for n in range(4)]
    assert ship_all(shipper)
    assert stored(url) == Counter(range(4))
    assert shipper.dropped == {"rejected": 4}
    for each in kept:
        each.close()


def test_damage_is_counted_once_and_costs_nothing_else(home, url, shipper, caplog):
    kept = filled(home, *(event(n) for n in range(5)))
    path = next(kept.directory.glob("*.seg"))
    data = bytearray(path.read_bytes())
    at = data.index(b'{"n":2}')
    data[at : at + 7] = b'{"n":9}'
    path.write_bytes(data)
    kept.close()
    other = filled(home, event(7))
    signals.reraise = False
    assert ship_all(shipper)
    assert ship_all(shipper)
    assert stored(url) == Counter([0, 1, 7])
    assert shipper.dropped == {"corrupt": 1}
    assert "is damaged in 1 places" in caplog.text
    other.close()


def test_while_the_store_is_away_all_waits(home, tmp_path, shipper, caplog, monkeypatch):
    monkeypatch.setattr(module, "_AGAIN_S", (0.0,))
    kept = filled(home, *(event(n) for n in range(30)))
    away = Shipper(home, f"postgresql://app:hunter2@127.0.0.1:{unused_port()}/x", OPT_OUT)
    away.take_duty()
    for _ in range(3):
        assert not away.ship()
    assert away.lag_s() > 0
    assert len(caplog.records) == 1
    assert "can't be used (psycopg2.OperationalError). Events wait" in caplog.text
    assert "hunter2" not in caplog.text
    away._duty.forget()
    assert ship_all(shipper)
    assert shipper.delivered == 30
    assert shipper.lag_s() == 0
    kept.close()


def test_a_failing_store_is_left_in_peace_for_a_while(home, monkeypatch):
    away = Shipper(home, f"postgresql://a@127.0.0.1:{unused_port()}/x", OPT_OUT)
    kept = filled(home, event())
    away.take_duty()
    asked = []
    monkeypatch.setattr(module, "open_writer", lambda *_, **__: asked.append(1) or _refuse())
    away.ship()
    away.ship()
    assert len(asked) == 1
    kept.close()


def _refuse():
    raise access.StoreError("is not there")


def test_a_store_that_fails_in_the_middle_is_asked_anew(home, url, shipper, monkeypatch):
    monkeypatch.setattr(module, "_AGAIN_S", (0.0,))
    kept = filled(home, *(event(n) for n in range(30)))
    shipper.take_duty()
    assert shipper.ship()
    write = shipper._writer.write
    monkeypatch.setattr(shipper._writer, "write", lambda _: _break())
    assert not shipper.ship()
    monkeypatch.setattr(shipper._writer, "write", write)
    assert ship_all(shipper)
    assert stored(url) == Counter(range(30))
    kept.close()


def _break():
    raise OSError("gone")


def test_another_version_of_the_tables_is_said_with_the_remedy(home, url, shipper, caplog):
    kept = filled(home, event())
    assert ship_all(shipper)
    made = engine.open_store(url)
    with made.begin() as connection:
        connection.exec_driver_sql("UPDATE schema_version SET version_num = '9999'")
    kept.append(event(1))
    other = Shipper(home, url, OPT_OUT)
    shipper._duty.forget()
    assert not ship_all(other)
    assert "has tables of a newer version; upgrade pbmon on this machine" in caplog.text
    with made.begin() as connection:
        newest = schema.VERSIONS[-1]
        connection.exec_driver_sql(f"UPDATE schema_version SET version_num = '{newest}'")
    other._again_at_s = 0
    assert ship_all(other)
    assert stored(url) == Counter([0, 1])
    made.dispose()
    kept.close()


def test_the_thread_ships_by_itself_and_takes_over(home, url, shipper):
    kept = filled(home, event(0))
    seconds = []
    other = Shipper(home, url, OPT_OUT, every_second=lambda: seconds.append(1))
    shipper.take_duty()
    other.start()
    wait_until(lambda: seconds, "its second")
    assert other.delivered == 0
    shipper._duty.forget()
    wait_until(lambda: other.delivered == 1, "the other to take over")
    kept.append(event(1))
    wait_until(lambda: other.delivered == 2, "the next event")
    other.stop()
    other._thread.join(10)
    assert not other._thread.is_alive()
    kept.close()


def test_a_forked_child_is_not_the_shipper(home, url, shipper):
    kept = filled(home, event())
    assert ship_all(shipper)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        shipper.forget()
        os.write(writer, b"yes" if shipper.take_duty() else b"no")
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 3) == b"no"
    kept.append(event(1))
    assert ship_all(shipper)
    assert stored(url) == Counter([0, 1])
    kept.close()


def test_a_journal_that_is_taken_away_in_the_middle_is_forgotten(home, url, shipper):
    gone, kept = filled(home, event(0)), filled(home, event(1))
    shipper.take_duty()
    shipper._look()
    for file in gone.directory.iterdir():
        file.unlink()
    gone.directory.rmdir()
    assert ship_all(shipper)
    assert stored(url) == Counter([1])
    kept.close()


def test_the_fullest_journal_keeps_no_other_waiting(home, url, shipper):
    full = filled(home, *(event(n) for n in range(100)))
    other = filled(home, event(1000))
    shipper.take_duty()
    shipper.ship()
    shipper.ship()
    assert shipper.delivered <= 20
    assert stored(url)[1000] == 1
    for each in (full, other):
        each.close()


def test_at_the_end_nobody_waits_for_a_store_that_does_not_answer(home, url, monkeypatch):
    """The thread hangs in the database; the process that ends leaves it there."""
    kept = filled(home, event())
    hanging, let_go = threading.Event(), threading.Event()

    def hang(*_, **__):
        hanging.set()
        let_go.wait(60)
        raise access.StoreError("did not answer")

    monkeypatch.setattr(module, "open_writer", hang)
    made = Shipper(home, url, OPT_OUT)
    made.start()
    assert hanging.wait(30)
    began_s = time.monotonic()
    assert not made.finish(began_s + 0.3)
    assert 0.3 <= time.monotonic() - began_s < 30
    made.stop()
    let_go.set()
    made._thread.join(30)
    kept.close()


def test_the_thread_is_hurried_at_the_end(home, url, monkeypatch):
    monkeypatch.setattr(module, "_EVERY_S", 3600.0)
    kept = filled(home, *(event(n) for n in range(30)))
    made = Shipper(home, url, OPT_OUT, portion=7)
    made.start()
    assert made.finish(time.monotonic() + 60)
    assert made.delivered == 30
    assert made.finish(time.monotonic() + 60)
    made.stop()
    made._thread.join(30)
    assert not made._thread.is_alive()
    kept.close()
