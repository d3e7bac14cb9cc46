"""An application with a budget, which its settings file has and it knows nothing of."""

from __future__ import annotations

import asyncio
import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import pbmon


async def work(request: Request) -> JSONResponse:
    """Takes as long as it is told to, at least."""
    await asyncio.sleep(float(request.query_params["pause_s"]))
    return JSONResponse({"pid": os.getpid()})


async def judge(request: Request) -> JSONResponse:
    query = request.query_params
    verdict = pbmon.check_budget(query["endpoint"], float(query["duration_s"]))
    max_s = verdict.budget.max_s if verdict.budget is not None else None
    return JSONResponse({"within": bool(verdict), "max_s": max_s, "excess_s": verdict.excess_s})


app = Starlette(routes=[Route("/tasks/{number}", work), Route("/judge", judge)])
