"""The benchmark of events counts what it says it counts."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request

import pytest

from benchmarks import events, peers, processes, sink
from benchmarks.peers import BARE, OURS, PEERS

SIZE = 150


@pytest.fixture(scope="module")
def receiver():
    with processes.receiving() as url:
        yield url


@pytest.fixture(autouse=True)
def no_settling(monkeypatch):
    monkeypatch.setattr(events, "_SETTLE_S", 0.0)
    monkeypatch.setattr(events, "_QUIET_S", 0.1)


@pytest.fixture(params=[peer for peer in PEERS if peer not in (BARE, OURS)])
def vendor(request):
    if request.param not in peers.installed():
        pytest.skip(f"the SDK of {request.param} is not installed (make bench installs it)")
    return request.param


def test_what_pbmon_took_is_in_its_store_after_a_kill(receiver):
    found = events.measure(OURS, "burst", receiver, SIZE, 1)
    assert (found["accepted"], found["arrived"], found["twice"]) == (SIZE, SIZE, 0)
    assert found["rate"] > 0


def test_what_a_vendor_got_is_counted_once_each(vendor, receiver):
    found = events.measure(vendor, "burst", receiver, SIZE, 1)
    assert found["accepted"] == SIZE
    assert 0 <= found["arrived"] <= SIZE
    assert found["twice"] == 0


def test_a_call_is_timed_closed_and_paced(receiver):
    found = events.measure(OURS, "cost", receiver, SIZE, 1000)
    assert len(found) == 6
    for way in ("closed", "paced"):
        assert 0 < found[f"{way}_p50_us"] <= found[f"{way}_p99_us"] <= found[f"{way}_p99.9_us"]


@pytest.mark.parametrize("peer", [BARE, OURS])
def test_the_loop_tracks_at_the_rate(peer, receiver):
    found = events.measure(peer, "lag", receiver, 300, 1000)
    assert 0 < found["tracked"] <= 300
    assert found["lag_p99_ms"] > 0


EVENT = {"n": 5, "x": 1}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/batch", {"batch": [{"properties": EVENT}, {"properties": {}}]}),
        ("/batch/", {"batch": [{"properties": EVENT}]}),
        ("/2/httpapi", {"events": [{"event_properties": EVENT}]}),
        ("/track", [{"properties": EVENT}]),
        ("/track", {"properties": EVENT}),
    ],
)
def test_the_numbers_are_found_in_what_each_vendor_is_sent(path, body, receiver):
    data = json.dumps(body)
    if path == "/track":
        data = urllib.parse.urlencode({"data": data})
    assert sink.numbers(path, data.encode()) == {5}
    processes.take(receiver)
    urllib.request.urlopen(receiver + path, data.encode()).close()
    assert processes.take(receiver) == {"spans": 0, "numbers": [5]}
    assert processes.take(receiver) == {"spans": 0, "numbers": []}


def values(cost, rate, arrived, lag):
    times = {f"{way}_{name}_us": cost for way in ("closed", "paced")
             for name in ("p50", "p99", "p99.9")}  # fmt: skip
    return times | {
        "rate": rate, "accepted": 100, "arrived": arrived, "twice": 0, "lag_p99_ms": lag
    }  # fmt: skip


@pytest.mark.parametrize(("kept", "status"), [(100, 0), (99, 1)])
def test_tables_ratios_and_the_exit(kept, status, monkeypatch, capsys, tmp_path):
    found = [
        {BARE: {"lag_p99_ms": 0.5}, OURS: values(4.0, 200_000, 100, 1.0),
         "Segment": values(12.0, 20_000, 40, 3.0)},
        {BARE: {"lag_p99_ms": 0.5}, OURS: values(5.0, 100_000, kept, 1.0),
         "Segment": values(20.0, 10_000, 60, 5.0)},
    ]  # fmt: skip
    monkeypatch.setattr(events, "rounds", lambda names, url, args: found)
    page, file = tmp_path / "page.md", tmp_path / "figures.json"
    page.write_text("a\n<!-- figures of events -->\nold\n<!-- end of figures of events -->\nb\n")
    monkeypatch.setattr("sys.argv", ["events", "--write", str(page), "--json", str(file)])
    assert events.main() == status
    said = capsys.readouterr().out
    assert "| Segment | 15,000 (10,000–20,000) | 50 (40–60) % | 4.00 (3.00–5.00) ms | 3.5 |" in said
    assert "| pbmon | 4.5 (4.0–5.0) |" in said
    assert json.loads(file.read_text()) == found
    text = page.read_text()
    assert text.startswith("a\n")
    assert text.endswith("<!-- end of figures of events -->\nb\n")
    assert "old" not in text
    assert "| no events at all |  |  | 0.50 ms |" in text


def test_a_page_without_the_markers_is_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(SystemExit, match="has no <!-- figures of events -->"):
        events.figures.write(page, "figures of events", "text")
    assert page.read_text() == "nothing"
