"""Four workers of one server: whichever of them the errors meet, and whoever of them dies."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

import pytest

from pbmon.store import schema
from pbmon.store.access import open_engine, open_notifications
from tests.delivery.alerts.receivers import Receiver
from tests.delivery.vendors import Answer
from tests.fresh import environment
from tests.stack.process import HOST, Server, wait_until
from tests.stack.web import get_json, status
from tests.store.conftest import new_database

BURST, SPREAD = "ab" * 16, "cd" * 16
_PATIENCE_S = 60


class Shop(Server):
    name = "shop"
    port_names = ("http",)

    def __init__(self, store, receiver, window, lease_s=60):
        super().__init__()
        self.store, self.receiver, self.window, self.lease_s = store, receiver, window, lease_s

    @property
    def url(self):
        return f"http://{HOST}:{self.ports['http']}"

    def command(self):
        (self.home / "pbmon.toml").write_text(
            f'[alerts]\nwindow = "{self.window}"\nresolve = "1s"\n'
            f'[alerts.sinks.team]\nurl = "{self.receiver.url}"\n'
        )
        return [
            sys.executable, "-m", "uvicorn", "tests.worker.failing_app:app", "--workers", "4",
            "--port", str(self.ports["http"]), "--host", HOST, "--log-level", "warning",
        ]  # fmt: skip

    def environment(self):
        return environment(
            PBMON_STATE_DIR=str(self.home / "state"), PBMON_SERVICE_NAME="shop",
            PBMON_CONFIG=str(self.home / "pbmon.toml"), PBMON_CONSENT="opt-out",
            PBMON_STORE_URL=self.store or f"sqlite:///{self.home}/store.sqlite3",
            LEASE_S=str(self.lease_s),
        )  # fmt: skip

    def is_ready(self):
        return status(self.url) == 200

    def fail(self, key, ago_s=0.0):
        """By whichever worker; one that dies just now is asked no more."""
        answer = {}

        def ask():
            with contextlib.suppress(OSError):
                answer.update(get_json(f"{self.url}/fail", {"key": key, "ago": str(ago_s)}))
            return bool(answer)

        wait_until(ask, "an answer", _PATIENCE_S)
        return answer["pid"]

    def leader(self):
        found = []

        def ask():
            with contextlib.suppress(OSError):
                answer = get_json(self.url)
                if answer["leads"]:
                    found.append(answer["pid"])
            return bool(found)

        wait_until(ask, "a leader", _PATIENCE_S)
        return found[0]


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request):
    if request.param == "sqlite":
        return None
    url = new_database(request.getfixturevalue("stack_postgres").url)
    made = open_engine(url)
    schema.upgrade(made)
    made.dispose()
    return url


@pytest.mark.server
@pytest.mark.faults
def test_one_alert_and_one_end_whoever_fails_and_dies(store):
    """Eleven errors in five minutes, and eleven others in fifty; the leader is killed in the
    middle, and the sink is down until both are stored."""
    with Receiver(*[Answer(503)] * 1000) as receiver, Shop(store, receiver, "5m") as shop:
        pids = {shop.fail(SPREAD, 300 * n) for n in range(11)}
        pids |= {shop.fail(BURST, 25 * n) for n in range(5)}
        os.kill(shop.leader(), signal.SIGKILL)
        pids |= {shop.fail(BURST, 125 + 25 * n) for n in range(6)}
        wait_until(lambda: len(receiver.requests) >= 2, "attempts", _PATIENCE_S)
        receiver.faults.clear()
        wait_until(lambda: receiver.states, "the alert", _PATIENCE_S)
        shop.stop()
        book = open_notifications(store or f"sqlite:///{shop.home}/store.sqlite3", 0)
        state = book.status()
        book.close()
    assert len(pids) > 1
    assert receiver.states == ["firing"]
    assert list(receiver.keys.values()) == [1]
    assert [alert.errors for alert in state.open] == [11]
    assert [(alert.error_type, alert.place) for alert in state.open] == [
        ("shop.PaymentError", "shop/pay.py:pay")
    ]
    assert state.recent == state.waiting == state.dead == []


@pytest.mark.server
@pytest.mark.faults
def test_it_is_over_once(store):
    with Receiver() as receiver, Shop(store, receiver, "1s") as shop:
        for _ in range(11):
            assert status(f"{shop.url}/raise") == 500
        wait_until(lambda: len(receiver.states) >= 2, "its end", _PATIENCE_S)
        shop.stop()
    assert receiver.states == ["firing", "resolved"]
    assert set(receiver.keys.values()) == {1}
    first, last = receiver.bodies
    assert first["error"]["type"] == "tests.worker.failing_app.PaymentError"
    assert first["error"]["place"].endswith("app")
    assert last["errors"] == 11
    assert b"hunter2" not in b"".join(request.body for request in receiver.requests)
