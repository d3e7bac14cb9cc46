"""A store of its own for each test, on both engines."""

from __future__ import annotations

import uuid

import pytest

from pbmon.store import schema
from pbmon.store.access import open_engine


def new_database(url):
    """The URL of a new database on a PostgreSQL server."""
    import psycopg2

    name = f"store_{uuid.uuid4().hex[:12]}"
    connection = psycopg2.connect(url)
    connection.autocommit = True
    connection.cursor().execute(f"CREATE DATABASE {name}")
    connection.close()
    return f"{url.rsplit('/', 1)[0]}/{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request, tmp_path):
    """Of a database in which nothing is."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.sqlite3"
    return new_database(request.getfixturevalue("stack_postgres").url)


@pytest.fixture
def url(empty_url):
    """Of a store that was made."""
    made = open_engine(empty_url)
    schema.upgrade(made)
    made.dispose()
    return empty_url


@pytest.fixture
def engine(url):
    made = open_engine(url)
    yield made
    made.dispose()


@pytest.fixture
def postgresql(stack_postgres):
    """A store that was made there."""
    made = open_engine(new_database(stack_postgres.url))
    schema.upgrade(made)
    yield made
    made.dispose()
