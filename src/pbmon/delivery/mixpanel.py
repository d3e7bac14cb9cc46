"""Mixpanel's import API: `/import?strict=1`, which names each event it does not take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pbmon.delivery.courier import (
    Courier,
    Limits,
    positions,
    properties,
    to_json,
)
from pbmon.delivery.events import Event
from pbmon.delivery.forgetting import Forgetter
from pbmon.outbound import TIMEOUT_S, Answer, is_remote

URL = "https://api.mixpanel.com"
"""`https://api-eu.mixpanel.com` for a project in the EU, `https://api-in.mixpanel.com` in India."""

DELETION_URL = "https://mixpanel.com"
"""`https://eu.mixpanel.com` for a project in the EU."""

DELETIONS = 1999
"""People of one request."""


class Mixpanel(Courier):
    """token: the project's; or account and secret of a service account, with the project_id.
    deletion_token: OAuth token of the GDPR's API, by which people are deleted, with the project's
    token; deletion_url: where.

    Raises ValueError for what can't be used.
    """

    name = "mixpanel"
    limits = Limits(2000, 2_000_000)
    compressed = True

    def __init__(
        self,
        token: str = "",
        *,
        account: str = "",
        secret: str = "",
        project_id: str = "",
        url: str = URL,
        deletion_token: str = "",
        deletion_url: str = DELETION_URL,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        if bool(token) == bool(account) or not bool(account) == bool(secret) == bool(project_id):
            raise ValueError(
                "mixpanel: give the project's token alone, or account, secret and project_id of "
                "a service account"
            )
        super().__init__(
            f"{url.rstrip('/')}/import",
            query={"strict": "1", **({"project_id": project_id} if project_id else {})},
            timeout_s=timeout_s,
            credentials=(token, "") if token else (account, secret),
        )
        is_remote(f"{self.name}.deletion_url", deletion_url)
        usable = bool(token and deletion_token)
        self.forgetter = Forgetter(
            self.name,
            f"{deletion_url.rstrip('/')}/api/app/data-deletions/v3.0/",
            most=DELETIONS,
            form=lambda subjects: {
                "params": {"token": token},
                "data": to_json({"distinct_ids": list(subjects), "compliance_type": "GDPR"}),
            },
            is_receipt=lambda answer: answer.json().get("status") == "ok",
            missing="" if usable else "set deletion_token, and token, of [destinations.mixpanel]",
            headers={"Authorization": f"Bearer {deletion_token}"},
        )

    def encode(self, event: Event) -> bytes:
        ours = {
            "time": event.occurred_at // 1000,
            "distinct_id": event.subject or "",
            "$insert_id": event.id,
        }
        return to_json({"event": event.name, "properties": {**properties(event), **ours}})

    def is_receipt(self, answer: Answer) -> bool:
        body = answer.json()
        return body.get("code") == 200 and "num_records_imported" in body

    def culprits(self, answer: Answer, ids: Sequence[str]) -> Mapping[int, str]:
        """It has taken the others; sent again they are known by their `$insert_id`."""
        records = answer.json().get("failed_records")
        if not isinstance(records, list):
            return {}
        by_id = {id_: i for i, id_ in enumerate(ids)}
        named = [
            by_id.get(str(record.get("insert_id")), record.get("index"))
            for record in records
            if isinstance(record, dict)
        ]
        return dict.fromkeys(positions(named, len(ids)), f"rejected:{answer.status}")
