"""compose.yaml by its structure: no image can be pulled where the tests run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.collector_config.paths import COMPOSE, CONFIG, ENVIRONMENT, ROOT, SINGLE, load

SERVICES: dict[str, dict[str, Any]] = load(COMPOSE)["services"]
GENERATED = ROOT / ".secrets" / "grafana_admin_password"
PINNED = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+\.\d+")


def mounts(service: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Source, target and mode of what a service mounts from this directory."""
    parts = [each.split(":") for each in service.get("volumes", ())]
    return [(one, two, "".join(mode)) for one, two, *mode in parts if one.startswith(".")]


def grafana() -> dict[str, str]:
    return dict(SERVICES["grafana"]["environment"])


@pytest.mark.parametrize("name", SERVICES)
def test_each_image_is_pinned(name: str) -> None:
    assert PINNED.fullmatch(SERVICES[name]["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_each_port_is_for_this_host_only(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)
    assert SERVICES[name].get("network_mode") in (None, "none")


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] > 0
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert "privileged" not in service


def test_only_the_one_that_hands_over_a_volume_has_a_right() -> None:
    rights = {
        name: service["cap_add"] for name, service in SERVICES.items() if "cap_add" in service
    }
    assert rights == {"collector-queues-owner": ["CHOWN"]}


@pytest.mark.parametrize("name", SERVICES)
def test_each_mounted_file_is_there_and_read_only(name: str) -> None:
    for source, _, mode in mounts(SERVICES[name]):
        assert (ROOT / source).exists(), source
        assert mode == "ro", source


@pytest.mark.parametrize("name", SERVICES)
def test_each_volume_and_secret_is_declared(name: str) -> None:
    compose = load(COMPOSE)
    volumes = [each.split(":")[0] for each in SERVICES[name].get("volumes", ())]
    assert {each for each in volumes if not each.startswith(".")} <= set(compose["volumes"])
    assert set(SERVICES[name].get("secrets", ())) <= set(compose["secrets"])


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_comes_back_unless_it_ends_by_design(name: str) -> None:
    awaited = {
        other
        for service in SERVICES.values()
        for other, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_completed_successfully"
    }
    assert SERVICES[name]["restart"] == ("no" if name in awaited else "unless-stopped")


def test_whoever_is_awaited_healthy_has_a_health_check() -> None:
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other]


def test_nobody_gets_into_grafana_without_the_generated_password() -> None:
    assert grafana()["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert grafana()["GF_USERS_ALLOW_SIGN_UP"] == "false"
    assert grafana()["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_admin_password"
    assert "GF_SECURITY_ADMIN_PASSWORD" not in grafana()
    secret = load(COMPOSE)["secrets"]["grafana_admin_password"]
    assert ROOT / secret["file"] == GENERATED


def test_no_password_is_written_down() -> None:
    text = COMPOSE.read_text(encoding="utf-8").lower()
    assert re.findall(r"(?:password|secret|token)\w*[ \t]*[:=][ \t]*['\"]?\w+", text) == []


def test_grafana_does_not_replace_its_own_data_sources() -> None:
    """On a read-only file system it would unload each and then fail to install the new one."""
    assert grafana()["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"
    assert grafana()["GF_PLUGINS_PREINSTALL_AUTO_UPDATE"] == "false"


def test_only_known_variables_reach_the_collector() -> None:
    known = {found["name"] for found in ENVIRONMENT.finditer(SINGLE.read_text(encoding="utf-8"))}
    given = {each for each in SERVICES["collector"]["environment"] if each.startswith("PBMON_")}
    assert given <= known


def test_the_collector_finds_its_backends() -> None:
    given = SERVICES["collector"]["environment"]
    assert given["PBMON_PROMETHEUS_OTLP_ENDPOINT"] == "http://prometheus:9090/api/v1/otlp"
    tempo = (CONFIG / "tempo.yaml").read_text(encoding="utf-8")
    host, port = given["PBMON_TEMPO_OTLP_ENDPOINT"].split(":")
    assert host in SERVICES
    assert f"endpoint: ${{PBMON_TEMPO_HOST:-127.0.0.1}}:{port}" in tempo


def test_the_collectors_heap_stays_below_its_limit() -> None:
    limit = int(SERVICES["collector"]["mem_limit"].removesuffix("m"))
    assert int(SERVICES["collector"]["environment"]["GOMEMLIMIT"].removesuffix("MiB")) < limit
    # What memory_limiter watches is the heap; the process has about 50 MiB beside it.
    default = re.search(r"PBMON_COLLECTOR_MEMORY_MIB:-(\d+)", SINGLE.read_text(encoding="utf-8"))
    assert default is not None
    assert int(default[1]) + 50 <= limit


def test_the_queues_have_a_volume_where_the_collector_writes_them() -> None:
    default = re.search(r"PBMON_COLLECTOR_STATE_DIR:-([^}]+)", SINGLE.read_text(encoding="utf-8"))
    assert default is not None
    assert f"collector-queues:{default[1]}" in SERVICES["collector"]["volumes"]
    owner = SERVICES["collector-queues-owner"]
    assert owner["entrypoint"][1] == SERVICES["collector"]["user"]
    assert f"collector-queues:{owner['entrypoint'][2]}" in owner["volumes"]


def test_prometheus_takes_otlp_and_keeps_exemplars() -> None:
    flags = SERVICES["prometheus"]["command"]
    assert "--web.enable-otlp-receiver" in flags
    assert any("exemplar-storage" in flag for flag in flags)


def test_alerts_go_to_the_alertmanager_that_runs_here() -> None:
    [found] = load(CONFIG / "alertmanagers/compose/alertmanager.yml")
    assert found["targets"] == ["alertmanager:9093"]
    assert SERVICES["alertmanager"]["ports"] == ["127.0.0.1:9093:9093"]
    [host] = load(CONFIG / "alertmanagers/alertmanager.yml")
    assert host["targets"] == ["127.0.0.1:9093"]


def test_the_alertmanager_has_every_secret_it_reads() -> None:
    text = (CONFIG / "alertmanager.yml").read_text(encoding="utf-8")
    read = re.findall(r"_file: /run/secrets/(\w+)$", text, re.MULTILINE)
    assert sorted(read) == sorted(SERVICES["alertmanager"]["secrets"])


def test_prometheus_scrapes_what_runs_here() -> None:
    targets = [
        target
        for job in load(CONFIG / "scrape/compose/collector.yml")["scrape_configs"]
        for each in job["static_configs"]
        for target in each["targets"]
    ]
    hosts = {Path(target).name.split(":")[0] for target in targets}
    assert hosts <= {*SERVICES, "127.0.0.1"}
