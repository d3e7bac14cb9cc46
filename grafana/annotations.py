"""What is drawn over the graphs of every dashboard: deploys, and changes that somebody noted."""

from __future__ import annotations

from typing import Any

from grafana import queries
from grafana.panels import DATASOURCE, EXPORT_INTERVAL
from pbmon.catalog import MARK_KIND, MARK_NAME

_COLOURS = {"deploy": "blue", "change": "purple"}
_TITLES = {"deploy": "Deploy", "change": "Change"}


def _annotation(kind: str) -> dict[str, Any]:
    """useValueForTime: a line stands where the value says, not where a sample was."""
    return {
        "name": f"{_TITLES[kind]}s",
        "datasource": {"type": DATASOURCE.type_val, "uid": DATASOURCE.uid},
        "enable": True,
        "hide": False,
        "iconColor": _COLOURS[kind],
        "target": {
            "expr": queries.mark_times(kind),
            "interval": EXPORT_INTERVAL,
            "refId": "Anno",
            "datasource": {"type": DATASOURCE.type_val, "uid": DATASOURCE.uid},
        },
        "titleFormat": _TITLES[kind],
        "textFormat": queries.legend(MARK_NAME),
        "tagKeys": queries.ENVIRONMENT_LABEL,
        "useValueForTime": True,
    }


MARKS = [_annotation(kind) for kind in MARK_KIND.values]
