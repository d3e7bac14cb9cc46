"""The meeting points: no-ops before configure(), and verdicts that read as true or false."""

from __future__ import annotations

import inspect
import logging
from dataclasses import FrozenInstanceError

import pytest

from pbmon import runtime
from pbmon.business.features import FeatureUsage
from pbmon.business.revenue import Cashbook
from pbmon.runtime import NOT_CONFIGURED, Accepted, Refused, Runtime, StoreError
from pbmon.store.reader import Reader
from pbmon.telemetry.clock import SystemClock
from pbmon.telemetry.exchange import Exchange
from pbmon.telemetry.queries import Queries, Query
from pbmon.telemetry.requests import Requests
from pbmon.telemetry.session import Session


def test_a_new_runtime_does_nothing_and_fails_at_nothing():
    fresh = Runtime()
    assert fresh.requests.request({"type": "http"}) is None
    assert fresh.requests.websocket({"type": "websocket"}) is None
    assert fresh.queries.query(runtime.Database("sqlite"), "SELECT 1", batch_size=2) is None
    assert (fresh.revenue, fresh.features, fresh.events) == (None, None, None)
    with pytest.raises(StoreError, match="call pbmon.configure"):
        fresh.reader()
    assert fresh.refusals("call", "reason") is None
    assert fresh.flush(1.0) is True
    assert fresh.open_websockets() == 0
    assert fresh.configured is False
    assert Runtime().hooks is not fresh.hooks


def test_verdicts():
    assert Accepted()
    assert not Refused("x")
    assert Refused("x") == Refused("x") != Refused("y")
    assert NOT_CONFIGURED.reason == "not_configured"
    with pytest.raises(FrozenInstanceError):
        NOT_CONFIGURED.reason = "other"


@pytest.mark.parametrize(
    ("made", "protocol"),
    [
        (Requests, runtime.RequestSink),
        (runtime._NoRequests, runtime.RequestSink),
        (Exchange, runtime.RequestRecord),
        (Session, runtime.WebSocketRecord),
        (Queries, runtime.QuerySink),
        (runtime._NoQueries, runtime.QuerySink),
        (Query, runtime.QueryRecord),
        (Cashbook, runtime.RevenueSink),
        (FeatureUsage, runtime.FeatureSink),
        (Reader, runtime.Reader),
    ],
)
def test_each_part_has_the_signatures_of_its_protocol(made, protocol):
    wanted = {n: f for n, f in vars(protocol).items() if inspect.isfunction(f) and n[0] != "_"}
    assert wanted
    for name, function in wanted.items():
        assert list(inspect.signature(getattr(made, name)).parameters) == list(
            inspect.signature(function).parameters
        ), name


def test_loggers_are_the_standard_librarys():
    assert runtime.logger("db") is logging.getLogger("pbmon.db")


def test_the_clock_has_wall_time_and_a_monotonic_one():
    clock = SystemClock()
    first, second = clock.monotonic_s(), clock.monotonic_s()
    assert second >= first
    assert clock.wall_ns() > 1_700_000_000_000_000_000
