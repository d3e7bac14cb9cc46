"""A small application without a database, for what goes wrong around it."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import pbmon


async def hello(request: Request) -> JSONResponse:
    return JSONResponse({"hello": request.path_params["name"]})


async def pay(request: Request) -> JSONResponse:
    query = request.query_params
    verdict = pbmon.track_revenue(query["amount"], query["currency"], transaction_id="1")
    return JSONResponse({"accepted": bool(verdict), "reason": getattr(verdict, "reason", None)})


app = Starlette(
    routes=[Route("/hello/{name}", hello), Route("/pay", pay, methods=["POST"])],
)
