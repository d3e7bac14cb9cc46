"""Every endpoint of Pocketbook, on SQLite and on PostgreSQL."""

from __future__ import annotations

import csv
import io
import time
from decimal import Decimal

import pytest
from starlette.websockets import WebSocketDisconnect

import pbmon
from examples.pocketbook import people, simulation
from pbmon import identity
from tests.examples.apps import new_database, opened, rows

SALE = {
    "user_id": 3,
    "amount": "12.50",
    "currency": "EUR",
    "merchant": "Corner Market",
    "category": "groceries",
}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def url(request, tmp_path_factory):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('app') / 'app.sqlite3'}"
    return new_database(request.getfixturevalue("stack_postgres").url, "pocketbook_app")


@pytest.fixture(scope="module")
def client(url):
    with opened(DATABASE_URL=url) as client:
        yield client


@pytest.fixture
def tracked(monkeypatch, url):
    """Calls of pbmon, each with the number of transactions committed by then."""
    calls = []

    def count():
        return rows(url, "SELECT count(*) FROM transactions")[0][0]

    def revenue(amount, currency, **details):
        calls.append(("revenue", amount, currency, details, count()))

    def money(kind):
        return lambda amount, currency, **ids: calls.append((kind, amount, currency, ids, count()))

    monkeypatch.setattr(pbmon, "track_revenue", revenue)
    for kind in ("refund", "chargeback", "adjustment"):
        monkeypatch.setattr(pbmon, f"track_{kind}", money(kind))
    monkeypatch.setattr(
        pbmon, "track_feature", lambda name, action, **more: calls.append((name, action, more))
    )
    return calls


# --- transactions -------------------------------------------------------------------------------


def test_a_sale_is_kept_to_the_minor_unit_and_told_before_the_commit(client, url, tracked):
    before = rows(url, "SELECT count(*) FROM transactions")[0][0]
    answer = client.post("/api/transactions", json=SALE)
    assert answer.status_code == 201
    made = answer.json()
    assert (made["amount"], made["currency"], made["status"]) == ("12.50", "EUR", "completed")
    stored = rows(url, f"SELECT amount_minor FROM transactions WHERE id = '{made['id']}'")
    assert [row[0] for row in stored] == [1250]
    details = {"transaction_id": made["id"], "status": "completed", "user_id": 3}
    assert tracked == [("revenue", Decimal("12.50"), "EUR", details, before)]


def test_a_sale_without_a_configured_pbmon_is_answered_all_the_same(client):
    assert client.post("/api/transactions", json=SALE).status_code == 201


def test_a_pending_sale_says_so(client, tracked):
    client.post("/api/transactions", json=SALE | {"status": "pending"})
    assert tracked[0][3]["status"] == "pending"


def test_a_sale_can_be_read_again(client):
    made = client.post("/api/transactions", json=SALE | {"amount": "7", "currency": "JPY"}).json()
    read = client.get(f"/api/transactions/{made['id']}")
    assert read.status_code == 200
    assert read.json() == made
    assert made["amount"] == "7"


def test_a_sale_makes_its_user_active(client, url):
    text = "SELECT last_seen FROM users WHERE id = 40"
    before = rows(url, text)
    client.post("/api/transactions", json=SALE | {"user_id": 40})
    assert rows(url, text) > before


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"amount": "-5"}, "pattern"),
        ({"amount": "0"}, "above 0"),
        ({"amount": 12.5}, "valid string"),
        ({"amount": "1.005"}, "EUR has 2 decimal places"),
        ({"amount": "1.5", "currency": "JPY"}, "JPY has 0 decimal places"),
        ({"amount": "999999999999"}, "too large"),
        ({"currency": "XXX"}, "USD"),
        ({"user_id": 4711}, "no such user"),
        ({"user_id": "3"}, "valid integer"),
        ({"user_id": 2**31}, "less than or equal"),
        ({"merchant": ""}, "at least 1"),
        ({"merchant": "a\0b"}, "printable"),
        ({"status": "refunded"}, "pending"),
        ({"surprise": 1}, "not permitted"),
    ],
)
def test_a_wrong_sale_is_422_and_leaves_nothing(client, url, tracked, change, problem):
    before = rows(url, "SELECT count(*) FROM transactions")
    answer = client.post("/api/transactions", json=SALE | change)
    assert answer.status_code == 422
    assert problem in answer.text
    assert rows(url, "SELECT count(*) FROM transactions") == before
    assert tracked == []


def test_a_lone_surrogate_is_422_and_not_repeated(client):
    body = b'{"user_id": 3, "merchant": "\\ud800", "secret": "hunter2"}'
    answer = client.post(
        "/api/transactions", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    assert "hunter2" not in answer.text


def test_pages_follow_each_other_without_gap_or_repetition(client, url):
    seen, offset = [], 0
    while offset is not None:
        page = client.get("/api/transactions", params={"limit": 100, "offset": offset}).json()
        seen += [item["id"] for item in page["items"]]
        offset = page["next_offset"]
    assert len(seen) == len(set(seen)) > 100
    assert set(seen) == {row[0] for row in rows(url, "SELECT id FROM transactions")}


def test_the_newest_come_first(client):
    times = [item["created_at"] for item in client.get("/api/transactions").json()["items"]]
    assert times == sorted(times, reverse=True)
    assert len(times) == 20


def test_transactions_by_currency(client):
    items = client.get("/api/transactions?currency=KWD&limit=100").json()["items"]
    assert {item["currency"] for item in items} == {"KWD"}


def test_search_takes_wildcards_as_they_are_written(client, tracked):
    client.post("/api/transactions", json=SALE | {"merchant": "100% Wool_Shop"})
    names = [i["merchant"] for i in client.get("/api/transactions?q=% wool_").json()["items"]]
    assert set(names) == {"100% Wool_Shop"}
    assert client.get("/api/transactions?q=%25%25").json()["items"] == []
    assert tracked[-1][:2] == ("transaction_search", "completed")


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "offset=-1", "limit=x", "currency=ABC", "q=%00"]
)
def test_a_wrong_page_is_422(client, query):
    assert client.get(f"/api/transactions?{query}").status_code == 422


def test_an_unknown_transaction_is_404_and_a_malformed_id_422(client):
    assert client.get(f"/api/transactions/txn_{0:032x}").status_code == 404
    assert client.get("/api/transactions/1' OR '1'='1").status_code == 422


# --- what goes back -----------------------------------------------------------------------------


def test_a_refund_leaves_the_rest_and_never_more_than_there_is(client, tracked):
    before = client.get("/api/users/31").json()["balances"]
    made = client.post("/api/transactions", json=SALE | {"user_id": 31, "currency": "CHF"}).json()
    path = f"/api/transactions/{made['id']}/refunds"
    given = client.post(path, json={"amount": "2.50"})
    assert given.status_code == 201
    assert given.json() | {"id": ""} == {
        "id": "", "transaction_id": made["id"], "amount": "2.50", "currency": "CHF",
    }  # fmt: skip
    kind, amount, currency, ids, _ = tracked[-1]
    assert (kind, amount, currency) == ("refund", Decimal("2.50"), "CHF")
    assert ids == {"transaction_id": made["id"], "refund_id": given.json()["id"]}
    told = len(tracked)
    assert client.post(path, json={"amount": "10.01"}).status_code == 409
    assert client.post(path, json={"amount": "0.001"}).status_code == 422
    assert len(tracked) == told
    assert client.post(path, json={"amount": "10.00"}).status_code == 201
    left = Decimal(client.get("/api/users/31").json()["balances"]["CHF"])
    assert left == Decimal(before.get("CHF", "0"))


def test_a_chargeback_takes_everything_once(client, tracked):
    made = client.post("/api/transactions", json=SALE).json()
    path = f"/api/transactions/{made['id']}/chargeback"
    taken = client.post(path)
    assert taken.status_code == 201
    ids = {"transaction_id": made["id"], "chargeback_id": taken.json()["id"]}
    assert tracked[-1][:4] == ("chargeback", Decimal("12.50"), "EUR", ids)
    assert client.post(path).status_code == 409


def test_what_is_not_completed_can_t_go_back(client, tracked):
    made = client.post("/api/transactions", json=SALE | {"status": "pending"}).json()
    for path, body in (("refunds", {"amount": "1"}), ("chargeback", None)):
        answer = client.post(f"/api/transactions/{made['id']}/{path}", json=body)
        assert answer.status_code == 409
    none = f"/api/transactions/txn_{0:032x}/refunds"
    assert client.post(none, json={"amount": "1"}).status_code == 404


def test_a_fee_is_told_as_what_it_costs(client, tracked):
    fee = {"statement": "2026-11", "amount": "0.30", "currency": "USD"}
    assert client.post("/api/fees", json=fee).status_code == 204
    assert tracked[-1][:4] == ("adjustment", "-0.30", "USD", {"adjustment_id": "2026-11"})


# --- users --------------------------------------------------------------------------------------


def test_users_by_page(client):
    first = client.get("/api/users?limit=30").json()
    second = client.get("/api/users?limit=30&offset=30").json()
    assert [user["id"] for user in first["items"] + second["items"]] == list(range(1, 49))
    assert (first["next_offset"], second["next_offset"]) == (30, None)
    assert "email" not in first["items"][0]


def test_a_user_has_balances_of_completed_transactions(client):
    before = Decimal(client.get("/api/users/12").json()["balances"].get("CHF", "0"))
    for status in ("completed", "failed"):
        sale = SALE | {"user_id": 12, "currency": "CHF", "amount": "0.10", "status": status}
        client.post("/api/transactions", json=sale)
    assert Decimal(client.get("/api/users/12").json()["balances"]["CHF"]) == before + Decimal("0.1")


@pytest.mark.parametrize(("user_id", "status"), [("4711", 404), ("0", 422), ("x", 422)])
def test_a_user_who_is_not_there(client, user_id, status):
    assert client.get(f"/api/users/{user_id}").status_code == status


@pytest.mark.parametrize(("granted", "wanted"), [(True, "grant"), (False, "withdraw")])
def test_a_decision_is_passed_on(client, monkeypatch, granted, wanted):
    decided = []
    for name in ("grant", "withdraw"):
        monkeypatch.setattr(
            pbmon.consent, name, lambda user, name=name: decided.append((name, user))
        )
    assert client.put("/api/users/7/consent", json={"granted": granted}).status_code == 204
    assert decided == [(wanted, 7)]


def test_who_calls_says_of_which_plan_everything_is(client, monkeypatch):
    seen = []

    def track(*_args, **_more):
        who = identity.current()
        seen.append(who.segments if who is not None else None)

    monkeypatch.setattr(pbmon, "track_feature", track)
    for given in ("3", "4", "4711", "x", None):
        headers = {people.HEADER: given} if given is not None else {}
        client.post("/api/export", json={"format": "json"}, headers=headers)
    assert seen[::2] == [{"plan": "pro"}, {"plan": "free"}, None, None, None]


def test_feedback_goes_to_the_mounted_application(client):
    # It knows of no journal here; that it answers is enough.
    assert client.post("/feedback/", json={"score": 9}).status_code == 503


# --- export and dashboard -----------------------------------------------------------------------


def test_export_as_csv_holds_every_transaction(client, tracked):
    answer = client.post("/api/export", json={"format": "csv", "currency": "GBP"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/csv")
    read = list(csv.DictReader(io.StringIO(answer.text)))
    assert read
    assert {row["currency"] for row in read} == {"GBP"}
    assert tracked == [
        ("data_export", "clicked", {"format": "csv"}),
        ("data_export", "completed", {"format": "csv", "rows": len(read)}),
    ]


def test_export_as_json_and_csv_agree(client):
    as_json = client.post("/api/export", json={"format": "json"}).json()
    text = client.post("/api/export", json={"format": "csv"}).text
    assert [row["id"] for row in as_json] == [
        row["id"] for row in csv.DictReader(io.StringIO(text))
    ]


def test_no_cell_of_an_export_is_a_formula(client):
    client.post("/api/transactions", json=SALE | {"merchant": "=1+1"})
    text = client.post("/api/export", json={"format": "csv"}).text
    assert "'=1+1" in text
    assert ",=1+1" not in text


def test_an_export_in_an_unknown_format_is_422(client, tracked):
    assert client.post("/api/export", json={"format": "pdf"}).status_code == 422
    assert tracked == []


def test_dashboard_adds_up_what_was_completed(client, tracked):
    def totals():
        return client.get("/api/analytics/dashboard?days=1").json()

    before = totals()
    client.post("/api/transactions", json=SALE | {"amount": "1000.01"})
    client.post("/api/transactions", json=SALE | {"status": "failed"})
    after = totals()
    grown = Decimal(after["revenue"]["EUR"]) - Decimal(before["revenue"].get("EUR", "0"))
    assert grown == Decimal("1000.01")
    assert after["transactions"] == before["transactions"] + 1
    assert tracked[0] == ("analytics_dashboard", "viewed", {"days": 1})


@pytest.mark.parametrize("days", ["0", "366", "x"])
def test_a_dashboard_of_a_wrong_length_is_422(client, days):
    assert client.get(f"/api/analytics/dashboard?days={days}").status_code == 422


# --- WebSocket, health, errors ------------------------------------------------------------------


def test_balances_by_websocket_are_those_of_the_moment(client, tracked):
    with client.websocket_connect("/ws/balances?user_id=20") as socket:
        first = socket.receive_json()
        sale = SALE | {"user_id": 20, "currency": "KWD", "amount": "1.125"}
        client.post("/api/transactions", json=sale)
        socket.send_text("refresh")
        second = socket.receive_json()
    grown = Decimal(second["balances"]["KWD"]) - Decimal(first["balances"].get("KWD", "0"))
    assert grown == Decimal("1.125")
    assert ("live_balances", "viewed", {}) in tracked


@pytest.mark.parametrize(("user_id", "code"), [(4711, 4404), (1, 1003)])
def test_a_websocket_is_closed_with_the_reason(client, user_id, code):
    with client.websocket_connect(f"/ws/balances?user_id={user_id}") as socket:
        if user_id == 1:
            socket.receive_json()
            socket.send_text("nonsense")
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
    assert closed.value.code == code


def test_health_asks_the_database(client, monkeypatch):
    assert client.get("/healthz").json() == {"status": "ok"}

    def gone():
        raise ConnectionError("the database is gone")

    monkeypatch.setattr(client.app.state.ledger, "check", gone)
    assert client.get("/healthz").status_code == 500


# --- start --------------------------------------------------------------------------------------


def test_a_second_start_keeps_the_data(client, url):
    made = client.post("/api/transactions", json=SALE).json()
    users = rows(url, "SELECT count(*) FROM users")
    with opened(DATABASE_URL=url) as again:
        assert again.get(f"/api/transactions/{made['id']}").json() == made
    assert rows(url, "SELECT count(*) FROM users") == users


# --- trouble on demand --------------------------------------------------------------------------

SIMULATE = "X-Pocketbook-Simulate"


@pytest.mark.parametrize("wish", ["crash", "database-error", "slow-query=2"])
def test_without_demo_mode_the_header_means_nothing(client, monkeypatch, wish):
    monkeypatch.setattr(simulation, "_SLOW", {})  # whoever looks for a slow query finds none
    assert client.get("/api/users", headers={SIMULATE: wish}).status_code == 200


@pytest.fixture(scope="module")
def demo(url):
    with opened(DATABASE_URL=url, POCKETBOOK_DEMO="1") as client:
        yield client


@pytest.mark.parametrize("wish", ["crash", "database-error"])
def test_simulated_failures_are_500_and_pass(demo, wish):
    assert demo.get("/api/users", headers={SIMULATE: wish}).status_code == 500
    assert demo.get("/api/users").status_code == 200


@pytest.mark.parametrize("path", ["/api/users", "/api/transactions", "/api/analytics/dashboard"])
def test_a_simulated_slow_query_takes_its_time(demo, path):
    start_s = time.monotonic()
    assert demo.get(path, headers={SIMULATE: "slow-query=0.15"}).status_code == 200
    assert time.monotonic() - start_s >= 0.15


@pytest.mark.parametrize("wish", ["slow-query=30", "slow-query=-1", "drop tables"])
def test_an_unknown_wish_is_400(demo, wish):
    assert demo.get("/api/users", headers={SIMULATE: wish}).status_code == 400
