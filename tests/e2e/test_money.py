"""Money under the launcher with two uvicorn workers, while the one that leads is killed: what the
application's database has committed, what the store has booked and what Prometheus says are one.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import httpx
import psycopg2
import pytest

from examples.pocketbook import business
from examples.pocketbook.books import Amounts, Money
from examples.pocketbook.money import to_major
from examples.pocketbook.server import environment, run_module
from pbmon import catalog
from tests.e2e.launch import launched
from tests.e2e.test_main_job import CONFIG
from tests.stack.process import wait_until
from tests.store.conftest import new_database

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        not Path("/proc/locks").exists(), reason="finds the leader by Linux's /proc"
    ),
]
AT_ONCE = 4
MORE = 20
"""Sales before the kill, and after the next leader has begun."""
MERCHANT = "Under fire"
CURRENCIES = (("USD", "12.51"), ("EUR", "0.37"), ("JPY", "1203"), ("KWD", "1.235"))
PATIENCE_S = 60.0


def leader(lock: Path) -> int | None:
    """The process that holds it."""
    if not lock.exists():
        return None
    found = re.search(
        rf"FLOCK +ADVISORY +WRITE (\d+) [0-9a-f:]+:{lock.stat().st_ino} ",
        Path("/proc/locks").read_text(encoding="ascii"),
    )
    return int(found[1]) if found else None


class Customers:
    """Several at once, who buy until it is over; every third one gets a part back. An answer that
    does not come is no reason to buy again."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._numbers = itertools.count()
        self.answered: list[str] = []
        self.lost = 0
        self.over = threading.Event()

    def are_welcome(self) -> bool:
        try:
            return httpx.get(f"{self._url}/healthz", timeout=PATIENCE_S).status_code == 200
        except httpx.TransportError:
            return False

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=PATIENCE_S) as client:
            while not self.over.is_set():
                try:
                    self._buy(client, next(self._numbers))
                except httpx.TransportError:
                    self.lost += 1  # with the worker that is killed

    def buy_more(self) -> None:
        wanted = len(self.answered) + MORE
        wait_until(lambda: len(self.answered) >= wanted, f"{MORE} more sales", PATIENCE_S)

    def _buy(self, client: httpx.Client, number: int) -> None:
        currency, amount = CURRENCIES[number % len(CURRENCIES)]
        sale = {
            "user_id": number % 48 + 1, "amount": amount, "currency": currency,
            "merchant": MERCHANT, "category": "travel",
        }  # fmt: skip
        made = client.post("/api/transactions", json=sale)
        assert made.status_code == 201, made.text
        self.answered.append(made.json()["id"])
        if number % 3 == 0:
            part = {"amount": "1" if currency == "JPY" else "0.11"}
            path = f"/api/transactions/{self.answered[-1]}/refunds"
            assert client.post(path, json=part).status_code == 201


def committed(url: str) -> list[tuple[str, str, Money, Money | None]]:
    """What the application's own database has: id, currency, charge, and what went back of it."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, currency, amount_minor, returned_minor FROM transactions"
            " WHERE merchant = %s", (MERCHANT,),
        )  # fmt: skip
        found = []
        for id_, currency, minor, returned_minor in cursor.fetchall():
            charge = Money("charge", currency, to_major(minor, currency))
            back = to_major(returned_minor, currency)
            refund = Money("refund", currency, back, charge=charge.amount) if back else None
            found.append((id_, currency, charge, refund))
    return found


@pytest.fixture
def variables(tmp_path, stack_postgres, stack_prometheus, stack_jaeger, stack_collector
              ) -> Iterator[dict[str, str]]:  # fmt: skip
    collector = stack_collector(
        CONFIG,
        {
            "PBMON_PROMETHEUS_OTLP_ENDPOINT": stack_prometheus.otlp_endpoint,
            "PBMON_TEMPO_OTLP_ENDPOINT": stack_jaeger.otlp_grpc_endpoint,
        },
    )
    url = new_database(stack_postgres.url)
    yield environment(collector.otlp_endpoint, url, tmp_path / "state") | {
        "OTEL_SERVICE_NAME": "e2e-money",
        "PBMON_SERVICE_NAME": "e2e-money",
    }
    collector.close()


def test_revenue_is_what_was_committed_though_the_leader_is_killed(
    tmp_path, variables, stack_prometheus
):
    run_module(variables, "pbmon.cli", "store", "upgrade")
    lock = tmp_path / "state" / "store" / "e2e-money.sqlite3.leader"
    with launched(
        "examples.pocketbook.app:app", tmp_path / "app.log", variables, options=("--workers", "2")
    ) as app:
        customers = Customers(app.url)
        wait_until(customers.are_welcome, "a worker that listens", PATIENCE_S)
        with ThreadPoolExecutor(AT_ONCE) as together:
            buying = [together.submit(customers.run) for _ in range(AT_ONCE)]
            try:
                customers.buy_more()
                wait_until(lambda: leader(lock) is not None, "a leader", PATIENCE_S)
                killed = leader(lock)
                os.kill(killed, signal.SIGKILL)
                wait_until(lambda: leader(lock) not in (None, killed), "another one", PATIENCE_S)
                customers.buy_more()
            finally:
                customers.over.set()
            for each in buying:
                each.result()
        app.stop()
    # What the workers had no time for: the next process of the service.
    run_module(variables, "pbmon.cli", "worker", "--once")

    charges = committed(variables["DATABASE_URL"])
    assert len(customers.answered) >= 2 * MORE
    # Of those without an answer some were committed.
    assert len(customers.answered) <= len(charges) <= len(customers.answered) + customers.lost
    assert {id_ for id_, *_ in charges} >= set(customers.answered)
    truth: dict[str, Amounts] = {}
    base = Amounts()
    for _, currency, charge, refund in charges:
        for money in filter(None, (charge, refund)):
            truth.setdefault(currency, Amounts()).add(money.kind, money.amount)
            base.add(money.kind, money.in_base)

    said = business.from_json(run_module(variables, "examples.pocketbook.business"))
    assert said.by_currency == truth
    assert (said.currency, said.revenue, said.unconverted, said.held) == ("EUR", base, 0, 0)

    def value(metric: catalog.Metric, **labels: str) -> Decimal | None:
        matchers = {"service_name": "e2e-money", **labels}
        selector = ",".join(f'{name}="{text}"' for name, text in matchers.items())
        found = stack_prometheus.query(
            f"last_over_time({metric.prometheus_name}{{{selector}}}[10m])"
        )
        # The store's own series, whichever process said it.
        assert len(found) <= 1
        return Decimal(repr(found[0][1])).quantize(Decimal("0.01")) if found else None

    wait_until(lambda: value(catalog.REVENUE) == base.gross, f"{base.gross}", PATIENCE_S)
    assert value(catalog.REFUNDS) == base.returned
    completed = {"pbmon_transaction_kind": "charge", "pbmon_transaction_status": "completed"}
    assert value(catalog.TRANSACTIONS, **completed) == len(charges)
    name = catalog.REVENUE.prometheus_name
    fallen = stack_prometheus.query(f'resets({name}{{service_name="e2e-money"}}[10m])')
    assert [count for _, count in fallen] == [0]
