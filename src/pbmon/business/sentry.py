"""Sentry, where the application has initialised it: what track_error() is given goes there too,
with tags, and without what carries people's data."""

from __future__ import annotations

import sys
from typing import Any

from pbmon import catalog, signals
from pbmon.errors import Fingerprint

_KEPT_CONTEXTS = ("trace", "runtime")
_DROPPED = (
    "breadcrumbs", "extra", "logentry", "message", "request", "threads", "transaction",
    "transaction_info", "user",
)  # fmt: skip
_OF_FRAMES = ("vars", "context_line", "pre_context", "post_context")
_OF_VALUES = ("value", "raw_stacktrace")
_OF_MECHANISMS = ("type", "handled", "exception_id", "parent_id", "is_exception_group")


def capture(
    error: BaseException, fingerprint: Fingerprint, route: str | None, release: str | None
) -> None:
    """Send an exception by the application's own client. Its other integrations may see the same
    object later, and know that it was sent."""
    sentry = sys.modules.get("sentry_sdk")
    if sentry is None:
        return
    with signals.guard("sending an error to Sentry"):
        if not sentry.get_client().is_active():
            return
        with sentry.new_scope() as scope:
            tags = {
                catalog.ERROR_TYPE.name: fingerprint.error_type,
                "pbmon.fingerprint": fingerprint.key,
                catalog.ROUTE.name: route,
                "pbmon.release": release,
            }
            for name, value in tags.items():
                if value is not None:
                    scope.set_tag(name, value)
            scope.add_event_processor(_scrub)
            scope.capture_exception(error)


def _scrub(event: dict[str, Any], hint: dict[str, Any]) -> dict[str, Any]:
    """By the rules of privacy.frames(): types and frames stay; messages, local variables, lines of
    source and the request go. It comes last, after what other integrations add."""
    hint.pop("attachments", None)
    for name in _DROPPED:
        event.pop(name, None)
    contexts = event.get("contexts") or {}
    event["contexts"] = {name: contexts[name] for name in _KEPT_CONTEXTS if name in contexts}
    for raised in (event.get("exception") or {}).get("values") or ():
        for name in _OF_VALUES:
            raised.pop(name, None)
        how = raised.get("mechanism") or {}
        raised["mechanism"] = {name: how[name] for name in _OF_MECHANISMS if name in how}
        for frame in (raised.get("stacktrace") or {}).get("frames") or ():
            for name in _OF_FRAMES:
                frame.pop(name, None)
    return event
