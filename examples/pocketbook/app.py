"""Pocketbook, a small finance app: `opentelemetry-instrument uvicorn examples.pocketbook.app:app`.

PostgreSQL where DATABASE_URL says so, an SQLite file otherwise. Requests and queries are observed
from outside; what pbmon is told of the business stands here, in ledger.py (money) and in people.py
(plans).
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from decimal import Decimal
from typing import Annotated

from fastapi import (
    APIRouter,
    Depends,
    FastAPI,
    HTTPException,
    Path,
    Query,
    Request,
    Response,
    WebSocket,
    WebSocketDisconnect,
)
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

import pbmon
from examples.pocketbook import database, people, schema, simulation
from examples.pocketbook.ledger import EXPORT_ROWS, Ledger, Transaction
from examples.pocketbook.models import (
    MAX_ID,
    Currency,
    DashboardOut,
    Decision,
    ExportRequest,
    NewFee,
    NewRefund,
    NewTransaction,
    PlainText,
    ReturnOut,
    TransactionOut,
    TransactionPage,
    UserDetail,
    UserOut,
    UserPage,
)
from examples.pocketbook.money import to_minor

NO_SUCH_USER = 4404
NOT_UNDERSTOOD = 1003  # RFC 6455: data of a kind that is not taken

api = APIRouter(prefix="/api")

Limit = Annotated[int, Query(ge=1, le=100)]
Offset = Annotated[int, Query(ge=0, le=100_000)]
PathId = Annotated[int, Path(ge=1, le=MAX_ID)]
TransactionId = Annotated[str, Path(pattern="^txn_[0-9a-f]{32}$")]


def _ledger(request: Request) -> Ledger:
    ledger: Ledger = request.app.state.ledger
    return ledger


Books = Annotated[Ledger, Depends(_ledger)]


# The endpoints are plain functions: they run in the thread pool, where waiting for the database
# holds up nobody else.
@api.get("/transactions")
def list_transactions(
    books: Books,
    limit: Limit = 20,
    offset: Offset = 0,
    currency: Annotated[Currency | None, Query()] = None,
    q: Annotated[PlainText, Query()] = "",
) -> TransactionPage:
    # One more than asked for tells whether there is a next page.
    found = books.transactions(limit=limit + 1, offset=offset, currency=currency, search=q)
    if q:
        pbmon.track_feature("transaction_search", "completed", currency=currency)
    items = [TransactionOut.model_validate(item) for item in found[:limit]]
    return TransactionPage(items=items, next_offset=offset + limit if len(found) > limit else None)


@api.post("/transactions", status_code=201)
def create_transaction(new: NewTransaction, books: Books) -> TransactionOut:
    try:
        amount_minor = to_minor(Decimal(new.amount), new.currency)
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
    fields = new.model_dump(include={"currency", "status", "merchant", "category"})
    created = books.add(new.user_id, amount_minor, **fields)
    if created is None:
        raise HTTPException(422, "user_id: there is no such user")
    return TransactionOut.model_validate(created)


def _find(books: Ledger, transaction_id: str) -> Transaction:
    found = books.transaction(transaction_id)
    if found is None:
        raise HTTPException(404, "there is no such transaction")
    return found


@api.get("/transactions/{transaction_id}")
def get_transaction(transaction_id: TransactionId, books: Books) -> TransactionOut:
    return TransactionOut.model_validate(_find(books, transaction_id))


@api.post("/transactions/{transaction_id}/refunds", status_code=201)
def create_refund(transaction_id: TransactionId, new: NewRefund, books: Books) -> ReturnOut:
    charge, amount = _find(books, transaction_id), Decimal(new.amount)
    try:
        refund_id = books.refund(charge, amount)
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
    return _returned(refund_id, charge, amount)


@api.post("/transactions/{transaction_id}/chargeback", status_code=201)
def create_chargeback(transaction_id: TransactionId, books: Books) -> ReturnOut:
    """The bank says so: all of it goes back."""
    charge = _find(books, transaction_id)
    return _returned(books.charge_back(charge), charge, charge.amount)


def _returned(id_: str | None, charge: Transaction, amount: Decimal) -> ReturnOut:
    if id_ is None:
        raise HTTPException(409, "the transaction is not completed, or has not that much left")
    return ReturnOut(id=id_, transaction_id=charge.id, amount=amount, currency=charge.currency)


@api.post("/fees", status_code=204)
def create_fee(new: NewFee) -> None:
    """What a bank keeps for itself; the same statement again changes nothing."""
    pbmon.track_adjustment(f"-{new.amount}", new.currency, adjustment_id=new.statement)


@api.get("/users")
def list_users(books: Books, limit: Limit = 20, offset: Offset = 0) -> UserPage:
    found = books.users(limit=limit + 1, offset=offset)
    items = [UserOut.model_validate(item) for item in found[:limit]]
    return UserPage(items=items, next_offset=offset + limit if len(found) > limit else None)


@api.get("/users/{user_id}")
def get_user(user_id: PathId, books: Books) -> UserDetail:
    found = books.user(user_id)
    if found is None:
        raise HTTPException(404, "there is no such user")
    return UserDetail(**asdict(found), balances=books.balances(user_id))


@api.put("/users/{user_id}/consent", status_code=204)
def decide(user_id: PathId, decision: Decision) -> None:
    """Whether what this user does may be kept."""
    say = pbmon.consent.grant if decision.granted else pbmon.consent.withdraw
    say(user_id)


@api.post("/export")
def export(wanted: ExportRequest, books: Books) -> Response:
    pbmon.track_feature("data_export", "clicked", format=wanted.format)
    rows = books.transactions(limit=EXPORT_ROWS, currency=wanted.currency)
    if wanted.format == "csv":
        body, media_type = _as_csv(rows), "text/csv"
    else:
        items = [TransactionOut.model_validate(row).model_dump(mode="json") for row in rows]
        body, media_type = json.dumps(items), "application/json"
    pbmon.track_feature("data_export", "completed", format=wanted.format, rows=len(rows))
    name = f'attachment; filename="transactions.{wanted.format}"'
    return Response(body, media_type=media_type, headers={"Content-Disposition": name})


def _as_csv(rows: list[Transaction]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(TransactionOut.model_fields)
    for row in rows:
        values = TransactionOut.model_validate(row).model_dump(mode="json")
        writer.writerow(_harmless(str(value)) for value in values.values())
    return out.getvalue()


def _harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@")) else cell


@api.get("/analytics/dashboard")
def analytics_dashboard(
    books: Books, days: Annotated[int, Query(ge=1, le=365)] = 30
) -> DashboardOut:
    found = books.dashboard(days)
    layout = pbmon.experiment("dashboard_layout") or "list"
    pbmon.track_feature("analytics_dashboard", "viewed", days=days)
    return DashboardOut(layout=layout, **asdict(found))


async def balances(websocket: WebSocket, user_id: Annotated[int, Query(ge=1, le=MAX_ID)]) -> None:
    """A user's balances: once at the start, and again for each text "refresh"."""
    books: Ledger = websocket.app.state.ledger
    await websocket.accept()
    user = await run_in_threadpool(books.user, user_id)
    if user is None:
        await websocket.close(NO_SUCH_USER, "there is no such user")
        return
    with pbmon.context(user_id=user_id, plan=user.plan):
        pbmon.track_feature("live_balances", "viewed")
    try:
        while True:
            sums = await run_in_threadpool(books.balances, user_id)
            shown = {currency: str(amount) for currency, amount in sums.items()}
            await websocket.send_json({"user_id": user_id, "balances": shown})
            if await websocket.receive_text() != "refresh":
                await websocket.close(NOT_UNDERSTOOD, 'send "refresh"')
                return
    except WebSocketDisconnect:
        return


def healthz(books: Books) -> dict[str, str]:
    books.check()
    return {"status": "ok"}


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    """What is wrong, without repeating what was sent: it may be private, or no valid text."""
    assert isinstance(error, RequestValidationError)
    problems = [{"loc": p["loc"], "msg": p["msg"], "type": p["type"]} for p in error.errors()]
    return JSONResponse({"detail": problems}, 422)


def create_app(environ: Mapping[str, str] = os.environ) -> FastAPI:
    """The app on the database that the environment names; tables are made at its start."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        opened = database.connect(environ)
        try:
            await run_in_threadpool(schema.prepare, opened)
            app.state.database, app.state.ledger = opened, Ledger(opened)
            yield
        finally:
            opened.close()

    app = FastAPI(title="Pocketbook", lifespan=lifespan)
    simulated = [Depends(simulation.simulate)] if simulation.enabled(environ) else []
    app.include_router(api, dependencies=simulated)
    app.add_api_websocket_route("/ws/balances", balances)
    app.mount("/feedback", pbmon.feedback_app)
    app.add_api_route("/healthz", healthz, methods=["GET"])
    app.add_middleware(people.Plans)
    app.add_exception_handler(RequestValidationError, _invalid)
    return app


app = create_app()
