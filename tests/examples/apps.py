"""The Pocketbook app in this process, on a database of its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from examples.pocketbook.app import create_app

with warnings.catch_warnings():
    # Starlette is moving its test client to another HTTP library; httpx is what the demo uses.
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

__all__ = ["TestClient", "new_database", "opened"]


@contextmanager
def opened(**environ: str) -> Iterator[TestClient]:
    """The app with these variables; an exception of the app is a 500, as under a server."""
    with TestClient(create_app(environ), raise_server_exceptions=False) as client:
        yield client


def new_database(url: str, name: str) -> str:
    """Make an empty database on the server of this URL and return its own URL."""
    import psycopg2

    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {name}")
            cursor.execute(f"CREATE DATABASE {name}")
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def rows(url: str, statement: str) -> list[Any]:
    """What a connection of its own sees, so only what is committed."""
    from examples.pocketbook import database

    with closing(database.connect({"DATABASE_URL": url})) as other, other.transaction() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())
