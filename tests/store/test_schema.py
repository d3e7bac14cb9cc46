"""The tables: made, upgraded, of another version; by many at once; as the migrations say."""

from __future__ import annotations

import datetime as dt
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from pbmon.purposes import Decision
from pbmon.store import schema, tables
from pbmon.store.access import (
    StoreError,
    make_outbox,
    open_engine,
    open_outbox,
    open_writer,
)
from pbmon.store.people import people_of
from pbmon.store.schema import State
from tests.fresh import environment
from tests.store.test_writer import event, portion

MIGRATIONS = str(Path(schema.__file__).parent / "migrations")


def place(engine):
    return "pbmon" if engine.dialect.name == "postgresql" else None


def prefix(engine):
    return "pbmon." if engine.dialect.name == "postgresql" else ""


def test_the_versions_are_those_of_the_steps():
    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    steps = list(ScriptDirectory.from_config(config).walk_revisions())
    assert tuple(step.revision for step in reversed(steps)) == schema.VERSIONS


def test_a_store_is_made_once(empty_url):
    engine = open_engine(empty_url)
    with engine.connect() as connection:
        assert schema.state(connection) is State.ABSENT
    assert schema.upgrade(engine) is State.ABSENT
    with engine.connect() as connection:
        before = connection.execute(tables.meta.select()).all()
        assert schema.state(connection) is State.CURRENT
    assert schema.upgrade(engine) is State.CURRENT
    with engine.connect() as connection:
        assert connection.execute(tables.meta.select()).all() == before
    assert {row.key for row in before} == {
        "store_id", "pepper", "people_version", "made_at", "timezone",
    }  # fmt: skip
    engine.dispose()


def test_the_steps_make_the_tables_that_the_code_knows(engine):
    def wanted(_object, name, kind, _reflected, _compared):
        # Partitions, and the outbox, which may be in another database.
        return kind != "table" or not name.startswith(("events_", "outbox"))

    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            columns = {
                table.name: [
                    column["name"] for column in inspect(connection).get_columns(table.name)
                ]
                for table in tables.metadata.sorted_tables
            }
            assert columns == {
                table.name: [column.name for column in table.columns]
                for table in tables.metadata.sorted_tables
            }
            return
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True, "include_object": wanted,
                "version_table": schema.VERSION_TABLE, "version_table_schema": "pbmon",
                "include_name": lambda name, kind, _: kind != "schema" or name == "pbmon",
            },
        )  # fmt: skip
        # The user is called pbmon too, whose first schema that would be.
        connection.dialect.default_schema_name = "public"
        assert compare_metadata(context, tables.metadata) == []


def test_nothing_outside_its_schema_is_touched(postgresql):
    with postgresql.connect() as connection:
        found = connection.execute(
            text("SELECT DISTINCT schemaname FROM pg_tables WHERE schemaname NOT LIKE 'pg_%'"
                 " AND schemaname <> 'information_schema'")
        ).scalars()  # fmt: skip
        assert set(found) == {"pbmon"}


def test_many_that_start_at_once_make_one_store(empty_url):
    code = (
        "import sys; from pbmon.store import schema; from pbmon.store.access import open_engine;"
        f" print(schema.upgrade(open_engine({empty_url!r})).name)"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=environment(), stdout=-1, text=True)
        for _ in range(6)
    ]
    said = sorted(process.communicate(timeout=60)[0].strip() for process in running)
    assert said == ["ABSENT", *["CURRENT"] * 5]


def test_threads_too(empty_url):
    with ThreadPoolExecutor(6) as pool:
        said = list(pool.map(lambda _: schema.upgrade(open_engine(empty_url)), range(6)))
    assert said.count(State.ABSENT) == 1


def test_it_is_made_without_a_word(empty_url, caplog):
    """Alembic would comment on every step in the application's log."""
    caplog.set_level("INFO")
    schema.upgrade(open_engine(empty_url))
    assert caplog.messages == []
    logging.getLogger("alembic.runtime.migration").info("the application's own")
    assert caplog.messages == ["the application's own"]


def set_version(engine, version):
    with engine.begin() as connection:
        connection.execute(
            text(f"UPDATE {prefix(engine)}schema_version SET version_num = :v"), {"v": version}
        )


def test_a_newer_store_is_left_alone(engine, url):
    set_version(engine, "9999")
    with engine.connect() as connection:
        assert schema.state(connection) is State.NEWER
    assert schema.upgrade(engine) is State.NEWER
    with pytest.raises(StoreError, match="newer version; upgrade pbmon on this machine"):
        open_writer(url, "opt-in")


def test_postgresql_is_never_made_without_the_command(stack_postgres):
    from tests.store.conftest import new_database

    url = new_database(stack_postgres.url)
    with pytest.raises(StoreError, match="no tables of pbmon yet; run `pbmon store upgrade`"):
        open_writer(url, "opt-in")
    with open_engine(url).connect() as connection:
        assert schema.state(connection) is State.ABSENT


@pytest.mark.parametrize("with_days", [True, False])
def test_days_that_were_counted_before_growth_are_kept_as_days_of_utc(empty_url, with_days):
    engine = open_engine(empty_url)
    day, earlier = dt.date(2026, 11, 25), dt.date(2026, 11, 20)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("CREATE SCHEMA pbmon"))
        config = Config()
        config.set_main_option("script_location", MIGRATIONS)
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        if with_days:
            connection.execute(
                tables.subject_days.insert(),
                [{"day": each, "subject": bytes(16)} for each in (day, earlier)],
            )
    assert schema.upgrade(engine, "Europe/Berlin") is State.OLDER
    with engine.connect() as connection:
        assert schema.timezone(connection) == ("UTC" if with_days else "Europe/Berlin")
        found = connection.execute(tables.subject_activity.select()).all()
    assert [tuple(row) for row in found] == [(bytes(16), earlier, day)] * with_days
    engine.dispose()


def test_decisions_from_before_have_their_times(empty_url):
    """The last word holds, and what waits is judged as it was: by the decision alone."""
    engine = open_engine(empty_url)
    lookups = [bytes([n]) * 16 for n in range(3)]
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("CREATE SCHEMA pbmon"))
        config = Config()
        config.set_main_option("script_location", MIGRATIONS)
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        known = tables.subjects.insert().values(created_at=1, key=bytes(32))
        for lookup, granted in zip(lookups, [True, False, None], strict=True):
            connection.execute(known.values(lookup=lookup, analytics=granted))
        said = [(lookups[0], False, 5), (lookups[0], True, 9), (lookups[1], False, 7)]
        for lookup, granted, at in said:
            connection.execute(
                tables.consents.insert().values(
                    lookup=lookup, purpose="analytics", granted=granted, decided_at=at
                )
            )
    assert schema.upgrade(engine) is State.OLDER
    with engine.connect() as connection:
        people = sorted(people_of(connection, lookups), key=lambda person: person.lookup)
        found = [person.analytics for person in people]
    assert found == [Decision(True, 9, None, 0, 5), Decision(False, 7, None, 0, 7), None]
    engine.dispose()


def test_tombstones_and_receipts_from_before_stay_as_they_are(empty_url):
    engine = open_engine(empty_url)
    gone, there, names = bytes(16), bytes([1]) * 16, bytes(range(32))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("CREATE SCHEMA pbmon"))
        config = Config()
        config.set_main_option("script_location", MIGRATIONS)
        config.attributes["connection"] = connection
        command.upgrade(config, "0008")
        known = tables.subjects.insert()
        connection.execute(known.values(lookup=gone, created_at=1, deleted_at=2))
        connection.execute(
            known.values(lookup=there, created_at=1, key=bytes(32), analytics=True, sharing=False)
        )
        connection.execute(
            tables.consents.insert(),
            [
                {"lookup": there, "purpose": purpose, "granted": granted, "decided_at": at}
                for purpose, granted, at in (
                    ("analytics", False, 3), ("analytics", True, 4), ("sharing", False, 5),
                )
            ],
        )  # fmt: skip
        receipt = {
            "receipt_id": gone, "place": "segment", "lookup": gone, "requested_at": 2,
            "target": names, "counts": None, "attempts": 3, "due_at": 9, "fault": "503",
            "finished_at": None,
        }  # fmt: skip
        connection.execute(tables.deletions.insert(), receipt)
    assert schema.upgrade(engine) is State.OLDER
    with engine.connect() as connection:
        (row,) = connection.execute(tables.deletions.select()).mappings()
        assert dict(row) == receipt
        tombstone, person = sorted(
            people_of(connection, [gone, there]), key=lambda person: person.lookup
        )
    assert tombstone[:4] == (None, True, None, None)
    assert person.analytics == Decision(True, 4, None, 0, 3)
    assert person.sharing == Decision(False, 5, None, 0, 5)
    engine.dispose()


def test_an_older_postgresql_waits_for_the_command(postgresql, monkeypatch):
    monkeypatch.setattr(schema, "VERSIONS", (*schema.VERSIONS, "9999"))
    with pytest.raises(StoreError, match="older version; run `pbmon store upgrade`"):
        open_writer(postgresql.url.render_as_string(hide_password=False), "opt-in")


def test_months_are_added_ahead_and_once(postgresql):
    with postgresql.begin() as connection:
        today = dt.datetime.now(dt.timezone.utc).date()
        assert schema.add_months(connection, today) == []
        later = (today.replace(day=1) + dt.timedelta(days=32)).replace(day=1)
        added = schema.add_months(connection, later)
        assert added == [f"events_{_months_on(today, schema.MONTHS_AHEAD):%Y_%m}"]


def _months_on(day, count):
    month = day.year * 12 + day.month - 1 + count
    return dt.date(month // 12, month % 12 + 1, 1)


def test_an_event_of_a_month_without_a_partition_is_kept(postgresql):
    with postgresql.begin() as connection:
        connection.execute(
            tables.events.insert(),
            {"occurred_at": 1, "event_id": bytes(16), "name": "old", "stored_at": 1},
        )
        assert connection.execute(text("SELECT count(*) FROM pbmon.events_rest")).scalar() == 1


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_the_files_of_sqlite_are_this_users_alone_whatever_the_umask(tmp_path, mask):
    url = f"sqlite:///{tmp_path}/store/store.sqlite3"
    old = os.umask(mask)
    try:
        writer = open_writer(url, "opt-out")
        writer.write([portion(event(user="7"))])
        modes = {each.name: each.stat().st_mode & 0o7777 for each in (tmp_path / "store").iterdir()}
        writer.close()
    finally:
        os.umask(old)
    assert modes.keys() >= {"store.sqlite3", "store.sqlite3-wal", "store.sqlite3-shm"}
    assert set(modes.values()) == {0o600}
    assert (tmp_path / "store").stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_a_file_that_is_open_to_others_is_not_used(tmp_path, mode):
    file = tmp_path / "store.sqlite3"
    open_writer(f"sqlite:///{file}", "opt-out").close()
    file.chmod(mode)
    with pytest.raises(StoreError, match=rf"is open to others \(mode {mode:04o}\); chmod 600 "):
        open_writer(f"sqlite:///{file}", "opt-out")
    file.chmod(0o600)
    open_writer(f"sqlite:///{file}", "opt-out").close()


def test_the_files_of_sqlite_are_this_users_alone(tmp_path):
    made = open_engine(f"sqlite:///{tmp_path}/deep/down/store.sqlite3")
    schema.upgrade(made)
    assert (tmp_path / "deep" / "down").stat().st_mode & 0o777 == 0o700
    for file in (tmp_path / "deep" / "down").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600, file
    with made.connect() as connection:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "secure_delete")
        ]
    assert pragmas == ["wal", 2, 1]  # 2: FULL, a commit is on the disk itself
    made.dispose()


def test_who_may_read_the_applications_own_database_is_its_business(tmp_path):
    file = tmp_path / "app.sqlite3"
    file.touch(0o644)
    file.chmod(0o644)
    make_outbox(open_engine(f"sqlite:///{file}", ours=False))
    drain = open_outbox(f"sqlite:///{file}")
    assert drain.take(10, pytest.fail) == 0
    drain.close()
    assert file.stat().st_mode & 0o777 == 0o644
