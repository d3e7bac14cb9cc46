"""An analytics event on its way to a destination, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Event:
    """Its repr has the id alone: the rest is people's data."""

    id: str
    """UUID as text: by it a destination knows an event that comes a second time."""
    name: str = field(repr=False)
    occurred_at: int = field(repr=False)
    """Microseconds since 1970, UTC."""
    subject: str | None = field(repr=False)
    """Who did it: the pseudonym made for this destination."""
    session: str | None = field(repr=False)
    properties: Mapping[str, Any] = field(repr=False)
    """JSON values."""
    segments: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the events of one call, by id: each is in one of the three."""

    delivered: tuple[str, ...] = ()
    dead: Mapping[str, str] = field(default_factory=dict)
    """What no repetition can deliver, each with its reason, such as `too_large` or
    `rejected:400`."""
    again: tuple[str, ...] = ()
    """What is to be tried again later."""
    retry_after_s: float | None = None
    """How long the destination asks to wait before."""
    fault: str = ""
    """Why there is an `again`, in a few words without secrets."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What became of people whom a destination was asked to delete, by pseudonym: each is in one of
    the two. It has taken the request; when it is done with it is its own matter."""

    asked: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    """Who is to be asked for again later."""
    retry_after_s: float | None = None
    fault: str = ""
    """Why there is an `again`, in a few words without secrets."""


class Destination(Protocol):
    """Used by one thread at a time, and by the process that made it: a forked child makes its
    own."""

    name: str
    where: str
    """The URL as messages may show it."""
    remote: bool
    """False where the events stay on this machine."""

    def send(self, events: Sequence[Event]) -> Outcome:
        """Send the events in as many requests as the destination's limits demand, up to the first
        one that has to be tried again. Never raises."""
        ...

    def forget(self, subjects: Sequence[str]) -> Forgotten:
        """Have it delete what it has of these people, in as many requests as its limits demand, up
        to the first one that has to be tried again. Never raises."""
        ...

    def close(self) -> None:
        """Let the connection go; a later send() connects again."""
        ...
