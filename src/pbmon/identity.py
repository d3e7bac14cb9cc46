"""Whose request this is: user, session and segments, for what is tracked in it.

One object per request stands in a context variable, so tasks, threads and background work that
were started in the request see what becomes known later, as by identify() after a login.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from typing import Any, NamedTuple, Protocol

from pbmon import signals
from pbmon.runtime import RECORD, Scope, active

Finder = Callable[[Scope], Any]
"""From a scope to an id; None where it says nothing."""

MAX_ID = 255
_KEPT = ("user", "headers")


def user_of(scope: Scope) -> Any:
    """The id of `scope["user"]`, where an authentication middleware has put one: its `pk`, `id`,
    `identity` or `username`. None for one that is not authenticated."""
    user = scope.get("user")
    if user is None or _ask(user, "is_authenticated") is False:
        return None
    if isinstance(user, str | int):
        return user
    if isinstance(user, Mapping):
        return user["id"] if user.get("id") is not None else user.get("sub")
    for name in ("pk", "id", "identity", "username"):
        value = _ask(user, name)
        if value is not None:
            return value
    return None


def _ask(user: Any, name: str) -> Any:
    try:
        return getattr(user, name, None)
    except NotImplementedError:  # of Starlette's base class
        return None


def in_header(name: str) -> Finder:
    def find(scope: Scope) -> str | None:
        return next(_headers(scope, name), None)

    return find


def in_cookie(name: str) -> Finder:
    def find(scope: Scope) -> str | None:
        # As browsers and frameworks read it: one that is no cookie hides none behind it.
        for header in _headers(scope, "cookie"):
            for cookie in header.split(";"):
                key, sign, value = cookie.partition("=")
                if sign and key.strip() == name:
                    return value.strip().strip('"')
        return None

    return find


def _headers(scope: Scope, name: str) -> Iterator[str]:
    wanted = name.lower().encode("latin-1")
    return (
        bytes(value).decode("latin-1") for key, value in scope.get("headers", ()) if key == wanted
    )


class Person(Protocol):
    """What a framework knows of a request's user, where its scope does not say. Asked again until
    it answers: it looks at what is in memory, and never asks a database."""

    def user_id(self) -> Any: ...

    def session_id(self) -> Any: ...


class Identity:
    """What is known of one request. user_id, session_id: the application's own ids."""

    __slots__ = (
        "_route", "_scope", "consent", "noted", "person", "request", "segments", "session_id",
        "user_id",
    )  # fmt: skip

    def __init__(
        self,
        scope: Scope | None = None,
    ) -> None:
        self.user_id: str | None = None
        self.session_id: str | None = None
        self.segments: Mapping[str, str] | None = None
        self.consent: bool | None = None
        """What was said of their consent to `analytics`; False: nothing is kept of them."""
        self.person: Person | None = None
        """Set by a framework's hook as soon as it has the request."""
        self.request: Identity | None = None
        """What is known of the whole, of which this is a part; none: this is the whole."""
        self.noted: Mapping[str, str] | None = None
        """Of the whole: segments of its user, as far as any part of it has said them."""
        self._scope = scope
        self._route: Any = scope.get(RECORD) if scope is not None else None
        """The record of the request, which knows its route; or the route itself."""

    @property
    def route(self) -> str | None:
        """The template, as far as it is known by now."""
        found: str | None = getattr(self._route, "route", self._route)
        return found

    @route.setter
    def route(self, template: str) -> None:
        self._route = template

    def resolve(self) -> None:
        """Find what the request says of itself by now; whoever logs in is found later."""
        scope = self._scope
        if scope is None:
            return
        try:
            if self.user_id is None:
                self.user_id = id_text(self._user(scope))
            if self.session_id is None:
                self.session_id = id_text(self._session(scope))
        except Exception as error:
            self._scope = self.person = None  # not at every event again
            signals.failed("finding the user of a request", error)
        may_find_session = active.find_session is not None or self.person is not None
        if self.user_id is not None and (self.session_id is not None or not may_find_session):
            self._scope = self.person = None

    def _user(self, scope: Scope) -> Any:
        if active.find_user is not None:
            return active.find_user(scope)
        found = user_of(scope)
        return self.person.user_id() if found is None and self.person is not None else found

    def _session(self, scope: Scope) -> Any:
        if active.find_session is not None:
            return active.find_session(scope)
        return self.person.session_id() if self.person is not None else None

    def consent_of(self, user_id: str | None) -> bool | None:
        """What was said of this user's consent, or of whoever it is; of another one than whom it
        was said of it is no agreement."""
        if self.consent and user_id is not None and user_id != self.user_id:
            return None
        return self.consent

    def let_go(self) -> None:
        """At the end of the request: what its background work may still ask is kept of it."""
        if self.person is not None:
            self.resolve()
            self.person = None  # it may hold all of the request
        self._route = self.route
        scope = self._scope
        if scope is not None:
            self._scope = {name: scope[name] for name in _KEPT if name in scope}


def id_text(value: Any) -> str | None:
    """An id as it is kept: text of 1 to 255 characters; None for anything that is none."""
    if value is None or isinstance(value, bool):
        return None
    found = str(value)
    return found if 0 < len(found) <= MAX_ID else None


_current: ContextVar[Identity | None] = ContextVar("pbmon_identity", default=None)


def current() -> Identity | None:
    """Of this context."""
    found = _current.get()
    if found is not None:
        found.resolve()
    return found


def noted() -> Mapping[str, str] | None:
    """Segments of the user of this context's request, as far as any part of it has said them."""
    found = _current.get()
    return (found.request or found).noted if found is not None else None


def route() -> str | None:
    """The template of the request in whose context this is called, as far as it is known."""
    found = _current.get()
    return (found.request or found).route if found is not None else None


def note_route(template: str) -> None:
    """In a request that has no record: this is its route."""
    found = _current.get()
    if found is not None:
        (found.request or found).route = template


def whole() -> Identity | None:
    """Of this context's request, whatever part of it is somebody else's work."""
    found = current()
    if found is None or found.request is None:
        return found
    found.request.resolve()
    return found.request


class Begun(NamedTuple):
    """A request under way."""

    identity: Identity
    token: Token[Identity | None]


def ask(person: Person) -> None:
    """In a request: have its framework asked as well."""
    found = _current.get()
    if found is not None:
        found.person = person


def begin(scope: Scope) -> Begun:
    """At the start of a request, in its context."""
    made = Identity(scope=scope)
    return Begun(made, _current.set(made))


def end(request: Begun) -> None:
    """At the end of the request, in the same context."""
    request.identity.let_go()
    _reset(request.token)


def _reset(token: Token[Identity | None]) -> None:
    with suppress(ValueError):  # it ends in another context than it began in
        _current.reset(token)


@contextmanager
def context(
    *,
    user_id: str | int | None = None,
    session_id: str | int | None = None,
    consent: bool | None = None,
    **segments: str,
) -> Iterator[None]:
    """Whose work the block does, for what is tracked in it, in its tasks and in its threads.

    user_id, session_id: the application's own ids, 1 to 255 characters; what is left out stays
        as it is outside.
    consent: True: this person has agreed to `analytics`, as a banner says. False: of what is
        tracked in the block nothing is kept, and counters alone move; money is booked as
        nobody's. If left out, their decisions say so.
    segments: properties of the user by which figures may be divided, such as plan="pro"; those
        named by the setting `segments` are kept.

    For jobs and scripts: in a request the user is found by itself, or by identify().
    """
    outer = current()
    inner = Identity()
    if outer is not None:
        inner.request = outer.request or outer
        inner.user_id, inner.session_id = outer.user_id, outer.session_id
        inner.segments, inner.consent = outer.segments, outer.consent
    if user_id is not None:
        inner.user_id = checked("user_id", user_id)
        inner.consent = outer.consent_of(inner.user_id) if outer is not None else None
    if session_id is not None:
        inner.session_id = checked("session_id", session_id)
    if consent is not None:
        if not isinstance(consent, bool):
            raise TypeError(f"consent must be bool, not {type(consent).__name__}")
        inner.consent = consent
    for name, value in segments.items():
        if not isinstance(value, str):
            raise TypeError(f"segment {name} must be str, not {type(value).__name__}")
    if segments:
        inner.segments = {**(inner.segments or {}), **segments}
        request = inner.request or inner
        is_theirs = request.user_id in (None, inner.user_id)
        if is_theirs and inner.consent is not False:
            request.noted = {**(request.noted or {}), **segments}
    token = _current.set(inner)
    try:
        yield
    finally:
        _reset(token)


def checked(name: str, value: str | int) -> str | None:
    """An id handed to the API. Raises TypeError for another type; a value that can't be one is
    none: identity never fails a request."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError(f"{name} must be str or int, not {type(value).__name__}")
    return id_text(value)


def become(user_id: str) -> Identity:
    """The user of this context is known from here on."""
    found = current()
    if found is None:
        found = Identity()
        _current.set(found)
    found.user_id = user_id
    return found
