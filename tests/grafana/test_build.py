"""The committed JSON is what the modules make, and `finish` repairs what the SDK leaves wrong."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.grafana.lint import lint
from tests.grafana.panel_queries import DASHBOARDS, load

# The SDK needs Python 3.11; the JSON it made doesn't.
build = pytest.importorskip(
    "grafana.build", reason="grafana-foundation-sdk needs Python 3.11", exc_type=ImportError
)

NAMES = sorted(path.stem for path in DASHBOARDS.glob("*.json"))
REPOSITORY = DASHBOARDS.parents[1]


def test_committed_json_is_up_to_date():
    assert build.differences(build.build(), DASHBOARDS) == []


def test_the_seeds_dashboard_is_there():
    business = load("business")
    assert business["title"] == "Pocketbook Business Metrics"
    assert business["uid"] == "pbmon-business"
    assert {
        ("Revenue (24h)", "stat"),
        ("Transaction Rate", "timeseries"),
        ("Active Users", "stat"),
        ("Feature Usage", "barchart"),
    } <= {(panel["title"], panel["type"]) for panel in business["panels"]}


def test_what_waits_for_a_rate_is_red_from_one_on():
    (panel,) = (p for p in load("business")["panels"] if p["title"] == "Waiting for a Rate")
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [(step["value"], step["color"]) for step in steps] == [(None, "text"), (1, "red")]
    assert panel["options"]["colorMode"] == "value"


def test_scores_stand_in_their_order():
    (panel,) = (p for p in load("growth")["panels"] if p["title"] == "Scores")
    (how,) = (t["options"] for t in panel["transformations"] if t["id"] == "sortBy")
    by = "pbmon_feedback_score\\pbmon_feedback_survey"
    assert how == {"sort": [{"field": by, "desc": False}]}
    assert panel["options"]["orientation"] == "vertical"


@pytest.mark.parametrize("name", NAMES)
def test_dashboards_keep_every_rule(name):
    assert lint(load(name)) == []


def test_uids_and_titles_are_unique():
    boards = [load(name) for name in NAMES]
    assert len({board["uid"] for board in boards}) == len(boards)
    assert len({board["title"] for board in boards}) == len(boards)


def test_differences_names_each_kind(tmp_path):
    (tmp_path / "changed.json").write_text("old")
    (tmp_path / "orphan.json").write_text("{}")
    (tmp_path / "same.json").write_text("same")
    built = {"changed.json": "new", "missing.json": "{}", "same.json": "same"}
    assert build.differences(built, tmp_path) == [
        "changed.json: differs from what grafana/changed.py makes",
        "missing.json: missing",
        "orphan.json: no module makes it; delete it",
    ]


def test_check_fails_on_a_difference_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build, "OUTPUT", tmp_path)
    assert build.main(["--check"]) == 1
    assert list(tmp_path.iterdir()) == []
    assert "business.json: missing" in capsys.readouterr().err
    assert build.main([]) == 0
    assert build.main(["--check"]) == 0


def test_the_command_runs_without_a_warning():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "grafana.build", "--check"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def raw(*widths: int) -> dict:
    """A dashboard as the SDK leaves it, with panels of these widths."""
    panel = {
        "type": "stat",
        "gridPos": {"h": 4, "w": 0, "x": 6, "y": 0},
        "targets": [{"expr": "a"}, {"expr": "b"}],
        "options": {"reduceOptions": {"calcs": []}},
    }
    panels = [copy.deepcopy(panel) for _ in widths]
    for each, width in zip(panels, widths):
        each["gridPos"]["w"] = width
    variable = {"name": "v", "auto": False, "auto_min": "10s", "auto_count": 30}
    return {
        "panels": panels,
        "templating": {"list": [variable]},
        "links": [{"title": "l", "placement": "inControlsMenu"}],
    }


def test_finish_numbers_panels_and_queries():
    finished = build.finish(raw(8, 8))
    assert [panel["id"] for panel in finished["panels"]] == [1, 2]
    assert [target["refId"] for target in finished["panels"][1]["targets"]] == ["A", "B"]
    assert finished["schemaVersion"] == 42


def test_finish_wraps_lines_at_24_columns():
    finished = build.finish(raw(6, 20, 4, 24))
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in finished["panels"]]
    assert places == [(0, 0), (0, 4), (20, 4), (0, 8)]


def test_finish_fills_calcs_and_drops_stray_fields():
    finished = build.finish(raw(8))
    assert finished["panels"][0]["options"]["reduceOptions"]["calcs"] == ["lastNotNull"]
    assert finished["templating"]["list"] == [{"name": "v"}]
    assert finished["links"] == [{"title": "l"}]


def test_finish_keeps_a_chosen_reduction():
    board = raw(8)
    board["panels"][0]["options"]["reduceOptions"]["calcs"] = ["max"]
    assert build.finish(board)["panels"][0]["options"]["reduceOptions"]["calcs"] == ["max"]


def test_json_is_readable_and_ends_with_a_newline():
    for path in sorted(Path(DASHBOARDS).glob("*.json")):
        text = path.read_text(encoding="utf-8")
        assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"
