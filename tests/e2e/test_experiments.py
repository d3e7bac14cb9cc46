"""An experiment from the request to its report: uvicorn, journal, shipper, store, command."""

from __future__ import annotations

import json
import sys

import pytest

from pbmon.experiments import Experiment, assign
from pbmon.store import schema
from pbmon.store.access import open_engine
from tests.fresh import python, run
from tests.store.conftest import BOTH, new_database

USERS = 300
TOML = """
service_name = "shop"
consent = "opt-out"
user_from = "header:x-user"
session_from = "cookie:sid"

[experiments.checkout]
variants = { control = 50, treatment = 50 }
goal = "paid"
window_days = 7
"""
SERVER = """
    import asyncio, json
    from dataclasses import asdict
    import httpx, uvicorn
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route
    import pbmon

    pbmon.configure()

    async def checkout(request):
        variant = pbmon.experiment("checkout")
        return JSONResponse(variant)

    async def pay(request):
        pbmon.track("paid")
        return JSONResponse("ok")

    async def login(request):
        pbmon.identify(request.path_params["user"])
        return JSONResponse("ok")

    app = Starlette(routes=[
        Route("/checkout", checkout), Route("/pay", pay), Route("/login/{user}", login),
    ])

    async def main():
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        got = {}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            for user in range(USERS):
                as_user = {"x-user": str(user)}
                got[user] = (await client.get("/checkout", headers=as_user)).json()
                await client.get("/checkout", headers=as_user)
                if user % 10 < (7 if got[user] == "treatment" else 2):
                    await client.get("/pay", headers=as_user)
            # Seen before the sign-up, paid after it.
            await client.get("/checkout", headers={"cookie": "sid=s-1"})
            await client.get("/login/new-one", headers={"cookie": "sid=s-1"})
            await client.get("/pay", headers={"x-user": "new-one"})
        server.should_exit = True
        await serving
        return got

    got = asyncio.run(main())
    assert pbmon.flush(60)
    report = pbmon.experiment_report("checkout")
    assert report is not None
    print(json.dumps([got, asdict(report)]))
"""


@pytest.fixture(params=BOTH)
def variables(request, tmp_path):
    (tmp_path / "pbmon.toml").write_text(TOML, encoding="utf-8")
    made = {
        "PBMON_CONFIG": str(tmp_path / "pbmon.toml"),
        "PBMON_STATE_DIR": str(tmp_path / "state"),
        "OTEL_LOGS_EXPORTER": "none",
    }
    if request.param == "postgresql":
        made["PBMON_STORE_URL"] = new_database(request.getfixturevalue("stack_postgres").url)
        engine = open_engine(made["PBMON_STORE_URL"])
        schema.upgrade(engine)
        engine.dispose()
    return made


@pytest.mark.server
def test_from_the_request_to_the_report(variables):
    done = python(SERVER.replace("USERS", str(USERS)), **variables)
    got, report = json.loads(done.stdout)
    declared = Experiment("checkout", {"control": 50, "treatment": 50}, "paid", 604_800.0)
    wanted = {str(user): assign(declared, str(user)) for user in range(USERS)}
    assert got == wanted
    wanted["new-one"] = assign(declared, "s-1")
    paid = [
        user for user, variant in wanted.items()
        if user == "new-one" or int(user) % 10 < (7 if variant == "treatment" else 2)
    ]  # fmt: skip
    figures = {row["variant"]: (row["people"], row["converted"]) for row in report["variants"]}
    assert figures == {
        variant: (
            list(wanted.values()).count(variant),
            sum(wanted[user] == variant for user in paid),
        )
        for variant in ("control", "treatment")
    }
    assert report["decision"] == "treatment is better than control"
    assert (report["is_sound"], report["crossed"]) == (True, 0)

    said = run(sys.executable, "-m", "pbmon.cli", "experiment", "report", "--json", **variables)
    assert said.returncode == 0
    assert json.loads(said.stdout) == [report]
