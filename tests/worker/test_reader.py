"""What the application asks the store with: opened once, by the URL in force, never a parent's."""

from __future__ import annotations

import os

import pytest

from pbmon.runtime import StoreError
from pbmon.settings import resolve
from pbmon.spool import journal
from pbmon.store.access import open_writer
from pbmon.worker.reader import Reader
from tests.stack.process import unused_port
from tests.store.test_writer import event, portion


@pytest.fixture
def reader(tmp_path):
    """Its settings are those of `url`."""
    urls = {"url": None}

    def settings():
        return resolve({"store_url": urls["url"]} if urls["url"] else {}, {})[0]

    made = Reader(settings, lambda: journal.open_home(str(tmp_path / "state"), "shop"))
    made.urls = urls
    yield made
    made.close()


def filled(path, count):
    url = f"sqlite:///{path}"
    writer = open_writer(url, "opt-out")
    writer.write([portion(*[event() for _ in range(count)])])
    writer.close()
    return url


def asked(reader):
    return reader.open().count(0, 2**62)


def test_the_store_is_opened_once_and_anew_where_its_url_changes(reader, tmp_path):
    reader.urls["url"] = filled(tmp_path / "one.sqlite3", 3)
    assert asked(reader) == 3
    assert reader.open() is reader.open()
    reader.urls["url"] = filled(tmp_path / "two.sqlite3", 5)
    assert asked(reader) == 5


def test_the_default_store_is_the_services_file(reader, tmp_path):
    with pytest.raises(StoreError, match=r"shop.sqlite3 is not there yet; the first event makes"):
        reader.open()
    filled(tmp_path / "state" / "store" / "shop.sqlite3", 2)
    assert asked(reader) == 2


def test_one_that_can_t_be_asked_is_said_without_its_password_and_tried_again(reader, tmp_path):
    reader.urls["url"] = f"postgresql://app:hunter2@127.0.0.1:{unused_port()}/x"
    for _ in range(2):
        with pytest.raises(StoreError, match="the store postgresql://REDACTED@") as raised:
            reader.open()
        assert "can't be used (psycopg2.OperationalError)" in str(raised.value)
        assert "hunter2" not in str(raised.value)
    reader.urls["url"] = filled(tmp_path / "one.sqlite3", 1)
    assert asked(reader) == 1


def test_without_a_state_directory(tmp_path):
    made = Reader(lambda: resolve({}, {})[0], lambda: journal.open_home("/proc/none", "shop"))
    with pytest.raises(StoreError, match="the store has no place: /proc/none can't be used"):
        made.open()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.server
def test_a_child_has_a_connection_of_its_own(reader, stack_postgres):
    from pbmon.store import schema
    from pbmon.store.access import open_engine
    from tests.store.conftest import new_database

    reader.urls["url"] = new_database(stack_postgres.url)
    engine = open_engine(reader.urls["url"])
    schema.upgrade(engine)
    engine.dispose()
    assert asked(reader) == 0
    parents = reader.open()
    child = os.fork()
    if child == 0:
        reader.forget()
        os._exit(0 if asked(reader) == 0 and reader.open() is not parents else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert asked(reader) == 0
    assert reader.open() is parents
