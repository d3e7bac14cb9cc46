"""A store of its own for each test, on both engines."""

from __future__ import annotations

import shutil
import uuid
from functools import cache

import pytest

from pbmon.store import schema
from pbmon.store.access import open_engine

_TEMPLATE = "pbmon_template"


def new_database(url, template=""):
    """The URL of a new database on a PostgreSQL server."""
    import psycopg2

    name = f"store_{uuid.uuid4().hex[:12]}"
    connection = psycopg2.connect(url)
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
    connection.close()
    return at(url, name)


def at(url, name):
    return f"{url.rsplit('/', 1)[0]}/{name}"


BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.server)]
"""Engines; the mark says that the test needs the server."""


@pytest.fixture(params=BOTH)
def empty_url(request, tmp_path):
    """Of a database in which nothing is."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.sqlite3"
    return new_database(request.getfixturevalue("stack_postgres").url)


@pytest.fixture(scope="session")
def template(stack_postgres):
    """Name of a database in which a store was made."""
    return made_template(stack_postgres.url)


@cache
def made_template(server):
    """Once for a server, also where another directory's tests have these fixtures too."""
    import psycopg2

    connection = psycopg2.connect(server)
    connection.autocommit = True
    connection.cursor().execute(f"CREATE DATABASE {_TEMPLATE}")
    connection.close()
    made = open_engine(at(server, _TEMPLATE))
    schema.upgrade(made)
    made.dispose()
    return _TEMPLATE


@pytest.fixture(scope="session")
def file(tmp_path_factory):
    """A file in which a store was made."""
    path = tmp_path_factory.mktemp("template") / "store.sqlite3"
    made = open_engine(f"sqlite:///{path}")
    schema.upgrade(made)
    made.dispose()
    return path


@pytest.fixture(params=BOTH)
def url(request, tmp_path):
    """Of a store that was made."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("file"), tmp_path)
        return f"sqlite:///{tmp_path}/store.sqlite3"
    template = request.getfixturevalue("template")
    return new_database(request.getfixturevalue("stack_postgres").url, template)


@pytest.fixture
def engine(url):
    made = open_engine(url)
    yield made
    made.dispose()


@pytest.fixture
def postgresql(stack_postgres, template):
    """A store that was made there."""
    made = open_engine(new_database(stack_postgres.url, template))
    yield made
    made.dispose()
