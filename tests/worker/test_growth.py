"""The daily growth figures: once for each day that is over, whoever leads, in every zone; missed
days are made up for; the application's own table is read before the store is held."""

from __future__ import annotations

import datetime as dt
import logging
import threading

import pytest
from sqlalchemy import select

from pbmon import growth as meaning
from pbmon import settings
from pbmon.parsing import Users
from pbmon.store import growth, schema, tables
from pbmon.store.access import open_engine, open_runs
from pbmon.worker import growth as module
from pbmon.worker import jobs
from tests.store import population
from tests.store.conftest import BOTH, new_database
from tests.store.test_growth import figures_of


def made(url):
    engine = open_engine(url)
    schema.upgrade(engine)
    engine.dispose()
    return url


@pytest.fixture
def url(tmp_path):
    """Of a store."""
    return made(f"sqlite:///{tmp_path}/store.sqlite3")


@pytest.fixture(params=BOTH)
def any_url(request):
    """Of a store on either engine."""
    if request.param == "sqlite":
        return request.getfixturevalue("url")
    return made(new_database(request.getfixturevalue("stack_postgres").url))


def resolved(**values):
    found, problems = settings.resolve(values)
    assert problems == []
    return found


def at(zone, day, **after):
    """A time after the start of a local day."""
    start = meaning.start_of(day, meaning.zone(zone))
    return dt.datetime.fromtimestamp(start / 1e6, dt.timezone.utc) + dt.timedelta(**after)


def snapshots(url):
    """(day, source) → figures."""
    engine = open_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(select(tables.growth_snapshots)).mappings().all()
    engine.dispose()
    return {(row["day"], row["source"]): row for row in rows}


def do(runs, kept, now):
    """The jobs of growth that were done."""
    done = jobs.run_due(runs, kept, now, may_change_schema=False)
    return [(job, day) for job, day in done if job in ("growth", "users")]


def run_at_once(url, kept, now, replicas=3):
    """What each of them did, having begun together."""
    barrier = threading.Barrier(replicas)
    done = []

    def replica():
        runs = open_runs(url)
        barrier.wait(60)
        done.append(jobs.run_due(runs, kept, now, may_change_schema=False))
        runs.close()

    threads = [threading.Thread(target=replica) for _ in range(replicas)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(done) == replicas
    return [day for each in done for job, day in each if job == "growth"]


@pytest.mark.parametrize("zone", population.ZONES)
def test_replicas_take_every_day_once_and_make_up_for_missed_ones(any_url, zone, caplog):
    url = any_url
    caplog.set_level(logging.INFO, "pbmon.growth")
    people = population.times(zone)
    population.fill(url, zone, people)
    days = population.active_days(zone, people)
    kept = resolved(timezone=zone)
    first = dt.date(2026, 10, 24)
    assert run_at_once(url, kept, at(zone, first, minutes=4)) == [first - dt.timedelta(days=2)]
    assert run_at_once(url, kept, at(zone, first, minutes=6)) == [first - dt.timedelta(days=1)]
    assert run_at_once(url, kept, at(zone, first, hours=23)) == []
    # Two days on which nobody led, one of them of 25 hours in Berlin.
    late = run_at_once(url, kept, at(zone, first + dt.timedelta(days=3), hours=2))
    assert sorted(late) == [first + dt.timedelta(days=n) for n in range(3)]
    found = snapshots(url)
    assert len(found) == 5
    for (day, source), row in found.items():
        assert source == "activity"
        assert row["timezone"] == zone
        truth = population.truth(days, day)
        assert {name: row[name] for name in truth} == truth
    records = [record for record in caplog.records if record.name == "pbmon.growth"]
    assert sorted(record.day for record in records) == sorted(d.isoformat() for d, _ in found)
    newest = next(r for r in records if r.day == "2026-10-26")
    truth = population.truth(days, dt.date(2026, 10, 26))
    assert newest.getMessage().startswith(
        f"Daily growth metrics day=2026-10-26 source=activity new={truth['new']} "
    )
    assert newest.retention == pytest.approx(1 - truth["churned"] / truth["before"])


def test_days_are_those_of_the_store_whatever_the_settings_say(url, caplog):
    population.fill(url, "Asia/Kolkata", {"7": [1_795_608_000_000_000]})
    runs = open_runs(url)
    now = at("Asia/Kolkata", dt.date(2026, 11, 26), hours=1)  # still the 25th in Berlin
    done = do(runs, resolved(timezone="Europe/Berlin"), now)
    assert done == [("growth", dt.date(2026, 11, 25))]
    assert "those of Asia/Kolkata, the zone that the store was made with" in caplog.text


def test_a_backfill_takes_days_anew_and_leaves_none_out_later(url):
    people = population.times("UTC", people=30)
    population.fill(url, "UTC", people)
    days = population.active_days("UTC", people)
    runs = open_runs(url)
    start = dt.date(2026, 10, 1)
    taken = list(module.backfill(runs, start, start + dt.timedelta(days=4)))
    assert [figures_of(each) for each in taken] == [
        population.truth(days, start + dt.timedelta(days=n)) for n in range(5)
    ]
    assert len(snapshots(url)) == 5
    assert runs.last() == {}  # the daily job goes on from its own last day
    assert len(list(module.backfill(runs, start, start))) == 1
    assert list(module.backfill(runs, start, start - dt.timedelta(days=1))) == []


# --- the application's own table ---


@pytest.fixture
def users(tmp_path):
    """The settings with a table of users, one of whom was last seen on each day of November."""
    import sqlite3

    path = tmp_path / "app.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, created TEXT, seen TEXT)")
    connection.executemany(
        "INSERT INTO users (created, seen) VALUES ('2026-01-01 00:00:00', ?)",
        [(f"2026-11-{day:02} 12:00:00",) for day in range(1, 31)],
    )
    connection.commit()
    connection.close()
    return resolved(
        users={
            "url": f"sqlite:///{path}", "table": "users", "id": "id", "created_at": "created",
            "last_seen_at": "seen",
        }
    )  # fmt: skip


@pytest.fixture
def clock(monkeypatch):
    """Sets the store's clock."""

    def set_to(now):
        monkeypatch.setattr("pbmon.store.schema.now", lambda: int(now.timestamp() * 1e6))
        return now

    return set_to


def test_the_table_of_users_is_the_source_where_there_is_one(any_url, users, clock, caplog):
    caplog.set_level(logging.INFO, "pbmon.growth")
    runs = open_runs(any_url)
    now = clock(at("UTC", dt.date(2026, 11, 11), minutes=6))
    done = do(runs, users, now)
    day = dt.date(2026, 11, 10)
    assert done == [("growth", day), ("users", day)]
    found = runs.read(growth.find)
    # All of the second half of the month have been seen since; so are those of the 10th.
    assert (found.source, found.total, found.active_24h, found.churned) == ("users", 30, 21, 0)
    assert [record.source for record in caplog.records] == ["users"]
    later = clock(at("UTC", dt.date(2026, 11, 13), minutes=6))
    do(runs, users, later)
    found = snapshots(any_url)
    missed = found[dt.date(2026, 11, 11), "users"]
    assert (missed["total"], missed["new"], missed["active_24h"]) == (30, 0, None)
    assert found[dt.date(2026, 11, 12), "users"]["active_24h"] == 19


def test_a_table_that_is_missing_is_told_and_tried_again(url, users, clock, caplog, tmp_path):
    runs = open_runs(url)
    now = clock(at("UTC", dt.date(2026, 11, 11), minutes=6))
    away = tmp_path / "away.db"
    (tmp_path / "app.db").rename(away)
    day = dt.date(2026, 11, 10)
    assert do(runs, users, now) == [("growth", day)]
    assert "pbmon: job users of 2026-11-10: sqlite:///" in caplog.text
    assert "app.db is a file that is not there; check `url` in [users]" in caplog.text
    assert not (tmp_path / "app.db").exists()
    away.rename(tmp_path / "app.db")
    assert do(runs, users, now) == [("users", day)]


def test_the_store_is_not_held_while_the_table_is_read(url, users, clock, monkeypatch):
    """Another one writes into it meanwhile: in SQLite nobody could, if it were."""
    from pbmon.store import users as store_users

    clock(at("UTC", dt.date(2026, 11, 11), minutes=6))
    runs = open_runs(url)
    take = store_users.snapshot

    def snapshot(*arguments):
        open_runs(url).write(lambda c: growth.rely_on(c, "activity"))
        return take(*arguments)

    monkeypatch.setattr(store_users, "snapshot", snapshot)
    assert module.from_users(runs, users, dt.date(2026, 11, 10))


def test_the_variable_of_the_url_that_is_not_set_is_named(url):
    mapping = Users(url="env:NO_SUCH", table="users", id="id", created_at="created")
    kept = resolved(users=mapping)
    with pytest.raises(module.NotTakenError, match="env:NO_SUCH, which is not set"):
        module.from_users(open_runs(url), kept, population.LAST)
