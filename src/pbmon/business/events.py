"""User events: track(), the registry of their names, and the gate of consent before them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.metrics import Meter

from pbmon import catalog, identity, runtime, segments, signals
from pbmon.business.intake import Taker
from pbmon.business.labels import SegmentLabels
from pbmon.business.refusals import RefusalError, refuse
from pbmon.purposes import ANALYTICS
from pbmon.runtime import ACCEPTED, NOT_CONFIGURED, Refused, Verdict
from pbmon.settings import Settings
from pbmon.spool import entries

OTHER = "_other"
MAX_NAME = 100
MAX_TEXT = 256
"""Characters of a text in a property that no declaration names; the rest is cut off."""

_MAX_UNDECLARED = 100
_MAX_PROPERTIES = 100
_MAX_EVENT_ID = 255

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "str": str, "int": int, "float": (float, int), "bool": bool, "list": (list, tuple),
    "dict": dict,
}  # fmt: skip

NO_CONSENT = Refused("no_consent")


class Events:
    """The runtime.EventSink. apply() changes the declarations while it runs."""

    def __init__(
        self, settings: Settings, meter: Meter, intake: Taker, labels: SegmentLabels
    ) -> None:
        self._counts = signals.Counts(catalog.EVENTS, meter)
        self._intake = intake
        self._labels = labels
        self._cells: dict[tuple[str, str], signals.Cell] = {}
        self._seen: set[str] = set()
        self._decided_at = 0
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        self._declared = settings.events
        self._unregistered = settings.unregistered_events
        self._asks = settings.consent[ANALYTICS] != "not-required"
        self._segments = settings.segments
        self._by_segment = bool(self._labels.names)
        self._cells = {}
        every = self._labels.every(len(settings.events) * len(catalog.CONSENT.values))
        for name in settings.events:  # starts at 0, so that the first one is an increase
            for consent in catalog.CONSENT.values:
                for labels in every:
                    self._cell(name, consent, labels)

    def track(
        self,
        call: str,
        name: str,
        properties: Mapping[str, Any] | None,
        user_id: str | None,
        event_id: str | None,
        consent: bool | None,
    ) -> Verdict:
        try:
            if self._declared:
                self._check_name(name)
            if properties:
                properties = _checked(name, properties, self._declared.get(name))
            person = identity.current()
            session_id = given = None
            if person is not None:
                consent = person.consent_of(user_id) if consent is None else consent
                if consent is not False:
                    user_id = user_id or person.user_id
                    session_id, given = person.session_id, person.segments
            if consent is False:  # a number, and nothing of anybody
                self._count(name, "denied", None)
                return NO_CONSENT
            span = trace.get_current_span().get_span_context()
            payload = entries.encode_event(
                time.time_ns() // 1000,
                name,
                user_id,
                session_id,
                f"{span.trace_id:032x}" if span.trace_id else None,
                consent,
                event_id,
                segments.keep(self._segments, given) if given else None,
                properties,
            )
        except (TypeError, ValueError) as error:
            return _refusal(call, name, error)
        reason = self._intake.put(payload)
        if reason:
            return _not_taken(call, name, reason)
        if user_id is None and session_id is None:
            self._count(name, "anonymous", given)
        else:
            is_decided = consent or not self._asks
            self._count(name, "granted" if is_decided else "undecided", given)
        return ACCEPTED

    def _check_name(self, name: str) -> None:
        if self._unregistered == "refuse" and name not in self._declared:
            known = ", ".join(sorted(self._declared)[:20])
            raise RefusalError(
                "unregistered", f"event {name!r} is not declared; declared are {known}"
            )

    def link(self, session_id: str, user_id: str) -> None:
        """The session is this user's from here on, and what it did before."""
        at = time.time_ns() // 1000
        self._intake.put(entries.encode(entries.Link(at, session_id, user_id)))

    def decide(self, user_id: str, purpose: str, granted: bool, version: str | None) -> Verdict:
        # One after the other, whatever the clock does: the later one is the person's word.
        at = self._decided_at = max(time.time_ns() // 1000, self._decided_at + 1)
        entry = entries.Consent(at, user_id, purpose, granted, version)
        reason = self._intake.put(entries.encode(entry))
        return Refused(reason) if reason else ACCEPTED

    def _count(self, name: str, consent: str, given: Mapping[str, str] | None) -> None:
        if given and self._by_segment:
            self._cell(self._known(name), consent, self._labels.of(given)).up()
            return
        cell = self._cells.get((name, consent))
        (cell if cell is not None else self._cell(self._known(name), consent)).up()

    def _cell(self, name: str, consent: str, labels: signals.Key = ()) -> signals.Cell:
        key = ((catalog.CONSENT.name, consent), (catalog.EVENT_NAME.name, name), *labels)
        cell = self._counts.cell(key)
        if name != OTHER and not labels:
            self._cells[name, consent] = cell
        return cell

    def _known(self, name: str) -> str:
        """The name as the metric has it."""
        if self._declared:
            return name if name in self._declared else OTHER
        if name in self._seen:
            return name
        if len(self._seen) < _MAX_UNDECLARED:
            self._seen.add(name)
            return name
        return OTHER


def _refusal(call: str, name: str, error: Exception) -> Verdict:
    if isinstance(error, TypeError):
        raise TypeError(
            f"pbmon.{call}: a property of {name!r} is {error}; give texts, numbers, booleans, "
            "lists and mappings of them"
        ) from None
    if isinstance(error, RefusalError):
        return refuse(call, error.reason, str(error), depth=4)
    return refuse(call, "bad_property", f"a property of {name!r}: {error}", depth=4)


def _not_taken(call: str, name: str, reason: str) -> Verdict:
    if reason == "too_large":
        return refuse(call, reason, f"event {name!r} has more than 48 KiB", depth=4)
    return Refused(reason)


def _checked(
    name: str, properties: Mapping[str, Any], declared: Mapping[str, str] | None
) -> Mapping[str, Any]:
    """What may be kept of the properties. Raises RefusalError."""
    if declared is not None:
        kept = {key: value for key, value in properties.items() if key in declared}
        if len(kept) < len(properties):
            signals.tell(
                f"event:{name}",
                "pbmon: event %s came with properties that its declaration does not name; they "
                "are left out. Declare them in [events.%s] of pbmon.toml",
                name, name,
            )  # fmt: skip
        for key, value in kept.items():
            wanted = declared[key]
            right = isinstance(value, _TYPES[wanted])
            if value is not None and (
                not right or (value is True or value is False) != (wanted == "bool")
            ):
                raise RefusalError(
                    "bad_property",
                    f"property {key} of {name!r} is declared as {wanted}, not "
                    f"{type(value).__name__}",
                )
        return kept
    if len(properties) > _MAX_PROPERTIES:
        raise RefusalError(
            "bad_property", f"event {name!r} has more than {_MAX_PROPERTIES} properties"
        )
    for value in properties.values():
        if type(value) is str and len(value) > MAX_TEXT:
            return {
                key: value[:MAX_TEXT] if isinstance(value, str) else value
                for key, value in properties.items()
            }
    return properties


def checked_ids(user_id: str | int | None, event_id: str | None) -> str | None:
    """The user's id as text. Raises RefusalError, TypeError."""
    known = None
    if user_id is not None:
        known = identity.checked("user_id", user_id)
        if known is None:
            raise RefusalError("bad_user_id", "user_id must have 1 to 255 characters")
    if event_id is not None:
        if not isinstance(event_id, str):
            raise TypeError(f"event_id must be str, not {type(event_id).__name__}")
        if not 0 < len(event_id) <= _MAX_EVENT_ID:
            raise RefusalError("bad_event_id", "event_id must have 1 to 255 characters")
    return known


def track(
    event: str,
    properties: Mapping[str, Any] | None = None,
    *,
    user_id: str | int | None = None,
    event_id: str | None = None,
    consent: bool | None = None,
) -> Verdict:
    """Record that something happened, such as track("transaction_created", {"amount": 1999}).

    event: its name, 1 to 100 printable characters.
    properties: texts, numbers, booleans, lists and mappings of them; Decimal, dates and UUIDs are
        kept as text. At most 48 KiB in all. Where the event is declared in [events], only the
        declared ones are kept, and one of another type is refused; else a text is cut after 256
        characters.
    user_id: whose event it is; if left out, the user of the request or of pbmon.context().
    event_id: the application's own id, 1 to 255 characters; two events with one id are stored
        once.
    consent: True: this person has agreed. False: nothing is kept, only the counter moves. If left
        out, pbmon.context(consent=…), or where the event is stored the setting `consent` and the
        person's decisions say so.

    Returns Accepted: the event is in the spool, survives this process, and comes into the store
    exactly once. Or a falsy Refused: bad_event, bad_property, bad_event_id, bad_user_id,
    unregistered, too_large; no_consent; full, io_error, no_state_directory, busy, shut_down;
    not_configured before configure(). Under strict a wrong value is raised as ValueError.
    Goes to the store, and to the metric pbmon.events.
    """
    sink = runtime.active.events
    if sink is None:
        return NOT_CONFIGURED
    if not isinstance(event, str):
        raise TypeError(f"event must be str, not {type(event).__name__}")
    if type(properties) is not dict and not isinstance(properties, Mapping | None):
        raise TypeError(f"properties must be a mapping, not {type(properties).__name__}")
    if not 0 < len(event) <= MAX_NAME or not event.isprintable():
        return refuse("track", "bad_event", "event must be 1 to 100 printable characters")
    if user_id is not None or event_id is not None:
        try:
            user_id = checked_ids(user_id, event_id)
        except RefusalError as error:
            return refuse("track", error.reason, str(error))
    if consent is not None and consent is not True and consent is not False:
        raise TypeError(f"consent must be bool, not {type(consent).__name__}")
    return sink.track("track", event, properties, user_id, event_id, consent)


def identify(user_id: str | int) -> None:
    """Say who the user of this request or context() is, as after a login.

    user_id: the application's own id. What the session did before, where a session is known, is
    this user's as well.
    """
    known = identity.checked("user_id", user_id)
    if known is None:
        refuse("identify", "bad_user_id", "user_id must have 1 to 255 characters")
        return
    person = identity.become(known)
    sink = runtime.active.events
    if sink is not None and person.session_id is not None and person.consent is not False:
        sink.link(person.session_id, known)
