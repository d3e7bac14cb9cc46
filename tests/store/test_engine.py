"""Connections: none of SQLite is open over a fork, rows go to PostgreSQL many at once."""

from __future__ import annotations

import sqlite3
import threading

import pytest
from sqlalchemy import text

from pbmon.store.access import open_engine
from tests.fresh import python


def test_no_connection_is_open_over_a_fork_and_no_transaction_is_cut(tmp_path):
    """A thread commits as fast as it can, while children begin and end."""
    done = python(
        f"""
        import os, threading
        from sqlalchemy import text
        from pbmon import signals
        from pbmon.store import engine
        from pbmon.store.access import open_engine

        os.register_at_fork(
            before=signals.begin_fork, after_in_parent=signals.end_fork,
            after_in_child=signals.forget,
        )
        made = open_engine("sqlite:///{tmp_path}/x.sqlite3")
        with made.begin() as connection:
            connection.execute(text("CREATE TABLE numbers (n integer PRIMARY KEY)"))
        over, committed = threading.Event(), []

        def commit():
            while not over.is_set():
                number = len(committed)
                with made.begin() as connection:
                    connection.execute(text("INSERT INTO numbers VALUES (:n)"), {{"n": number}})
                committed.append(number)

        thread = threading.Thread(target=commit)
        thread.start()
        for _ in range(40):
            count = len(committed)
            while len(committed) == count:
                pass
            pid = os.fork()
            if pid == 0:
                assert made.pool.checkedin() == made.pool.checkedout() == 0
                with made.begin() as connection:
                    connection.execute(text("SELECT count(*) FROM numbers")).scalar()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        over.set()
        thread.join()
        with made.begin() as connection:
            stored = connection.execute(text("SELECT count(*) FROM numbers")).scalar()
        print(len(committed), stored)
        """
    )
    committed, stored = done.stdout.split()
    assert committed == stored
    assert int(committed) > 40


def test_threads_take_turns(tmp_path):
    made = open_engine(f"sqlite:///{tmp_path}/x.sqlite3")
    with made.begin() as connection:
        connection.execute(text("CREATE TABLE numbers (n integer)"))

    def add():
        for _ in range(20):
            with made.begin() as connection:
                connection.execute(text("INSERT INTO numbers VALUES (1)"))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with made.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM numbers")).scalar() == 160


def test_to_open_a_store_gives_up_no_lock_of_this_process(tmp_path):
    """As closing a descriptor of the file would: another process could write beside us then."""
    path = tmp_path / "x.sqlite3"
    path.touch(0o600)
    ours = sqlite3.connect(path, isolation_level=None)
    ours.execute("CREATE TABLE numbers (n integer)")
    ours.execute("BEGIN IMMEDIATE")
    open_engine(f"sqlite:///{path}")
    done = python(
        f"""
        import sqlite3
        other = sqlite3.connect({str(path)!r}, timeout=0, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            print(error)
        """
    )
    ours.close()
    assert done.stdout.strip() == "database is locked"


@pytest.mark.server
def test_rows_go_to_postgresql_a_hundred_to_a_message(postgresql):
    with postgresql.begin() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE said (n integer, message text)"))
        connection.execute(
            text("INSERT INTO said VALUES (:n, current_query())"), [{"n": n} for n in range(250)]
        )
        query = text("SELECT count(*), count(DISTINCT message) FROM said")
        assert tuple(connection.execute(query).one()) == (250, 3)
