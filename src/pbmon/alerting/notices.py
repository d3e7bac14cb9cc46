"""What is told of an alert, and its words. Pure.

An exception's message is not in it, nor anything of people but how many they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pbmon import privacy
from pbmon.alerting.rules import duration
from pbmon.moments import rfc3339

FIRING, RESOLVED, REPEAT = "firing", "resolved", "repeat-"
_LONGEST_TITLE = 150


@dataclass(frozen=True, slots=True)
class Notice:
    """One message to one sink. Times in µs UTC.

    alert_id: UUID as text. kind: firing, repeat-N or resolved. rule: what it went beyond, in words.
    errors, people: in the window at the opening; of the resolved one, the most in any window.
    is_new: the error is first of this release. link: for people. is_test: nothing has happened.
    """

    alert_id: str
    kind: str
    service: str
    environment: str | None
    rule: str
    fingerprint: str
    error_type: str
    place: str
    route: str | None
    release: str | None
    is_new: bool
    first_at: int | None
    opened_at: int
    resolved_at: int | None
    errors: int
    people: int
    trace_id: str | None
    link: str | None = None
    is_test: bool = False

    @property
    def key(self) -> str:
        """By which a receiver knows a message that comes a second time."""
        return f"{self.alert_id}-{self.kind}"

    @property
    def is_over(self) -> bool:
        return self.kind == RESOLVED

    @property
    def state(self) -> str:
        """`firing` or `resolved`; a repetition is firing."""
        return RESOLVED if self.is_over else FIRING


def link_of(template: str | None, trace_id: str | None, fingerprint: str) -> str | None:
    """None where it is to lead to a trace, and there is none."""
    if template is None or ("{trace_id}" in template and trace_id is None):
        return None
    return template.replace("{trace_id}", trace_id or "").replace("{fingerprint}", fingerprint)


def title(notice: Notice) -> str:
    """One line: `[firing] shop: ValueError in app.orders:pay, 11 errors`."""
    test = "[test] " if notice.is_test else ""
    again = ", still" if notice.kind.startswith(REPEAT) else ""
    place = f" in {notice.place}" if notice.place else ""  # of one that was never raised
    head = f"{test}[{notice.state}{again}] {notice.service}: {notice.error_type}{place}"
    tail = f", {notice.errors:,} errors" if not notice.is_over else ""
    return privacy.escape(_cut(head, _LONGEST_TITLE - len(tail)) + tail)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def fields(notice: Notice) -> Mapping[str, str]:
    """Name → value, for people; what is not known is left out."""
    people = f", {notice.people:,} people" if notice.people else ""
    counted = "most in one window" if notice.is_over else "in the window"
    release = notice.release and notice.release + (" (new in it)" if notice.is_new else "")
    found = {
        "error": notice.error_type,
        "place": notice.place,
        counted: f"{notice.errors:,} errors{people}",
        "rule": notice.rule,
        "route": notice.route,
        "release": release,
        "environment": notice.environment,
        "first seen": notice.first_at and moment(notice.first_at),
        "since": moment(notice.opened_at),
        "over": _over(notice),
        "last trace": notice.trace_id,
        "link": notice.link,
        "alert": notice.alert_id,
    }
    return {name: privacy.escape(value) for name, value in found.items() if value}


def _over(notice: Notice) -> str | None:
    if notice.resolved_at is None:
        return None
    lasted_s = (notice.resolved_at - notice.opened_at) // 1_000_000
    return f"{moment(notice.resolved_at)}, after {duration(lasted_s - lasted_s % 60 or lasted_s)}"


def text(notice: Notice) -> str:
    """Plain, a line for each field."""
    lines = [f"{name}: {value}" for name, value in fields(notice).items()]
    if notice.is_test:
        lines.insert(0, "This is a test: nothing has happened.")
    return "\n".join(lines)


def as_json(notice: Notice) -> dict[str, Any]:
    """What a webhook gets; docs/alerts.md describes it."""
    return {
        "id": notice.alert_id,
        "key": notice.key,
        "state": notice.state,
        "kind": notice.kind,
        "test": notice.is_test,
        "title": title(notice),
        "text": text(notice),
        "service": notice.service,
        "environment": notice.environment,
        "rule": notice.rule,
        "errors": notice.errors,
        "people": notice.people,
        "opened_at": moment(notice.opened_at),
        "resolved_at": None if notice.resolved_at is None else moment(notice.resolved_at),
        "error": {
            "fingerprint": notice.fingerprint,
            "type": notice.error_type,
            "place": notice.place,
            "route": notice.route,
            "release": notice.release,
            "new_in_release": notice.is_new,
            "first_seen": None if notice.first_at is None else moment(notice.first_at),
            "trace_id": notice.trace_id,
        },
        "link": notice.link,
    }


def moment(at: int) -> str:
    """RFC 3339 in UTC, to the second."""
    return rfc3339(at, "seconds")
