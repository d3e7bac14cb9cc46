"""Settings of property tests, which must not depend on how fast the machine is."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings


def patiently(**more: Any) -> settings:
    return settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], **more)
