"""The entry points of opentelemetry-instrument: how pbmon comes in without a code change."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from opentelemetry.instrumentation.distro import BaseDistro
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from pbmon import runtime, signals, wiring

# Upstream's instrumentors that would report a second time what our hooks report.
REPLACED = frozenset(("asgi", "django", "fastapi", "starlette", "psycopg2", "sqlite3"))


class Distro(BaseDistro):
    """Chosen by the launcher: sets defaults the user's variables win over."""

    chosen = False

    def _configure(self, **kwargs: Any) -> None:
        Distro.chosen = True
        # Several distributions may be installed: keeps distro and configurator together.
        os.environ.setdefault("OTEL_PYTHON_CONFIGURATOR", "pbmon")

    def load_instrumentor(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        if entry_point.value.startswith("pbmon."):
            return  # configure() has run them
        if entry_point.name in REPLACED:
            return
        super().load_instrumentor(entry_point, **kwargs)


class Configurator:
    """The launcher's configurator."""

    def configure(self, **kwargs: Any) -> None:
        wiring.configure()


def step_aside() -> None:
    """Runs before the instrumentors: where a foreign distro or configurator was chosen, pbmon
    still starts, and the upstream instrumentors it replaces are kept out, else each request is
    reported twice."""
    if not (Distro.chosen and runtime.active.configured):
        wiring.configure()
    if runtime.active.configured and not Distro.chosen:  # ours leaves them out itself
        with signals.guard("keeping upstream instrumentors out"):
            _keep_out_replaced()


def _keep_out_replaced() -> None:
    for entry_point in entry_points(group=wiring.INSTRUMENTORS):
        ours = entry_point.value.startswith("pbmon.")
        wanted = runtime.active.settings.hook_mode(entry_point.name) == "upstream"
        if entry_point.name not in REPLACED or ours or wanted:
            continue
        try:
            instrumentor = entry_point.load()
        except ImportError:
            continue  # the library it wraps is absent: nothing to keep out
        if issubclass(instrumentor, BaseInstrumentor):
            instrumentor.instrument = _replaced


def _replaced(self: Any, **kwargs: Any) -> None:
    """Stands in for the instrument() of an upstream instrumentor that pbmon replaces."""
