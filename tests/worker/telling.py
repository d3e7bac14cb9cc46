"""A process of its own that tells of alerts while it leads, to be killed:

    python -m tests.worker.telling STORE RECEIVER

The store's clock goes twenty times as fast as any other, so that a burst is soon over.
"""

from __future__ import annotations

import sys

from pbmon import settings
from pbmon.alerting import choices
from pbmon.store import schema
from pbmon.worker import alerts, leader
from pbmon.worker.alerts import Alerting
from pbmon.worker.leader import Leader
from tests.store.test_writer import NOON

SPEED = 20


def clock(_connection=None):
    return NOON + (schema.now() - NOON) * SPEED


def main(store: str, receiver: str) -> None:
    alerts.EVERY_S = leader._EVERY_S = 0.1
    alerts._LOOK_S, alerts.LEASE_S = 0.05, 1.0 * SPEED
    chosen = choices.parse(
        {"window": 1, "resolve": 1, "cooldown": 0, "sinks": {"team": {"url": receiver}}}
    )
    made = Leader(
        store, settings.Settings(), [],
        alerting=Alerting(store, chosen, service="shop", clock=clock),
    )  # fmt: skip
    made.start()
    was = False
    while True:
        if made.is_leading and not was:
            was = True
            print("leads", flush=True)
        made._stopped or made._thread.join(0.02)


if __name__ == "__main__":
    main(*sys.argv[1:])
