"""Outages: each is said once, what is refused is counted, and nothing that was accepted is lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections import Counter

import pytest
from sqlalchemy import func, select

from pbmon import settings, signals
from pbmon.business.intake import Intake
from pbmon.spool import directory, journal
from pbmon.spool.backlog import Backlog, Duty
from pbmon.store import access, engine, schema, tables
from pbmon.store.schema import DAY, HOUR
from pbmon.worker import leader as leading
from pbmon.worker import shipper as module
from pbmon.worker.leader import Leader
from pbmon.worker.shipper import Shipper
from tests.delivery.vendors import Answer, WebhookVendor
from tests.stack.process import unused_port
from tests.store.conftest import new_database
from tests.worker.conftest import OPT_OUT
from tests.worker.test_leader import by, put, state_of
from tests.worker.test_shipper import NOON, event, filled, journals, ship_all, stored


class Clock:
    """In the place of the module `time`: it goes on when it is told to."""

    def __init__(self):
        self.now_s = 1000.0

    def monotonic(self):
        return self.now_s


def remount(place, mode):
    subprocess.run(["mount", "-o", f"remount,{mode}", place], check=True)


# --- the store ------------------------------------------------------------------------------


def test_a_store_that_is_away_for_an_hour(home, url, monkeypatch, caplog):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(signals, "time", clock)
    away = f"postgresql://app:hunter2@127.0.0.1:{unused_port()}/x"
    kept = filled(home)
    asked = []

    def open_writer(*_, **options):
        asked.append(clock.now_s)
        is_over = clock.now_s > 4600
        # The real one is asked now and then: what else may raise there, it does each time.
        if is_over or len(asked) % 100 == 1:
            return access.open_writer(url if is_over else away, "opt-out", **options)
        raise access.StoreError("can't be used: as before")

    monkeypatch.setattr(module, "open_writer", lambda *_, **options: open_writer(**options))
    made = Shipper(home, away, OPT_OUT)
    made.take_duty()
    for number in range(3600):
        assert kept.append(event(number)) == ""
        made.ship()
        clock.now_s += 1
    assert made.delivered == 0
    assert made.lag_s() == 3600
    # Every 10 s, and about once a minute in the log.
    assert 340 <= len(asked) <= 380
    assert 50 <= len(caplog.records) <= 70
    assert "hunter2" not in caplog.text
    clock.now_s += 11
    while made.ship():
        pass
    assert stored(url) == Counter(range(3600))
    assert (made.delivered, made.lag_s()) == (3600, 0.0)
    made.stop()
    kept.close()


@pytest.mark.parametrize("mode", ["full", "ro"])
def test_the_stores_volume_is_full_or_read_only(home, volume, mode, caplog, monkeypatch):
    monkeypatch.setattr(module, "_AGAIN_S", (0.0,))
    place = volume(4 * 1024 * 1024)
    store = f"sqlite:///{place}/store.sqlite3"
    made = Shipper(home, store, OPT_OUT, portion=500)
    made.take_duty()
    kept = filled(home, *(event(n) for n in range(100)))
    if mode == "ro":
        remount(place, "ro")
        assert not made.ship()
    else:
        assert ship_all(made)
        with (place / "ballast").open("wb") as ballast, pytest.raises(OSError, match="No space"):
            while True:
                ballast.write(bytes(64 * 1024))
                ballast.flush()
    for number in range(100, 400):
        kept.append(event(number))
    for _ in range(3):
        assert not made.ship()
    said = "its disk is full" if mode == "full" else "its file system is read-only"
    assert caplog.text.count(said) == 1
    assert len(caplog.records) == 1
    if mode == "ro":
        remount(place, "rw")
    else:
        (place / "ballast").unlink()
    assert ship_all(made)
    assert stored(store) == Counter(range(400))
    assert not made.dropped
    made._close()
    kept.close()


@pytest.mark.server
def test_a_schema_that_is_older_or_newer_than_the_code(
    home,
    stack_postgres,
    caplog,
    monkeypatch,
):
    monkeypatch.setattr(module, "_AGAIN_S", (0.0,))
    store = new_database(stack_postgres.url)
    made = Shipper(home, store, OPT_OUT)
    made.take_duty()
    kept = filled(home, event(0))
    assert not made.ship()
    assert caplog.text.count("has no tables of pbmon yet; run `pbmon store upgrade`") == 1
    opened = access.open_engine(store)
    schema.upgrade(opened)
    monkeypatch.setattr(schema, "VERSIONS", (*schema.VERSIONS, "8888"))
    assert not made.ship()
    assert caplog.text.count("has tables of an older version; run `pbmon store upgrade`") == 1
    monkeypatch.undo()
    monkeypatch.setattr(module, "_AGAIN_S", (0.0,))
    assert ship_all(made)
    # Upgraded by another while this one runs.
    with opened.begin() as connection:
        connection.exec_driver_sql("UPDATE pbmon.schema_version SET version_num = '9999'")
        connection.exec_driver_sql("ALTER TABLE pbmon.events RENAME COLUMN name TO title")
    kept.append(event(1))
    for _ in range(3):
        assert not made.ship()
    assert caplog.text.count("has tables of a newer version; upgrade pbmon on this machine") == 1
    with opened.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE pbmon.schema_version SET version_num = '{schema.VERSIONS[-1]}'"
        )
        connection.exec_driver_sql("ALTER TABLE pbmon.events RENAME COLUMN title TO name")
        count = connection.exec_driver_sql("SELECT count(*) FROM pbmon.events").scalar()
    assert count == 1
    assert ship_all(made)
    assert made.delivered == 2
    opened.dispose()
    made._close()
    kept.close()


def test_a_store_that_was_removed_is_made_anew_and_filled_from_what_is_there(
    home,
    tmp_path,
    shipper,
    url,
    caplog,
    monkeypatch,
):
    monkeypatch.setattr(module, "_AGAIN_S", (0.0,))
    kept = filled(home, event(0))
    assert ship_all(shipper)
    for file in tmp_path.glob("store.sqlite3*"):
        file.unlink()
    kept.append(event(1))
    assert not shipper.ship()
    assert caplog.text.count("the file was removed or replaced while it was in use") == 1
    assert ship_all(shipper)
    assert stored(url) == Counter([0, 1])
    assert (tmp_path / "store.sqlite3").stat().st_mode & 0o777 == 0o600
    kept.close()


# --- the state directory --------------------------------------------------------------------


def totals(intake):
    return {reason or outcome: count for (outcome, reason), count in intake.totals().items()}


def test_the_journals_volume_is_full(volume, url, caplog, monkeypatch):
    monkeypatch.setattr(journal, "_RETRY_S", 0.0)
    monkeypatch.setattr(directory, "_LARGEST_SEGMENT", 64 * 1024)
    place = journal.open_home(str(volume(1024 * 1024) / "state"), "shop")
    place._limit = lambda used: 2**40  # so that the disk itself says no
    intake = Intake(lambda: place, lambda _: None)
    count = 0
    while intake.put(event(count)) == "":
        count += 1
    assert count > 5000
    assert [intake.put(event()) for _ in range(2)] == ["full"] * 2
    assert totals(intake) == {"accepted": count, "full": 3}
    assert caplog.text.count("there is no room for more events; they are refused") == 1
    made = Shipper(place, url, OPT_OUT, portion=5000)
    assert ship_all(made)
    assert stored(url) == Counter(range(count))
    assert intake.put(event()) == ""  # there is room again
    intake.close()
    made.stop()


def test_a_state_directory_that_is_read_only(volume, caplog):
    place = volume(1024 * 1024)
    remount(place, "ro")
    intake = Intake(lambda: journal.open_home(str(place / "state"), "shop"), lambda _: None)
    assert [intake.put(event()) for _ in range(3)] == ["no_state_directory"] * 3
    assert totals(intake) == {"accepted": 0, "no_state_directory": 3}
    assert caplog.text.count("can't be used (Read-only file system); give this user a") == 1
    remount(place, "rw")
    assert intake.put(event()) == ""
    intake.close()
    intake._left.clear()


def test_a_removed_place_is_said_and_taken_up_again(home, url, shipper, caplog):
    kept = filled(home, event(0))
    assert ship_all(shipper)
    kept.close()
    shutil.rmtree(home.state_directory)
    assert not shipper.take_duty()
    assert not shipper.take_duty()
    assert caplog.text.count(f"{home.path} can't be used (No such file or directory)") == 1
    again = journal.open_home(str(home.state_directory), "shop")
    kept = filled(again, event(1))
    assert ship_all(shipper)
    assert stored(url) == Counter([0, 1])
    kept.close()


def test_whose_lock_was_removed_takes_it_anew(home, shipper):
    assert shipper.take_duty()
    (home.path / ".shipper").unlink()
    other = Duty(home)
    assert other.take()
    assert not shipper.take_duty()
    other.give_up()
    assert shipper.take_duty()
    assert not other.take()
    other.forget()


def test_another_users_journal_keeps_no_other_out(home, url, shipper, caplog, monkeypatch):
    theirs, ours = filled(home, event(0)), filled(home, event(1))
    read = Backlog.read

    def refusing(backlog, *args):
        if backlog.source == theirs.source:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return read(backlog, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Backlog, "read", refusing)
        for _ in range(2):
            assert not ship_all(shipper)  # not everything is in the store
        assert stored(url) == Counter([1])
        assert shipper.lag_s() > 0
        ours.append(event(2))
        assert not ship_all(shipper)
        assert stored(url) == Counter([1, 2])
        assert caplog.text.count("can't be read (Permission denied); its events wait there") == 1
    assert ship_all(shipper)
    assert stored(url) == Counter([0, 1, 2])
    assert shipper.lag_s() == 0
    for each in (theirs, ours):
        each.close()


# --- the clock ------------------------------------------------------------------------------

YEAR_S = 365 * 86400


def set_clock(monkeypatch, at_s):
    monkeypatch.setattr(time, "time_ns", lambda: int(at_s * 1e9))
    monkeypatch.setattr(time, "time", lambda: at_s)


def test_a_clock_that_jumps_loses_and_doubles_nothing(home, url, shipper, monkeypatch):
    kept = filled(home)
    now_s = NOON / 1e6
    for number, step_s in enumerate((0, 3600, -7200, YEAR_S, -YEAR_S, -now_s + 1)):
        set_clock(monkeypatch, now_s + step_s)
        kept.append(event(number, at=time.time_ns() // 1000))
        assert ship_all(shipper)
    assert stored(url) == Counter(range(6))
    made = engine.open_store(url)
    with made.connect() as connection:
        rows = connection.execute(select(tables.events.c.occurred_at)).scalars().all()
        hours = connection.execute(
            select(tables.event_totals.c.hour, func.sum(tables.event_totals.c.events)).group_by(
                tables.event_totals.c.hour
            )
        )
        assert dict(hours.all()) == Counter(at // HOUR * HOUR for at in rows)
    made.dispose()
    assert journals(home) == [kept.source]
    kept.close()


def test_a_destination_that_waits_by_a_clock_that_was_ahead_is_not_left_for_a_year(
    url,
    monkeypatch,
):
    put(url, 3)
    now_s = time.time()
    with WebhookVendor(Answer(429, headers={"Retry-After": "120"})) as vendor:
        made = by(url, {"webhook": {"url": vendor.url}})
        with monkeypatch.context() as patch:
            set_clock(patch, now_s + YEAR_S)
            made.deliver()
            made.deliver()
        assert len(vendor.requests) == 1
        made.deliver()
    assert len(vendor.accepted) == 3
    assert state_of(url).waiting == 0


def test_a_clock_that_jumps_ahead_deletes_nothing(url, caplog, monkeypatch):
    now_s = time.time()
    put(url, 3)
    with access.open_engine(url).begin() as connection:
        connection.exec_driver_sql(f"UPDATE events SET occurred_at = {int(now_s * 1e6)}")
    resolved, _ = settings.resolve({"events_retention_days": 30})
    made = Leader(url, resolved, [])
    clock = Clock()

    def look(at_s, later_s):
        clock.now_s += later_s
        made._jobs_at_s = 0.0
        with monkeypatch.context() as patch:
            patch.setattr(leading.time, "monotonic", clock.monotonic)
            set_clock(patch, at_s)
            made.do_jobs()
        return len(stored(url))

    assert look(now_s, 0) == 3
    assert look(now_s + YEAR_S, 60) == 3
    assert look(now_s + YEAR_S + 7200, 7200) == 3
    assert caplog.text.count("the clock jumped ahead by") == 1
    assert look(now_s + 10_000, 60) == 3  # it was set right
    assert made.succeeded_at["retention"] == pytest.approx(now_s + 10_000, abs=DAY)
    assert look(now_s + YEAR_S, 60) == 3
    assert look(now_s + YEAR_S + 86500, 86500) == 0  # it stayed so for a day
