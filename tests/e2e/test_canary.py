"""A token in every place where a person's data can enter; a byte search of every place that keeps
or sends anything. Tokens of no check digits stand in addresses, where patterns are what finds them.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import uuid
from contextlib import ExitStack, suppress
from urllib.parse import urlsplit

import httpx
import pytest
import websockets.exceptions
import websockets.sync.client

from tests.e2e.launch import launched
from tests.fresh import environment
from tests.stack.process import HOST, wait_until
from tests.store.conftest import new_database
from tests.telemetry.receiver import Receiver

pytestmark = pytest.mark.server

PLACES = (
    "query", "path", "address", "authorization", "cookie", "header", "baggage", "referer",
    "literal", "parameter", "many", "copy", "failing", "message", "local", "log", "property",
    "feedback", "comment", "user", "session", "other", "room", "socket", "state", "agent",
    "cause", "note", "argument", "filename", "protocol", "fragment", "request_id",
    "userinfo", "body", "key",
)  # fmt: skip
CLIENT = "203.0.113.77"
"""As a proxy says it: of the addresses that documents may use (RFC 5737)."""

CONFIG = """
consent = "not-required"
logs = true
request_log = "all"
slow_query_s = 0.000001
slow_request_s = 0.000001
user_from = "header:x-user"
session_from = "cookie:sid"
segment_spans = true
budgets = [{ endpoint = "/users/{who}", max = "1us" }]
[segments.plan]
values = ["free", "pro"]
[experiments.paywall]
variants = { control = 50, new = 50 }
goal = "signed_up"
[destinations.webhook]
url = "env:CANARY_WEBHOOK"
[alerts]
errors = 1
[alerts.sinks.team]
url = "env:CANARY_ALERTS"
"""


@pytest.fixture(scope="module")
def tokens():
    return {place: f"canary{uuid.uuid4().hex[:12]}" for place in PLACES}


def drive(url, tokens):
    """Requests that hold every token, as a browser behind a proxy would send them."""
    t = tokens
    headers = {
        "authorization": f"Bearer {t['authorization']}",
        "cookie": f"sid={t['session']}; theme={t['cookie']}",
        "x-user": t["user"],
        "x-anything": t["header"],
        "baggage": f"user={t['baggage']}",
        "referer": f"https://shop.example.com/?q={t['referer']}",
        "x-forwarded-for": CLIENT,
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": f"shop={t['state']}@example.com,of={t['state']}@example.com",
        "user-agent": f"Mozilla/5.0 (compatible; +mailto:{t['agent']}@example.com)",
        "x-request-id": f"{t['request_id']}@example.com",
    }
    # Each on a connection of its own: one that fails after its answer ends it.
    closing = {**headers, "connection": "close"}
    with httpx.Client(base_url=url, headers=closing, timeout=60) as client:
        answers = [
            client.get(f"/users/{t['path']}@example.com", params={"q": t["query"]}),
            client.get(f"/nothing/{t['address']}%40example.com?{t['query']}"),
            client.post("/sql", json={
                k: t[k] for k in ("literal", "parameter", "many", "copy", "failing")
            }),
            client.get(f"/users/8;who={t['fragment']}@example.com"),
            client.post("/fail", json={"message": t["message"], "local": t["local"]}),
            client.post("/chained", json={k: t[k] for k in ("cause", "note", "argument")}),
            client.post("/upload/", files={"file": (t["filename"], b"")}),
            client.post("/later", json={"message": t["message"], "local": t["local"]}),
            client.post("/say", json={"message": t["message"], "log": t["log"]}),
            client.post("/track", json={
                k: t[k] for k in ("property", "feedback", "other", "session", "key")
            }),
            # No JSON: what validation answers quotes it.
            client.post("/say", content=f"{{who: {t['body']}}}", headers={
                "content-type": "application/json",
            }),
            client.post("/feedback/", json={
                "survey": "nps", "score": 3, "comment": f"call {t['comment']}@example.com",
            }),
        ]  # fmt: skip
    assert [answer.status_code for answer in answers] == [
        200, 404, 200, 200, 500, 500, 500, 200, 200, 200, 422, 202,
    ]  # fmt: skip
    absolute(url, t["userinfo"])
    with (
        suppress(websockets.exceptions.WebSocketException),
        websockets.sync.client.connect(
            f"{url.replace('http', 'ws')}/ws/{t['room']}@example.com?q={t['query']}",
            additional_headers=headers,
            subprotocols=[t["protocol"]],
        ) as there,
    ):
        there.send(t["socket"])
        there.recv()


def absolute(url, token):
    """A request as to a proxy: its target is a whole URL, which may have a password."""
    address = urlsplit(url)
    target = f"http://jo:{token}@{address.netloc}/users/9?q={token}#{token}"
    with socket.create_connection((address.hostname, address.port), 60) as connection:
        connection.sendall(
            f"GET {target} HTTP/1.1\r\nhost: {address.netloc}\r\nconnection: close\r\n\r\n".encode()
        )
        while connection.recv(65536):
            pass


@pytest.fixture(scope="module")
def kept(tokens, stack_postgres, tmp_path_factory):
    """Where → its bytes, of all that was kept or sent once the application has ended."""
    home = tmp_path_factory.mktemp("canary")
    (home / "pbmon.toml").write_text(CONFIG, encoding="utf-8")
    state = home / "state"
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        webhook = stack.enter_context(Receiver())
        sink = stack.enter_context(Receiver())
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_SERVICE_NAME": "canary",
            "PBMON_CONFIG": str(home / "pbmon.toml"),
            "PBMON_STATE_DIR": str(state),
            "DATABASE_URL": new_database(stack_postgres.url),
            "CANARY_LOG": str(home / "pbmon.log"),
            "CANARY_WEBHOOK": webhook.url,
            "CANARY_ALERTS": sink.url,
        }
        with launched(
            "tests.e2e.canary_app:app",
            home / "output.txt",
            variables,
            options=("--no-access-log", "--forwarded-allow-ips", HOST),
        ) as app:
            drive(app.url, tokens)
            wait_until(lambda: b"signed_up" in sent(webhook), "the webhook", 60)
            wait_until(lambda: b"LookupError" in sent(sink), "an alert", 60)
            app.stop()
        said = [
            # The next process of the service, which removes the journal of the one before.
            pbmon(variables, "worker", "--once"),
            pbmon(variables, "errors", "--json"),
            pbmon(variables, "alerts", "status"),
            pbmon(variables, "report", "weekly"),
            pbmon(variables, "doctor"),
        ]
        assert {path for path, _, _ in receiver.arrived} == {
            "/v1/traces", "/v1/metrics", "/v1/logs",
        }  # fmt: skip
        found = {"OTLP": sent(receiver), "webhook": sent(webhook), "alerts": sent(sink)}
        found["commands"] = b"\n".join(said)
    found["log of pbmon"] = (home / "pbmon.log").read_bytes()
    for path in sorted(state.rglob("*")):
        if path.is_file():
            found[str(path.relative_to(state))] = path.read_bytes()
    return found


def pbmon(variables, *arguments):
    """What a command says."""
    done = subprocess.run(
        [sys.executable, "-m", "pbmon.cli", *arguments],
        env=environment(**variables), capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr  # doctor: something is missing here
    return done.stdout + done.stderr


def sent(receiver):
    return b"\n".join(
        b"\n".join((path.encode(), repr(headers).encode(), body))
        for path, headers, body in receiver.arrived
    )


def test_the_features_did_their_work(kept):
    """Else nothing of them could be found."""
    store = b"".join(data for name, data in kept.items() if ".sqlite3" in name)
    for word in (b"signed_up", b"feature_clicked", b"[email]", b"canary-1", b"paywall"):
        assert word in store
    for word in (b"/users/{who}", b"COPY people", b"LookupError", b"[email]", b"/ws/{room}"):
        assert word in kept["OTLP"]
    assert b"LookupError" in kept["commands"]
    for word in (b"Slow query detected", b"Performance budget exceeded", b"Request completed"):
        assert word in kept["log of pbmon"]


@pytest.mark.parametrize("place", PLACES)
def test_it_is_nowhere(kept, tokens, place):
    token = tokens[place].encode()
    assert [where for where, data in kept.items() if token in data] == []


def test_the_client_s_address_is_nowhere(kept):
    assert [where for where, data in kept.items() if CLIENT.encode() in data] == []
