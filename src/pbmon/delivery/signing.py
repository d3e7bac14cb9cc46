"""The signature of a webhook, as Standard Webhooks describes it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping

_BASE64_SECRET = "whsec_"  # noqa: S105 - how such a secret begins


def signed(key: bytes, message: str, body: bytes) -> Mapping[str, str]:
    """The headers of a request. message: by it a receiver knows what comes a second time."""
    now = str(int(time.time()))
    digest = hmac.new(key, f"{message}.{now}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": message,
        "webhook-timestamp": now,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def signing_key(secret: str) -> bytes:
    """Of `whsec_` and base64, or of any text. Raises ValueError."""
    if not secret.startswith(_BASE64_SECRET):
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(_BASE64_SECRET), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise ValueError(
            "webhook: the secret begins with whsec_ and goes on with what is no base64; "
            "copy it whole, or give a text without whsec_"
        )
    return key
