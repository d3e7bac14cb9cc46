"""`pbmon reconcile` with a real Prometheus, and with the application's table on both engines."""

from __future__ import annotations

import datetime as dt
import json
import os
import urllib.request
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.resources import Resource

from pbmon import catalog, cli
from pbmon.reports.prometheus import token_of
from pbmon.runtime import Figure, Reading
from pbmon.store import lines, schema, tables
from pbmon.store.access import open_engine
from pbmon.store.totals import Totals
from pbmon.telemetry.shared import Shared
from tests.stack.plugin import started
from tests.stack.process import HOST, unused_port
from tests.stack.servers import Prometheus, wait_until
from tests.store.test_reconciliation import Database, database, line, pay, postgresql, server

__all__ = ["database", "postgresql", "server"]

US = 1_000_000
HOUR = 3600 * US
DAY = 24 * HOUR
TODAY = dt.datetime.now(dt.timezone.utc).date()
DAYS = [TODAY - dt.timedelta(days=n) for n in (4, 3, 2, 1)]
START = schema.micros(DAYS[0])
MADE_AT = START + HOUR
EXPORT_S = 600
STORES = ("whole", "holed")

# (hour, kind, amount in cents); the same for each day but for what is late and what is in the hole.
SALES = [(2, "charge", 1000), (9, "charge", 2550), (15, "refund", 300), (21, "adjustment", 45)]
ROWS = [
    line(f"{day}-{hour}", kind, amount, "USD", START + day * DAY + hour * HOUR + 7)
    for day in range(4)
    for hour, kind, amount in SALES
]
ROWS.append(line("late", "charge", 111, "USD", START + DAY - 60 * US))
ROWS.append(line("in the hole", "charge", 7000, "USD", START + 3 * DAY - HOUR))


@pytest.fixture(scope="module")
def prometheus() -> Iterator[Prometheus]:
    """With the readings of two stores, one of which has a hole of two hours before midnight: as
    leaders send them, every ten minutes since the store was made."""
    services = {"whole": ("shop", "worker"), "holed": ("shop",)}
    leaders = {
        store_id: [Shared(Resource({"service.name": name})) for name in names]
        for store_id, names in services.items()
    }
    with started(Prometheus()) as running:
        # In the order of their times, as nothing is taken that is older than half an hour.
        for at in range(MADE_AT, START + 4 * DAY, EXPORT_S * US):
            for store_id, of_it in leaders.items():
                # Services that share a store lead in turn, for eleven hours each.
                leader = of_it[(at - MADE_AT) // (11 * HOUR) % len(of_it)]
                if store_id == "whole" or not START + 3 * DAY - 2 * HOUR <= at < START + 3 * DAY:
                    leader.hear(Reading(store_id, MADE_AT, at, figures(at)))
                    send(running, leader.take().payload)
        for store_id in STORES:
            query = f'last_over_time(pbmon_revenue_total{{instance="{store_id}"}}[1h])'
            newest = (START + 4 * DAY) / 1e6 - 1
            wait_until(lambda q=query: running.query(q, newest), "the newest sample", 30)
        yield running


def send(prometheus, payload):
    request = urllib.request.Request(
        f"{prometheus.otlp_endpoint}/v1/metrics",
        data=payload,
        headers={"Content-Type": "application/x-protobuf"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


def figures(at):
    """What the ledger's metrics say at a moment."""
    counted = [row for row in ROWS if row.counted_at < at]
    revenue, refunds = (
        sum(abs(row.base_minor) for row in counted if row.sign == sign) / 100 for sign in (1, -1)
    )
    currency = {catalog.CURRENCY.name: "USD"}
    kinds = [
        Figure(
            catalog.TRANSACTIONS,
            sum(row.kind == kind for row in counted),
            {catalog.TRANSACTION_KIND.name: kind, catalog.TRANSACTION_STATUS.name: "completed"},
        )
        for kind in catalog.TRANSACTION_KIND.values
    ]
    pending = {catalog.TRANSACTION_KIND.name: "charge", catalog.TRANSACTION_STATUS.name: "pending"}
    return (
        Figure(catalog.REVENUE, revenue, currency), Figure(catalog.REFUNDS, refunds, currency),
        *kinds, Figure(catalog.TRANSACTIONS, 10 * len(counted), pending),
    )  # fmt: skip


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Writes the settings of the command, whose store has the rows."""
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    monkeypatch.setenv("PBMON_CONFIG", str(tmp_path / "pbmon.toml"))
    monkeypatch.setenv("PBMON_STORE_URL", url)
    monkeypatch.setenv("PBMON_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", str(EXPORT_S * 1000))

    def write(text="", store_id="whole", rows=ROWS):
        (tmp_path / "pbmon.toml").write_text(text, encoding="utf-8")
        engine = open_engine(url)
        schema.upgrade(engine)
        known = {"store_id": store_id, "made_at": str(MADE_AT)}
        with engine.begin() as connection:
            for key, value in known.items():
                of_key = tables.meta.c.key == key
                connection.execute(tables.meta.update().where(of_key).values(value=value))
            lines.add(connection, rows)
        engine.dispose()

    return write


def told(capsys, *arguments, status=0):
    found = cli.main(["reconcile", *arguments])
    said = capsys.readouterr()
    assert found == status, said
    return said


def of(count, start=0):
    """Arguments for so many of the days."""
    return ("--from", str(DAYS[start]), "--to", str(DAYS[start + count - 1]))


@pytest.mark.server
def test_what_is_late_by_one_export_is_no_difference(settings, prometheus, capsys):
    settings(f'prometheus_url = "{prometheus.url}"\n')
    d = [day.isoformat() for day in DAYS]
    assert told(capsys, *of(2)).out.splitlines() == [
        f"Store and Prometheus {prometheus.url}, by the time counted",
        "day         figure            store  Prometheus  difference",
        f"{d[0]}  revenue       37.06 USD   35.95 USD   -1.11 USD  late by one export",
        f"{d[0]}  refunds        3.00 USD    3.00 USD    0.00 USD  agrees",
        f"{d[0]}  transactions          5           4          -1  late by one export",
        f"{d[1]}  revenue       35.95 USD   37.06 USD    1.11 USD  late by one export",
        f"{d[1]}  refunds        3.00 USD    3.00 USD    0.00 USD  agrees",
        f"{d[1]}  transactions          4           5           1  late by one export",
        "0 of 6 figures differ",
    ]


@pytest.mark.server
def test_a_hole_is_named_with_what_is_in_it(settings, prometheus, capsys):
    settings(f'prometheus_url = "{prometheus.url}"\n', store_id="holed")
    d = [day.isoformat() for day in DAYS]
    lines_ = told(capsys, "--days", "2", status=1).out.splitlines()
    assert lines_[2:] == [
        f"{d[2]}  revenue       105.95 USD   35.95 USD  -70.00 USD  in Prometheus on a later day",
        f"{d[2]}  refunds         3.00 USD    3.00 USD    0.00 USD  agrees",
        f"{d[2]}  transactions           5           4          -1  in Prometheus on a later day",
        (
            f"{d[3]}  revenue        35.95 USD  105.95 USD   70.00 USD"
            "  of a day before, which Prometheus got late"
        ),
        f"{d[3]}  refunds         3.00 USD    3.00 USD    0.00 USD  agrees",
        (
            f"{d[3]}  transactions           4           5           1"
            "  of a day before, which Prometheus got late"
        ),
        f"{d[2]}: 132 of about 144 samples",
        "4 of 6 figures differ",
    ]


@pytest.mark.server
def test_days_of_which_prometheus_knows_nothing(settings, prometheus, capsys):
    settings(f'prometheus_url = "{prometheus.url}"\n', store_id="another")
    found = json.loads(told(capsys, *of(1), "--json", status=1).out)["prometheus"]
    assert [(row["finding"], row["different"]) for row in found["rows"]] == [
        ("no_samples", True)
    ] * 3
    assert found["notes"] == [f"{DAYS[0]}: 0 of about 138 samples"]
    before = str(DAYS[0] - dt.timedelta(days=1))
    found = json.loads(told(capsys, "--from", before, "--to", before, "--json", status=2).out)
    assert {row["finding"] for row in found["prometheus"]["rows"]} == {"before_store"}


@pytest.mark.server
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata"])
def test_in_the_days_of_another_zone(settings, prometheus, capsys, zone):
    settings(f'prometheus_url = "{prometheus.url}"\ntimezone = "{zone}"\n')
    found = json.loads(told(capsys, *of(2, 1), "--json").out)["prometheus"]["rows"]
    assert {row["finding"] for row in found} == {"equal"}
    assert sum(row["store"] for row in found if row["figure"] == "transactions") > 8


@pytest.mark.server
def test_as_json(settings, prometheus, capsys):
    settings(f'prometheus_url = "{prometheus.url}"\ntimezone = "UTC"\n')
    found = json.loads(told(capsys, *of(1, 2), "--json").out)
    rows = found.pop("prometheus")
    assert rows["notes"] == []
    assert rows["rows"][0] == {
        "day": str(DAYS[2]), "figure": "revenue", "currency": "USD", "exponent": 2,
        "store": 10595, "other": 10595, "difference": 0, "finding": "equal", "different": False,
    }  # fmt: skip
    assert len(rows["rows"]) == 3
    assert found == {
        "from": str(DAYS[2]), "to": str(DAYS[2]), "timezone": "UTC", "store": "whole", "faults": [],
    }  # fmt: skip


QUERIES = {
    "sqlite": "SELECT date(paid_at) AS day, currency, printf('%.2f', sum(amount)) AS amount, "
    "count(*) AS count FROM payments WHERE paid_at >= :start AND paid_at < :end GROUP BY 1, 2",
    "postgresql": "SELECT date(paid_at) AS day, currency, sum(amount) AS amount, "
    "count(*) AS count FROM payments WHERE paid_at >= :start AND paid_at < :end GROUP BY 1, 2",
}


def table(database):
    query = QUERIES[database.url.partition(":")[0]]
    return f'[reconcile]\nurl = "{database.url}"\nquery = "{query}"\n'


def moment(row, later_s=0):
    at = dt.datetime.fromtimestamp(row.occurred_at // US + later_s, dt.timezone.utc)
    return at.strftime("%Y-%m-%d %H:%M:%S")


def payments(**more):
    return [
        (moment(row, more.get(row.key, 0)), row.currency, row.amount_minor / 100)
        for row in ROWS
        if row.kind == "charge"
    ]


def shown(url):
    scheme, _, place = url.partition("://")
    return f"{scheme}://REDACTED@{place.rpartition('@')[2]}" if "@" in place else url


def test_the_applications_table(settings, database, capsys):
    pay(database, *payments(), (f"{DAYS[1]} 12:00:00", "EUR", 9.5))
    book(settings, table(database))
    d = [day.isoformat() for day in DAYS]
    assert told(capsys, *of(2), status=1).out.splitlines() == [
        f"Store and a query at {shown(database.url)}, by the time occurred",
        "day         figure              store  application  difference",
        f"{d[0]}  charges in USD  36.61 USD    36.61 USD    0.00 USD  agrees",
        f"{d[0]}  number in USD           3            3           0  agrees",
        f"{d[1]}  charges in EUR   0.00 EUR     9.50 EUR    9.50 EUR  missing in the store",
        f"{d[1]}  number in EUR           0            1           1  missing in the store",
        f"{d[1]}  charges in USD  35.50 USD    35.50 USD    0.00 USD  agrees",
        f"{d[1]}  number in USD           2            2           0  agrees",
        "2 of 6 figures differ",
    ]
    found = json.loads(told(capsys, *of(1, 2), "--json").out)["application"]
    assert [row["store"] for row in found["rows"]] == [10550, 3]


def book(settings, text, **options):
    """With totals, as the ledger keeps them: what is asked by the time occurred is in them."""
    settings(text, rows=(), **options)
    engine = open_engine(os.environ["PBMON_STORE_URL"])
    totals = Totals()
    for row in ROWS:
        totals.count(row)
    with engine.begin() as connection:
        lines.add(connection, ROWS)
        totals.store(connection, tables.insert_of(engine))
    engine.dispose()


def test_one_that_can_t_be_asked_does_not_keep_the_other_from_it(settings, tmp_path, capsys):
    file = Database(f"sqlite:///{tmp_path}/app.db")
    pay(file, *payments())
    away = f"http://app:hunter2@{HOST}:{unused_port()}"
    book(settings, f'prometheus_url = "{away}"\n' + table(file))
    said = told(capsys, *of(2), status=2)
    assert said.out.splitlines()[-1] == "0 of 4 figures differ"
    (fault,) = said.err.splitlines()
    assert fault.startswith(f"pbmon reconcile: http://REDACTED@{HOST}:")
    assert "connection refused; see that it runs, and the setting prometheus_url" in fault


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "set prometheus_url or [reconcile]: there is nothing to compare the store with"),
        ('prometheus_url = "http://prometheus:9090"',
         ("prometheus_url: http://prometheus:9090 would be used unencrypted; use https, or http to "
         "this machine")),
        ('prometheus_url = "env:NOT_SET"', "prometheus_url is env:NOT_SET, which is not set"),
        ('prometheus_url = "http://127.0.0.1:1"\nprometheus_token = "env:NOT_SET"',
         "prometheus_token is env:NOT_SET, which is not set"),
        ('prometheus_url = "http://127.0.0.1:1"\nprometheus_token = "file:/not/there"',
         "prometheus_token: /not/there can't be read (FileNotFoundError)"),
        ('[reconcile]\nurl = "env:NOT_SET"\nquery = "SELECT :start, :end"',
         "url of [reconcile] is env:NOT_SET, which is not set"),
        ('[reconcile]\nurl = "sqlite:////not/there"\nquery = "SELECT :start, :end"',
         "sqlite:////not/there is a file that is not there; check `url` in [reconcile]"),
        ('[reconcile]\nurl = "x"', "the setting reconcile can't be used"),
    ],
    ids=list("12345678"),
)  # fmt: skip
def test_what_can_t_be_compared_is_2_and_one_line_with_the_remedy(settings, capsys, text, said):
    settings(text)
    assert f"pbmon reconcile: {said}" in told(capsys, status=2).err.splitlines()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--days", "0"), "ask for 1 to 400 days, the first one before the last"),
        (("--days", "401"), "ask for 1 to 400 days"),
        (("--days", "3", "--from", "2026-11-01"), "--days, or --from and --to"),
        (("--to", "2026-11-01"), "--to goes with --from"),
        (("--from", "2026-11-02", "--to", "2026-11-01"), "ask for 1 to 400 days, the first"),
    ],
)
def test_wrong_usage(settings, capsys, arguments, said):
    settings('prometheus_url = "http://127.0.0.1:1"')
    assert said in told(capsys, *arguments, status=2).err


def test_a_store_that_is_not_there_is_not_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PBMON_STORE_URL", f"sqlite:///{tmp_path}/store.sqlite3")
    monkeypatch.setenv("PBMON_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PBMON_PROMETHEUS_URL", "http://127.0.0.1:1")
    assert "store.sqlite3 is made by the first event" in told(capsys, status=2).err
    assert not (tmp_path / "store.sqlite3").exists()


def test_a_token_is_read_from_where_it_is(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("of the file\n", encoding="utf-8")
    monkeypatch.setenv("TOKEN", "of the variable")
    assert token_of(f"file:{tmp_path}/token") == "of the file"
    assert token_of("env:TOKEN") == "of the variable"
    assert token_of(None) is None
