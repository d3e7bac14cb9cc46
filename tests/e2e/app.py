"""The application of the end-to-end test: plain FastAPI and psycopg2, with pbmon's two calls."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg2
from fastapi import FastAPI, WebSocket
from psycopg2.pool import ThreadedConnectionPool

import pbmon

pool = ThreadedConnectionPool(1, 8, os.environ["DATABASE_URL"])


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    pool.closeall()


app = FastAPI(lifespan=lifespan)


def ask(statement: str, *values: object) -> list[tuple]:
    connection = pool.getconn()
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall()
    finally:
        pool.putconn(connection)


@app.get("/api/transactions")
def transactions(pause_s: float = 0.0) -> dict[str, int]:
    """pause_s makes the statement itself slow."""
    ask("SELECT count(*), pg_sleep(%s) FROM transactions", pause_s)
    return {"pause": 0}


@app.post("/api/transactions/{number}")
def create(number: int, amount: str, currency: str, status: str = "completed") -> dict[str, bool]:
    ask(
        "INSERT INTO transactions (id, amount, currency) VALUES (%s, %s, %s) RETURNING id",
        number,
        amount,
        currency,
    )
    accepted = pbmon.track_revenue(amount, currency, transaction_id=str(number), status=status)
    return {"accepted": bool(accepted)}


@app.get("/api/users/{user_id}")
def user(user_id: int) -> dict[str, int]:
    return {"id": ask("SELECT %s::int", user_id)[0][0]}


@app.post("/api/export/{feature}/{action}")
def export(feature: str, action: str) -> dict[str, bool]:
    return {"accepted": bool(pbmon.track_feature(feature, action, format="csv"))}


@app.get("/api/broken")
def broken() -> None:
    raise LookupError("card 4111 1111 1111 1111 of ann@example.com")


@app.get("/api/bad-query")
def bad_query() -> dict[str, str]:
    try:
        ask("SELECT secret FROM no_such_table WHERE card = '4111111111111111'")
    except psycopg2.Error as error:
        return {"sqlstate": error.pgcode or ""}
    return {"sqlstate": "none"}


@app.websocket("/ws/{room}")
async def room(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)
