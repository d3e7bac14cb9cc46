"""tempo.yaml by its structure: no Tempo runs where the tests do."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.collector_config.paths import CONFIG, SINGLE

TEXT = (CONFIG / "tempo.yaml").read_text(encoding="utf-8")
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


def with_defaults() -> Any:
    return yaml.safe_load(VARIABLE.sub(lambda found: found[2], TEXT))


def strings(thing: Any) -> list[str]:
    if isinstance(thing, dict):
        return [each for value in thing.values() for each in strings(value)]
    if isinstance(thing, list):
        return [each for value in thing for each in strings(value)]
    return [thing] if isinstance(thing, str) else []


def test_it_takes_otlp_where_the_collector_sends_it() -> None:
    protocols = with_defaults()["distributor"]["receivers"]["otlp"]["protocols"]
    default = re.search(r"PBMON_TEMPO_OTLP_ENDPOINT:-([^}]+)", SINGLE.read_text(encoding="utf-8"))
    assert default is not None
    assert protocols == {"grpc": {"endpoint": default[1]}}
    # On one host the collector has these.
    assert default[1].rsplit(":", 1)[1] not in ("4317", "4318")


def test_it_listens_on_loopback() -> None:
    config = with_defaults()
    assert config["server"]["http_listen_address"] == "127.0.0.1"
    assert config["server"]["grpc_listen_address"] == "127.0.0.1"
    assert config["memberlist"]["bind_addr"] == ["127.0.0.1"]


def test_all_it_writes_goes_to_its_one_directory() -> None:
    paths = [each for each in strings(with_defaults()) if each.startswith("/")]
    assert len(paths) == 5
    assert [each for each in paths if not each.startswith("/var/tempo")] == []


def test_it_calls_nobody() -> None:
    assert with_defaults()["usage_report"] == {"reporting_enabled": False}
