"""Events to send, and words that must never show up in what is said about them."""

from __future__ import annotations

import uuid

from pbmon.delivery.events import Event

OCCURRED_AT = 1_795_643_880_123_456
"""2026-11-25 21:58:00.123456 UTC."""

KEY = "hunter2-key"
PERSON = "pseudonym-of-ann"
CONTENT = "wedding-ring"
SECRETS = (KEY, PERSON, CONTENT)


def event(number=0, **changes):
    """The event with that number, always with the same id."""
    return Event(
        **{
            "id": str(uuid.UUID(int=number + 1)),
            "name": "order_paid",
            "occurred_at": OCCURRED_AT,
            "subject": PERSON,
            "session": "session-1",
            "properties": {"item": CONTENT, "number": number},
            "segments": {"plan": "gold"},
            **changes,
        }
    )


def events(count):
    return [event(number) for number in range(count)]


def poisoned(number):
    """One that every vendor of these tests refuses."""
    return event(number, properties={"poison": True})


def ids(of):
    return tuple(each.id for each in of)
