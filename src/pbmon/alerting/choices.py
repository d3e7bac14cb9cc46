"""The setting `alerts`: who tells, by which rules, to whom. Pure.

No value of a sink is repeated in a message: it may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from pbmon.alerting.rules import Rule
from pbmon.budgets import seconds

SOURCES = ("worker", "prometheus")
_THRESHOLDS = ("errors", "people")
_TIMES = ("window", "cooldown", "resolve", "repeat")
_KEYS = ("source", *_THRESHOLDS, *_TIMES, "url", "types", "sinks")
_LONGEST_WINDOW_S = 6 * 3600.0
_LONGEST_S = 30 * 86400.0
_MOST = {"errors": 1_000_000_000, "people": 9_999}
"""The store keeps 10,000 people of an error, and an alert takes more than are set."""


@dataclass(frozen=True, slots=True)
class SinkChoice:
    """Where alerts go. url, secret: themselves, or env:NAME or file:PATH."""

    name: str
    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)

    @property
    def has_literal(self) -> bool:
        """Whether a secret stands in the settings themselves."""
        return any(not is_place(value) for value in (self.url, self.secret) if value is not None)

    def __str__(self) -> str:
        if is_place(self.url):
            return f"{self.name} ({self.url})"
        return f"{self.name} ({scheme(self.url)}://…)"


@dataclass(frozen=True, slots=True)
class AlertChoices:
    """source: None where it is not said. types: by the name of an error's type, or its beginning
    and `*`. url: a link for people, with {trace_id} and {fingerprint} in it."""

    source: str | None = None
    rule: Rule = Rule()
    types: Mapping[str, Rule] = field(default_factory=lambda: MappingProxyType({}))
    sinks: Mapping[str, SinkChoice] = field(default_factory=lambda: MappingProxyType({}))
    url: str | None = field(default=None, repr=False)

    @property
    def teller(self) -> str:
        """Who tells of bursts of errors: `worker` or `prometheus`."""
        return self.source or ("worker" if self.sinks else "prometheus")

    def rule_of(self, error_type: str) -> Rule:
        """By its name, else by the longest beginning that is given."""
        if (found := self.types.get(error_type)) is not None:
            return found
        beginnings = (
            name for name in self.types
            if name.endswith("*") and error_type.startswith(name[:-1])
        )  # fmt: skip
        longest = max(beginnings, key=len, default=None)
        return self.rule if longest is None else self.types[longest]

    @property
    def floor(self) -> int | None:
        """The lowest of all rules."""
        floors = (rule.floor for rule in (self.rule, *self.types.values()))
        return min((floor for floor in floors if floor is not None), default=None)

    def __str__(self) -> str:
        told = ", ".join(map(str, self.sinks.values())) or "nobody"
        return f"by {self.teller}: {self.rule}; told: {told}"


def is_place(value: str) -> bool:
    """Whether it says where a secret is."""
    return re.fullmatch(r"(env|file):.+", value) is not None


def scheme(url: str) -> str:
    """What may be shown of any URL of a sink."""
    try:
        return urlsplit(url).scheme or "?"
    except ValueError:
        return "?"


def parse(value: Any) -> AlertChoices:
    if isinstance(value, AlertChoices):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("must be a table ([alerts] in pbmon.toml)")
    _only(value, _KEYS, "alerts")
    source = value.get("source")
    if source is not None and source not in SOURCES:
        raise ValueError(f"source {source!r} is not one of {', '.join(SOURCES)}")
    rule = Rule(**_thresholds(value, "alerts"), **_times(value))
    return AlertChoices(
        source,
        rule,
        MappingProxyType(_types(value.get("types", {}), rule)),
        MappingProxyType(_sinks(value.get("sinks", {}))),
        _link(value.get("url")),
    )


def _only(table: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    for key in table:
        if key not in known:
            raise ValueError(f"{what} has no option {str(key)!r}; there are {', '.join(known)}")


def _thresholds(table: Mapping[str, Any], what: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in _THRESHOLDS:
        if name not in table:
            continue
        number = table[name]
        if number is False:
            found[name] = None
        elif isinstance(number, int) and number is not True and 0 <= number <= _MOST[name]:
            found[name] = number
        else:
            raise ValueError(
                f"{name} of {what} is {str(number)[:50]}; write a whole number up to "
                f"{_MOST[name]:,}, or false for no limit"
            )
    return found


def _times(table: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in _TIMES:
        if name not in table or (name == "repeat" and table[name] is False):
            continue
        try:
            length_s = seconds(table[name])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        least_s, most_s = {"window": (1.0, _LONGEST_WINDOW_S), "repeat": (60.0, _LONGEST_S)}.get(
            name, (0.0, _LONGEST_S)
        )
        if not least_s <= length_s <= most_s:
            raise ValueError(f"{name} must be from {least_s:g} to {most_s:g} seconds")
        found[f"{name}_s"] = length_s
    return found


def _types(value: Any, rule: Rule) -> dict[str, Rule]:
    if not isinstance(value, Mapping):
        raise ValueError('types must be tables, such as [alerts.types."ValueError"]')
    made = {}
    for name, table in value.items():
        if not isinstance(table, Mapping):
            raise ValueError(f"type {name} must be a table with errors or people")
        if not (text := str(name)) or "*" in text[:-1]:
            raise ValueError(
                f"type {text!r} must be the name of an error's type, or its beginning and *"
            )
        _only(table, _THRESHOLDS, f"type {name}")
        made[str(name)] = replace(rule, **_thresholds(table, f"type {name}"))
    return made


def _sinks(value: Any) -> dict[str, SinkChoice]:
    if not isinstance(value, Mapping):
        raise ValueError("sinks must be tables, such as [alerts.sinks.team] with url")
    made = {}
    for name, table in value.items():
        if re.fullmatch(r"[\w.-]{1,50}", str(name)) is None:
            raise ValueError(f"sink {name!r} is not named by 1 to 50 letters, digits, -, _ and .")
        if not isinstance(table, Mapping):
            raise ValueError(f"sink {name} must be a table with url")
        _only(table, ("url", "secret"), f"sink {name}")
        for key in ("url", *(("secret",) if "secret" in table else ())):
            each = table.get(key)
            if not isinstance(each, str) or not each.strip():
                raise ValueError(f"{key} of sink {name} is missing or no text")
        url = table["url"].strip()
        if not is_place(url) and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url):
            raise ValueError(
                f"url of sink {name} is no URL such as slack://… or https://…, nor env:NAME or "
                "file:PATH"
            )
        made[str(name)] = SinkChoice(str(name), url, table.get("secret"))
    return made


def _link(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not re.match(r"https?://[^\s/]", value):
        raise ValueError("url must be a link for people, such as https://grafana.example.com/…")
    return value
