"""What Grafana finds at its start, by structure: no Grafana runs where the tests do."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.collector_config.paths import COMPOSE, CONFIG, PROVISIONING, load

SOURCES: dict[str, dict[str, Any]] = {
    each["uid"]: each for each in load(PROVISIONING / "datasources/pbmon.yaml")["datasources"]
}
PROVIDERS: list[dict[str, Any]] = load(PROVISIONING / "dashboards/pbmon.yaml")["providers"]
GRAFANA: dict[str, Any] = load(COMPOSE)["services"]["grafana"]


def uids(thing: Any) -> list[str]:
    """Every datasourceUid in a configuration, however deep."""
    if isinstance(thing, dict):
        own = [thing["datasourceUid"]] if "datasourceUid" in thing else []
        return own + [uid for each in thing.values() for uid in uids(each)]
    if isinstance(thing, list):
        return [uid for each in thing for uid in uids(each)]
    return []


def test_the_sources_have_the_uids_that_dashboards_use() -> None:
    assert {uid: each["type"] for uid, each in SOURCES.items()} == {
        "prometheus": "prometheus",
        "tempo": "tempo",
    }
    assert [uid for uid, each in SOURCES.items() if each.get("isDefault")] == ["prometheus"]


@pytest.mark.parametrize("uid", SOURCES)
def test_links_between_sources_lead_somewhere(uid: str) -> None:
    assert set(uids(SOURCES[uid])) <= set(SOURCES)


@pytest.mark.parametrize("uid", SOURCES)
def test_each_address_comes_from_an_environment_that_compose_gives(uid: str) -> None:
    found = re.fullmatch(r"\$\{(\w+)\}", SOURCES[uid]["url"])
    assert found is not None
    assert GRAFANA["environment"][found[1]].startswith(f"http://{uid}:")


def test_exemplars_open_their_trace() -> None:
    [link] = SOURCES["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert link == {"name": "trace_id", "datasourceUid": "tempo"}


def test_the_rate_interval_is_made_from_the_export_interval() -> None:
    interval = load(CONFIG / "prometheus.yml")["global"]["scrape_interval"]
    assert SOURCES["prometheus"]["jsonData"]["timeInterval"] == interval == "60s"


def test_no_dollar_is_left_for_grafana_to_expand() -> None:
    """Grafana reads $name in these files as a variable of its environment."""
    for path in PROVISIONING.rglob("*.yaml"):
        lines = path.read_text(encoding="utf-8").splitlines()
        text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
        names = re.findall(r"(?<!\$)\$(?!\$)\{?(\w+)", text)
        assert set(names) <= set(GRAFANA["environment"]), path


def test_dashboards_are_read_where_compose_mounts_them() -> None:
    targets = [each.split(":")[1] for each in GRAFANA["volumes"]]
    for provider in PROVIDERS:
        assert provider["options"]["path"] in targets
        assert provider["allowUiUpdates"] is False
