"""Segments of people, by which figures are divided: which there are, with which values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

OTHER = "_other"
"""In the place of a value that is not declared."""

ATTRIBUTE = "pbmon.segment."
"""Before the name of a segment: an attribute of metrics and spans."""

Declared = Mapping[str, tuple[str, ...]]
"""Name → values; no values: any."""

_MAX_NAME = 50


def keep(declared: Declared, given: Mapping[str, str]) -> dict[str, str]:
    """Of what was given, the segments that are declared."""
    return {
        name: value if not (values := declared[name]) or value in values else OTHER
        for name, value in given.items()
        if name in declared
    }


def parse(value: Any) -> Declared:
    """Names, or a table of names: [segments.plan] with values. Raises ValueError saying what would
    be right."""
    if isinstance(value, str):
        parts = [part.strip().partition("=") for part in value.split(",") if part.strip()]
        value = {
            name.strip(): {"values": [v.strip() for v in values.split("|") if v.strip()]}
            for name, _, values in parts
        }
    elif not isinstance(value, Mapping):
        if not isinstance(value, list | tuple):
            raise ValueError(
                f"{value!r} is not a list of names, nor a table ([segments.NAME] in pbmon.toml)"
            )
        value = dict.fromkeys(map(_name, value), ())
    return MappingProxyType({_name(name): _values(name, each) for name, each in value.items()})


def _name(name: Any) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME or not name.isidentifier():
        raise ValueError(f"segment {name!r} is no name such as plan")
    return name


def _values(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, Mapping):
        if unknown := value.keys() - {"values"}:
            raise ValueError(f"segment {name} has no option {min(unknown)!r}; it has values")
        value = value.get("values", ())
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) and v for v in value):
        raise ValueError(f'values of segment {name} must be texts, such as ["free", "pro"]')
    return tuple(dict.fromkeys(value))
