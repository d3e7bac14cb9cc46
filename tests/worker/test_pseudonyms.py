"""Pseudonyms on spans: found out behind a request's back, and forgotten with what they rest on."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

import pbmon
from pbmon import privacy, runtime
from pbmon.hooks.asgi import Observed
from pbmon.runtime import StoreError
from pbmon.settings import resolve
from pbmon.store import schema, tables
from pbmon.store.access import open_engine, open_reader, open_rotation, open_writer
from pbmon.testing import capture
from pbmon.worker import pseudonyms as module
from pbmon.worker.pseudonyms import Known, SpanPseudonyms
from tests.hooks.recorder import scope
from tests.stack.process import wait_until
from tests.store.conftest import file, template, url  # noqa: F401
from tests.store.test_people import said
from tests.store.test_writer import event, portion

THREAD = "pbmon-pseudonyms"


def now():
    return time.time_ns() // 1000


def put(url, *payloads, **options):  # noqa: F811
    writer = open_writer(url, "opt-in", **options)
    writer.write([portion(*payloads, source=f"{now()}-a")])
    writer.close()


@pytest.fixture
def known(url):  # noqa: F811
    """Pseudonyms whose thread does not run: look_up() is its step."""
    settings, problems = resolve({"user_spans": True}, {}, Path("/nowhere"))
    assert problems == []
    reader = open_reader(url)
    made = SpanPseudonyms(lambda: settings, lambda: reader)
    made._started = True
    yield made
    reader.close()


def key_of(url):  # noqa: F811
    engine = open_engine(url)
    with engine.connect() as connection:
        (row,) = connection.execute(tables.subjects.select()).all()
    return bytes(row.key)


def test_the_first_request_goes_without_and_the_next_has_it(url, known):  # noqa: F811
    put(url, said(True, now()))
    assert known.of("7") is None
    known.look_up()
    found = known.of("7")
    key = key_of(url)
    assert found.user == privacy.pseudonym(key, "otlp").hex()
    # By the person's own key: with it goes what leads to their sessions.
    assert found.session("s") == privacy.pseudonym(key, "otlp|session|s").hex()
    assert found.session("s") == found.session("s") != found.session("t") != found.user


def test_of_whom_nothing_may_be_kept_nothing_is_said(url, known, monkeypatch):  # noqa: F811
    put(url, said(False, now(), "no"), event(user="asserted", consent=True))
    for user in ("no", "unknown", "asserted"):
        assert known.of(user) is None
    known.look_up()
    assert [known.of(user) for user in ("no", "unknown", "asserted")] == [None] * 3
    assert known._wanted == {}  # known to be nobody, and not asked for again and again
    put(url, said(True, now(), "unknown"))
    known.look_up()
    assert known.of("unknown") is None
    known.look_up()
    assert known.of("unknown") is not None


def test_somebody_new_is_asked_for_again_in_time(url, known, monkeypatch):  # noqa: F811
    """A first event makes a person known, and is no change of people."""
    settings, _ = resolve({"consent": "opt-out"}, {}, Path("/nowhere"))
    known._settings = lambda: settings
    known.of("7")
    known.look_up()
    writer = open_writer(url, "opt-out")
    writer.write([portion(event(user="7"))])
    writer.close()
    known.look_up()
    assert known.of("7") is None
    assert known._wanted == {}
    monkeypatch.setattr(module, "_NOBODY_FOR_S", -1.0)
    known.look_up()
    assert known.of("7") is None
    known.look_up()
    assert known.of("7") is not None


@pytest.mark.parametrize("change", ["withdrawal", "deletion", "key", "destination"])
def test_what_changes_people_changes_what_is_said(url, known, change):  # noqa: F811
    put(url, said(True, now()))
    known.of("7")
    known.look_up()
    before = known.of("7").user
    if change == "withdrawal":
        put(url, said(False, now()))
    elif change == "deletion":
        engine = open_engine(url)
        with engine.begin() as connection:
            connection.execute(tables.subjects.update().values(key=None, deleted_at=now()))
            schema.note_change_of_people(connection)
    else:
        rotation = open_rotation(url, None)
        rotation.person("7") if change == "key" else rotation.destination("otlp")
        rotation.close()
    known.look_up()
    assert known.of("7") is None
    known.look_up()
    after = known.of("7")
    if change in ("withdrawal", "deletion"):
        assert after is None
    else:
        assert after.user != before


def test_a_store_that_does_not_answer_ends_it_in_time(url, known, monkeypatch):  # noqa: F811
    put(url, said(True, now()))
    known.of("7")
    known.look_up()
    reader = known._open_reader()

    def away():
        raise StoreError("the store x is away")

    known._open_reader = away
    known.look_up()
    assert known.of("7") is not None  # for a while
    monkeypatch.setattr(module, "_FOR_S", -1.0)
    known.look_up()
    assert known.of("7") is None
    known._open_reader = lambda: reader
    known.look_up()
    assert known.of("7") is not None


def test_what_is_remembered_is_bounded(url, known, monkeypatch):  # noqa: F811
    monkeypatch.setattr(module, "_MOST", 10)
    monkeypatch.setattr(module, "_AT_ONCE", 4)
    for n in range(25):
        known.of(str(n))
    assert len(known._wanted) == 10
    known.look_up()
    assert known._wanted == {}
    for n in range(25, 30):
        known.of(str(n))
    known.look_up()
    assert len(known._known) <= 10 + 4


# --- on spans -----------------------------------------------------------------------------------


class Fixed:
    """A runtime.Pseudonyms that knows one person."""

    def of(self, user_id):
        return Known(b"k" * 32, "otlp") if user_id == "7" else None


def serve(app, **more):
    import asyncio

    async def send(message):
        pass

    asyncio.run(Observed(app)(scope(**more), None, send))


def answering(before=lambda: None):
    async def app(_scope, _receive, send):
        before()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app


NAMES = ("enduser.pseudo.id", "session.id")


def named(seen):
    (span,) = seen.spans
    return tuple(span.attributes.get(name) for name in NAMES)


def test_a_request_has_the_pseudonyms_of_its_user(monkeypatch):
    with capture(session_from="header:x-session") as seen:
        monkeypatch.setattr(runtime.active, "pseudonyms", Fixed())
        more = {"user": "7", "headers": [(b"x-session", b"s")]}
        serve(answering(), **more)
    wanted = Known(b"k" * 32, "otlp")
    assert named(seen) == (wanted.user, wanted.session("s"))


def test_who_logs_in_within_a_request_has_theirs(monkeypatch):
    with capture() as seen:
        monkeypatch.setattr(runtime.active, "pseudonyms", Fixed())
        serve(answering(lambda: pbmon.identify(7)))
    assert named(seen) == (Known(b"k" * 32, "otlp").user, None)


@pytest.mark.parametrize(
    "more", [{}, {"user": "8"}, {"headers": [(b"x-session", b"s")]}], ids=["nobody", "8", "session"]
)
def test_a_request_of_somebody_else_has_none(monkeypatch, more):
    with capture(session_from="header:x-session") as seen:
        monkeypatch.setattr(runtime.active, "pseudonyms", Fixed())
        serve(answering(), **more)
    assert named(seen) == (None, None)


def test_work_for_somebody_else_in_a_request_names_the_requests_user(monkeypatch):
    def work():
        with pbmon.context(user_id=8):
            pass

    with capture() as seen:
        monkeypatch.setattr(runtime.active, "pseudonyms", Fixed())
        serve(answering(work), user="7")
    assert named(seen)[0] == Known(b"k" * 32, "otlp").user


def test_unless_it_is_asked_for_spans_name_nobody():
    with capture() as seen:
        assert runtime.active.pseudonyms is None
        serve(answering(), user="7")
    assert named(seen) == (None, None)


def test_the_thread_finds_out_by_itself(url):  # noqa: F811
    settings, _ = resolve({}, {}, Path("/nowhere"))
    put(url, said(True, now()))
    reader = open_reader(url)
    made = SpanPseudonyms(lambda: settings, lambda: reader)
    made.of("7")
    wait_until(lambda: made.of("7") is not None, "it is known", 60)
    made.stop()
    made.forget()
    assert made._known == {}
    assert not made._started
    wait_until(lambda: THREAD not in {t.name for t in threading.enumerate()}, "it ends", 60)
    reader.close()
