"""What tracks an event: pbmon, and the SDKs of vendors as their documentation has one use them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

Send = Callable[[int], bool]
"""Tracks event number n; whether the call says that it was taken."""

NAME = "transaction_created"
USER = "user-4711"


def _properties(number: int) -> dict[str, Any]:
    return {"n": number, "amount": 1999, "plan": "pro"}


def _nothing(_sink: str) -> Send:
    return lambda _number: False


def _pbmon(_sink: str) -> Send:
    import pbmon

    pbmon.configure()
    return lambda number: bool(pbmon.track(NAME, _properties(number), user_id=USER))


def _posthog(sink: str) -> Send:
    from posthog import Posthog

    client = Posthog("key", host=sink)

    def send(number: int) -> bool:
        # It gives the event's id, or nothing where its queue is full.
        given = client.capture(NAME, distinct_id=USER, properties=_properties(number))
        return given is not None

    return send


def _segment(sink: str) -> Send:
    from segment.analytics import Client

    client = Client("key", host=sink)
    return lambda number: bool(client.track(USER, NAME, _properties(number))[0])


def _mixpanel(sink: str) -> Send:
    from mixpanel import BufferedConsumer, Mixpanel

    client = Mixpanel("key", BufferedConsumer(events_url=f"{sink}/track"))

    def send(number: int) -> bool:
        client.track(USER, NAME, _properties(number))
        return True

    return send


def _amplitude(sink: str) -> Send:
    from amplitude import Amplitude, BaseEvent, Config

    client = Amplitude("key", Config(server_url=f"{sink}/2/httpapi"))

    def send(number: int) -> bool:
        client.track(BaseEvent(NAME, user_id=USER, event_properties=_properties(number)))
        return True

    return send


BARE = "nothing"
OURS = "pbmon"
_MODULES = {
    "PostHog": "posthog", "Segment": "segment", "Mixpanel": "mixpanel", "Amplitude": "amplitude",
}  # fmt: skip
PEERS: dict[str, Callable[[str], Send]] = {
    BARE: _nothing,
    OURS: _pbmon,
    "PostHog": _posthog,
    "Segment": _segment,
    "Mixpanel": _mixpanel,
    "Amplitude": _amplitude,
}


def installed() -> list[str]:
    """Those that can be measured here."""
    return [name for name in PEERS if name not in _MODULES or find_spec(_MODULES[name]) is not None]
