"""Parts of the tracer provider that the environment names by entry point, as the SDK's own
configurator takes them: a sampler, a generator of ids."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import metadata
from typing import Any

from opentelemetry.environment_variables import OTEL_PYTHON_ID_GENERATOR
from opentelemetry.sdk.environment_variables import OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Sampler

from pbmon import privacy, signals


def sampler() -> Sampler | None:
    """The sampler that OTEL_TRACES_SAMPLER names, made with OTEL_TRACES_SAMPLER_ARG.

    None where there is none that can be used, which is told of.
    """
    argument = os.environ.get(OTEL_TRACES_SAMPLER_ARG)
    group = "opentelemetry_traces_sampler"
    made: Sampler | None = _load(OTEL_TRACES_SAMPLER, group, Sampler, lambda make: make(argument))
    return made


def id_generator() -> IdGenerator | None:
    """The generator that OTEL_PYTHON_ID_GENERATOR names, likewise; None means the SDK's."""
    if not os.environ.get(OTEL_PYTHON_ID_GENERATOR, "").strip():
        return None
    group = "opentelemetry_id_generator"
    made: IdGenerator | None = _load(
        OTEL_PYTHON_ID_GENERATOR, group, IdGenerator, lambda make: make()
    )
    return made


def _load(variable: str, group: str, kind: type, make: Callable[[Any], Any]) -> Any:
    name = os.environ.get(variable, "").strip()
    trouble = "it is not installed"
    for entry_point in metadata.entry_points(group=group, name=name):
        try:
            made = make(entry_point.load())
        except Exception as error:
            trouble = f"it failed with {privacy.error_type(error)}"
            continue
        if isinstance(made, kind):
            return made
        trouble = f"it makes no {kind.__name__}"
    known = ", ".join(sorted({e.name for e in metadata.entry_points(group=group)}))
    signals.tell(
        variable, "pbmon: %s=%s can't be used: %s; set one of %s, or install it. The default is "
        "used now", variable, name, trouble, known,
    )  # fmt: skip
    return None
