"""The outbox: stored if and only if the application's transaction commits, and once."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import threading
import time
from collections import Counter

import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import Session

import pbmon
from pbmon import runtime
from pbmon.business.intake import Intake
from pbmon.spool import journal
from pbmon.store import engine as engines
from pbmon.store import outbox, tables
from pbmon.store.access import make_outbox, open_engine
from pbmon.store.outbox import OutboxError
from pbmon.testing import capture
from pbmon.worker.shipper import Shipper
from tests.stack.process import unused_port
from tests.store.conftest import BOTH, new_database
from tests.worker.test_shipper import OPT_OUT


@pytest.fixture(params=BOTH)
def app(request, tmp_path):
    """The application's own database, with its outbox; its URL."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/app.sqlite3"
    else:
        url = new_database(request.getfixturevalue("stack_postgres").url)
    made = open_engine(url)
    assert make_outbox(made) == make_outbox(made) == "has the outbox"
    made.dispose()
    return url


@pytest.fixture
def home(tmp_path):
    return journal.open_home(str(tmp_path / "state"), "shop")


@pytest.fixture
def tracking(home, monkeypatch):
    """pbmon.track() as in an application."""
    with capture():
        intake = Intake(lambda: home, lambda _: None)
        monkeypatch.setattr(runtime.active.events, "_intake", intake)
        yield intake
        intake.close()


@pytest.fixture
def engine(app):
    """As the application has it."""
    made = create_engine(engines.parse(app))
    yield made
    made.dispose()


def waiting(engine):
    name = "pbmon.outbox" if engine.dialect.name == "postgresql" else "pbmon_outbox"
    with engine.connect() as connection:
        return connection.execute(text(f"SELECT count(*) FROM {name}")).scalar()


def shipped(home, app, tmp_path, portion=100):
    """Names in the store, after all that waits was brought there."""
    store = f"sqlite:///{tmp_path}/store.sqlite3"
    shipper = Shipper(home, store, OPT_OUT, outbox_url=app, portion=portion)
    assert shipper.finish(time.monotonic() + 30)
    shipper._duty.forget()
    made = open_engine(store)
    with made.connect() as connection:
        names = Counter(connection.execute(select(tables.events.c.name)).scalars())
    made.dispose()
    return names, shipper


def test_what_is_committed_is_stored_and_what_is_rolled_back_is_not(
    tracking, engine, home, app, tmp_path
):
    with engine.begin() as connection, pbmon.outbox(connection):
        assert pbmon.track("kept", {"n": 1})
        assert pbmon.track_feature("export", "viewed")
    with engine.connect() as connection:
        with pbmon.outbox(connection):
            pbmon.track("gone")
        connection.rollback()
    with pytest.raises(ZeroDivisionError):  # noqa: SIM117
        with engine.begin() as connection, pbmon.outbox(connection):
            pbmon.track("gone")
            1 / 0  # noqa: B018
    pbmon.track("beside")
    assert waiting(engine) == 2
    names, shipper = shipped(home, app, tmp_path)
    assert names == {"kept": 1, "feature_viewed": 1, "beside": 1}
    assert shipper.delivered == 3
    assert waiting(engine) == 0


def test_nothing_is_written_before_the_end_of_the_block(tracking, engine):
    with engine.begin() as connection:
        with pbmon.outbox(connection):
            pbmon.track("kept")
            assert waiting_in(connection) == 0
        assert waiting_in(connection) == 1


def waiting_in(connection):
    name = "pbmon.outbox" if connection.dialect.name == "postgresql" else "pbmon_outbox"
    return connection.execute(text(f"SELECT count(*) FROM {name}")).scalar()


def test_a_session_of_sqlalchemy(tracking, engine):
    with Session(engine) as session:
        with pbmon.outbox(session):
            pbmon.track("kept")
        session.commit()
        with pbmon.outbox(session):
            pbmon.track("gone")
        session.rollback()
    assert waiting(engine) == 1


def test_a_connection_of_the_driver(tracking, engine, app, tmp_path):
    if engine.dialect.name == "postgresql":
        import psycopg2

        connection = psycopg2.connect(app)
    else:
        connection = sqlite3.connect(tmp_path / "app.sqlite3")
    for end in (connection.commit, connection.rollback):
        with pbmon.outbox(connection):
            for _ in range(3):
                pbmon.track("one")
        end()
    connection.close()
    assert waiting(engine) == 3


class AsyncConnection:
    """As SQLAlchemy's: what is to be done is given the connection of the driver's dialect."""

    def __init__(self, connection):
        self._connection = connection

    async def run_sync(self, do, *args):
        return do(self._connection, *args)


def test_an_async_connection(tracking, engine):
    async def work(connection, *, fails):
        async with pbmon.outbox(AsyncConnection(connection)):
            await asyncio.to_thread(pbmon.track, "in a thread of the block")
            pbmon.track("kept")
            if fails:
                raise KeyError

    with engine.begin() as connection:
        asyncio.run(work(connection, fails=False))
        with pytest.raises(KeyError):
            asyncio.run(work(connection, fails=True))
    assert waiting(engine) == 2


def test_two_blocks_at_once_do_not_mix(tracking, engine, app):
    if engine.dialect.name == "sqlite":
        pytest.skip("one writes at a time there")

    async def work(name, end):
        with engine.connect() as connection:
            with pbmon.outbox(connection):
                for _ in range(5):
                    pbmon.track(name)
                    await asyncio.sleep(0)
            getattr(connection, end)()

    async def both():
        await asyncio.gather(work("kept", "commit"), work("gone", "rollback"))

    asyncio.run(both())
    assert waiting(engine) == 5


def test_without_its_table_the_transaction_is_told_to_fail(tracking, tmp_path):
    bare = create_engine(f"sqlite:///{tmp_path}/bare.sqlite3")
    with bare.connect() as connection:
        with pytest.raises(OutboxError, match="set outbox_url to this database and run"):  # noqa: SIM117
            with pbmon.outbox(connection):
                pbmon.track("lost", {"secret": "hunter2"})
        with pytest.raises(OutboxError) as caught:  # noqa: SIM117
            with pbmon.outbox(object()):
                pbmon.track("lost", {"secret": "hunter2"})
    assert "hunter2" not in str(caught.value)
    bare.dispose()


def test_what_is_too_large_is_refused_in_the_block(tracking, engine):
    with engine.begin() as connection, pbmon.outbox(connection), pytest.raises(ValueError):
        pbmon.track("a", {"n": ["x" * 200] * 300})
    assert waiting(engine) == 0


def test_killed_between_the_store_and_the_removal_each_is_stored_once(
    tracking, engine, home, app, tmp_path, monkeypatch
):
    with engine.begin() as connection, pbmon.outbox(connection):
        for _ in range(5):
            pbmon.track("kept")
    store = f"sqlite:///{tmp_path}/store.sqlite3"
    dying = Shipper(home, store, OPT_OUT, outbox_url=app)
    dying.take_duty()

    class KilledError(BaseException):
        pass

    def die(rows):
        dying._open().write_outbox(rows)
        raise KilledError

    drain = outbox.Drain(open_engine(app))
    with pytest.raises(KilledError):
        drain.take(100, die)
    drain._engine.dispose()
    dying._duty.forget()
    assert waiting(engine) == 5
    names, shipper = shipped(home, app, tmp_path)
    assert names == {"kept": 5}
    assert shipper.dropped == {"duplicate": 5}
    assert waiting(engine) == 0


def test_who_is_late_removes_only_what_it_took(tracking, engine, app):
    """Another was faster, and the application has written since: under the same id, where the
    database gives it again."""
    with engine.begin() as connection, pbmon.outbox(connection):
        pbmon.track("old")
    drain, other = (outbox.Drain(open_engine(app)) for _ in range(2))
    name = drain._name

    def store(_rows):
        if engine.dialect.name == "postgresql":
            return  # there the row is locked
        assert other.take(10, lambda _: None) == 1
        with engine.begin() as connection:
            with pbmon.outbox(connection):
                pbmon.track("new")
            connection.execute(text(f"UPDATE {name} SET id = 1"))

    assert drain.take(10, store) == 1
    assert waiting(engine) == (engine.dialect.name == "sqlite")


def test_a_row_that_the_database_refuses_is_passed_over(
    tracking, engine, home, app, tmp_path, monkeypatch
):
    with engine.begin() as connection, pbmon.outbox(connection):
        pbmon.track("kept")
        clock = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: 2**80)
        pbmon.track("refused")
        monkeypatch.setattr(time, "time_ns", clock)
        pbmon.track("kept")
    names, shipper = shipped(home, app, tmp_path)
    assert names == {"kept": 2}
    assert shipper.dropped["rejected"] == 1
    assert waiting(engine) == 0


def test_an_outbox_that_is_away_keeps_no_journal_out(tracking, home, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("pbmon.signals._last_told", {})
    pbmon.track("kept")
    away = f"postgresql://app:hunter2@127.0.0.1:{unused_port()}/x"
    store = f"sqlite:///{tmp_path}/store.sqlite3"
    shipper = Shipper(home, store, OPT_OUT, outbox_url=away)
    shipper.finish(time.monotonic() + 5)
    assert shipper.delivered == 1
    assert "hunter2" not in caplog.text
    shipper._duty.forget()


def test_random_rollbacks_stored_is_what_was_committed(tracking, engine, home, app, tmp_path):
    """Four threads of the application, two shippers at once."""
    committed, lock = Counter(), threading.Lock()
    over = threading.Event()
    store = f"sqlite:///{tmp_path}/store.sqlite3"
    shippers = [Shipper(home, store, OPT_OUT, outbox_url=app, portion=7) for _ in range(2)]

    def drain(shipper):
        while not over.is_set():
            shipper._outbox_at_s = shipper._again_at_s = 0.0
            shipper.empty_outbox()

    def work(seed):
        generator = random.Random(seed)
        for n in range(25):
            name = f"event {seed} {n}"
            alone = lock if engine.dialect.name == "sqlite" else contextlib.nullcontext()
            with alone, engine.connect() as connection:
                with pbmon.outbox(connection):
                    pbmon.track(name)
                if generator.random() < 0.5:
                    connection.rollback()
                    continue
                connection.commit()
            with lock:
                committed[name] += 1

    threads = [threading.Thread(target=drain, args=(s,)) for s in shippers]
    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads + workers:
        thread.start()
    for thread in workers:
        thread.join(60)
    over.set()
    for thread in threads:
        thread.join(60)
    names, _ = shipped(home, app, tmp_path)
    assert names == committed
    assert 20 < sum(committed.values()) < 80


def test_the_application_is_not_asked_for_a_transaction_without_events(tracking):
    with pbmon.outbox(None):
        pass


def test_counting_goes_on_in_the_block(tracking, engine):
    with capture() as seen, engine.begin() as connection, pbmon.outbox(connection):
        pbmon.track("a")
    assert seen.metric("pbmon.events", pbmon__event__name="a") == 1
