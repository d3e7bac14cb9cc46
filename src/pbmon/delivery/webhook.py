"""Any URL: a batch of CloudEvents 1.0, or a plain JSON array, signed by Standard Webhooks."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Mapping, Sequence

from pbmon.delivery.courier import Courier, Limits, to_json
from pbmon.delivery.events import Event
from pbmon.delivery.forgetting import Forgetter
from pbmon.delivery.signing import signed, signing_key
from pbmon.moments import rfc3339
from pbmon.outbound import TIMEOUT_S, Answer

MAX_EVENTS = 100
MAX_BYTES = 512 * 1024

DELETION = "pbmon.user.deleted"
"""Name of the event that says that its person is to be deleted."""

_NAMESPACE = uuid.UUID("0f6f8f0e-6f0e-5d0c-9c5e-7a3b1e0d4c11")


class Webhook(Courier):
    """source: who speaks, such as `pbmon/shop`; the CloudEvents attribute of that name.

    secret: signs each request; `whsec_` and base64, or any text. plain: an array of `event`,
    `userId`, `sessionId`, `properties`, `timestamp` and `id` instead of CloudEvents. max_events,
    max_bytes: of one request. Raises ValueError for what can't be used.
    """

    name = "webhook"

    def __init__(
        self,
        url: str,
        *,
        source: str,
        secret: str = "",
        plain: bool = False,
        max_events: int = MAX_EVENTS,
        max_bytes: int = MAX_BYTES,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        super().__init__(url, timeout_s=timeout_s)
        if not source:
            raise ValueError("webhook: source is empty; name who sends, such as pbmon/shop")
        self.limits = Limits(max_events, max_bytes)
        self.content_type = (
            "application/json" if plain else "application/cloudevents-batch+json; charset=utf-8"
        )
        self._source = source
        self._plain = plain
        self._key = signing_key(secret)
        self.forgetter = Forgetter(
            self.name,
            url,
            most=max_events,
            form=lambda subjects: {"data": self._deletion(subjects)},
            is_receipt=lambda answer: True,
            headers={"Content-Type": self.content_type},
            sign=self.headers,
        )

    def encode(self, event: Event) -> bytes:
        return to_json(_plain(event) if self._plain else self._cloud_event(event))

    def is_receipt(self, answer: Answer) -> bool:
        """Nobody says what a webhook has to answer: the status is all."""
        return True

    def headers(self, ids: Sequence[str], body: bytes) -> Mapping[str, str]:
        if not self._key:
            return {}
        # Of the events alone, so that the same ones sent again are the same message.
        message = "pbmon_" + hashlib.sha256("\n".join(ids).encode()).hexdigest()[:32]
        return signed(self._key, message, body)

    def _deletion(self, subjects: Sequence[str]) -> bytes:
        """A batch as of events, of one event for each person. Sent again it has the same ids."""
        now = time.time_ns() // 1000
        return b"[" + b",".join(
            self.encode(
                Event(
                    id=str(uuid.uuid5(_NAMESPACE, subject)), name=DELETION, occurred_at=now,
                    subject=subject, session=None, properties={}, segments={},
                )
            )
            for subject in subjects
        ) + b"]"  # fmt: skip

    def _cloud_event(self, event: Event) -> Mapping[str, object]:
        return {
            "specversion": "1.0",
            "id": event.id,
            "source": self._source,
            "type": event.name,
            "time": rfc3339(event.occurred_at),
            **({} if event.subject is None else {"subject": event.subject}),
            "datacontenttype": "application/json",
            "data": {
                "properties": dict(event.properties),
                "segments": dict(event.segments),
                "session": event.session,
            },
        }


def _plain(event: Event) -> Mapping[str, object]:
    return {
        "id": event.id,
        **({} if event.subject is None else {"userId": event.subject}),
        "sessionId": event.session,
        "event": event.name,
        "properties": dict(event.properties),
        "timestamp": rfc3339(event.occurred_at),
    }
