"""Whose request it is: found late, shared by its tasks and threads, and never another's."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import weakref
from contextvars import Context, copy_context

import httpx
import pytest
from starlette.applications import Starlette
from starlette.authentication import BaseUser, SimpleUser, UnauthenticatedUser
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import pbmon
from pbmon import identity, signals
from pbmon.identity import current, in_cookie, in_header, user_of
from pbmon.runtime import active
from pbmon.spool.entries import Event, Link
from pbmon.testing import capture
from tests.hooks.recorder import scope


@pytest.fixture(autouse=True)
def nobody():
    """A test begins outside of any request, and leaves none to the next."""
    token = identity._current.set(None)
    yield
    identity._current.reset(token)


@pytest.fixture
def finders(monkeypatch):
    """finders(user, session): as settings would have them."""

    def find(user=None, session=None):
        monkeypatch.setattr(active, "find_user", user)
        monkeypatch.setattr(active, "find_session", session)

    find()
    return find


def known():
    """user_id, session_id and segments of this context."""
    found = current()
    return found and (found.user_id, found.session_id, found.segments)


# --- the user of a scope ---


class Named(BaseUser):
    """Starlette's, whose identity is not implemented."""

    is_authenticated = True
    username = "ann"


class Django:
    is_authenticated = True
    pk = 7
    id = 8
    username = "ann"


class Lazy:
    @property
    def is_authenticated(self):
        return True

    @property
    def id(self):
        return "late"


class Anonymous(Django):
    is_authenticated = False


@pytest.mark.parametrize(
    ("user", "found"),
    [
        (None, None),
        (SimpleUser("ann"), "ann"),
        (UnauthenticatedUser(), None),
        (Named(), "ann"),
        (Django(), 7),
        (Anonymous(), None),
        (Lazy(), "late"),
        (type("Unsaved", (), {"pk": None, "id": None, "username": "ann"})(), "ann"),
        (type("Zero", (), {"pk": 0, "id": 8})(), 0),
        ("ann", "ann"),
        (7, 7),
        ({"id": 7, "sub": "x"}, 7),
        ({"sub": "x"}, "x"),
        ({"name": "ann"}, None),
        (object(), None),
    ],
    ids=lambda value: type(value).__name__,  # the same in every process
)
def test_the_user_of_a_scope(user, found):
    assert user_of({"user": user}) == found


def test_a_scope_without_a_user():
    assert user_of({}) is None


def test_a_user_that_does_not_say_whether_it_is_authenticated():
    """Starlette's base class raises; @requires does not ask for it."""

    class User(BaseUser):
        identity = "ann"

    assert user_of({"user": User()}) == "ann"


# --- headers and cookies ---


def headers(*pairs):
    return {"headers": [(key.encode(), value.encode("latin-1")) for key, value in pairs]}


def test_in_a_header():
    find = in_header("X-User")
    assert find(headers(("a", "b"), ("x-user", "7"), ("x-user", "8"))) == "7"
    assert find(headers(("x-user", "\xfc"))) == "\xfc"
    assert find(headers(("x-users", "7"))) is None
    assert find({}) is None


@pytest.mark.parametrize(
    ("cookie", "found"),
    [
        ("sid=abc", "abc"),
        ("a=b; sid=abc; c=d", "abc"),
        ("sid=abc;c=d", "abc"),
        ('sid="a b"', "a b"),
        ("sid=", ""),
        ("sids=abc", None),
        ("SID=abc", None),
        ("", None),
        ("abc", None),
        (";;;===", None),
        ("=sid", None),
        ("sid", None),
        ("\x00\xff", None),
    ],
)
def test_in_a_cookie(cookie, found):
    assert in_cookie("sid")(headers(("cookie", cookie))) == found


def test_without_cookies():
    assert in_cookie("sid")({}) is None
    assert in_cookie("sid")(headers(("x", "sid=abc"))) is None


@pytest.mark.parametrize(
    "foreign", ["a[b]=1", '{"a":1}=2', "path=/", "version=1", 'j={"a": 1}', "flag", "n=\xe9"]
)
def test_a_cookie_behind_one_of_another_form(foreign):
    """What http.cookies gives the whole header up for, browsers and frameworks pass over."""
    assert in_cookie("sid")(headers(("cookie", f"{foreign}; sid=abc"))) == "abc"


def test_a_cookie_in_another_header():
    """Over HTTP/2 a client may send one for each cookie (RFC 9113, 8.2.3)."""
    assert in_cookie("sid")(headers(("cookie", "a=b"), ("cookie", "sid=abc"))) == "abc"


# --- a request ---


def test_outside_there_is_nobody():
    assert current() is None
    assert Context().run(current) is None


def test_from_begin_to_end(finders):
    token = identity.begin({"user": "ann"})
    assert known() == ("ann", None, None)
    identity.end(token)
    assert current() is None


def test_by_the_settings_finders(finders):
    finders(in_header("x-user"), in_cookie("sid"))
    identity.begin({"user": "bob", **headers(("x-user", "ann"), ("cookie", "sid=abc"))})
    assert known() == ("ann", "abc", None)


def test_who_logs_in_later_is_found_by_the_next(finders):
    asked = {"headers": []}
    finders(None, lambda scope: scope.get("sid"))
    identity.begin(asked)
    assert known() == (None, None, None)
    asked["sid"] = "abc"
    assert known() == (None, "abc", None)
    asked["user"] = SimpleUser("ann")
    assert known() == ("ann", "abc", None)
    asked["user"] = SimpleUser("bob")
    asked["sid"] = "def"
    assert known() == ("ann", "abc", None)


def test_what_is_known_is_not_asked_again(finders):
    asked = []
    finders(lambda scope: asked.append("user") or 7, lambda scope: asked.append("sid") or "abc")
    identity.begin({})
    assert [known() for _ in range(3)] == [("7", "abc", None)] * 3
    assert asked == ["user", "sid"]


@pytest.mark.parametrize(
    ("value", "found"),
    [(7, "7"), (0, "0"), ("", None), (True, None), ("x" * 255, "x" * 255), ("x" * 256, None),
     (10**255, None)],
)  # fmt: skip
def test_what_can_be_an_id(finders, value, found):
    finders(lambda scope: value, lambda scope: value)
    identity.begin({})
    assert known() == (found, found, None)
    with pbmon.context(user_id=value if value is not True else None, session_id="s"):
        assert known() == (found, "s", None)


class BrokenError(Exception):
    pass


def broken(scope):
    raise BrokenError


@pytest.mark.parametrize("which", ["user", "session"])
def test_a_finder_that_raises_is_told_once_and_costs_nothing_else(
    finders, monkeypatch, caplog, which
):
    monkeypatch.setattr(signals, "reraise", False)
    monkeypatch.setattr(signals, "_last_told", {})
    asked = []

    def counted(scope):
        asked.append(scope)
        broken(scope)

    finders(*((counted, lambda scope: "abc") if which == "user" else (lambda s: "ann", counted)))
    identity.begin({})
    with caplog.at_level(logging.WARNING, signals.INTERNAL_LOGGER):
        found = [known() for _ in range(3)]
    assert found == [(None if which == "user" else "ann", None, None)] * 3
    assert len(asked) == 1
    (record,) = caplog.records
    assert "finding the user of a request failed with BrokenError" in record.getMessage()
    identity.become("bob")
    assert known() == ("bob", None, None)


def test_it_goes_to_the_guard_of_our_faults(finders):
    finders(broken)
    identity.begin({})
    with pytest.raises(BrokenError):
        current()
    assert known() == (None, None, None)


# --- shared ---


def test_tasks_and_threads_of_a_request_see_what_becomes_known(finders):
    seen = {}

    def look(where):
        seen[where] = known()

    async def request():
        token = identity.begin({"headers": []})
        known_now, ended = asyncio.Event(), asyncio.Event()

        async def task(name, event):
            look(f"{name} at first")
            await event.wait()
            look(name)

        running = asyncio.create_task(task("task", known_now))
        outliving = asyncio.create_task(task("background", ended))
        context = copy_context()
        await asyncio.sleep(0)
        identity.become("ann")
        known_now.set()
        await running
        thread = threading.Thread(target=context.run, args=(look, "thread"))
        thread.start()
        thread.join()
        await asyncio.to_thread(look, "executor")
        identity.end(token)
        look("outside")
        ended.set()
        await outliving

    asyncio.run(request())
    nobody, ann = (None, None, None), ("ann", None, None)
    assert seen == {
        "task at first": nobody, "background at first": nobody, "task": ann, "thread": ann,
        "executor": ann, "background": ann, "outside": None,
    }  # fmt: skip


def test_what_becomes_known_in_a_thread_is_known_in_the_request(finders):
    identity.begin({})
    thread = threading.Thread(target=copy_context().run, args=(identity.become, "ann"))
    thread.start()
    thread.join()
    assert known() == ("ann", None, None)


def test_a_thread_of_its_own_has_nobody(finders):
    identity.begin({"user": "ann"})
    seen = []
    thread = threading.Thread(target=lambda: seen.append(known()))
    thread.start()
    thread.join()
    inherits = getattr(sys.flags, "thread_inherit_context", False)  # of Python 3.14 without a GIL
    assert seen == [("ann", None, None) if inherits else None]


def test_requests_at_once_do_not_mix(finders):
    count, both = 10, {}

    async def request(number, arrived, go):
        token = identity.begin({"user": number} if number % 2 else {"headers": []})
        arrived.release()
        await go.wait()
        if not number % 2:
            identity.become(str(number))
        await asyncio.sleep(0)
        with pbmon.context(session_id=f"s{number}"):
            await asyncio.sleep(0)
            inner = known()
        await asyncio.sleep(0)
        both[number] = inner, known()
        identity.end(token)
        assert current() is None

    async def main():
        arrived, go = asyncio.Semaphore(0), asyncio.Event()
        tasks = [asyncio.create_task(request(number, arrived, go)) for number in range(count)]
        for _ in range(count):
            await arrived.acquire()
        go.set()
        await asyncio.gather(*tasks)
        assert current() is None

    asyncio.run(main())
    assert both == {
        n: ((str(n), f"s{n}", None), (str(n), None, None)) for n in range(count)
    }  # fmt: skip


# --- the end ---


def test_ended_in_another_context_it_does_not_raise(finders):
    token = identity.begin({"user": "ann"})
    copy_context().run(identity.end, token)
    Context().run(identity.end, token)
    assert known() == ("ann", None, None)


class Body:
    """Something large that a request holds."""


def test_after_the_end_only_what_may_be_asked_is_kept(finders):
    finders(None, in_cookie("sid"))
    body = Body()
    gone = weakref.ref(body)
    asked = {"state": {"body": body}, "app": body, **headers(("cookie", "sid=abc"))}
    token = identity.begin(asked)
    background = copy_context()
    identity.end(token)
    del body, asked
    gc.collect()
    assert gone() is None
    assert background.run(known) == (None, "abc", None)
    assert background.run(current)._scope.keys() == {"headers"}


def test_the_user_of_a_scope_is_found_after_its_end(finders):
    finders(None, in_cookie("sid"))
    token = identity.begin({"user": SimpleUser("ann"), "path": "/", "headers": []})
    background = copy_context()
    identity.end(token)
    assert background.run(identity._current.get)._scope.keys() == {"user", "headers"}
    assert background.run(known) == ("ann", None, None)


def test_once_all_is_known_nothing_is_kept(finders):
    body = Body()
    gone = weakref.ref(body)
    asked = {"user": "ann", "body": body}
    identity.begin(asked)
    assert known() == ("ann", None, None)
    del body, asked
    gc.collect()
    assert gone() is None


# --- context() ---


def test_blocks_nest_inherit_and_restore():
    with pbmon.context(user_id=1, session_id="s", plan="pro", lang="de"):
        outer = ("1", "s", {"plan": "pro", "lang": "de"})
        assert known() == outer
        with pbmon.context(session_id=2, plan="free"):
            assert known() == ("1", "2", {"plan": "free", "lang": "de"})
            with pbmon.context(user_id="3"):
                assert known() == ("3", "2", {"plan": "free", "lang": "de"})
        assert known() == outer
        with pbmon.context():
            assert known() == outer
        with pytest.raises(KeyError), pbmon.context(user_id=4):
            raise KeyError
        assert known() == outer
    assert current() is None


def test_in_a_request_it_begins_with_whose_it_is(finders):
    asked = {"user": "ann"}
    token = identity.begin(asked)
    with pbmon.context(plan="pro"):
        assert known() == ("ann", None, {"plan": "pro"})
    assert known() == ("ann", None, None)
    identity.end(token)


def test_who_logs_in_within_a_block_is_known_until_its_end():
    with pbmon.context(user_id=1):
        with pbmon.context(plan="pro"):
            identity.become("2")
            assert known() == ("2", None, {"plan": "pro"})
        assert known() == ("1", None, None)


def test_an_id_that_is_none_is_nobodys_and_not_the_outer_ones():
    with pbmon.context(user_id="ann", session_id="s"), pbmon.context(user_id="x" * 256):
        assert known() == (None, "s", None)


def test_without_any_it_becomes_known_in_its_context():
    def inside():
        identity.become("ann")
        return known()

    assert copy_context().run(inside) == ("ann", None, None)
    assert current() is None


@pytest.mark.parametrize("name", ["user_id", "session_id"])
@pytest.mark.parametrize("value", [True, 1.5, b"x", ["x"], object()])
def test_another_type_is_a_type_error(name, value):
    with pytest.raises(TypeError, match=f"^{name} must be str or int, not {type(value).__name__}$"):
        pbmon.context(**{name: value}).__enter__()
    assert current() is None


def test_blocks_of_tasks_at_once_do_not_mix():
    async def work(number):
        with pbmon.context(user_id=number):
            await asyncio.sleep(0)
            with pbmon.context(session_id=number):
                await asyncio.sleep(0)
                inner = known()
            await asyncio.sleep(0)
            return inner, known()

    async def main():
        with pbmon.context(plan="pro"):
            found = await asyncio.gather(*map(work, range(10)))
            assert known() == (None, None, {"plan": "pro"})
        return found

    plan = {"plan": "pro"}
    assert asyncio.run(main()) == [
        ((str(n), str(n), plan), (str(n), None, plan)) for n in range(10)
    ]
    assert current() is None


def test_a_block_that_ends_in_another_context_does_not_raise():
    """FastAPI enters and leaves a dependency that is a plain generator in two copies of one."""
    block = pbmon.context(user_id="ann")
    copy_context().run(block.__enter__)
    copy_context().run(block.__exit__, None, None, None)


# --- in an application ---


class Signed:
    """A middleware that sets the user, as an authentication middleware does."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            name = dict(scope["headers"]).get(b"x-name")
            scope["user"] = SimpleUser(name.decode()) if name else UnauthenticatedUser()
        await self.app(scope, receive, send)


def fetch(app, *requests):
    """The answers to these (path, headers), all at once."""

    async def go():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await asyncio.gather(*(client.get(p, headers=h) for p, h in requests))

    return asyncio.run(go())


def people(seen):
    events = [entry for entry in seen.entries if isinstance(entry, Event)]
    return [(entry.name, entry.user_id, entry.session_id) for entry in events]


def test_what_is_tracked_in_a_request_and_behind_it_is_its_users():
    def plain():
        pbmon.track("behind, in a thread")

    async def coroutine():
        pbmon.track("behind")

    async def pay(request):
        pbmon.track("paid", {"amount": 1})
        await asyncio.to_thread(pbmon.track, "in a thread")
        tasks = BackgroundTasks([BackgroundTask(coroutine), BackgroundTask(plain)])
        return PlainTextResponse("ok", background=tasks)

    with capture(consent="opt-out") as seen:
        app = Starlette(routes=[Route("/pay", pay)])
        app.add_middleware(Signed)
        (answer,) = fetch(app, ("/pay", {"x-name": "ann"}))
        assert answer.text == "ok"
        assert people(seen) == [
            ("paid", "ann", None),
            ("in a thread", "ann", None),
            ("behind", "ann", None),
            ("behind, in a thread", "ann", None),
        ]
        assert {entry.trace_id for entry in seen.entries} == {seen.spans[0].trace_id}
        fetch(app, ("/pay", {}))
        assert [user for _, user, _ in people(seen)[4:]] == [None] * 4
    assert current() is None


def test_a_task_that_outlives_its_request_has_its_user_and_none_of_its_memory():
    gone, finished = [], []

    async def start(request):
        request.state.body = body = Body()
        gone.append(weakref.ref(body))
        answered = asyncio.Event()

        async def after():
            await answered.wait()
            gc.collect()
            gone.append(gone[0]() is None)
            pbmon.track("after")

        finished.append((answered, asyncio.create_task(after())))
        return PlainTextResponse("ok")

    async def go(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            await client.get("/", headers={"x-name": "ann"})
        ((answered, task),) = finished
        answered.set()
        await task

    with capture(consent="opt-out") as seen:
        app = Starlette(routes=[Route("/", start)])
        app.add_middleware(Signed)
        asyncio.run(go(app))
        assert people(seen) == [("after", "ann", None)]
    assert gone[1] is True


def test_who_logs_in_during_a_request_is_its_user_from_there_on():
    async def login(request):
        pbmon.track("tried")
        pbmon.identify(7)
        pbmon.track("logged in")
        task = BackgroundTask(pbmon.track, "behind")
        return PlainTextResponse("ok", background=task)

    with capture(consent="opt-out", session_from="cookie:sid") as seen:
        fetch(Starlette(routes=[Route("/", login)]), ("/", {"cookie": "sid=abc"}))
        (link,) = [entry for entry in seen.entries if isinstance(entry, Link)]
        assert link[1:] == ("abc", "7")
        seen.entries.remove(link)
        assert people(seen) == [
            ("tried", None, "abc"), ("logged in", "7", "abc"), ("behind", "7", "abc"),
        ]  # fmt: skip


def test_requests_of_an_application_at_once_do_not_mix():
    count, inside = 8, []

    async def meet(request):
        inside.append(request)
        while len(inside) < count:
            await asyncio.sleep(0)
        name = request.headers["x-name"]
        pbmon.track(f"of {name}")
        await asyncio.to_thread(pbmon.track, f"in a thread of {name}")
        task = BackgroundTask(pbmon.track, f"behind {name}")
        return PlainTextResponse("ok", background=task)

    with capture(consent="opt-out") as seen:
        app = Starlette(routes=[Route("/", meet)])
        app.add_middleware(Signed)
        fetch(app, *(("/", {"x-name": f"user{n}"}) for n in range(count)))
        assert len(seen.entries) == 3 * count
        assert {name.split()[-1]: user for name, user, _ in people(seen)} == {
            f"user{n}": f"user{n}" for n in range(count)
        }
        assert all(name.endswith(f" {user}") for name, user, _ in people(seen))


def test_a_request_that_fails_leaves_nobody():
    async def fail(request):
        pbmon.track("failed")
        raise LookupError

    with capture(consent="opt-out") as seen:
        app = Signed(Starlette(routes=[Route("/", fail)]))

        async def send(message):
            pass

        async def go():
            with pytest.raises(LookupError):
                await app(scope(headers=[(b"x-name", b"ann")]), None, send)
            assert current() is None

        asyncio.run(go())
        assert people(seen) == [("failed", "ann", None)]


# --- what a framework knows beside the scope ---


class Visitor:
    def __init__(self, user=None, session=None):
        self.user, self.session, self.asked = user, session, 0

    def user_id(self):
        self.asked += 1
        if isinstance(self.user, Exception):
            raise self.user
        return self.user

    def session_id(self):
        return self.session


@pytest.fixture
def visited(finders):
    """A request of this visitor."""
    visitor = Visitor()
    request = identity.begin({"type": "http", "headers": []})
    identity.ask(visitor)
    yield visitor
    identity.end(request)


def test_a_framework_is_asked_until_it_answers(visited):
    assert known() == (None, None, None)
    visited.user = 7
    assert known() == ("7", None, None)
    visited.session = "s"
    assert known() == ("7", "s", None)
    visited.user, visited.session = 8, "t"
    asked = visited.asked
    assert known() == ("7", "s", None)
    assert visited.asked == asked


def test_the_settings_and_the_scope_come_before_a_framework(finders):
    request = identity.begin({"type": "http", "user": "of the scope", "headers": []})
    identity.ask(Visitor(7, "s"))
    assert known() == ("of the scope", "s", None)
    identity.end(request)
    finders(lambda scope: "found", lambda scope: None)
    request = identity.begin({"type": "http", "headers": []})
    identity.ask(Visitor(7, "s"))
    assert known() == ("found", None, None)
    identity.end(request)


def test_a_framework_is_asked_once_more_at_the_end_and_then_let_go(finders):
    visitor = Visitor()
    request = identity.begin({"type": "http", "headers": []})
    identity.ask(visitor)
    behind = copy_context()
    visitor.user = 7
    identity.end(request)
    assert behind.run(known) == ("7", None, None)
    assert request.identity.person is None


def test_a_frameworks_fault_is_told_once(visited, monkeypatch, caplog):
    monkeypatch.setattr(signals, "reraise", False)
    visited.user = RuntimeError("x")
    assert known() == known() == (None, None, None)
    assert visited.asked == 1


def test_outside_of_a_request_nobody_is_asked():
    identity.ask(Visitor(7))
    assert known() is None
