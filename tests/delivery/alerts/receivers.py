"""Loopback receivers of alerts, which remember what came and under which key."""

from __future__ import annotations

import json
from collections import Counter

from tests.delivery.vendors import Answer, Vendor


class Receiver(Vendor):
    """keys: how often each message came. states: firing, resolved, in their order."""

    def __init__(self, *faults, tls=None):
        super().__init__(*faults, tls=tls)
        self.keys = Counter()
        self.states = []
        self.bodies = []

    def take(self, request):
        body = json.loads(request.body)
        self.bodies.append(body)
        self.keys[request.headers.get("idempotency-key")] += 1
        self.states.append(body.get("state") or body.get("event_action"))
        return Answer(202)
