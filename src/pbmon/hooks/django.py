"""Django: requests to its ASGI handler, whoever calls it, their routes and the exceptions that it
makes an answer of; whose request it is, under ASGI and WSGI.

The user and the session are looked for in what the request has loaded by itself. Nothing here
evaluates `request.user` or opens a session: the application runs no query that it would not run.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable
from typing import Any

from pbmon import identity, runtime, signals
from pbmon.hooks import django_test, routes
from pbmon.hooks.patches import Patch
from pbmon.hooks.starlette import observing
from pbmon.hooks.upstream import ASGIHook
from pbmon.runtime import RECORD, Scope

# --- routes ---

_CONVERTER = re.compile(r"<(?:[^<>:]+:)?([^<>:]+)>")
_GROUP = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\(\?P<(\w+)>|\(\?:|\(|\)(?:[?*+]|\{[\d,]+\})*")
_ESCAPED = re.compile(r"\\([^A-Za-z0-9])")
_ANCHOR = re.compile(r"^\^|\$$|\\[AZ]|(?<=/)\?")


@functools.lru_cache(maxsize=1024)
def template_of(route: str) -> str:
    """A route as Django joins it of its parts: `users/<int:pk>/` → `/users/{pk}/`.

    Of a regular expression the groups are named, `^page/(?P<n>[0-9]+)/$` → `/page/{n}/`, or
    numbered if they have no name; what stands outside of them stays as it is.
    """
    named = _ANCHOR.sub("", _CONVERTER.sub(r"{\1}", _named(route)))
    return "/" + _ESCAPED.sub(r"\1", named)


def _named(route: str) -> str:
    """With each outermost group replaced by its name; a group that does not capture is opened."""
    parts: list[str] = []
    depth = count = 0
    """depth: of groups below a captured one; 0 is outside."""
    start = 0
    for found in _GROUP.finditer(route):
        sign = found[0]
        if sign[0] not in "()":
            continue  # an escaped character, or a set of them
        if depth == 0:
            parts.append(route[start : found.start()])
            start = found.end()
            if sign == "(?:" or sign[0] == ")":
                continue
            count += 1
            parts.append("{" + (found[1] or str(count)) + "}")
        depth += -1 if sign[0] == ")" else 1
        start = found.end()
    return "".join((*parts, route[start:] if depth == 0 else ""))


def noting_route(resolve: Callable[..., Any]) -> Callable[..., Any]:
    """For `BaseHandler.resolve_request`."""

    @functools.wraps(resolve)
    def resolve_request(self: Any, request: Any) -> Any:
        match = resolve(self, request)
        try:
            scope = _scope_of(request)
            if scope is not None:
                routes.set_route(scope, template_of(match.route))
            else:
                identity.note_route(template_of(match.route))
        except Exception as error:
            signals.failed("route hook", error)
        return match

    return resolve_request


def noting_exception(handle: Callable[..., Any]) -> Callable[..., Any]:
    """For `handle_uncaught_exception`, which makes an answer of what a view raised."""

    @functools.wraps(handle)
    def handle_uncaught_exception(request: Any, resolver: Any, exc_info: Any) -> Any:
        scope = None
        try:
            scope = _scope_of(request)
            if scope is None:  # by WSGI, where nothing else sees it
                runtime.active.errors.seen(exc_info[1])
        except Exception as error:
            signals.failed("request hook", error)
        response = handle(request, resolver, exc_info)  # or it is raised, and seen there
        try:
            record = None if scope is None else scope.get(RECORD)
            if record is not None:
                record.failed(exc_info[1])
        except Exception as error:
            signals.failed("request hook", error)
        return response

    return handle_uncaught_exception


def _scope_of(request: Any) -> Scope | None:
    """Of an ASGIRequest; a WSGIRequest has one only where it is a test client's."""
    scope: Scope | None = getattr(request, "scope", None)
    return scope if scope is not None else request.META.get(django_test.SCOPE)


# --- whose request it is ---


class Visitor:
    """An identity.Person."""

    __slots__ = ("_request",)

    def __init__(self, request: Any) -> None:
        self._request = request

    def user_id(self) -> Any:
        from django.utils.functional import LazyObject, empty  # loaded already

        # From the instances' dictionaries: an attribute of theirs may be a query.
        known = vars(self._request)
        user = known.get("user")
        if isinstance(user, LazyObject):
            user = vars(user).get("_wrapped", empty)
            if user is empty:
                user = known.get("_acached_user")
        if user is not None:
            return identity.user_of({"user": user})
        loaded = self._loaded_session()
        return None if loaded is None else loaded.get("_auth_user_id")

    def session_id(self) -> Any:
        """None before the session is loaded: until then its key is only what the client says."""
        if self._loaded_session() is None:
            return None
        session = vars(self._request)["session"]
        # There the key is all of the session's data, signed.
        if type(session).__module__ == "django.contrib.sessions.backends.signed_cookies":
            return None
        return session.session_key

    def _loaded_session(self) -> Any:
        session = vars(self._request).get("session")
        return getattr(session, "__dict__", {}).get("_session_cache")


def beginning(get_response: Callable[..., Any]) -> Callable[..., Any]:
    """For `BaseHandler.get_response`, by which WSGI and Django's test client come."""

    @functools.wraps(get_response)
    def answer(self: Any, request: Any) -> Any:
        begun = _begin(request)
        try:
            return get_response(self, request)
        finally:
            _end(begun)

    return answer


def beginning_async(get_response: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """For `BaseHandler.get_response_async`, by which ASGI comes."""

    @functools.wraps(get_response)
    async def answer(self: Any, request: Any) -> Any:
        begun = _begin(request)
        try:
            return await get_response(self, request)
        finally:
            _end(begun)

    return answer


def _begin(request: Any) -> identity.Begun | None:
    """None where the request has an identity already, as one that is observed."""
    try:
        visitor = Visitor(request)
        scope = _scope_of(request)
        if scope is not None and scope.get(RECORD) is not None:
            identity.ask(visitor)
            return None
        begun = identity.begin(_as_scope(request) if scope is None else scope)
        begun.identity.person = visitor
    except Exception as error:
        signals.failed("request hook", error)
        return None
    return begun


def _end(begun: identity.Begun | None) -> None:
    if begun is not None:
        identity.end(begun)


def _as_scope(request: Any) -> Scope:
    """What `user_from` and `session_from` look at, of a WSGI request."""
    return {
        "type": "http",
        "method": request.method,
        "path": request.path,
        "query_string": request.META.get("QUERY_STRING", "").encode("latin-1", "replace"),
        "headers": [
            (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
            for name, value in request.headers.items()
        ],
    }


class DjangoHook(ASGIHook):
    library = "django"
    tested = "5.2"
    patches = (
        Patch("django.core.handlers.asgi", "ASGIHandler.__call__", observing("django")),
        Patch("django.core.handlers.base", "BaseHandler.resolve_request", noting_route),
        Patch("django.core.handlers.base", "BaseHandler.get_response", beginning),
        Patch("django.core.handlers.base", "BaseHandler.get_response_async", beginning_async),
        Patch("django.core.handlers.exception", "handle_uncaught_exception", noting_exception),
        Patch("django.test.client", "ClientHandler.__call__", django_test.observing),
        Patch("django.test.client", "AsyncClientHandler.__call__", django_test.observing_async),
    )
