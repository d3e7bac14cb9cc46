"""SIGTERM at default intervals while the receiver hangs: the next start delivers the rest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.experiments import REDUCED, run

FAULTS = [
    "SIGTERM, uvicorn, sink hangs",
    "SIGTERM, uvicorn, 2 workers, sink hangs",
    "SIGTERM, gunicorn, sink hangs",
    "SIGTERM, gunicorn --preload, sink hangs",
    "SIGTERM, granian, sink hangs",
    "SIGTERM, hypercorn, sink hangs",
]


@pytest.fixture(scope="module")
def results():
    """Some at once: they spend nearly all of their time waiting for the servers to give up."""
    with ThreadPoolExecutor(3) as pool:
        return dict(zip(FAULTS, pool.map(lambda name: run(name, "pbmon", REDUCED), FAULTS)))


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_lost_when_a_server_ends_while_the_sink_hangs(results, fault):
    assert results[fault].missed == [], results[fault]
