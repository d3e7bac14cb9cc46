"""SIGTERM at default intervals, under each server."""

from __future__ import annotations

import pytest

from tests.faults.reduced import prove


@pytest.mark.parametrize(
    "fault",
    [
        "SIGTERM, uvicorn",
        "SIGTERM, uvicorn, 2 workers",
        "SIGTERM, gunicorn",
        "SIGTERM, gunicorn --preload",
        "SIGTERM, granian",
        "SIGTERM, hypercorn",
    ],
)
def test_nothing_is_lost_when_a_server_is_asked_to_end(fault):
    prove(fault)
