"""Segment's HTTP tracking API: `track` messages by `/v1/batch`."""

from __future__ import annotations

from pbmon.delivery.courier import (
    Courier,
    Limits,
    moment,
    properties,
    to_json,
)
from pbmon.delivery.events import Event
from pbmon.outbound import TIMEOUT_S, Answer

URL = "https://api.segment.io"
"""`https://eu1.api.segmentapis.com` for a workspace in the EU."""


class Segment(Courier):
    """write_key: of the source. Raises ValueError for what can't be used."""

    name = "segment"
    # Above 2,500 it answers 200 and takes nothing.
    limits = Limits(2500, 500_000, 32_000)
    around = (b'{"batch":[', b"]}")

    def __init__(self, write_key: str, *, url: str = URL, timeout_s: float = TIMEOUT_S) -> None:
        if not write_key:
            raise ValueError("segment: the write key is empty; it is in the source's API Keys")
        super().__init__(
            f"{url.rstrip('/')}/v1/batch", timeout_s=timeout_s, credentials=(write_key, "")
        )

    def encode(self, event: Event) -> bytes:
        # One of the two is demanded. An event without either person or session stands alone.
        who = (
            {"anonymousId": event.session or event.id}
            if event.subject is None
            else {"userId": event.subject}
        )
        return to_json(
            {
                "type": "track",
                "messageId": event.id,
                **who,
                "event": event.name,
                "timestamp": moment(event.occurred_at, "milliseconds"),
                "properties": properties(event),
            }
        )

    def is_receipt(self, answer: Answer) -> bool:
        return answer.json().get("success") is True
