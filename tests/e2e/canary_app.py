"""The application of the canary test: it puts what it is told of people wherever it can."""

from __future__ import annotations

import io
import logging
import os
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
    return {}


@app.post("/track")
def track(body: dict[str, str], request: Request) -> dict[str, str]:
    address = f"{body['property']}@example.com"
    pbmon.track("signed_up", {"email": address, "nested": {"to": [address]}})
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
    await socket.accept()
    text = await socket.receive_text()
    raise LookupError(f"no room for {text}")
