"""Segment's HTTP tracking API: `track` messages by `/v1/batch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pbmon.delivery.courier import (
    Courier,
    Limits,
    properties,
    to_json,
)
from pbmon.delivery.events import Event
from pbmon.delivery.forgetting import Forgetter
from pbmon.moments import rfc3339
from pbmon.outbound import TIMEOUT_S, Answer, is_remote

URL = "https://api.segment.io"
"""`https://eu1.api.segmentapis.com` for a workspace in the EU."""

DELETION_URL = "https://api.segmentapis.com"
"""Likewise `https://eu1.api.segmentapis.com`."""

DELETIONS = 1000
"""People of one regulation."""


class Segment(Courier):
    """write_key: of the source. deletion_token: of the workspace's public API, by which people are
    deleted; deletion_url: of that API. Raises ValueError for what can't be used."""

    name = "segment"
    # Above 2,500 it answers 200 and takes nothing.
    limits = Limits(2500, 500_000, 32_000)
    around = (b'{"batch":[', b"]}")

    def __init__(
        self,
        write_key: str,
        *,
        url: str = URL,
        deletion_token: str = "",
        deletion_url: str = DELETION_URL,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        if not write_key:
            raise ValueError("segment: the write key is empty; it is in the source's API Keys")
        super().__init__(
            f"{url.rstrip('/')}/v1/batch", timeout_s=timeout_s, credentials=(write_key, "")
        )
        is_remote(f"{self.name}.deletion_url", deletion_url)
        self.forgetter = Forgetter(
            self.name,
            f"{deletion_url.rstrip('/')}/regulations",
            most=DELETIONS,
            form=_regulation,
            is_receipt=lambda answer: bool(_regulation_id(answer)),
            missing="" if deletion_token else "set deletion_token of [destinations.segment]",
            headers={"Authorization": f"Bearer {deletion_token}"},
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
                "timestamp": rfc3339(event.occurred_at, "milliseconds"),
                "properties": properties(event),
            }
        )

    def is_receipt(self, answer: Answer) -> bool:
        return answer.json().get("success") is True


def _regulation(subjects: Sequence[str]) -> Mapping[str, Any]:
    """Deleted, and nothing more is taken of them."""
    body = {
        "regulationType": "SUPPRESS_WITH_DELETE",
        "subjectType": "USER_ID",
        "subjectIds": list(subjects),
    }
    return {"data": to_json(body)}


def _regulation_id(answer: Answer) -> Any:
    data = answer.json().get("data")
    return data.get("regulateId") if isinstance(data, dict) else None
