"""Amplitude's batch API: `/batch`, which takes all events of a request or none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pbmon.delivery.courier import (
    Blamed,
    Courier,
    Limits,
    Verdict,
    again,
    positions,
    properties,
    to_json,
)
from pbmon.delivery.events import Event
from pbmon.delivery.forgetting import Forgetter
from pbmon.outbound import TIMEOUT_S, Answer, is_remote

URL = "https://api2.amplitude.com"
"""`https://api.eu.amplitude.com` for a project in the EU."""

DELETION_URL = "https://amplitude.com"
"""`https://analytics.eu.amplitude.com` for a project in the EU."""

DELETIONS = 100
"""People of one request."""

_SHORTEST_ID = 5
_BY_FIELD = (
    ("missing_fields:400", "events_with_missing_fields"),
    ("invalid_fields:400", "events_with_invalid_fields"),
    ("invalid_ids:400", "events_with_invalid_id_lengths"),
)


class Amplitude(Courier):
    """api_key: the project's. secret_key: likewise, by which people are deleted; deletion_url:
    where. Raises ValueError for what can't be used."""

    name = "amplitude"
    limits = Limits(1000, 20_000_000)

    def __init__(
        self,
        api_key: str,
        *,
        url: str = URL,
        secret_key: str = "",
        deletion_url: str = DELETION_URL,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        if not api_key:
            raise ValueError("amplitude: the API key is empty; it is in the project's settings")
        super().__init__(f"{url.rstrip('/')}/batch", timeout_s=timeout_s)
        is_remote(f"{self.name}.deletion_url", deletion_url)
        self.forgetter = Forgetter(
            self.name,
            f"{deletion_url.rstrip('/')}/api/2/deletions/users",
            most=DELETIONS,
            form=lambda subjects: {
                "data": to_json(_deletion(subjects)),
                "auth": (api_key.encode(), secret_key.encode()),
            },
            is_receipt=_is_job,
            missing="" if secret_key else "set secret_key of [destinations.amplitude]",
        )
        self.around = (b'{"api_key":' + to_json(api_key) + b',"events":[', b"]}")

    def encode(self, event: Event) -> bytes:
        return to_json(
            {
                "insert_id": event.id,
                **_who(event),
                "event_type": event.name,
                "time": event.occurred_at // 1000,
                "event_properties": properties(event),
            }
        )

    def is_receipt(self, answer: Answer) -> bool:
        body = answer.json()
        return body.get("code") == 200 and "events_ingested" in body

    def judge(self, answer: Answer, ids: Sequence[str]) -> Verdict:
        verdict = super().judge(answer, ids)
        if answer.status != 400 or isinstance(verdict, Blamed):
            return verdict
        body = answer.json()
        # The key is wrong, which it says with the status of wrong events.
        error = str(body.get("error")).lower()
        if body.get("missing_field") == "api_key" or error.startswith("invalid api key"):
            return again(answer, "; check the API key for amplitude")
        if body.get("throttled_events"):
            return again(answer, "; too many events of one user or device")
        return verdict

    def culprits(self, answer: Answer, ids: Sequence[str]) -> Mapping[int, str]:
        body = answer.json()
        found: dict[int, str] = {}
        for reason, key in _BY_FIELD:
            fields = body.get(key)
            for indexes in fields.values() if isinstance(fields, dict) else ():
                found.update(dict.fromkeys(positions(indexes, len(ids)), reason))
        silenced = positions(body.get("silenced_events"), len(ids))
        return {**found, **dict.fromkeys(silenced, "silenced:400")}


def _deletion(subjects: Sequence[str]) -> Mapping[str, object]:
    # Of ids that it has never seen it would else refuse all.
    return {"user_ids": list(subjects), "requester": "pbmon", "ignore_invalid_id": "True"}


def _is_job(answer: Answer) -> bool:
    """One job, or a list of them, by days."""
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return False
    jobs = found if isinstance(found, list) else [found]
    return all(isinstance(job, dict) and "day" in job for job in jobs)


def _who(event: Event) -> Mapping[str, str]:
    """One of the two is demanded, and a shorter one is taken for none. An event without either
    person or session stands alone."""
    if event.subject is not None and len(event.subject) >= _SHORTEST_ID:
        return {"user_id": event.subject}
    session = event.session or ""
    return {"device_id": session if len(session) >= _SHORTEST_ID else event.id}
