"""The application of the canary test: it puts what it is told of people wherever it can."""

from __future__ import annotations

import io
import logging
import os
from contextlib import suppress
from pathlib import Path

import psycopg2
from fastapi import BackgroundTasks, FastAPI, Request, WebSocket
from opentelemetry import trace

import pbmon

URL = os.environ["DATABASE_URL"]
log = logging.getLogger("shop")

_of_pbmon = logging.FileHandler(Path(os.environ["CANARY_LOG"]), encoding="utf-8")
logging.getLogger("pbmon").addHandler(_of_pbmon)
logging.getLogger("pbmon").setLevel(logging.INFO)
log.setLevel(logging.INFO)

app = FastAPI()
app.mount("/feedback", pbmon.feedback_app)


@app.post("/sql")
def sql(body: dict[str, str]) -> dict[str, str]:
    connection = psycopg2.connect(URL)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS people (name text UNIQUE)")
            cursor.execute(f"SELECT name FROM people WHERE name = '{body['literal']}'")
            cursor.execute("INSERT INTO people VALUES (%s)", (body["parameter"],))
            cursor.executemany("INSERT INTO people VALUES (%s)", [(body["many"],)])
            cursor.copy_expert("COPY people FROM STDIN", io.StringIO(body["copy"] + "\n"))
        for failing in (
            f"INSERT INTO people VALUES ('{body['parameter']}')",  # its error quotes the row
            f"SELECT '{body['failing']}'::int",
        ):
            try:
                with connection, connection.cursor() as cursor:
                    cursor.execute(failing)
            except psycopg2.Error:
                pass
    finally:
        connection.close()
    return {}


@app.get("/users/{who}")
def user(who: str, q: str = "") -> dict[str, str]:
    return {}


@app.post("/fail")
def fail(body: dict[str, str]) -> None:
    secret = body["local"]  # noqa: F841 - for the frame to hold
    raise LookupError(f"no account of {body['message']}")


@app.post("/chained")
def chained(body: dict[str, str]) -> None:
    """Whatever an exception may say beside its message."""
    try:
        raise KeyError(body["cause"])
    except KeyError as cause:
        failed = LookupError("no account", {"of": body["argument"]})
        failed.__notes__ = [f"note: {body['note']}"]
        failed.who = body["argument"]  # type: ignore[attr-defined]
        raise failed from cause


@app.post("/upload/")
async def upload(request: Request) -> dict[str, str]:
    form = (await request.body()).decode()
    name = form.split('filename="')[1].partition('"')[0]
    log.info("uploaded", extra={"form": Named(f"{name}@example.com")})
    raise OSError(2, form, form)


class Named:
    """Objects say of themselves what they like."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<Named {self.name}>"


@app.post("/later")
def later(body: dict[str, str], tasks: BackgroundTasks) -> dict[str, str]:
    tasks.add_task(fail, body)
    return {}


@app.post("/say")
def say(body: dict[str, str]) -> dict[str, str]:
    address = f"{body['log']}@example.com"
    log.info("mail to %s", address)
    log.info("mail", extra={"to": address, "deep": {"er": [address]}})
    try:
        raise LookupError(f"no account of {body['message']}")
    except LookupError as error:
        log.exception("failed")
        track = getattr(pbmon, "track_error", None)
        if track is not None:
            track(error)
    with trace.get_tracer("shop").start_as_current_span(f"mail {address}") as span:
        span.set_attribute("mail.to", address)
        span.set_attribute("mail.cc", [address])
        span.add_event("sent", {"to": address})
        span.set_status(trace.StatusCode.ERROR, f"refused {address}")
    log.info(Named(address))
    log.info({"who": {address.encode(): Named(address)}, "raw": address.encode()})
    log.error("mail to %s", address, stack_info=True, extra={"exception.message": body["message"]})
    link = trace.Link(trace.get_current_span().get_span_context(), {"to": [address]})
    with (
        suppress(LookupError),
        trace.get_tracer("shop").start_as_current_span("linked", links=[link]),
    ):
        raise LookupError(f"no account of {body['message']}")
    return {}


@app.post("/track")
def track(body: dict[str, str], request: Request) -> dict[str, str]:
    address = f"{body['property']}@example.com"
    key = f"{body['key']}@example.com"
    pbmon.track("signed_up", {"email": address, "nested": {"to": [address]}, key: {key: 1}})
    pbmon.track_feature("export", "clicked", to=address)
    pbmon.feedback(7, comment=f"write to {body['feedback']}@example.com")
    pbmon.track_revenue("12.50", "USD", transaction_id="canary-1")
    pbmon.experiment("paywall")
    user_id = request.headers["x-user"]
    pbmon.identify(user_id)
    pbmon.consent.grant(user_id, "analytics")
    with pbmon.context(user_id=body["other"], session_id=body["session"], plan="pro"):
        pbmon.track("seen", {"page": 1})
    return {}


@app.websocket("/ws/{room}")
async def room(socket: WebSocket) -> None:
    await socket.accept(socket.scope["subprotocols"][0])
    text = await socket.receive_text()
    raise LookupError(f"no room for {text}")
