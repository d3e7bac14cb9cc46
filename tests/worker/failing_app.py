"""An application that fails as it is asked to, served by uvicorn with several workers; alerts are
looked at more often than outside of tests. /raise fails; /fail puts an error of another time into
the journal."""

from __future__ import annotations

import json
import os
import time
from urllib.parse import parse_qs

import pbmon
from pbmon import wiring
from pbmon.spool import entries
from pbmon.spool.entries import Failure
from pbmon.worker import alerts, leader

alerts.EVERY_S = leader._EVERY_S = 0.25
alerts._LOOK_S = 0.1
alerts.LEASE_S = float(os.environ.get("LEASE_S", "60"))
pbmon.configure()


class PaymentError(Exception):
    pass


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    asked = {key: values[0] for key, values in parse_qs(scope["query_string"].decode()).items()}
    if scope["path"] == "/raise":
        raise PaymentError("card of hunter2")
    if scope["path"] == "/fail":
        _fail(asked["key"], float(asked.get("ago", 0)))
    leads = wiring._worker.leader is not None and wiring._worker.leader.is_leading
    body = json.dumps({"pid": os.getpid(), "leads": leads}).encode()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _fail(key, ago_s):
    at = time.time_ns() // 1000 - int(ago_s * 1e6)
    entry = Failure(
        at, key, "shop.PaymentError", "shop/pay.py:pay", 1, False, "/pay", "1.2", None, None, None,
        None,
    )  # fmt: skip
    assert wiring._worker.intake.put(entries.encode(entry)) == ""
