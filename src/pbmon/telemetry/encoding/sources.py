"""The resources and scopes of one request, mended once for all its items."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from pbmon.telemetry.encoding import standins
from pbmon.telemetry.encoding.mending import Mender


class Sources:
    """The resources and scopes of one request, looked at once each."""

    def __init__(self) -> None:
        self.replaced: dict[str, int] = {}
        self._resources: dict[int, tuple[Any, standins.Resource]] = {}
        self._equal: dict[Resource, standins.Resource] = {}
        self._scopes: dict[int, tuple[Any, Any]] = {}

    def resource(self, resource: Any) -> standins.Resource:
        known = self._resources.get(id(resource))
        if known is None:
            # With the object itself, or another could get its id.
            known = self._resources[id(resource)] = (resource, self._resource(resource))
        return known[1]

    def _resource(self, resource: Any) -> standins.Resource:
        made, replaced = _mend_resource(resource)
        add(self.replaced, replaced)
        if not replaced:
            with suppress(Exception):  # without a hash it is one of its own
                return self._equal.setdefault(resource, made)
        return made

    def scope(self, scope: Any) -> Any:
        if scope is None:
            return None
        known = self._scopes.get(id(scope))
        if known is None:
            known = self._scopes[id(scope)] = (scope, self._scope(scope))
        return known[1]

    def _scope(self, scope: Any) -> Any:
        made, replaced = _mend_scope(scope)
        add(self.replaced, replaced)
        return made if replaced or type(scope) is not InstrumentationScope else scope


def _mend_resource(resource: Any) -> tuple[standins.Resource, Mapping[str, int]]:
    mender = Mender()
    made = standins.Resource(
        mender.attributes(mender.read(resource, "attributes")),
        mender.text(mender.read(resource, "schema_url")),
    )
    return made, mender.replaced


def _mend_scope(scope: Any) -> tuple[standins.Scope, Mapping[str, int]]:
    mender = Mender()
    made = standins.Scope(
        mender.text(mender.read(scope, "name")),
        mender.text(mender.read(scope, "version")),
        mender.text(mender.read(scope, "schema_url")),
        mender.attributes(mender.read(scope, "attributes")),
    )
    return made, mender.replaced


def add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for reason, values in more.items():
        total[reason] = total.get(reason, 0) + values
